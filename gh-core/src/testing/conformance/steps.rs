//! The commands of the chapters on commits, claims and fencing, and what they look at.

use std::fmt::Debug;
use std::time::Duration;

use super::world::World;
use crate::domain::changeset::Changeset;
use crate::domain::code::{Actor, ClientName};
use crate::domain::commands::{
    Command, Credential, Deregister, Drain, EventReport, Register, ReportEvents, ReportUsage, Retry, Selector,
    SideEffectsStarted, decide, grant_jobs, sweep,
};
use crate::domain::cost::{CallReport, ReportedCall};
use crate::domain::ids::{Attempt, JobId, Name};
use crate::domain::job::{Job, JobStatus};
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;
use crate::domain::submission::SubmissionRequest;
use crate::domain::watch::Sight;
use crate::ports::reader::{JobEventQuery, JobQuery, WorkerQuery};
use crate::testing::{name, registration, submission, submission_to};

/// More than any scenario makes.
pub(super) const EVERYTHING: usize = 1000;

/// How often a command is decided anew when others are faster: far more often than there are others.
const MAX_TRIES: u32 = 1000;

impl World {
    /// Decides and stores, again while others are faster: what every server does. Others get their turn in between.
    pub(super) async fn contend<C: Command>(&self, command: &C) -> Result<C::Answer, Rejection> {
        for _ in 0..MAX_TRIES {
            let snapshot = self.snapshot(&command.keys()).await;
            tokio::task::yield_now().await;
            let decision = decide(&snapshot, command, &self.rules);
            if self.commit(vec![decision.changes]).await == [Ok(())] {
                return decision.answer;
            }
        }
        panic!("refused {MAX_TRIES} times: some of these conflicts were none");
    }

    /// The grant of this job to this worker, decided now and not stored. The worker is the only one that can take it.
    pub(super) async fn grant_of(&self, job_id: JobId, who: &Credential) -> Changeset {
        let keys = Keys { jobs: vec![job_id], workers: vec![who.worker_id.clone()], ..Keys::default() };
        let granted = grant_jobs(&self.snapshot(&keys).await, &self.rules);
        let wanted = |job: &Job| job.id == job_id && job.occupies() == Some(&who.worker_id);
        granted.into_iter().find(|changes| changes.jobs().iter().any(|write| wanted(&write.job))).unwrap()
    }

    /// The end of a silent worker, decided now and not stored.
    pub(super) async fn given_up(&self, who: &Credential) -> Changeset {
        let id = &who.worker_id;
        let keys = Keys { workers: vec![id.clone()], names: vec![id.clone()], ..Keys::default() };
        let swept = sweep(&self.snapshot(&keys).await, &Sight::default(), &self.rules);
        let gone = |changes: &Changeset| changes.workers().iter().any(|known| known.id == *id && !known.is_present());
        swept.into_iter().find(gone).unwrap()
    }

    /// A worker, and the job that it runs and knows of.
    pub(super) async fn running(&self, id: &str, request: SubmissionRequest) -> (Credential, JobId) {
        let who = self.worker(id).await;
        let job_id = self.submit(request).await;
        assert_eq!(self.claim_one(&who).await, Some(job_id));
        self.run(&events(&who, job_id, Attempt::FIRST)).await;
        (who, job_id)
    }

    /// The types of a job's events, oldest first.
    pub(super) async fn event_types(&self, job_id: JobId) -> Vec<String> {
        let query = JobEventQuery { job_id, after_seq: 0, event_types: Vec::new(), limit: EVERYTHING };
        let events = self.reader.job_events(&query).await.unwrap();
        events.iter().map(|event| event.event_type.as_str().to_owned()).collect()
    }

    /// How many jobs are stored with this status, as the list has it.
    pub(super) async fn count(&self, status: JobStatus) -> usize {
        let query = JobQuery { status: Some(status), limit: EVERYTHING, ..JobQuery::default() };
        self.reader.jobs(&query).await.unwrap().len()
    }

    /// All that readers can see, and what a decision would see of these keys: equal before and after what leaves no
    /// trace.
    pub(super) async fn traces(&self, keys: &Keys) -> Vec<String> {
        let mut traces = Vec::new();
        let mut trace = |what: &dyn Debug| traces.push(format!("{what:?}"));
        let all = JobQuery { limit: EVERYTHING, ..JobQuery::default() };
        for job in self.reader.jobs(&all).await.unwrap() {
            trace(&job);
            let query = JobEventQuery { job_id: job.id, after_seq: 0, event_types: Vec::new(), limit: EVERYTHING };
            trace(&self.reader.job_events(&query).await.unwrap());
            trace(&self.reader.deliveries(job.id, None, EVERYTHING).await.unwrap());
        }
        let (_, workers) = self.reader.workers(&WorkerQuery::default()).await.unwrap();
        for view in workers {
            trace(&view);
            trace(&self.reader.worker_events(&view.worker.id, None, EVERYTHING).await.unwrap());
        }
        let figures = self.reader.figures().await.unwrap();
        trace(&(figures.callbacks_open, figures.callbacks_due));
        trace(&self.outbox.next_due().await.unwrap());
        for group in &figures.waiting {
            trace(group);
        }
        for (status, count) in figures.jobs.iter().filter(|(_, count)| *count > 0) {
            trace(&(status, count));
        }
        let snapshot = self.snapshot(keys).await;
        for name in &keys.names {
            let view = &snapshot.names[name];
            trace(&(name, &view.record, view.record.as_ref().and_then(|record| record.held_by)));
        }
        for id in snapshot.deregistrations.keys() {
            trace(&self.reader.deregistration(*id).await.unwrap());
        }
        for key in &keys.idempotency_keys {
            trace(&(key, snapshot.idempotency_keys.get(key)));
        }
        for key in &keys.calls {
            trace(&(key, snapshot.calls.get(key)));
        }
        traces.sort_unstable();
        traces
    }

    /// Every job that occupies a worker occupies a living process, which takes part.
    pub(super) async fn assert_no_job_on_a_retired_worker(&self) {
        let all = JobQuery { limit: EVERYTHING, ..JobQuery::default() };
        for job in self.reader.jobs(&all).await.unwrap() {
            let Some(worker_id) = job.occupies() else { continue };
            let worker = self.view(worker_id.as_str()).await.worker;
            let generation = job.live_lease().map_or(worker.generation, |lease| lease.generation);
            assert!(worker.is_present(), "{} is {:?} and has {:?}", worker.id, worker.state, job.state);
            assert_eq!(worker.generation, generation, "{} was replaced and has {:?}", worker.id, job.state);
        }
    }
}

pub(super) fn client() -> Actor {
    Actor::Client(ClientName::new("valet"))
}

/// A strict job that waits this long for its target.
pub(super) fn patient(target: &str, seconds: i64) -> SubmissionRequest {
    SubmissionRequest { affinity_wait_seconds: Some(seconds), ..submission_to(target, "strict") }
}

pub(super) fn with_key(key: &str) -> SubmissionRequest {
    SubmissionRequest { idempotency_key: Some(key.into()), ..submission() }
}

/// Retires the workers of a target at once, with their jobs.
pub(super) fn deregister(target: &str) -> Deregister {
    Deregister {
        selector: Selector::Target(name(target)),
        actor: client(),
        reason: "scale-down".into(),
        cancel_active_jobs: true,
        drain_timeout: None,
        hold: None,
        dry_run: false,
    }
}

pub(super) fn drain(who: &Credential, timeout: Option<Duration>) -> Drain {
    Drain { worker_id: who.worker_id.clone(), actor: client(), reason: "deploy".into(), timeout }
}

/// Another process of this worker.
pub(super) fn reboot(id: &str, boot: &str) -> Register {
    Register { boot_id: name(boot), ..registration(id) }
}

/// A step that its worker reports.
pub(super) fn events(who: &Credential, job_id: JobId, attempt: Attempt) -> ReportEvents {
    let step = EventReport {
        event_type: "step_started".into(),
        message: None,
        metadata: None,
        occurred_at: None,
        worker_seq: None,
    };
    ReportEvents { who: who.clone(), job_id, attempt, events: vec![step] }
}

/// The point of no return.
pub(super) fn no_return(who: &Credential, job_id: JobId, attempt: Attempt) -> SideEffectsStarted {
    SideEffectsStarted { who: who.clone(), job_id, attempt, what: None }
}

/// LLM calls, each with its output tokens beside ten of input.
pub(super) fn usage(who: &Credential, job_id: JobId, attempt: Attempt, calls: &[(&str, u64)]) -> ReportUsage {
    let call = |(call_id, output): &(&str, u64)| {
        let reported: Result<ReportedCall, _> = serde_json::from_value(serde_json::json!({
            "call_id": call_id, "provider": "anthropic", "model": "claude-haiku-4-5",
            "usage": { "input": 10, "output": output }
        }));
        CallReport::new(reported.unwrap()).unwrap()
    };
    ReportUsage { who: who.clone(), job_id, attempt, calls: calls.iter().map(call).collect() }
}

pub(super) fn retry(job: &Job) -> Retry {
    let routing = job.spec.routing.clone();
    Retry { job_id: job.id, routing, actor: client(), run: None, side_effects_checked: false }
}

/// Names as keys of a snapshot.
pub(super) fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().map(|text| name(text)).collect()
}
