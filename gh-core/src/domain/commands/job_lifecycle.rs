//! The steps of a job's life that several commands share.

use std::time::Duration;

use serde_json::json;

use super::Credential;
use super::worker_lifecycle::{self, Freed};
use crate::domain::affinity::Routing;
use crate::domain::callback::{CallbackKind, CallbackStatus};
use crate::domain::code::{Actor, ErrorCode};
use crate::domain::draft::{Draft, EventDraft};
use crate::domain::event::EventType;
use crate::domain::ids::{Attempt, TargetName, WorkerId};
use crate::domain::job::{
    Completion, Ending, Grace, Holding, Job, JobState, JobStatus, Lease, Outcome, Reservation, Scope, SelfFence, Wait,
};
use crate::domain::time::Timestamp;
use crate::domain::worker::{Closing, DirectiveType, Ineligible, WorkerView};

/// What became of a job that looked for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// A worker is reserved for it.
    Reserved,
    /// It waits.
    Waiting,
    /// A strict job whose target cannot take it; the word says what the target's workers do instead.
    Unavailable(&'static str),
}

/// Places a job at the beginning of a run. The job's state is set unless the place is [`Placement::Unavailable`].
pub(super) fn place(draft: &mut Draft<'_>, job: &mut Job) -> Placement {
    let now = draft.now();
    let routing = job.spec.routing.clone();
    let (target, wait, strict) = match &routing {
        Routing::Any { .. } => {
            job.state = JobState::Pending(Wait::for_anyone(now));
            return Placement::Waiting;
        }
        Routing::Strict { target, wait } => (target, *wait, true),
        Routing::Preferred { target, wait } => (target, *wait, false),
    };
    let held = draft.hold_on(target).is_some();
    if let Some(worker) = first_eligible(draft, target) {
        let scope = if strict { target_scope(target, now + wait) } else { Scope::Anyone };
        reserve(draft, job, &worker, Wait { scope, ..Wait::for_anyone(now) });
        return Placement::Reserved;
    }
    if !wait.is_zero() && !held {
        let scope = target_scope(target, now + wait);
        job.state = JobState::Pending(Wait { scope, ..Wait::for_anyone(now) });
        return Placement::Waiting;
    }
    if strict {
        return Placement::Unavailable(worker_status(draft, target));
    }
    job.state = JobState::Pending(Wait::for_anyone(now));
    Placement::Waiting
}

fn target_scope(target: &TargetName, until: Timestamp) -> Scope {
    Scope::Target { name: target.clone(), until }
}

/// The eligible worker of a target that has been idle longest, on the least loaded machine.
fn first_eligible(draft: &mut Draft<'_>, target: &TargetName) -> Option<WorkerView> {
    let (now, policy, snapshot) = (draft.now(), draft.policy(), draft.snapshot());
    let id = snapshot
        .workers_of(target)
        .filter(|view| view.eligible(now, policy).is_ok())
        .min_by_key(|view| (view.instance_load, view.worker.idle_since, view.worker.id.clone()))
        .map(|view| view.worker.id.clone())?;
    draft.worker(&id).filter(|view| view.eligible(now, policy).is_ok())
}

/// What the workers of a target do instead of taking a job: the most able of them speaks.
fn worker_status(draft: &Draft<'_>, target: &TargetName) -> &'static str {
    let (now, policy) = (draft.now(), draft.policy());
    let words = ["busy", "draining", "unresponsive", "offline"];
    let best = draft
        .snapshot()
        .workers_of(target)
        .filter_map(|view| view.eligible(now, policy).err())
        .map(|reason| match reason {
            Ineligible::Busy | Ineligible::Closing | Ineligible::Reserved => 0,
            Ineligible::Draining => 1,
            Ineligible::Suspect | Ineligible::Deaf | Ineligible::Lapsed | Ineligible::NotWaiting => 2,
            Ineligible::Offline => 3,
        })
        .min();
    best.map_or("unknown", |index: usize| words[index])
}

/// Reserves a worker for a job, and tells it so.
pub(super) fn reserve(draft: &mut Draft<'_>, job: &mut Job, worker: &WorkerView, wait: Wait) {
    let until = draft.now() + draft.policy().pickup_timeout;
    let reservation = Reservation { worker_id: worker.worker.id.clone(), generation: worker.worker.generation, until };
    let from = JobStatus::Pending;
    let message = format!("Reserved for {}", worker.worker.id);
    job.state = JobState::Queued(wait, reservation);
    let facts = json!({ "reserved_for": worker.worker.id });
    draft.job_event(job, EventDraft::new(EventType::JOB_QUEUED, message).moved(from, JobStatus::Queued).with(&facts));
}

/// Gives a waiting or reserved job to a worker: the lease, its event and its callback are one change.
pub(super) fn grant(draft: &mut Draft<'_>, job: &mut Job, worker: &WorkerView) {
    let now = draft.now();
    let from = job.status();
    let worker_id = worker.worker.id.clone();
    job.state = JobState::Running(Lease {
        worker_id: worker_id.clone(),
        generation: worker.worker.generation,
        granted_at: now,
        started: false,
        paused: Duration::ZERO,
        grace: None,
    });
    job.holdings.push(Holding {
        attempt: job.attempt,
        worker_id: worker_id.clone(),
        generation: worker.worker.generation,
        ended_at: None,
        last_worker_seq: None,
        reported: None,
    });
    job.started_at.get_or_insert(now);
    let event = EventDraft::new(EventType::JOB_STARTED, format!("Job assigned to {worker_id}"))
        .by(Actor::Worker(worker_id.clone()))
        .moved(from, JobStatus::Running);
    draft.job_event(job, event);
    draft.callback(job, CallbackKind::Transition);
    // A grant is a sign of life, and whatever heartbeats said of an earlier job says nothing of this one.
    draft.seen(&worker_id);
    draft.vitals(&worker_id).jobless_beats = Some(0);
}

/// Ends a run: state, event and terminal callback. The caller saves the job.
pub(super) fn end(draft: &mut Draft<'_>, job: &mut Job, outcome: Outcome, actor: Actor, fence: Option<SelfFence>) {
    let now = draft.now();
    let expired = matches!(&outcome, Outcome::Failed { code, .. } if *code == ErrorCode::HITL_TIMEOUT);
    close_pause(draft, job, if expired { "expired" } else { "cancelled" }, Telling::EndFollows);
    close_holding(job, now);
    let from = job.status();
    let (event_type, message, facts) = match &outcome {
        Outcome::Completed(Completion { result_summary, .. }) => {
            let message = result_summary.as_deref().unwrap_or("Job completed").to_owned();
            (EventType::JOB_COMPLETED, message, json!({}))
        }
        Outcome::Failed { code, message } => {
            (EventType::JOB_FAILED, format!("Failed: {message}"), json!({ "error_code": code }))
        }
        Outcome::Cancelled { reason: Some(reason) } => {
            (EventType::JOB_CANCELLED, format!("Cancelled: {reason}"), json!({ "reason": reason }))
        }
        Outcome::Cancelled { reason: None } => (EventType::JOB_CANCELLED, "Cancelled".into(), json!({})),
        Outcome::Expired => (EventType::JOB_EXPIRED, "Expired: no worker took the job in time".into(), json!({})),
    };
    let to = match &outcome {
        Outcome::Completed(_) => JobStatus::Completed,
        Outcome::Failed { .. } => JobStatus::Failed,
        Outcome::Cancelled { .. } => JobStatus::Cancelled,
        Outcome::Expired => JobStatus::Expired,
    };
    // Written while the lease is there: the event tells how long the attempt took.
    draft.job_event(job, EventDraft::new(event_type, message).by(actor).moved(from, to).with(&facts));
    job.state = JobState::Ended(Ending { at: now, outcome, fence });
    draft.callback(job, CallbackKind::Terminal);
}

/// Ends a run without success.
pub(super) fn fail(draft: &mut Draft<'_>, job: &mut Job, code: ErrorCode, message: &str, fence: Option<SelfFence>) {
    end(draft, job, Outcome::Failed { code, message: message.into() }, Actor::System, fence);
}

/// Why a job goes back to waiting.
#[derive(Clone, Debug)]
pub(super) struct PutBack {
    /// The stable word, in the event.
    pub(super) reason: &'static str,
    /// The sentence for people.
    pub(super) message: String,
    /// Whether the attempt counts against `max_attempts`.
    pub(super) counted: bool,
    /// The worker that may still act on it.
    pub(super) fence: Option<SelfFence>,
    /// How long it must wait first.
    pub(super) backoff: Option<Duration>,
    /// What becomes of the interaction, if a person was waited for.
    pub(super) interaction_status: &'static str,
}

/// Puts a held job back to waiting as its next attempt. The caller saves the job.
pub(super) fn put_back(draft: &mut Draft<'_>, job: &mut Job, why: PutBack) {
    let now = draft.now();
    close_pause(draft, job, why.interaction_status, Telling::Resumed);
    close_holding(job, now);
    let from = job.status();
    let facts = json!({ "reason": why.reason, "counted": why.counted, "next_attempt": job.attempt.next() });
    let event = EventDraft::new(EventType::JOB_REQUEUED, why.message).moved(from, JobStatus::Pending).with(&facts);
    draft.job_event(job, event);
    job.attempts_spent += u32::from(why.counted);
    job.requeues += 1;
    job.attempt = job.attempt.next();
    let not_before = why.backoff.map(|backoff| now + backoff);
    let scope = scope_after_put_back(draft, job, not_before.unwrap_or(now));
    job.state = JobState::Pending(Wait { since: now, scope, not_before, fence: why.fence });
}

/// For whom a job waits that lost its worker: a strict one for its target, since a deploy brings it back in seconds.
pub(super) fn scope_after_put_back(draft: &Draft<'_>, job: &Job, from: Timestamp) -> Scope {
    match &job.spec.routing {
        Routing::Strict { target, wait } => target_scope(target, from + (*wait).max(draft.policy().strict_return_wait)),
        Routing::Preferred { .. } | Routing::Any { .. } => Scope::Anyone,
    }
}

/// How a worker was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It fell silent.
    Silent,
    /// Another process has its name.
    Restarted,
    /// It was deregistered, or its drain deadline is over.
    Taken,
    /// It said goodbye.
    Goodbye,
    /// It says that it has no job.
    Jobless,
}

impl Loss {
    const fn reason(self) -> &'static str {
        match self {
            Self::Silent => "worker_offline",
            Self::Restarted => "worker_restarted",
            Self::Taken => "worker_drained",
            Self::Goodbye => "worker_goodbye",
            Self::Jobless => "worker_jobless",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Silent => "was not heard from any more",
            Self::Restarted => "was restarted",
            Self::Taken => "had no more time to finish",
            Self::Goodbye => "shut down",
            Self::Jobless => "said that it has no job",
        }
    }

    /// Whether the worker itself let go, so that nobody acts on the job any more.
    const fn let_go(self) -> bool {
        matches!(self, Self::Restarted | Self::Goodbye | Self::Jobless)
    }
}

/// What became of the job of a lost worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobFate {
    /// It waits for another try.
    Requeued,
    /// It failed.
    Failed,
    /// It is past its point of no return, and the worker may still say how it ended.
    InGrace,
}

impl JobFate {
    /// The word in events and answers.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Requeued => "requeued",
            Self::Failed => "failed",
            Self::InGrace => "in_grace",
        }
    }
}

/// Handles the job of a worker that was lost: reserved, live or paused. The job is saved.
pub(super) fn lose(draft: &mut Draft<'_>, mut job: Job, worker: &WorkerView, loss: Loss) -> JobFate {
    let now = draft.now();
    let worker_id = &worker.worker.id;
    if let JobState::Queued(wait, _) = &job.state {
        let wait = wait.clone();
        unreserve(
            draft,
            &mut job,
            wait,
            loss.reason(),
            format!("Reservation given back: {worker_id} {}", loss.sentence()),
        );
        draft.save_job(job);
        return JobFate::Requeued;
    }
    let fate = if job.side_effects_started() {
        if loss == Loss::Goodbye {
            let message = format!("{worker_id} shut down after the point of no return");
            fail(draft, &mut job, ErrorCode::WORKER_LOST, &message, None);
            JobFate::Failed
        } else {
            enter_grace(draft, &mut job);
            JobFate::InGrace
        }
    } else if !job.has_attempt_left() {
        let message = format!("{worker_id} {}, and no attempt is left", loss.sentence());
        let fence = fence_of(draft, worker, loss.let_go());
        fail(draft, &mut job, ErrorCode::WORKER_LOST, &message, fence);
        JobFate::Failed
    } else {
        let why = PutBack {
            reason: loss.reason(),
            message: format!("Put back: {worker_id} {}", loss.sentence()),
            counted: job.attempt_counts(),
            fence: fence_of(draft, worker, loss.let_go()),
            backoff: None,
            interaction_status: "superseded",
        };
        put_back(draft, &mut job, why);
        JobFate::Requeued
    };
    debug_assert!(job.occupies().is_none(), "a lost worker keeps no job");
    job.holdings
        .iter_mut()
        .filter(|holding| holding.ended_at.is_none())
        .for_each(|holding| holding.ended_at = Some(now));
    draft.save_job(job);
    fate
}

fn fence_of(draft: &Draft<'_>, worker: &WorkerView, let_go: bool) -> Option<SelfFence> {
    let until = worker.self_fenced_at(draft.policy());
    let open = !let_go && until > draft.now();
    open.then(|| SelfFence { worker_id: worker.worker.id.clone(), until })
}

/// The lease of a job past its point of no return is over; only its outcome is still taken.
fn enter_grace(draft: &mut Draft<'_>, job: &mut Job) {
    let until = draft.now() + draft.policy().outcome_grace;
    close_pause(draft, job, "cancelled", Telling::Resumed);
    if let JobState::Running(lease) = &mut job.state {
        lease.grace = Some(Grace { until });
    }
}

/// Puts a reserved job back to waiting; its attempt was never granted and stays. The caller saves the job.
pub(super) fn unreserve(draft: &mut Draft<'_>, job: &mut Job, wait: Wait, reason: &'static str, message: String) {
    let facts = json!({ "reason": reason, "counted": false, "next_attempt": job.attempt });
    let event =
        EventDraft::new(EventType::JOB_REQUEUED, message).moved(JobStatus::Queued, JobStatus::Pending).with(&facts);
    draft.job_event(job, event);
    job.requeues += 1;
    let scope = scope_after_put_back(draft, job, draft.now());
    job.state = JobState::Pending(Wait { scope, ..wait });
}

/// Somebody else ends the attempt: the worker is told, and counts as closing until it says that it is free.
///
/// Gives back the fence within which it may still act.
pub(super) fn take_from_worker(draft: &mut Draft<'_>, job: &Job, reason: &str) -> Option<SelfFence> {
    let lease = job.live_lease()?;
    let view = draft.worker(&lease.worker_id)?;
    if view.worker.generation != lease.generation || !view.worker.is_present() {
        return None;
    }
    let fence = fence_of(draft, &view, false);
    let mut worker = view.worker.as_ref().clone();
    worker.closing =
        Some(Closing { job_id: job.id, attempt: job.attempt, until: draft.now() + draft.policy().closing_after });
    worker.idle_since = draft.now();
    let named = Some((job.id, job.attempt, None));
    draft.direct(&mut worker, DirectiveType::CancelJob, named, Some(reason), None);
    draft.vitals(&worker.id.clone()).left_job = true;
    draft.save_worker(worker);
    fence
}

/// What closes the card at the client when a pause ends without a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    /// A `resumed` callback.
    Resumed,
    /// The terminal callback, which follows in the same change.
    EndFollows,
}

/// Ends the pause of a job, if it is paused: the card at the client must not stay open.
fn close_pause(draft: &mut Draft<'_>, job: &mut Job, interaction_status: &'static str, telling: Telling) {
    let JobState::NeedsHuman(lease, pause) = &job.state else {
        return;
    };
    let (mut lease, pause) = (lease.clone(), pause.clone());
    let waited = draft.now().since(pause.since);
    lease.paused += waited;
    job.state = JobState::Running(lease);
    let facts = json!({
        "interaction_id": pause.interaction_id,
        "interaction_status": interaction_status,
        "resolved_by": "system",
        "waited_ms": u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
    });
    let event = EventDraft::new(EventType::INTERACTION_RESOLVED, "Nobody needs to act any more")
        .moved(JobStatus::NeedsHuman, JobStatus::Running)
        .with(&facts);
    draft.job_event(job, event);
    if telling == Telling::EndFollows {
        return;
    }
    let mut facts = draft.facts(job);
    facts.status = CallbackStatus::Resumed;
    facts.resolved_by = Some("system".into());
    facts.interaction_id = Some(pause.interaction_id);
    draft.callback_with(job, CallbackKind::Transition, facts);
}

fn close_holding(job: &mut Job, now: Timestamp) {
    for holding in job.holdings.iter_mut().filter(|holding| holding.ended_at.is_none()) {
        holding.ended_at = Some(now);
    }
}

/// How a report stands to the job that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The reporter holds the job.
    Holder,
    /// The reporter lost the job past its point of no return, and may still say how it ended.
    InGrace,
    /// The reporter has nothing to say about it.
    Stale,
}

/// How a report of `who` on `attempt` stands to the job.
pub(super) fn standing(job: &Job, who: &Credential, attempt: Attempt) -> Standing {
    let named = |lease: &&Lease| {
        lease.worker_id == who.worker_id && lease.generation == who.generation && job.attempt == attempt
    };
    match job.lease().filter(named) {
        Some(lease) if lease.grace.is_none() => Standing::Holder,
        Some(_) => Standing::InGrace,
        None => Standing::Stale,
    }
}

/// Notes that the worker knows of the job: from now on a claim does not answer it again.
pub(super) fn mark_started(job: &mut Job) -> bool {
    match &mut job.state {
        JobState::Running(lease) | JobState::NeedsHuman(lease, _) if !lease.started => {
            lease.started = true;
            true
        }
        _ => false,
    }
}

/// The worker reported the end of its job itself: it is free. Counters count what it did.
pub(super) fn free_reporter(draft: &mut Draft<'_>, worker_id: &WorkerId, who: &Credential, freed: Freed) {
    let Some(view) = draft.worker(worker_id) else {
        return;
    };
    if view.worker.generation == who.generation && view.worker.is_present() {
        worker_lifecycle::free(draft, &view, freed);
    }
}
