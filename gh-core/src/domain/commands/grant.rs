//! A worker asks for a job, and waiting jobs are granted to those who wait.

use std::sync::Arc;
use std::time::Duration;

use super::worker_lifecycle::{self, Freed};
use super::{Command, Credential, Traffic, job_lifecycle};
use crate::domain::assign::assign;
use crate::domain::changeset::Changeset;
use crate::domain::draft::Draft;
use crate::domain::ids::{ConnectionId, WorkerId};
use crate::domain::job::Job;
use crate::domain::rejection::Rejection;
use crate::domain::rules::Rules;
use crate::domain::snapshot::{Keys, Snapshot};
use crate::domain::time::Timestamp;
use crate::domain::worker::{ConnectionChange, ConnectionKind, ConnectionUpdate, Occupation, WorkerState, WorkerView};

/// A worker says that it is free and asks for a job.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The worker's process.
    pub who: Credential,
    /// This waiting claim; a newer one takes its place.
    pub connection: ConnectionId,
    /// How long it will wait, from when it came.
    pub wait: Duration,
    /// Whether it has waited before: what happened to the worker meanwhile is told, but it is not a further call.
    pub waited: bool,
}

/// A job that a worker was given.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The job, running.
    pub job: Arc<Job>,
    /// For information: when the worker counts as lost without a further sign of life.
    pub lease_expires_at: Timestamp,
}

/// The answer to a claim, before any waiting.
#[derive(Clone, Debug)]
pub enum ClaimAnswer {
    /// It had been given this job already, or it was reserved for it.
    Granted(Granted),
    /// Nothing yet: it waits.
    Waiting,
}

impl Command for Claim {
    type Answer = ClaimAnswer;

    fn keys(&self) -> Keys {
        Keys { workers: vec![self.who.worker_id.clone()], ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<ClaimAnswer, Rejection> {
        if self.waited
            && let Some(view) = draft.peek_worker(&self.who.worker_id)
            && let Some(rejection) = worker_lifecycle::retirement(&view.worker, self.who.generation)
        {
            return Err(rejection);
        }
        worker_lifecycle::refuse_retired(draft, &self.who, "claim")?;
        let view = draft.worker(&self.who.worker_id).ok_or(Rejection::WorkerNotFound)?;
        if let Some(Occupation { job_id, reserved: false }) = view.occupied_by {
            let job = draft.job(job_id)?;
            if job.live_lease().is_some_and(|lease| lease.started) {
                // Says nothing of being free, but it lives.
                draft.keep_on_rejection();
                draft.seen(&self.who.worker_id);
                return Err(Rejection::LeaseHeld { job_id, attempt: job.attempt });
            }
            draft.seen(&self.who.worker_id);
            draft.vitals(&self.who.worker_id).jobless_beats = Some(0);
            return Ok(ClaimAnswer::Granted(granted(draft, job)));
        }
        draft.seen(&self.who.worker_id);
        self.note_free(draft, &view);
        let view = draft.worker(&self.who.worker_id).ok_or(Rejection::WorkerNotFound)?;
        match view.worker.state {
            WorkerState::Active => {}
            WorkerState::Draining(_) => {
                draft.keep_on_rejection();
                return Err(Rejection::WorkerDraining);
            }
            // The claim itself made it free, and a deregistration waited for that.
            WorkerState::Offline { .. } | WorkerState::Deregistered { .. } => {
                draft.keep_on_rejection();
                return Err(Rejection::WorkerDeregistered { retry_at: None });
            }
        }
        if let Some(Occupation { job_id, reserved: true }) = view.occupied_by {
            let mut job = draft.job(job_id)?.as_ref().clone();
            job_lifecycle::grant(draft, &mut job, &view);
            draft.save_job(job);
            let job = draft.job(job_id)?;
            return Ok(ClaimAnswer::Granted(granted(draft, job)));
        }
        // One that has waited is known, and waits no longer than it said when it came.
        if !self.waited {
            let opened = ConnectionChange::Opened { until: draft.now() + self.wait };
            let update = ConnectionUpdate { id: self.connection, kind: ConnectionKind::Claim, change: opened };
            draft.vitals(&self.who.worker_id).connections.push(update);
        }
        Ok(ClaimAnswer::Waiting)
    }
}

impl Claim {
    /// Whether this process's claim would be answered, or refused, if it looked now: for those that wait and were not
    /// woken. `view` is its worker, if there still is one.
    pub(crate) fn need_not_wait(who: &Credential, view: Option<&WorkerView>) -> bool {
        view.is_none_or(|view| {
            worker_lifecycle::retirement(&view.worker, who.generation).is_some()
                || view.occupied_by.is_some()
                || view.worker.drain().is_some()
                || view.worker.lapsed
        })
    }

    /// A claim says *I am free*: whatever held the worker back until it says so is over.
    fn note_free(&self, draft: &mut Draft<'_>, view: &WorkerView) {
        draft.vitals(&self.who.worker_id).jobless_beats = Some(0);
        if view.worker.lapsed {
            let mut worker = view.worker.as_ref().clone();
            worker.lapsed = false;
            draft.save_worker(worker);
        }
        let waited_for = view.worker.deregistration().is_some();
        if (view.worker.closing.is_some() || waited_for)
            && let Some(view) = draft.worker(&self.who.worker_id)
        {
            worker_lifecycle::free(draft, &view, Freed::Released);
        }
    }
}

fn granted(draft: &Draft<'_>, job: Arc<Job>) -> Granted {
    Granted { job, lease_expires_at: draft.now() + draft.policy().offline_after }
}

/// Grants the waiting jobs of a snapshot to its eligible workers, a changeset each.
///
/// For who looks at waiting workers alone; stores [`dispatch`](super::dispatch), which takes new claims with it.
#[must_use]
pub fn grant_jobs(snapshot: &Snapshot, rules: &Rules) -> Vec<Changeset> {
    grants(snapshot, rules, |_everyone| true).into_iter().map(|(_, changes)| changes).collect()
}

/// The same for the workers that ask, each with its change.
pub(super) fn grants(
    snapshot: &Snapshot,
    rules: &Rules,
    asks: impl Fn(&WorkerId) -> bool,
) -> Vec<(WorkerId, Changeset)> {
    let now = snapshot.now;
    let jobs = snapshot.jobs.values().map(AsRef::as_ref);
    let takes = |view: &&WorkerView| asks(&view.worker.id) && view.eligible(now, &rules.policy).is_ok();
    assign(jobs, snapshot.workers.values().filter(takes), now)
        .into_iter()
        .filter_map(|assignment| {
            let mut draft = Draft::new(snapshot, rules);
            let view = draft.worker(&assignment.worker.worker.id)?;
            let mut job = draft.job(assignment.job.id).ok()?.as_ref().clone();
            job_lifecycle::grant(&mut draft, &mut job, &view);
            draft.save_job(job);
            Some((view.worker.id.clone(), draft.finish().0))
        })
        .collect()
}

/// A stream of directives opened, or a connection ended.
#[derive(Clone, Debug)]
pub struct ConnectionNews {
    /// The worker's process.
    pub who: Credential,
    /// Which connection.
    pub connection: ConnectionId,
    /// A waiting claim or a stream.
    pub kind: ConnectionKind,
    /// Open for so long without further news; none when it is over.
    pub open_for: Option<Duration>,
    /// Whether it broke instead of ending.
    pub broken: bool,
}

impl Command for ConnectionNews {
    type Answer = ();

    fn traffic(&self) -> Traffic {
        Traffic::SignsOfLife
    }

    fn keys(&self) -> Keys {
        Keys { workers: vec![self.who.worker_id.clone()], ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<(), Rejection> {
        let now = draft.now();
        let change = match self.open_for {
            Some(open_for) => {
                worker_lifecycle::refuse_retired(draft, &self.who, "directives")?;
                // Read through the draft: a connection of a process that is retired meanwhile is not the next one's.
                draft.worker(&self.who.worker_id).ok_or(Rejection::WorkerNotFound)?;
                draft.seen(&self.who.worker_id);
                ConnectionChange::Opened { until: now + open_for }
            }
            None => ConnectionChange::Closed { at: now, broken: self.broken },
        };
        let update = ConnectionUpdate { id: self.connection, kind: self.kind, change };
        draft.vitals(&self.who.worker_id).connections.push(update);
        Ok(())
    }
}
