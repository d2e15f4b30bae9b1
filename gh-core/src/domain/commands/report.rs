//! What a worker tells of its job while it runs.

use std::collections::BTreeMap;

use serde_json::json;
use serde_json::value::RawValue;

use super::job_lifecycle::{self, Standing};
use super::{Command, Credential, outcome, worker_lifecycle};
use crate::domain::code::Actor;
use crate::domain::draft::{Draft, EventDraft};
use crate::domain::event::{EventType, JobEventMetadata, MAX_METADATA_BYTES};
use crate::domain::ids::{Attempt, JobId};
use crate::domain::job::{Job, JobStatus};
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;
use crate::domain::time::Timestamp;

/// One event, as a worker reports it.
#[derive(Clone, Debug)]
pub struct EventReport {
    /// What it is about.
    pub event_type: Box<str>,
    /// A sentence for people; a longer one is cut.
    pub message: Option<Box<str>>,
    /// A JSON object; a larger one is cut.
    pub metadata: Option<Box<RawValue>>,
    /// When it happened.
    pub occurred_at: Option<Timestamp>,
    /// Ascending per attempt; by which a repetition is known.
    pub worker_seq: Option<u64>,
}

/// Events of one attempt.
#[derive(Clone, Debug)]
pub struct ReportEvents {
    /// The worker's process.
    pub who: Credential,
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: Attempt,
    /// At most 500.
    pub events: Vec<EventReport>,
}

/// What became of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// Stored under this number.
    Accepted(u64),
    /// It was stored before.
    Duplicate,
    /// It is not for workers to write, or has no valid type.
    Refused,
}

impl Command for ReportEvents {
    type Answer = Vec<EventOutcome>;

    fn keys(&self) -> Keys {
        Keys { jobs: vec![self.job_id], workers: vec![self.who.worker_id.clone()], ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<Vec<EventOutcome>, Rejection> {
        let mut job = held(draft, &self.who, self.job_id, self.attempt, "events")?;
        job_lifecycle::mark_started(&mut job);
        let outcomes = self.events.iter().map(|event| self.append(draft, &mut job, event)).collect();
        draft.save_job(job);
        Ok(outcomes)
    }
}

/// The job, if `who` holds it; a sign of life.
fn held(
    draft: &mut Draft<'_>,
    who: &Credential,
    job_id: JobId,
    attempt: Attempt,
    route: &'static str,
) -> Result<Job, Rejection> {
    let job = draft.job(job_id)?;
    if job_lifecycle::standing(&job, who, attempt) != Standing::Holder {
        worker_lifecycle::refuse_retired(draft, who, route)?;
        draft.keep_only_what_follows();
        draft.seen(&who.worker_id);
        return Err(Rejection::StaleLease);
    }
    draft.seen(&who.worker_id);
    Ok(job.as_ref().clone())
}

impl ReportEvents {
    fn append(&self, draft: &mut Draft<'_>, job: &mut Job, event: &EventReport) -> EventOutcome {
        let Some(event_type) = EventType::parse(&event.event_type).filter(|known| !known.is_servers()) else {
            return EventOutcome::Refused;
        };
        if let Some(seq) = event.worker_seq
            && let Some(holding) = job.holdings.last_mut()
        {
            if holding.last_worker_seq.is_some_and(|last| seq <= last) {
                return EventOutcome::Duplicate;
            }
            holding.last_worker_seq = Some(seq);
        }
        let said = Said::of(event.metadata.as_deref());
        job.progress.step_index = said.step_index.or(job.progress.step_index);
        job.progress.total_steps = said.total_steps.or(job.progress.total_steps);
        if event_type == EventType::PROGRESS_UPDATE {
            job.progress.percent = said.progress_percent.or(job.progress.percent);
        }
        if event_type.is_action() {
            job.cost.add_actions(1);
        }
        let message = event.message.as_deref().filter(|message| !message.trim().is_empty());
        let message = message.map_or_else(|| sentence_of(&event_type), ToOwned::to_owned);
        let truncated_message = message.chars().count() > crate::domain::event::MAX_MESSAGE_CHARS;
        let draft_event = EventDraft {
            extra: bounded_metadata(event.metadata.as_deref(), truncated_message),
            ..EventDraft::new(event_type, message).by(Actor::Worker(self.who.worker_id.clone()))
        };
        let now = draft.now();
        let occurred_at = event.occurred_at.filter(|at| *at <= now).unwrap_or(now);
        let step = (said.step_index, said.total_steps);
        EventOutcome::Accepted(draft.job_event_at(job, draft_event, occurred_at, Some(step)))
    }
}

/// A sentence for an event whose author wrote none.
fn sentence_of(event_type: &EventType) -> String {
    let words = event_type.as_str().replace('_', " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// What the control plane itself reads from an event's metadata.
#[derive(Default)]
struct Said {
    step_index: Option<u32>,
    total_steps: Option<u32>,
    progress_percent: Option<u8>,
}

impl Said {
    fn of(metadata: Option<&RawValue>) -> Self {
        let Some(metadata) = metadata else {
            return Self::default();
        };
        let Ok(known) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(metadata.get()) else {
            return Self::default();
        };
        let number = |key: &str| known.get(key).and_then(serde_json::Value::as_f64);
        let count = |key: &str| known.get(key).and_then(serde_json::Value::as_u64);
        Self {
            step_index: count("step_index").and_then(|value| u32::try_from(value).ok()),
            total_steps: count("total_steps").and_then(|value| u32::try_from(value).ok()),
            progress_percent: number("progress_pct").map(|percent| percent.clamp(0.0, 100.0) as u8),
        }
    }
}

/// Metadata within its limit: the longest strings are cut first, then keys are dropped; `truncated` says so.
///
/// Valid JSON may have keys that are no text, half a surrogate pair for instance. Nobody could read such an event back,
/// so its metadata is dropped.
fn bounded_metadata(metadata: Option<&RawValue>, truncated_message: bool) -> Option<Box<RawValue>> {
    let fits = metadata.is_none_or(|metadata| metadata.get().len() <= MAX_METADATA_BYTES);
    let keys_are_text =
        metadata.is_none_or(|metadata| serde_json::from_str::<BTreeMap<String, &RawValue>>(metadata.get()).is_ok());
    if fits && keys_are_text && !truncated_message {
        return metadata.map(ToOwned::to_owned);
    }
    let mut map: serde_json::Map<String, serde_json::Value> =
        metadata.and_then(|metadata| serde_json::from_str(metadata.get()).ok()).unwrap_or_default();
    map.insert("truncated".into(), true.into());
    let size =
        |map: &serde_json::Map<String, serde_json::Value>| serde_json::to_string(map).map_or(0, |text| text.len());
    while size(&map) > MAX_METADATA_BYTES {
        let longest = map
            .iter_mut()
            .filter_map(|(_, value)| match value {
                serde_json::Value::String(text) if text.chars().count() > 100 => Some(text),
                _ => None,
            })
            .max_by_key(|text| text.len());
        if let Some(text) = longest {
            let kept = text.chars().count() / 2;
            *text = crate::domain::draft::cut(text, kept);
            continue;
        }
        let largest = map
            .iter()
            .filter(|(key, _)| *key != "truncated" && !JobEventMetadata::COMMON_KEYS.contains(&key.as_str()))
            .max_by_key(|(_, value)| value.to_string().len())
            .map(|(key, _)| key.clone());
        let Some(key) = largest else { break };
        map.remove(&key);
    }
    crate::domain::draft::extra_of(&map)
}

/// A worker is about to do what must not happen twice.
#[derive(Clone, Debug)]
pub struct SideEffectsStarted {
    /// The worker's process.
    pub who: Credential,
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: Attempt,
    /// What it is about to do, for people; at most 500 characters.
    pub what: Option<Box<str>>,
}

impl Command for SideEffectsStarted {
    type Answer = ();

    fn keys(&self) -> Keys {
        Keys { jobs: vec![self.job_id], workers: vec![self.who.worker_id.clone()], ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<(), Rejection> {
        let mut job = held(draft, &self.who, self.job_id, self.attempt, "side-effects-started")?;
        if job.status() == JobStatus::NeedsHuman {
            draft.keep_on_rejection();
            return Err(Rejection::JobPaused);
        }
        debug_assert!(outcome::is_running(&job));
        if job.side_effects_started() {
            return Ok(());
        }
        job_lifecycle::mark_started(&mut job);
        job.side_effects_started_at = Some(draft.now());
        let what = self.what.as_deref().unwrap_or("an act that must not happen twice");
        let event = EventDraft::new(EventType::SIDE_EFFECTS_STARTED, format!("About to do: {what}"))
            .by(Actor::Worker(self.who.worker_id.clone()))
            .with(&json!({ "what": self.what }));
        draft.job_event(&mut job, event);
        draft.save_job(job);
        Ok(())
    }
}
