//! The steps of a worker's life that several commands share.

use serde_json::json;

use super::Credential;
use super::job_lifecycle::{self, JobFate, Loss};
use crate::domain::code::Actor;
use crate::domain::draft::Draft;
use crate::domain::event::EventType;
use crate::domain::ids::{Generation, WorkerId};
use crate::domain::job::Job;
use crate::domain::rejection::Rejection;
use crate::domain::worker::{DirectiveType, Worker, WorkerState, WorkerView};

/// Why a worker is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freed {
    /// It completed its job.
    Completed,
    /// It failed its job.
    Failed,
    /// It gave its job back, or says that it has none.
    Released,
}

/// Refuses a call of a process that is not the living one, and counts it. `route` names the call.
///
/// # Errors
///
/// What the process is to do: register again, or stop for good.
pub(super) fn refuse_retired(draft: &mut Draft<'_>, who: &Credential, route: &'static str) -> Result<(), Rejection> {
    let Some(view) = draft.peek_worker(&who.worker_id) else {
        return Err(Rejection::WorkerNotFound);
    };
    let Some(rejection) = retirement(&view.worker, who.generation) else {
        return Ok(());
    };
    draft.keep_only_what_follows();
    let now = draft.now();
    draft.vitals(&who.worker_id).refused_at = Some(now);
    if view.worker.refusal_told != Some(who.generation)
        && let Some(view) = draft.worker(&who.worker_id)
    {
        let mut worker = view.worker.as_ref().clone();
        worker.refusal_told = Some(who.generation);
        let message = format!("{} still calls although it is retired", worker.id);
        let actor = Actor::Worker(worker.id.clone());
        let facts = json!({ "route": route, "generation": who.generation });
        draft.worker_event(&mut worker, EventType::WORKER_REFUSED, message, actor, &facts);
        draft.save_worker(worker);
    }
    Err(rejection)
}

/// Why a call of this generation is refused, if it is.
pub(super) fn retirement(worker: &Worker, generation: Generation) -> Option<Rejection> {
    if worker.generation != generation {
        return Some(Rejection::StaleGeneration);
    }
    match worker.state {
        WorkerState::Active | WorkerState::Draining(_) => None,
        WorkerState::Offline { .. } => Some(Rejection::StaleGeneration),
        WorkerState::Deregistered { .. } => Some(Rejection::WorkerDeregistered { retry_at: None }),
    }
}

/// The worker has no job any more, by its own word. One that a deregistration waits for is gone in the same change.
pub(super) fn free(draft: &mut Draft<'_>, view: &WorkerView, freed: Freed) {
    let mut worker = view.worker.as_ref().clone();
    worker.idle_since = draft.now();
    worker.closing = None;
    worker.directives.retain(|directive| directive.directive_type != DirectiveType::CancelJob);
    match freed {
        Freed::Completed => worker.jobs_completed += 1,
        Freed::Failed => worker.jobs_failed += 1,
        Freed::Released => {}
    }
    draft.vitals(&worker.id.clone()).left_job = true;
    let waited_for = worker.deregistration().is_some();
    draft.save_worker(worker);
    if waited_for {
        finish_deregistration_of(draft, &view.worker.id, None);
    }
}

/// A worker that is free, or whose time is over, is deregistered for good; the record of the deregistration follows.
pub(super) fn finish_deregistration_of(draft: &mut Draft<'_>, worker_id: &WorkerId, reason: Option<&str>) {
    let Some(view) = draft.worker(worker_id) else {
        return;
    };
    let deregistration_id = view.worker.deregistration();
    let mut worker = view.worker.as_ref().clone();
    let drain_reason = worker.drain().map(|drain| drain.reason.clone());
    let reason: Box<str> = reason.map(Into::into).or(drain_reason).unwrap_or_else(|| "deregistered".into());
    let actor = match deregistration_id.and_then(|id| draft.deregistration(id)) {
        Some(deregistration) => deregistration.actor.clone(),
        None => Actor::Worker(worker.id.clone()),
    };
    retire(draft, &mut worker, &view, &reason, actor);
    draft.save_worker(worker);
    let Some(known) = deregistration_id.and_then(|id| draft.deregistration(id)) else {
        return;
    };
    let mut deregistration = known.as_ref().clone();
    deregistration.wait_no_longer_for(worker_id, draft.now());
    if !deregistration.deregistered.contains(worker_id) {
        deregistration.deregistered.push(worker_id.clone());
    }
    draft.save_deregistration(deregistration);
}

/// Writes the end of a generation: its state, its last event. The caller saves the worker.
pub(super) fn retire(draft: &mut Draft<'_>, worker: &mut Worker, view: &WorkerView, reason: &str, actor: Actor) {
    let now = draft.now();
    let facts = json!({
        "reason": reason,
        "jobs_completed": worker.jobs_completed,
        "jobs_failed": worker.jobs_failed,
        "uptime": view.uptime(now).as_secs(),
    });
    let message = format!("{} deregistered: {reason}", worker.id);
    draft.worker_event(worker, EventType::WORKER_DEREGISTERED, message, actor, &facts);
    if !worker.retired_boots.contains(&worker.boot_id) {
        worker.retired_boots.push(worker.boot_id.clone());
    }
    worker.state = WorkerState::Deregistered { since: now, reason: reason.into() };
    worker.closing = None;
    worker.directives.clear();
    draft.direct(worker, DirectiveType::Shutdown, None, Some(reason), None);
}

/// Handles whatever job occupies a worker that is lost.
pub(super) fn lose_job(draft: &mut Draft<'_>, view: &WorkerView, loss: Loss) -> Option<JobFate> {
    let occupation = view.occupied_by?;
    let job: Job = draft.job(occupation.job_id).ok()?.as_ref().clone();
    Some(job_lifecycle::lose(draft, job, view, loss))
}
