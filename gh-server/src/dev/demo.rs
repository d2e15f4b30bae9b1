//! The demo: jobs of all three affinities, followed from submission to their last callback, and checked.

use std::collections::HashMap;
use std::time::Duration;

use gh_core::domain::usd::Usd;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::client::{Client, EventView, Submission};
use super::narrator::Narrator;
use super::output;
use super::receiver::{Callback, Receiver};
use super::workers::{target_name, worker_name};

/// How often the story looks for news.
const LOOK_EVERY: Duration = Duration::from_millis(50);

type Failed = Box<dyn std::error::Error>;

/// A job of the demo and what is expected of it.
#[derive(Debug)]
struct Plot {
    label: &'static str,
    job_id: String,
    target: Option<String>,
    /// Whether it must run, and on which worker if that is certain; a refused one fails at once.
    expected: Expected,
    events: Vec<EventView>,
    callbacks: Vec<Callback>,
}

#[derive(Debug)]
enum Expected {
    RunsOn(String),
    RunsAnywhere,
    Refused,
}

/// Runs the demo and tells it.
pub(super) async fn run(base_url: Url, key: SecretString, workers: u16) -> Result<(), Failed> {
    let receiver = Receiver::bind().await?;
    let client = Client::new(base_url, key)?;
    tokio::select! {
        () = receiver.serve() => Err("the callback receiver stopped".into()),
        outcome = play(&client, &receiver, workers) => outcome,
    }
}

async fn play(client: &Client, receiver: &Receiver, workers: u16) -> Result<(), Failed> {
    let mut story = Story { client, receiver, narrator: Narrator::begin(), plots: Vec::new() };
    story.narrator.say(&format!("waiting for {workers} scripted workers, which are clients of the HTTP API"));
    while client.idle_workers().await? < usize::from(workers) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let first = target_name(1);
    // A strict job may wait a moment for its worker, which may be between two claims.
    let strict = json!({ "worker_affinity": "strict", "target_worker_id": first, "affinity_wait_seconds": 10 });
    story.submit("strict", &strict, Expected::RunsOn(worker_name(1))).await?;
    story.follow_until(|status| status == "running").await?;
    // Its target is busy now: a preferred job falls to another worker, if there is one.
    let preferred = json!({ "worker_affinity": "preferred", "target_worker_id": first });
    let falls_to = if workers == 2 { Expected::RunsOn(worker_name(2)) } else { Expected::RunsAnywhere };
    story.submit("preferred", &preferred, falls_to).await?;
    story.submit("any", &json!({}), Expected::RunsAnywhere).await?;
    let nobody = json!({ "worker_affinity": "strict", "target_worker_id": "sandbox-that-is-gone" });
    story.submit("refused", &nobody, Expected::Refused).await?;
    story.follow_until(|status| matches!(status, "completed" | "failed" | "cancelled" | "expired")).await?;
    story.check().await
}

struct Story<'s> {
    client: &'s Client,
    receiver: &'s Receiver,
    narrator: Narrator,
    plots: Vec<Plot>,
}

impl Story<'_> {
    async fn submit(&mut self, label: &'static str, wishes: &Value, expected: Expected) -> Result<(), Failed> {
        let mut body = json!({
            "valet_task_id": format!("demo-{label}"),
            "valet_user_id": "7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11",
            "job_type": "apply",
            "target_url": "https://jobs.example.com/postings/4711",
            "task_description": "Apply to the posting with the profile given",
            "callback_url": self.receiver.url.as_str(),
            "profile": { "name": "Ada Example", "email": "ada@example.com" },
        });
        for (key, value) in wishes.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let target = wishes.get("target_worker_id").and_then(Value::as_str).map(ToOwned::to_owned);
        let wanted = match (wishes.get("worker_affinity").and_then(Value::as_str), &target) {
            (Some(affinity), Some(target)) => format!("{affinity}, {target}"),
            _ => "any worker".to_owned(),
        };
        let job_id = match self.client.submit(&body).await? {
            Submission::Accepted(job) => {
                self.narrator.tell(label, &format!("job {} submitted ({wanted}): {}", job.job_id, job.status));
                job.job_id
            }
            Submission::Refused { job_id, worker_status } => {
                let text = format!("job {job_id} submitted ({wanted}): 409 WORKER_UNAVAILABLE, target {worker_status}");
                self.narrator.tell(label, &text);
                job_id
            }
        };
        self.plots.push(Plot { label, job_id, target, expected, events: Vec::new(), callbacks: Vec::new() });
        Ok(())
    }

    /// Tells what happens until every job has had a callback whose status fits.
    async fn follow_until(&mut self, reached: impl Fn(&str) -> bool) -> Result<(), Failed> {
        loop {
            for plot in &mut self.plots {
                let after = plot.events.last().map_or(0, |event| event.seq);
                for event in self.client.events(&plot.job_id, after).await? {
                    self.narrator.event(plot.label, &event);
                    plot.events.push(event);
                }
            }
            for callback in self.receiver.take() {
                if let Some(plot) = self.plots.iter_mut().find(|plot| plot.job_id == callback.job_id) {
                    self.narrator.callback(plot.label, &callback);
                    plot.callbacks.push(callback);
                }
            }
            if self.plots.iter().all(|plot| plot.callbacks.iter().any(|callback| reached(&callback.status))) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Compares what the client was told with what the activity feed and the API say.
    async fn check(&self) -> Result<(), Failed> {
        output::line("");
        let mut wrong = Vec::new();
        for plot in &self.plots {
            let job = self.client.job(&plot.job_id).await?;
            let problems =
                plot.problems(&job.status, job.worker_id.as_deref(), job.cost.map(|cost| cost.total_cost_usd));
            let cost = plot.callbacks.last().and_then(|callback| callback.cost.as_ref());
            let cost = cost.map_or_else(|| "no cost".to_owned(), |cost| format!("${}", cost.total_cost_usd));
            let by = job.worker_id.as_deref().unwrap_or("nobody");
            let verdict = if problems.is_empty() { "as it should" } else { "WRONG" };
            let callbacks = Narrator::count(plot.callbacks.len() as u64, "callback");
            self.narrator.tell(plot.label, &format!("{} by {by}, {cost}, {callbacks}: {verdict}", job.status));
            wrong.extend(problems.into_iter().map(|problem| format!("{} job {}: {problem}", plot.label, plot.job_id)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
    }
}

impl Plot {
    fn problems(&self, status: &str, worker_id: Option<&str>, total: Option<Usd>) -> Vec<String> {
        let mut problems = Vec::new();
        let mut expect = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        let last = self.callbacks.last();
        expect(last.is_some_and(|callback| callback.status == status), "the last callback does not tell the end");
        let asked = |callback: &Callback| callback.target_worker_id == self.target;
        expect(self.callbacks.iter().all(asked), "a callback does not tell the target that was asked for");
        let ascending = self.callbacks.windows(2).all(|pair| pair[0].sequence < pair[1].sequence);
        expect(ascending, "callbacks are out of order");
        if let Expected::Refused = self.expected {
            expect(status == "failed", "it was not refused");
            expect(
                last.and_then(|callback| callback.error_code.as_deref()) == Some("WORKER_UNAVAILABLE"),
                "it was refused for another reason",
            );
            expect(
                self.callbacks.iter().all(|callback| callback.worker_id.is_none()),
                "nobody ran it, but a callback names a worker",
            );
            return problems;
        }
        expect(status == "completed", "it was not completed");
        let named = |callback: &Callback| callback.worker_id.is_some() && callback.worker_id.as_deref() == worker_id;
        expect(self.callbacks.iter().all(named), "a callback does not name the worker");
        if let Expected::RunsOn(expected) = &self.expected {
            expect(worker_id == Some(expected), "it ran on another worker than expected");
        }
        let spent = self.spent();
        expect(spent > Usd::ZERO, "it cost nothing");
        expect(total == Some(spent), "its cost is not the sum of its calls");
        let told = last.and_then(|callback| callback.cost.as_ref());
        expect(
            told.is_some_and(|cost| cost.total_cost_usd == spent && cost.complete),
            "the last callback tells another cost",
        );
        problems
    }

    /// The sum of what each call cost, by the activity feed; a call that was reported again counts once.
    fn spent(&self) -> Usd {
        #[derive(Deserialize)]
        struct TokensUsed {
            call_id: String,
            cost_usd: Usd,
        }
        let calls = self.events.iter().filter(|event| event.event_type == "tokens_used");
        let costs = calls.filter_map(|event| serde_json::from_str::<TokensUsed>(event.metadata.get()).ok());
        costs.map(|call| (call.call_id, call.cost_usd)).collect::<HashMap<_, _>>().into_values().sum()
    }
}
