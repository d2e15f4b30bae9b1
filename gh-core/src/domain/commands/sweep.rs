//! What time alone brings about, and callbacks that are given up.

use serde_json::json;

use super::job_lifecycle::{self, Loss, PutBack};
use super::worker_lifecycle;
use crate::domain::affinity::Routing;
use crate::domain::callback::{CallbackKind, Delivery};
use crate::domain::changeset::Changeset;
use crate::domain::code::{Actor, ErrorCode};
use crate::domain::draft::{Draft, EventDraft};
use crate::domain::event::EventType;
use crate::domain::ids::{JobId, WorkerId};
use crate::domain::job::{Job, JobState, Outcome, Postponement, Scope, Wait};
use crate::domain::rules::Rules;
use crate::domain::snapshot::Snapshot;
use crate::domain::time::Timestamp;
use crate::domain::watch::{Judgement, Sight};
use crate::domain::worker::{Drain, WorkerState, WorkerView};

/// Applies every deadline of a snapshot's jobs and workers that is over, a changeset each.
///
/// By what was seen at the last look, deadlines that hang on hearing of workers may have to wait: those by which a
/// worker is given up, a reservation lapses, an attempt or a drain is over time, and a person did not come. Blind time
/// is added to each of them, and while the brake holds none of them is over.
///
/// For stores, in [`Store::sweep`](crate::ports::store::Store::sweep).
#[must_use]
pub fn sweep(snapshot: &Snapshot, sight: &Sight, rules: &Rules) -> Vec<Changeset> {
    let now = snapshot.now;
    let over = |deadline: Option<Timestamp>| deadline.is_some_and(|deadline| deadline <= now);
    let mut due_workers: Vec<&WorkerId> = snapshot
        .workers
        .values()
        .filter(|view| over(view.next_deadline(&rules.policy)))
        .map(|view| &view.worker.id)
        .collect();
    due_workers.sort_unstable();
    let mut due_jobs: Vec<JobId> =
        snapshot.jobs.values().filter(|job| over(job.next_deadline(&rules.policy))).map(|job| job.id).collect();
    due_jobs.sort_unstable();
    // Jobs first: an attempt that ran out of time is told so, even where its worker is silent too.
    let jobs = due_jobs.into_iter().map(|id| with_draft(snapshot, rules, |draft| sweep_job(draft, sight, id)));
    let workers = due_workers.into_iter().map(|id| with_draft(snapshot, rules, |draft| sweep_worker(draft, sight, id)));
    jobs.chain(workers).filter(|changes| !changes.is_empty()).collect()
}

fn with_draft(snapshot: &Snapshot, rules: &Rules, change: impl FnOnce(&mut Draft<'_>)) -> Changeset {
    let mut draft = Draft::new(snapshot, rules);
    change(&mut draft);
    draft.finish().0
}

fn sweep_job(draft: &mut Draft<'_>, sight: &Sight, id: JobId) {
    let Ok(known) = draft.job(id) else { return };
    let mut job = known.as_ref().clone();
    let now = draft.now();
    let lapsed = lapse_calls(draft, &mut job);
    let over = |deadline: Timestamp| deadline <= now;
    if job.expires_at().is_some_and(over) {
        job_lifecycle::end(draft, &mut job, Outcome::Expired, Actor::System, None);
        draft.save_job(job);
        return;
    }
    let watched = job.watched_deadline(draft.policy()).filter(|(_, deadline)| over(*deadline));
    if let Some((since, deadline)) = watched {
        match sight.judge(since, deadline, now) {
            Judgement::Over => {}
            Judgement::Later(until) => {
                job.postponed = Some(Postponement { since, until });
                return draft.save_job(job);
            }
            Judgement::NotByThisServer if lapsed => return draft.save_job(job),
            Judgement::NotByThisServer => return,
        }
    }
    match job.state.clone() {
        JobState::Pending(wait) => target_wait_over(draft, &mut job, wait),
        JobState::Queued(wait, reservation) if over(reservation.until) => {
            let message = format!("{} did not pick it up in time", reservation.worker_id);
            if let Some(view) = draft.worker(&reservation.worker_id)
                && view.worker.generation == reservation.generation
            {
                let mut worker = view.worker.as_ref().clone();
                worker.lapsed = true;
                draft.save_worker(worker);
            }
            job_lifecycle::unreserve(draft, &mut job, wait, "pickup_timeout", message);
        }
        JobState::Running(lease) => {
            let grace_over = lease.grace.as_ref().is_some_and(|grace| over(grace.until));
            if grace_over {
                let message =
                    format!("{} was lost after the point of no return and did not come back", lease.worker_id);
                job_lifecycle::fail(draft, &mut job, ErrorCode::WORKER_LOST, &message, None);
            } else if job.attempt_deadline(draft.policy()).is_some_and(over) {
                time_out(draft, &mut job);
            }
        }
        JobState::NeedsHuman(_, pause) if over(pause.expires_at) => {
            let fence = job_lifecycle::take_from_worker(draft, &job, "hitl_timeout");
            let message = "Nobody resolved the blocker in time";
            job_lifecycle::fail(draft, &mut job, ErrorCode::HITL_TIMEOUT, message, fence);
        }
        JobState::Queued(..) | JobState::NeedsHuman(..) | JobState::Ended(_) => {}
    }
    draft.save_job(job);
}

/// The wait for a target is over: a strict job fails, a preferred one waits for anyone.
fn target_wait_over(draft: &mut Draft<'_>, job: &mut Job, wait: Wait) {
    match &wait.scope {
        Scope::Target { until, .. } if *until <= draft.now() => {}
        Scope::Target { .. } | Scope::Anyone => return,
    }
    if let Routing::Strict { target, .. } = &job.spec.routing {
        let message = format!("No worker of {target} became free in time");
        job_lifecycle::fail(draft, job, ErrorCode::WORKER_UNAVAILABLE, &message, None);
    } else {
        job.state = JobState::Pending(Wait { scope: Scope::Anyone, ..wait });
    }
}

/// The attempt took longer than `timeout_seconds`.
fn time_out(draft: &mut Draft<'_>, job: &mut Job) {
    let seconds = job.spec.timeout.as_secs();
    let fence = job_lifecycle::take_from_worker(draft, job, "timeout");
    if job.has_attempt_left() && !job.side_effects_started() {
        job.failures += 1;
        let why = PutBack {
            reason: "timeout",
            message: format!("Will be tried again: it took longer than {seconds} s"),
            counted: job.attempt_counts(),
            fence,
            backoff: Some(draft.policy().backoff(job.failures)),
            interaction_status: "superseded",
        };
        job_lifecycle::put_back(draft, job, why);
    } else {
        let message = format!("It took longer than {seconds} s");
        job_lifecycle::fail(draft, job, ErrorCode::TIMEOUT, &message, fence);
    }
}

/// Announced calls that were never reported: the cost stays incomplete, and an ended job says that this is final. Tells
/// whether there were any.
fn lapse_calls(draft: &mut Draft<'_>, job: &mut Job) -> bool {
    let now = draft.now();
    let mut lapsed = false;
    for call in &mut job.announced_calls {
        if call.open_until.is_some_and(|until| until <= now) {
            call.open_until = None;
            lapsed = true;
        }
    }
    if lapsed && job.cost_is_final() {
        draft.callback(job, CallbackKind::CostFollowUp);
    }
    lapsed
}

fn sweep_worker(draft: &mut Draft<'_>, sight: &Sight, id: &WorkerId) {
    let Some(view) = draft.worker(id) else { return };
    let now = draft.now();
    let silent_since = sight.silent_since(now, draft.policy().offline_after);
    if view.worker.is_present() && silent_since.is_some_and(|since| view.vitals.last_seen <= since) {
        go_offline(draft, &view);
        return;
    }
    let Some(drain) = view.worker.drain().cloned() else {
        return;
    };
    let judged = drain.deadline.filter(|deadline| *deadline <= now).map(|over| sight.judge(drain.since, over, now));
    let deadline_over = judged == Some(Judgement::Over);
    let waited_for = view.worker.deregistration().is_some();
    let free = view.occupied_by.is_none() && !view.worker.is_closing(now);
    let due = deadline_over || (waited_for && free);
    if !due {
        if let Some(Judgement::Later(at)) = judged {
            let mut worker = view.worker.as_ref().clone();
            worker.state = WorkerState::Draining(Drain { deadline: Some(at), since: now, ..drain });
            draft.save_worker(worker);
        }
        return;
    }
    if let Some(job) = view.occupied_by.and_then(|occupation| draft.job(occupation.job_id).ok()) {
        // Past the point of no return it is not told to stop: only it knows how the job ends.
        if !job.side_effects_started() {
            job_lifecycle::take_from_worker(draft, &job, &drain.reason);
        }
        worker_lifecycle::lose_job(draft, &view, Loss::Taken);
    }
    if waited_for {
        worker_lifecycle::finish_deregistration_of(draft, id, Some(&drain.reason));
    } else if let Some(view) = draft.worker(id) {
        let mut worker = view.worker.as_ref().clone();
        if let WorkerState::Draining(drain) = &mut worker.state {
            drain.deadline = None;
        }
        draft.save_worker(worker);
    }
}

/// The worker is given up: not heard from for too long.
fn go_offline(draft: &mut Draft<'_>, view: &WorkerView) {
    let now = draft.now();
    let id = &view.worker.id;
    draft.rely_on_silence(id, view.vitals.last_seen);
    let job_id = view.live_job();
    let fate = worker_lifecycle::lose_job(draft, view, Loss::Silent);
    let facts = json!({
        "last_heartbeat": view.vitals.last_seen,
        "current_job_id": job_id,
        "job_outcome": fate.filter(|_| job_id.is_some()).map(|fate| fate.as_str()),
    });
    let silent_for = now.since(view.vitals.last_seen).as_secs();
    let message = format!("{id} was not heard from for {silent_for} s");
    let mut worker = view.worker.as_ref().clone();
    draft.worker_event(&mut worker, EventType::WORKER_OFFLINE, message, Actor::System, &facts);
    let waited_for = worker.deregistration().is_some();
    if !waited_for {
        worker.state = WorkerState::Offline { since: now };
        worker.closing = None;
        worker.directives.clear();
    }
    draft.save_worker(worker);
    if waited_for {
        // A dead worker has nothing to finish: its deregistration need not wait for the deadline.
        worker_lifecycle::finish_deregistration_of(draft, id, None);
    }
}

/// Records that callbacks were given up. For stores, in [`Outbox::settle`](crate::ports::outbox::Outbox::settle).
#[must_use]
pub fn dead_letter(job: &Job, dead: &[Delivery], now: Timestamp, rules: &Rules) -> Changeset {
    let snapshot = Snapshot::new(now);
    let mut draft = Draft::new(&snapshot, rules);
    let mut job = job.clone();
    for delivery in dead {
        let reason = delivery.dead_reason.as_deref().unwrap_or("unknown");
        let message = format!("A {} callback could not be delivered ({reason})", delivery.status.as_str());
        let facts = json!({
            "delivery_id": delivery.id,
            "status": delivery.status,
            "sequence": delivery.sequence,
            "reason": reason,
            "attempts": delivery.attempts.len(),
        });
        draft.job_event(&mut job, EventDraft::new(EventType::CALLBACK_DEAD, message).with(&facts));
    }
    draft.save_job(job);
    draft.finish().0
}
