//! A client runs a failed or cancelled job again.

use std::sync::Arc;

use serde_json::json;

use super::Command;
use super::job_lifecycle::{self, Placement};
use crate::domain::affinity::Routing;
use crate::domain::code::{Actor, ErrorCode};
use crate::domain::draft::{Draft, EventDraft};
use crate::domain::event::EventType;
use crate::domain::ids::JobId;
use crate::domain::job::{Ending, Job, JobState, JobStatus, Outcome, Progress, Wait};
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;

/// Opens a new run of a job.
#[derive(Clone, Debug)]
pub struct Retry {
    /// The job.
    pub job_id: JobId,
    /// What it wants of the worker, as the caller saw it: names are loaded with it.
    pub routing: Routing,
    /// Who wants it.
    pub actor: Actor,
    /// The run that is retried; another one is refused.
    pub run: Option<u32>,
    /// Whether somebody has looked that what must not happen twice did not happen.
    pub side_effects_checked: bool,
}

impl Command for Retry {
    type Answer = Arc<Job>;

    fn keys(&self) -> Keys {
        let names = self.routing.target().cloned().into_iter().collect();
        Keys { jobs: vec![self.job_id], names, ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<Arc<Job>, Rejection> {
        let known = draft.job(self.job_id)?;
        let not_retryable = |reason| Err(Rejection::JobNotRetryable { reason });
        let Some(ending) = known.ending() else {
            return not_retryable("it has not ended");
        };
        match &ending.outcome {
            Outcome::Failed { code, .. } if *code == ErrorCode::BUDGET_EXCEEDED => {
                return not_retryable("its budget is spent");
            }
            Outcome::Failed { .. } | Outcome::Cancelled { .. } => {}
            Outcome::Completed(_) => return not_retryable("it is completed"),
            Outcome::Expired => return not_retryable("it is expired: submit it again"),
        }
        if self.run.is_some_and(|run| run != known.run) {
            return not_retryable("the run named is not its latest");
        }
        if known.side_effects_started() && !self.side_effects_checked {
            return Err(Rejection::SideEffectsStarted);
        }
        if may_still_act(draft, &known, ending) {
            return not_retryable("the worker that had it may still act on it: try again in a few seconds");
        }
        let from = known.status();
        let mut job = reopened(draft, &known);
        let facts = json!({ "reason": "retry", "run": job.run });
        let event = EventDraft::new(EventType::JOB_REQUEUED, format!("Retried: run {}", job.run))
            .by(self.actor.clone())
            .moved(from, JobStatus::Pending)
            .with(&facts);
        draft.job_event(&mut job, event);
        if let Placement::Unavailable(worker_status) = job_lifecycle::place(draft, &mut job) {
            return Err(Rejection::WorkerUnavailable { worker_status });
        }
        draft.save_job(job);
        draft.job(self.job_id)
    }
}

/// Cost, numbers of events and callbacks go on; attempts and the times of the run begin anew.
fn reopened(draft: &Draft<'_>, known: &Job) -> Job {
    let now = draft.now();
    Job {
        run: known.run + 1,
        attempt: known.attempt.next(),
        attempts_spent: 0,
        failures: 0,
        releases: 0,
        requeues: known.requeues + 1,
        state: JobState::Pending(Wait::for_anyone(now)),
        side_effects_started_at: None,
        progress: Progress::default(),
        queued_at: now,
        started_at: None,
        ..known.clone()
    }
}

/// Whether the worker that had the job may still be at it: it has neither said that it is free nor been fenced.
fn may_still_act(draft: &mut Draft<'_>, job: &Job, ending: &Ending) -> bool {
    let Some(fence) = ending.fence.as_ref().filter(|fence| fence.until > draft.now()) else {
        return false;
    };
    let Some(view) = draft.worker(&fence.worker_id) else {
        return true;
    };
    let same_process = job.holdings.last().is_some_and(|holding| holding.generation == view.worker.generation);
    let said_free =
        view.worker.is_present() && view.worker.closing.as_ref().is_none_or(|closing| closing.job_id != job.id);
    same_process && !said_free
}
