//! A worker takes no more jobs, and takes jobs again.

use std::time::Duration;

use serde_json::json;

use super::job_lifecycle::Loss;
use super::{Command, Traffic, worker_lifecycle};
use crate::domain::code::Actor;
use crate::domain::draft::Draft;
use crate::domain::event::EventType;
use crate::domain::ids::WorkerId;
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;
use crate::domain::worker::{DirectiveType, Drain as DrainState, DrainCause, WorkerState};

/// A client tells a worker to take no more jobs.
#[derive(Clone, Debug)]
pub struct Drain {
    /// The worker.
    pub worker_id: WorkerId,
    /// Who wants it.
    pub actor: Actor,
    /// Why.
    pub reason: Box<str>,
    /// How long its job may take; without end when absent.
    pub timeout: Option<Duration>,
}

impl Command for Drain {
    type Answer = ();

    fn keys(&self) -> Keys {
        Keys { workers: vec![self.worker_id.clone()], ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<(), Rejection> {
        draft.worker(&self.worker_id).ok_or(Rejection::WorkerNotFound)?;
        drain(draft, &self.worker_id, DrainCause::Client, &self.reason, self.timeout, self.actor.clone());
        Ok(())
    }
}

/// Stops a worker from getting jobs; a second drain may only tighten. One that is not present gets no jobs anyway.
pub(super) fn drain(
    draft: &mut Draft<'_>,
    worker_id: &WorkerId,
    cause: DrainCause,
    reason: &str,
    timeout: Option<Duration>,
    actor: Actor,
) {
    let now = draft.now();
    let Some(view) = draft.worker(worker_id) else {
        return;
    };
    let wanted = timeout.map(|timeout| now + timeout);
    let mut worker = view.worker.as_ref().clone();
    match &view.worker.state {
        WorkerState::Offline { .. } | WorkerState::Deregistered { .. } => {}
        WorkerState::Draining(known) => {
            let deadline = match (known.deadline, wanted) {
                (Some(known), Some(wanted)) => Some(known.min(wanted)),
                (known, wanted) => known.or(wanted),
            };
            // An operator's drain outweighs the worker's own, a deregistration outweighs both.
            let cause = match (&known.cause, &cause) {
                (DrainCause::Worker, DrainCause::Client) => cause,
                (known, _) => known.clone(),
            };
            if (deadline, &cause) != (known.deadline, &known.cause) {
                worker.state = WorkerState::Draining(DrainState {
                    cause,
                    reason: known.reason.clone(),
                    deadline,
                    since: if deadline == known.deadline { known.since } else { now },
                });
                draft.direct(&mut worker, DirectiveType::Drain, None, Some(reason), deadline);
                draft.save_worker(worker);
            }
        }
        WorkerState::Active => {
            if view.occupied_by.is_some_and(|occupation| occupation.reserved) {
                worker_lifecycle::lose_job(draft, &view, Loss::Taken);
            }
            begin(draft, &mut worker, cause, reason, wanted, actor);
            draft.direct(&mut worker, DirectiveType::Drain, None, Some(reason), wanted);
            draft.save_worker(worker);
        }
    }
}

/// Writes that a worker takes no more jobs. The caller saves the worker.
pub(super) fn begin(
    draft: &mut Draft<'_>,
    worker: &mut crate::domain::worker::Worker,
    cause: DrainCause,
    reason: &str,
    deadline: Option<crate::domain::time::Timestamp>,
    actor: Actor,
) {
    let message = format!("{} takes no more jobs: {reason}", worker.id);
    let facts = json!({ "reason": reason, "deadline": deadline });
    draft.worker_event(worker, EventType::WORKER_DRAINING, message, actor, &facts);
    let since = draft.now();
    worker.state = WorkerState::Draining(DrainState { cause, reason: reason.into(), deadline, since });
}

/// Lets a worker take jobs again, unless somebody stronger drained it.
pub(super) fn undrain(draft: &mut Draft<'_>, worker_id: &WorkerId, cause: &DrainCause) {
    let Some(view) = draft.worker(worker_id) else {
        return;
    };
    let allowed = match view.worker.drain().map(|drain| &drain.cause) {
        Some(DrainCause::Worker) => true,
        Some(DrainCause::Client) => *cause == DrainCause::Client,
        Some(DrainCause::Deregistration(_)) | None => false,
    };
    if allowed {
        let mut worker = view.worker.as_ref().clone();
        worker.state = WorkerState::Active;
        worker.directives.retain(|directive| directive.directive_type != DirectiveType::Drain);
        draft.save_worker(worker);
    }
}

/// A client lets a worker take jobs again.
#[derive(Clone, Debug)]
pub struct Undrain {
    /// The worker.
    pub worker_id: WorkerId,
}

impl Command for Undrain {
    type Answer = ();

    fn traffic(&self) -> Traffic {
        Traffic::Wide
    }

    fn keys(&self) -> Keys {
        Keys { workers: vec![self.worker_id.clone()], names: vec![self.worker_id.clone()], ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<(), Rejection> {
        let view = draft.worker(&self.worker_id).ok_or(Rejection::WorkerNotFound)?;
        let drained = view.worker.drain().is_some_and(|drain| !matches!(drain.cause, DrainCause::Deregistration(_)));
        if !drained || draft.hold_on(&self.worker_id).is_some() {
            return Err(Rejection::WorkerNotDraining);
        }
        undrain(draft, &self.worker_id, &DrainCause::Client);
        Ok(())
    }
}
