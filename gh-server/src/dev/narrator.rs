//! Telling the demo as a story: one line for everything that happens, in the order in which it is learnt.

use std::time::Duration;

use gh_core::domain::usd::Usd;
use serde::Deserialize;
use tokio::time::Instant;

use super::client::EventView;
use super::output;
use super::receiver::Callback;

/// Prints the story.
#[derive(Debug)]
pub(super) struct Narrator {
    began: Instant,
}

/// What the story reads out of an event's metadata.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    step_index: Option<u32>,
    total_steps: Option<u32>,
    cost_usd: Option<Usd>,
    #[serde(rename = "totalCostUsd")]
    total_cost_usd: Option<Usd>,
}

impl Narrator {
    #[expect(clippy::disallowed_methods, reason = "the seconds of the story; nothing is decided by them")]
    pub(super) fn begin() -> Self {
        Self { began: Instant::now() }
    }

    /// A line that belongs to no job.
    pub(super) fn say(&self, text: &str) {
        output::line(format_args!("{}  {text}", self.time()));
    }

    /// A line about one job.
    pub(super) fn tell(&self, label: &str, text: &str) {
        output::line(format_args!("{}  {label:<9}  {text}", self.time()));
    }

    /// An event of the activity feed.
    pub(super) fn event(&self, label: &str, event: &EventView) {
        let metadata: Metadata = serde_json::from_str(event.metadata.get()).unwrap_or_default();
        let step = match (metadata.step_index, metadata.total_steps) {
            (Some(index), Some(total)) => format!(" [{index}/{total}]"),
            _ => String::new(),
        };
        let text = match (metadata.cost_usd, metadata.total_cost_usd) {
            (Some(_), Some(total)) => format!("{} (${total} so far)", event.message),
            _ => event.message.clone(),
        };
        self.tell(label, &format!("  {:<24} {text}{step}", event.event_type));
    }

    /// A callback that the client received.
    pub(super) fn callback(&self, label: &str, callback: &Callback) {
        let mut text = format!("  → callback #{} {}", callback.sequence, callback.status);
        text.push_str(&format!("  worker_id={}", callback.worker_id.as_deref().unwrap_or("none")));
        if let Some(target) = &callback.target_worker_id {
            text.push_str(&format!(" target_worker_id={target}"));
        }
        if let Some(cost) = &callback.cost {
            text.push_str(&format!(" cost=${} ({})", cost.total_cost_usd, Self::count(cost.action_count, "action")));
        }
        if let Some(code) = &callback.error_code {
            text.push_str(&format!(" error_code={code}"));
        }
        self.tell(label, &text);
    }

    /// `1 action`, `2 actions`.
    pub(super) fn count(number: u64, what: &str) -> String {
        let plural = if number == 1 { "" } else { "s" };
        format!("{number} {what}{plural}")
    }

    fn time(&self) -> String {
        format!("{:>6.2}s", self.began.elapsed().max(Duration::ZERO).as_secs_f64())
    }
}
