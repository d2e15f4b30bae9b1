//! A client retires the workers of a name, and is certain that they are gone.

use std::time::Duration;

use super::job_lifecycle::{self, Loss};
use super::{Command, Traffic, cancel, drain, worker_lifecycle};
use crate::domain::affinity::Routing;
use crate::domain::code::{Actor, ErrorCode};
use crate::domain::draft::Draft;
use crate::domain::ids::{DeregistrationId, JobId, Name, Version, WorkerId};
use crate::domain::job::JobState;
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;
use crate::domain::time::Timestamp;
use crate::domain::worker::{Deregistration, DirectiveType, Drain as DrainState, DrainCause, WorkerState, WorkerView};

/// Which workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Those that carry this name as their target; where there are none, the worker of this id.
    Target(Name),
    /// Those on this machine.
    Instance(Name),
}

impl Selector {
    /// The name that the client gave.
    #[must_use]
    pub const fn name(&self) -> &Name {
        match self {
            Self::Target(name) | Self::Instance(name) => name,
        }
    }
}

/// Retires workers: they get no job from the moment this is stored.
#[derive(Clone, Debug)]
pub struct Deregister {
    /// Which workers.
    pub selector: Selector,
    /// Who wants it.
    pub actor: Actor,
    /// Why.
    pub reason: Box<str>,
    /// Whether running jobs are cancelled.
    pub cancel_active_jobs: bool,
    /// How long a worker may take to finish; by default 300 s, or 0 with `cancel_active_jobs`.
    pub drain_timeout: Option<Duration>,
    /// How long names stay held afterwards; by default 3,600 s when matched by target, else 0.
    pub hold: Option<Duration>,
    /// Say what would happen, and change nothing.
    pub dry_run: bool,
}

/// What a deregistration did so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeregistrationAnswer {
    /// The record.
    pub deregistration: Deregistration,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

impl Command for Deregister {
    type Answer = DeregistrationAnswer;

    fn traffic(&self) -> Traffic {
        Traffic::Wide
    }

    fn keys(&self) -> Keys {
        let name = self.selector.name().clone();
        Keys { names: vec![name.clone()], waiting_for: vec![name], ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<DeregistrationAnswer, Rejection> {
        let name = self.selector.name();
        let record = draft.name(name);
        if record.version == Version::ABSENT {
            return Err(Rejection::WorkerNotFound);
        }
        let deregistration = match self.repeated(draft, record.held_by) {
            Some(known) => self.tighten(draft, known),
            None => self.begin(draft),
        };
        if self.dry_run {
            draft.discard();
        }
        Ok(DeregistrationAnswer { deregistration, dry_run: self.dry_run })
    }
}

impl Deregister {
    /// The record that a repetition answers with: recent, and no worker has registered under the name since.
    fn repeated(&self, draft: &mut Draft<'_>, held_by: Option<DeregistrationId>) -> Option<Deregistration> {
        let (now, within) = (draft.now(), draft.policy().deregistration_repeat);
        let known = draft.deregistration(held_by?)?;
        (known.name == *self.selector.name() && now.since(known.created_at) < within).then(|| known.as_ref().clone())
    }

    fn drain_timeout(&self) -> Duration {
        self.drain_timeout.unwrap_or(Duration::from_secs(if self.cancel_active_jobs { 0 } else { 300 }))
    }

    fn begin(&self, draft: &mut Draft<'_>) -> Deregistration {
        let name = self.selector.name();
        let workers = self.matched(draft);
        let by_target = draft.snapshot().names.get(name).is_some_and(|view| !view.by_target.is_empty());
        let is_target = matches!(self.selector, Selector::Target(_)) && by_target;
        let default_hold = Duration::from_secs(if is_target { 3600 } else { 0 });
        let id = draft.new_deregistration_id();
        let mut held_names = vec![name.clone()];
        held_names.extend(workers.iter().filter(|id| *id != name).cloned());
        let now = draft.now();
        let deregistration = Deregistration {
            id,
            version: Version::ABSENT,
            name: name.clone(),
            held_names,
            reason: self.reason.clone(),
            actor: self.actor.clone(),
            created_at: now,
            drain_deadline: now + self.drain_timeout(),
            cancel_active_jobs: self.cancel_active_jobs,
            hold: self.hold.unwrap_or(default_hold),
            draining: workers.clone(),
            deregistered: Vec::new(),
            cancelled_jobs: Vec::new(),
            draining_jobs: Vec::new(),
            finished_at: workers.is_empty().then_some(now),
            hold_lifted: false,
        };
        for held in &deregistration.held_names {
            let mut record = draft.name(held);
            record.held_by = Some(id);
            draft.save_name(record);
        }
        let deadline = deregistration.drain_deadline;
        draft.save_deregistration(deregistration);
        // First every worker stops, then every job is dealt with: a job given back must not find a worker of the name.
        for worker_id in &workers {
            self.stop(draft, worker_id, id, deadline);
        }
        self.fail_waiting(draft, id);
        for worker_id in &workers {
            self.deal_with_job(draft, worker_id, id, deadline);
        }
        draft.deregistration(id).map_or_else(|| unreachable!("written above"), |known| known.as_ref().clone())
    }

    /// Workers that the selector means and that are not gone for good already, in the order of their ids.
    fn matched(&self, draft: &mut Draft<'_>) -> Vec<WorkerId> {
        let snapshot = draft.snapshot();
        let mut ids: Vec<WorkerId> = match &self.selector {
            Selector::Target(name) => snapshot.workers_of(name).map(|view| view.worker.id.clone()).collect(),
            Selector::Instance(name) => {
                snapshot.names.get(name).map(|view| view.by_instance.clone()).unwrap_or_default()
            }
        };
        ids.sort_unstable();
        ids.retain(|id| {
            let view = draft.worker(id);
            view.is_some_and(|view| !matches!(view.worker.state, WorkerState::Deregistered { .. }))
        });
        ids
    }

    /// The worker takes no more jobs.
    fn stop(&self, draft: &mut Draft<'_>, worker_id: &WorkerId, id: DeregistrationId, deadline: Timestamp) {
        let Some(view) = draft.worker(worker_id) else {
            return;
        };
        if let Some(earlier) = view.worker.deregistration() {
            hand_over(draft, earlier, &view);
        }
        let mut worker = view.worker.as_ref().clone();
        let cause = DrainCause::Deregistration(id);
        match view.worker.state {
            // Told before that it takes no more jobs, or not there to be told.
            WorkerState::Draining(_) | WorkerState::Offline { .. } | WorkerState::Deregistered { .. } => {
                let reason = self.reason.clone();
                worker.state =
                    WorkerState::Draining(DrainState { cause, reason, deadline: Some(deadline), since: draft.now() });
            }
            WorkerState::Active => {
                drain::begin(draft, &mut worker, cause, &self.reason, Some(deadline), self.actor.clone());
            }
        }
        draft.save_worker(worker);
    }

    /// Jobs that only this target may run fail, unless a worker of it is left.
    fn fail_waiting(&self, draft: &mut Draft<'_>, id: DeregistrationId) {
        let Selector::Target(name) = &self.selector else {
            return;
        };
        let snapshot = draft.snapshot();
        let waiting = snapshot.names.get(name).map(|view| view.waiting_jobs.clone()).unwrap_or_default();
        for job_id in waiting {
            fail_if_stranded(draft, job_id, id);
        }
    }

    /// What the worker has is cancelled, given back, left to finish, or taken; a free worker is gone at once.
    fn deal_with_job(&self, draft: &mut Draft<'_>, worker_id: &WorkerId, id: DeregistrationId, deadline: Timestamp) {
        let over = deadline <= draft.now();
        if let Some(view) = draft.worker(worker_id)
            && let Some(occupation) = view.occupied_by
        {
            if occupation.reserved {
                if !fail_if_stranded(draft, occupation.job_id, id) {
                    worker_lifecycle::lose_job(draft, &view, Loss::Taken);
                }
            } else if self.cancel_active_jobs {
                self.cancel(draft, occupation.job_id, id);
            } else if over {
                worker_lifecycle::lose_job(draft, &view, Loss::Taken);
            } else {
                note(draft, id, |deregistration| deregistration.draining_jobs.push(occupation.job_id));
            }
        }
        let Some(view) = draft.worker(worker_id) else {
            return;
        };
        let busy = view.occupied_by.is_some() || view.worker.is_closing(draft.now());
        if over || !busy {
            worker_lifecycle::finish_deregistration_of(draft, worker_id, Some(&self.reason));
            return;
        }
        let directive = match view.occupied_by {
            Some(_) => DirectiveType::Drain,
            None => DirectiveType::Shutdown,
        };
        let mut worker = view.worker.as_ref().clone();
        draft.direct(&mut worker, directive, None, Some(&self.reason), Some(deadline));
        draft.save_worker(worker);
    }

    fn cancel(&self, draft: &mut Draft<'_>, job_id: JobId, id: DeregistrationId) {
        let Ok(job) = draft.job(job_id) else { return };
        cancel::cancel(draft, job.as_ref().clone(), &self.actor, Some(self.reason.clone()));
        note(draft, id, |deregistration| {
            deregistration.cancelled_jobs.push(job_id);
            deregistration.draining_jobs.retain(|known| *known != job_id);
        });
    }

    /// A repetition only makes it stricter: an earlier deadline, jobs cancelled that were left to finish.
    fn tighten(&self, draft: &mut Draft<'_>, known: Deregistration) -> Deregistration {
        let id = known.id;
        if known.finished_at.is_some() {
            return known;
        }
        let cancels = self.cancel_active_jobs && !known.cancel_active_jobs;
        let wanted = match self.drain_timeout {
            Some(timeout) => Some(draft.now() + timeout),
            None => cancels.then(|| draft.now()),
        };
        let deadline = wanted.map_or(known.drain_deadline, |wanted| wanted.min(known.drain_deadline));
        if !cancels && deadline == known.drain_deadline {
            return known;
        }
        let draining = known.draining.clone();
        let mut stricter = known;
        stricter.drain_deadline = deadline;
        stricter.cancel_active_jobs |= cancels;
        draft.save_deregistration(stricter);
        for worker_id in &draining {
            if let Some(view) = draft.worker(worker_id) {
                let mut worker = view.worker.as_ref().clone();
                if let WorkerState::Draining(drain) = &mut worker.state {
                    drain.deadline = Some(deadline);
                }
                draft.save_worker(worker);
            }
        }
        note(draft, id, |deregistration| deregistration.draining_jobs.clear());
        for worker_id in &draining {
            self.deal_with_job(draft, worker_id, id, deadline);
        }
        draft.deregistration(id).map_or_else(|| unreachable!("written above"), |known| known.as_ref().clone())
    }
}

/// Changes the record.
fn note(draft: &mut Draft<'_>, id: DeregistrationId, change: impl FnOnce(&mut Deregistration)) {
    if let Some(known) = draft.deregistration(id) {
        let mut deregistration = known.as_ref().clone();
        change(&mut deregistration);
        draft.save_deregistration(deregistration);
    }
}

/// An earlier deregistration of another name waits no longer for a worker that a later one waits for: only one can
/// learn that the worker is gone, and the other would hold its names for ever.
fn hand_over(draft: &mut Draft<'_>, earlier: DeregistrationId, view: &WorkerView) {
    let now = draft.now();
    note(draft, earlier, |deregistration| {
        deregistration.wait_no_longer_for(&view.worker.id, now);
        deregistration.draining_jobs.retain(|id| Some(*id) != view.live_job());
    });
}

/// Fails a strict job that waits for a target of which no worker is left; says whether it did.
fn fail_if_stranded(draft: &mut Draft<'_>, job_id: JobId, id: DeregistrationId) -> bool {
    let Ok(job) = draft.job(job_id) else { return false };
    let Routing::Strict { target, .. } = &job.spec.routing else {
        return false;
    };
    if !matches!(job.state, JobState::Pending(_) | JobState::Queued(..)) {
        return false;
    }
    let remains = |view: &WorkerView| view.worker.is_present() && view.worker.deregistration().is_none();
    let of_target: Vec<WorkerId> = draft.snapshot().workers_of(target).map(|view| view.worker.id.clone()).collect();
    let left = of_target.iter().filter_map(|worker_id| draft.worker(worker_id)).any(|view| remains(&view));
    if left {
        return false;
    }
    let mut job = job.as_ref().clone();
    let message = format!("The workers of {target} are being deregistered ({id})");
    job_lifecycle::fail(draft, &mut job, ErrorCode::WORKER_UNAVAILABLE, &message, None);
    draft.save_job(job);
    true
}
