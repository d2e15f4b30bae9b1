//! A worker says that it lives, and hears what there is for it.

use std::time::Duration;

use serde_json::json;

use super::job_lifecycle::{self, Loss};
use super::worker_lifecycle::{self, Freed};
use super::{Command, Credential, Traffic, drain};
use crate::domain::code::Actor;
use crate::domain::draft::Draft;
use crate::domain::event::EventType;
use crate::domain::ids::{Attempt, DirectiveId, JobId};
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;
use crate::domain::worker::{Beat, Directive, DirectiveType, DrainCause, WorkerStatus, WorkerView};

/// What a heartbeat says of the worker's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobClaim {
    /// Nothing.
    Silent,
    /// It has none.
    None,
    /// It has this one.
    Job(JobId),
}

/// What a heartbeat says of draining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrainWish {
    /// Nothing.
    Silent,
    /// It takes jobs again, as far as it had stopped by itself.
    Undo,
    /// It takes no more jobs.
    Drain {
        /// Why.
        reason: Box<str>,
        /// How long its job may take.
        timeout: Option<Duration>,
    },
}

/// A sign of life.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// The worker's process.
    pub who: Credential,
    /// What it says of the machine.
    pub beat: Beat,
    /// What it says of its job.
    pub job: JobClaim,
    /// What it says of draining.
    pub drain: DrainWish,
    /// Directives it has done.
    pub acknowledged: Vec<DirectiveId>,
}

/// What the server says of the job that a heartbeat names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseWord {
    /// The worker holds it.
    Held,
    /// The worker does not hold it (any more).
    Lost,
    /// It named none.
    None,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug)]
pub struct HeartbeatAnswer {
    /// The worker's status.
    pub status: WorkerStatus,
    /// About the job that it named.
    pub lease: LeaseWord,
    /// The lease that the server has for this worker, whatever it named.
    pub held: Option<(JobId, Attempt)>,
    /// What it has not acknowledged yet.
    pub directives: Vec<Directive>,
}

/// How many heartbeats in a row must say that there is no job before a held one is taken for lost.
const JOBLESS_BEATS: u8 = 2;

impl Command for Heartbeat {
    type Answer = HeartbeatAnswer;

    fn traffic(&self) -> Traffic {
        Traffic::SignsOfLife
    }

    fn keys(&self) -> Keys {
        Keys { workers: vec![self.who.worker_id.clone()], ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<HeartbeatAnswer, Rejection> {
        worker_lifecycle::refuse_retired(draft, &self.who, "heartbeat")?;
        let id = &self.who.worker_id;
        // Read through the draft: the answer relies on the worker not being given up meanwhile.
        let view = draft.worker(id).ok_or(Rejection::WorkerNotFound)?;
        draft.seen(id);
        draft.vitals(id).beat = Some(self.beat.clone());
        self.acknowledge(draft, &view);
        let lease = self.settle_job(draft)?;
        match &self.drain {
            DrainWish::Silent => {}
            DrainWish::Undo => drain::undrain(draft, id, &DrainCause::Worker),
            DrainWish::Drain { reason, timeout } => {
                drain::drain(draft, id, DrainCause::Worker, reason, *timeout, Actor::Worker(id.clone()));
            }
        }
        self.leave_event(draft);
        let view = draft.worker(id).ok_or(Rejection::WorkerNotFound)?;
        let held = match view.live_job() {
            Some(job_id) => Some((job_id, draft.job(job_id)?.attempt)),
            None => None,
        };
        let directives = view.worker.directives.clone();
        Ok(HeartbeatAnswer { status: view.status(), lease, held, directives })
    }
}

impl Heartbeat {
    /// Drops directives that are done; whoever acknowledges the end of its job is free.
    fn acknowledge(&self, draft: &mut Draft<'_>, view: &WorkerView) {
        let done = |directive: &Directive| self.acknowledged.contains(&directive.id);
        if !view.worker.directives.iter().any(done) {
            return;
        }
        let cancelled =
            view.worker.directives.iter().any(|known| done(known) && known.directive_type == DirectiveType::CancelJob);
        let mut worker = view.worker.as_ref().clone();
        worker.directives.retain(|known| !done(known));
        draft.save_worker(worker);
        if cancelled && let Some(view) = draft.worker(&self.who.worker_id) {
            worker_lifecycle::free(draft, &view, Freed::Released);
        }
    }

    /// Compares what the worker says of its job with what the server has.
    fn settle_job(&self, draft: &mut Draft<'_>) -> Result<LeaseWord, Rejection> {
        let id = &self.who.worker_id;
        let view = draft.worker(id).ok_or(Rejection::WorkerNotFound)?;
        match (self.job, view.live_job()) {
            (JobClaim::Silent, _) => Ok(LeaseWord::None),
            (JobClaim::Job(named), Some(held)) if named == held => {
                draft.vitals(id).jobless_beats = Some(0);
                let mut job = draft.job(held)?.as_ref().clone();
                if job_lifecycle::mark_started(&mut job) {
                    draft.save_job(job);
                }
                Ok(LeaseWord::Held)
            }
            (JobClaim::Job(_), _) => Ok(LeaseWord::Lost),
            (JobClaim::None, None) => {
                draft.vitals(id).jobless_beats = Some(0);
                let waited_for = view.worker.deregistration().is_some();
                if view.worker.closing.is_some() || waited_for {
                    worker_lifecycle::free(draft, &view, Freed::Released);
                }
                Ok(LeaseWord::None)
            }
            (JobClaim::None, Some(_)) => {
                // The first may have crossed the grant on its way; the second has not.
                let beats = view.vitals.jobless_beats.saturating_add(1);
                draft.vitals(id).jobless_beats = Some(beats);
                if beats >= JOBLESS_BEATS {
                    worker_lifecycle::lose_job(draft, &view, Loss::Jobless);
                    draft.vitals(id).jobless_beats = Some(0);
                    if let Some(view) = draft.worker(id) {
                        worker_lifecycle::free(draft, &view, Freed::Released);
                    }
                }
                Ok(LeaseWord::None)
            }
        }
    }

    /// Leaves an event from time to time, not at every beat.
    fn leave_event(&self, draft: &mut Draft<'_>) {
        let (now, interval) = (draft.now(), draft.policy().heartbeat_event_interval);
        let Some(view) = draft.worker(&self.who.worker_id) else {
            return;
        };
        let due = view.vitals.heartbeat_event_at.is_none_or(|last| now.since(last) >= interval);
        if !due || !view.worker.is_present() {
            return;
        }
        let facts = json!({
            "status": view.status(),
            "current_job_id": view.live_job(),
            "memory_usage": self.beat.memory_usage.or(view.vitals.memory_usage),
        });
        let message = format!("{} is {}", view.worker.id, view.status().as_str());
        let mut worker = view.worker.as_ref().clone();
        let actor = Actor::Worker(worker.id.clone());
        draft.worker_event(&mut worker, EventType::WORKER_HEARTBEAT, message, actor, &facts);
        draft.save_worker(worker);
        draft.vitals(&self.who.worker_id).heartbeat_event_at = Some(now);
    }
}
