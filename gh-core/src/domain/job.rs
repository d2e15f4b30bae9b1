//! A job and the states it can be in. What may follow what is decided in [`commands`](super::commands).

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::affinity::Routing;
use super::code::{ClientName, ErrorCode, Fingerprint};
use super::cost::{CostBlock, CostSummary};
use super::ids::{Attempt, Generation, InteractionId, JobId, TargetName, Version, WorkerId};
use super::policy::Policy;
use super::submission::JobSpec;
use super::time::Timestamp;
use super::worker::Occupation;

/// Opaque JSON that is handed on as it came.
pub type Json = Arc<RawValue>;

/// The status of a job, as everybody outside knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Waits for any suitable worker.
    Pending,
    /// Reserved for one worker, which has not picked it up yet.
    Queued,
    /// A worker has it.
    Running,
    /// A worker has it, and a person is asked to clear a blocker.
    NeedsHuman,
    /// Done.
    Completed,
    /// Ended without success.
    Failed,
    /// Ended by a client.
    Cancelled,
    /// Waited longer than it was allowed to.
    Expired,
}

impl JobStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Queued,
        Self::Running,
        Self::NeedsHuman,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// Every status of a run that is not over.
    pub const LIVE: [Self; 4] = [Self::Pending, Self::Queued, Self::Running, Self::NeedsHuman];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::NeedsHuman => "needs_human",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Whether the run is over.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Expired)
    }
}

/// Whom a waiting job waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Any suitable worker.
    Anyone,
    /// Only workers of this target, until this time; then a strict job fails and a preferred one waits for anyone.
    Target {
        /// The client's routing key.
        name: TargetName,
        /// When the wait for the target is over.
        until: Timestamp,
    },
}

/// Until `until` only `worker_id` may take the job: the worker may still act on it until its self-fence has passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfFence {
    /// The worker that has not let go of the job itself.
    pub worker_id: WorkerId,
    /// When its self-fence has certainly passed.
    pub until: Timestamp,
}

/// A job's wait for a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Since when it waits.
    pub since: Timestamp,
    /// For whom.
    pub scope: Scope,
    /// Not before this time (backoff after a failure).
    pub not_before: Option<Timestamp>,
    /// A worker that may still act on it.
    pub fence: Option<SelfFence>,
}

impl Wait {
    /// A wait for anyone, from now.
    #[must_use]
    pub const fn for_anyone(now: Timestamp) -> Self {
        Self { since: now, scope: Scope::Anyone, not_before: None, fence: None }
    }

    /// Whether the backoff is over.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.not_before.is_none_or(|time| time <= now)
    }

    /// The only worker that may take the job now, while another may still act on it.
    #[must_use]
    pub fn fenced_to(&self, now: Timestamp) -> Option<&WorkerId> {
        self.fence.as_ref().filter(|fence| fence.until > now).map(|fence| &fence.worker_id)
    }
}

/// What keeps a waiting job beside the lack of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitObstacle {
    /// Nothing.
    None,
    /// It was put back after a failure and waits a while.
    Backoff,
    /// The worker that lost it may still act on it.
    Fencing,
    /// It is reserved for a worker.
    Reserved,
}

/// A place kept for a job on one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The worker.
    pub worker_id: WorkerId,
    /// Its generation.
    pub generation: Generation,
    /// When the reservation lapses.
    pub until: Timestamp,
}

/// What a worker holds while it runs a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The worker.
    pub worker_id: WorkerId,
    /// Its generation: another one is another process.
    pub generation: Generation,
    /// When the claim was granted; the attempt's time runs from here.
    pub granted_at: Timestamp,
    /// Whether the worker has shown that it knows of the job.
    pub started: bool,
    /// How long the attempt was paused for people, without a pause that is going on.
    pub paused: Duration,
    /// Set when the worker was lost past the point of no return: the lease is over, only the outcome is still taken.
    pub grace: Option<Grace>,
}

/// The time in which a lost worker may still say how a job past its point of no return ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grace {
    /// When the job fails without an answer.
    pub until: Timestamp,
}

/// A pause for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The interaction that asks for the person.
    pub interaction_id: InteractionId,
    /// Since when the job is paused.
    pub since: Timestamp,
    /// When the job fails unless somebody resolves the blocker.
    pub expires_at: Timestamp,
}

/// How a run ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The worker did what was asked.
    Completed(Completion),
    /// It did not work.
    Failed {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        message: Box<str>,
    },
    /// A client ended it.
    Cancelled {
        /// Its reason.
        reason: Option<Box<str>>,
    },
    /// It waited longer than it was allowed to.
    Expired,
}

impl Outcome {
    /// Why it ended without success: for programs, and for people.
    #[must_use]
    pub fn error(&self) -> Option<(&ErrorCode, &str)> {
        static EXPIRED: ErrorCode = ErrorCode::EXPIRED;
        match self {
            Self::Failed { code, message } => Some((code, message)),
            Self::Expired => Some((&EXPIRED, "No worker took the job in time")),
            Self::Completed(_) | Self::Cancelled { .. } => None,
        }
    }
}

/// What a worker hands in when a job is done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Completion {
    /// Opaque result.
    pub result_data: Option<Json>,
    /// One sentence for people.
    pub result_summary: Option<Box<str>>,
    /// The artifact that shows the end.
    pub screenshot_artifact_id: Option<Box<str>>,
}

/// The end of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ending {
    /// When it ended.
    pub at: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// A worker that may still act on it: until then it cannot be retried, unless that worker says it is free.
    pub fence: Option<SelfFence>,
}

/// Where a job is in its life; each state carries what only it has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum JobState {
    /// See [`JobStatus::Pending`].
    Pending(Wait),
    /// See [`JobStatus::Queued`]; the wait goes on if the reservation lapses.
    Queued(Wait, Reservation),
    /// See [`JobStatus::Running`].
    Running(Lease),
    /// See [`JobStatus::NeedsHuman`].
    NeedsHuman(Lease, Pause),
    /// The run is over.
    Ended(Ending),
}

/// One attempt that was granted: who held the job, and what came of it. Usage is fenced by this record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Holding {
    /// The attempt.
    pub attempt: Attempt,
    /// The worker that held it.
    pub worker_id: WorkerId,
    /// Its generation.
    pub generation: Generation,
    /// When it ended, if it did.
    pub ended_at: Option<Timestamp>,
    /// The greatest `worker_seq` among its events.
    pub last_worker_seq: Option<u64>,
    /// The outcome that the worker reported, to answer a repetition alike.
    pub reported: Option<ReportedOutcome>,
}

/// A worker's own report of the end of an attempt, and the answer it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedOutcome {
    /// Digest of the report.
    pub fingerprint: Fingerprint,
    /// The answer.
    pub answer: OutcomeAnswer,
}

/// The answer to `complete`, `fail` and `release`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeAnswer {
    /// The job's status after the report.
    pub status: JobStatus,
    /// The attempt that was reported on.
    pub attempt: Attempt,
    /// Whether the job will be tried again by itself.
    pub will_retry: bool,
}

/// An LLM call that a worker announced at the end of an attempt and has not reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnouncedCall {
    /// The call.
    pub call_id: Box<str>,
    /// When the announcement lapses; none once it has.
    pub open_until: Option<Timestamp>,
}

/// How far a job says it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// 0 to 100.
    pub percent: Option<u8>,
    /// The step it is at.
    pub step_index: Option<u32>,
    /// How many steps there are.
    pub total_steps: Option<u32>,
}

/// A deadline that is over later than it says: blind time was added to it, or the brake holds it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postponement {
    /// Since when the deadline counts that is meant: another one is not postponed.
    pub since: Timestamp,
    /// When it is looked at again.
    pub until: Timestamp,
}

/// A job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// How often it was written.
    pub version: Version,
    /// What was asked for; never changes.
    pub spec: Arc<JobSpec>,
    /// The client that submitted it.
    pub client: ClientName,
    /// Counts submissions and client's retries; from 1.
    pub run: u32,
    /// The present or next try.
    pub attempt: Attempt,
    /// How many tries of this run counted against `max_attempts`, without the present one.
    pub attempts_spent: u32,
    /// How many tries of this run ended in a retryable failure, for the backoff.
    pub failures: u32,
    /// How many releases came in a row.
    pub releases: u32,
    /// How often it was put back, over all runs.
    pub requeues: u32,
    /// Where it is in its life.
    pub state: JobState,
    /// When this run passed its point of no return.
    pub side_effects_started_at: Option<Timestamp>,
    /// How far it says it is.
    pub progress: Progress,
    /// What it has cost so far, over all runs.
    pub cost: CostSummary,
    /// Announced calls that are not reported.
    pub announced_calls: Vec<AnnouncedCall>,
    /// Where its present [watched deadline](Self::watched_deadline) was moved to.
    pub postponed: Option<Postponement>,
    /// The share of the budget, in percent, whose spending was told: 0, 80 or 100.
    pub budget_told: u8,
    /// Every attempt that was granted.
    pub holdings: Vec<Holding>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When this run began to wait.
    pub queued_at: Timestamp,
    /// When this run was first granted to a worker.
    pub started_at: Option<Timestamp>,
    /// The number of its last event.
    pub event_seq: u64,
    /// The number of its last callback.
    pub callback_sequence: u64,
}

impl Job {
    /// The status that everybody outside knows.
    #[must_use]
    pub const fn status(&self) -> JobStatus {
        match &self.state {
            JobState::Pending(_) => JobStatus::Pending,
            JobState::Queued(..) => JobStatus::Queued,
            JobState::Running(_) => JobStatus::Running,
            JobState::NeedsHuman(..) => JobStatus::NeedsHuman,
            JobState::Ended(ending) => match ending.outcome {
                Outcome::Completed(_) => JobStatus::Completed,
                Outcome::Failed { .. } => JobStatus::Failed,
                Outcome::Cancelled { .. } => JobStatus::Cancelled,
                Outcome::Expired => JobStatus::Expired,
            },
        }
    }

    /// The lease as the state holds it, over or not.
    #[must_use]
    pub const fn lease(&self) -> Option<&Lease> {
        match &self.state {
            JobState::Running(lease) | JobState::NeedsHuman(lease, _) => Some(lease),
            JobState::Pending(_) | JobState::Queued(..) | JobState::Ended(_) => None,
        }
    }

    /// The lease while it lives: not in its grace.
    #[must_use]
    pub fn live_lease(&self) -> Option<&Lease> {
        self.lease().filter(|lease| lease.grace.is_none())
    }

    /// The worker on which no other job can be placed because of this one.
    #[must_use]
    pub fn occupies(&self) -> Option<&WorkerId> {
        match &self.state {
            JobState::Queued(_, reservation) => Some(&reservation.worker_id),
            _ => self.live_lease().map(|lease| &lease.worker_id),
        }
    }

    /// How it occupies a worker, if it does.
    #[must_use]
    pub fn occupation(&self) -> Option<(&WorkerId, Occupation)> {
        let reserved = matches!(self.state, JobState::Queued(..));
        self.occupies().map(|worker_id| (worker_id, Occupation { job_id: self.id, reserved }))
    }

    /// What keeps it beside the lack of a worker, while it waits.
    #[must_use]
    pub fn obstacle(&self, now: Timestamp) -> Option<WaitObstacle> {
        let wait = self.wait()?;
        Some(match &self.state {
            JobState::Queued(..) => WaitObstacle::Reserved,
            _ if !wait.is_due(now) => WaitObstacle::Backoff,
            _ if wait.fenced_to(now).is_some() => WaitObstacle::Fencing,
            _ => WaitObstacle::None,
        })
    }

    /// The target that it waits for, or whose worker is reserved for it; none where anyone may take it.
    #[must_use]
    pub fn waits_for(&self) -> Option<&TargetName> {
        match (&self.wait()?.scope, &self.spec.routing) {
            (Scope::Target { name, .. }, _) => Some(name),
            (Scope::Anyone, Routing::Strict { target, .. } | Routing::Preferred { target, .. })
                if matches!(self.state, JobState::Queued(..)) =>
            {
                Some(target)
            }
            (Scope::Anyone, _) => None,
        }
    }

    /// The wait, while it waits or is reserved.
    #[must_use]
    pub const fn wait(&self) -> Option<&Wait> {
        match &self.state {
            JobState::Pending(wait) | JobState::Queued(wait, _) => Some(wait),
            JobState::Running(_) | JobState::NeedsHuman(..) | JobState::Ended(_) => None,
        }
    }

    /// The end of the run, if it is over.
    #[must_use]
    pub const fn ending(&self) -> Option<&Ending> {
        match &self.state {
            JobState::Ended(ending) => Some(ending),
            _ => None,
        }
    }

    /// The worker that answers and callbacks name: the reserved one while queued, else the present or last holder.
    #[must_use]
    pub fn worker_id(&self) -> Option<&WorkerId> {
        match &self.state {
            JobState::Queued(_, reservation) => Some(&reservation.worker_id),
            _ => self.last_holder(),
        }
    }

    /// The worker that holds the job, or held it last.
    #[must_use]
    pub fn last_holder(&self) -> Option<&WorkerId> {
        self.holdings.last().map(|holding| &holding.worker_id)
    }

    /// The record of one attempt.
    #[must_use]
    pub fn holding(&self, attempt: Attempt) -> Option<&Holding> {
        self.holdings.iter().rev().find(|holding| holding.attempt == attempt)
    }

    /// Whether this run is past its point of no return.
    #[must_use]
    pub const fn side_effects_started(&self) -> bool {
        self.side_effects_started_at.is_some()
    }

    /// Whether the present attempt counts against `max_attempts`: one that never started does not.
    #[must_use]
    pub fn attempt_counts(&self) -> bool {
        self.lease().is_some_and(|lease| lease.started)
    }

    /// Whether another attempt is left when the present one is over.
    #[must_use]
    pub fn has_attempt_left(&self) -> bool {
        self.attempts_spent + u32::from(self.attempt_counts()) < self.spec.max_attempts
    }

    /// When the present attempt is over time: past the point of no return only after the outcome grace.
    #[must_use]
    pub fn attempt_deadline(&self, policy: &Policy) -> Option<Timestamp> {
        match &self.state {
            JobState::Running(lease) if lease.grace.is_none() => {
                let limit = lease.granted_at + self.spec.timeout + lease.paused;
                Some(if self.side_effects_started() { limit + policy.outcome_grace } else { limit })
            }
            _ => None,
        }
    }

    /// When the job expires while it waits, if it does.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let expires_in = self.spec.expires_in?;
        self.wait().map(|_| self.queued_at + expires_in)
    }

    /// The deadline that counts only time in which the control plane could hear of the job, if it has one: since when
    /// it counts, and when it is over if there is no blind time in between.
    #[must_use]
    pub fn watched_deadline(&self, policy: &Policy) -> Option<(Timestamp, Timestamp)> {
        match &self.state {
            JobState::Queued(_, reservation) => Some((reservation.until - policy.pickup_timeout, reservation.until)),
            JobState::Running(lease) => self.attempt_deadline(policy).map(|deadline| (lease.granted_at, deadline)),
            JobState::NeedsHuman(lease, pause) if lease.grace.is_none() => Some((pause.since, pause.expires_at)),
            JobState::NeedsHuman(..) | JobState::Pending(_) | JobState::Ended(_) => None,
        }
    }

    /// The next time at which something may happen to the job by itself, for the sweeper.
    #[must_use]
    pub fn next_deadline(&self, policy: &Policy) -> Option<Timestamp> {
        let watched = self.watched_deadline(policy).map(|(since, deadline)| match self.postponed {
            Some(postponed) if postponed.since == since => deadline.max(postponed.until),
            _ => deadline,
        });
        let of_wait = match &self.state {
            JobState::Pending(Wait { scope: Scope::Target { until, .. }, .. }) => Some(*until),
            _ => None,
        };
        let of_grace = self.lease().and_then(|lease| lease.grace.as_ref()).map(|grace| grace.until);
        let of_calls = self.announced_calls.iter().filter_map(|call| call.open_until).min();
        [watched, of_wait, of_grace, self.expires_at(), of_calls].into_iter().flatten().min()
    }

    /// How the ready are ordered: higher priority first, then older first. Smaller comes first.
    #[must_use]
    pub fn queue_order(&self) -> QueueOrder {
        QueueOrder { priority: std::cmp::Reverse(self.spec.priority), created_at: self.created_at, id: self.id }
    }

    /// Whether every announced call was reported, or its announcement has lapsed.
    #[must_use]
    pub fn announced_calls_settled(&self) -> bool {
        self.announced_calls.iter().all(|call| call.open_until.is_none())
    }

    /// Whether the run is over and no announced call is open.
    #[must_use]
    pub fn cost_is_final(&self) -> bool {
        self.ending().is_some() && self.announced_calls_settled()
    }

    /// The cost as answers and callbacks show it: from the first call or action on.
    #[must_use]
    pub fn cost_block(&self) -> Option<CostBlock> {
        (!self.cost.is_empty()).then(|| self.cost.block(self.cost_is_final()))
    }
}

/// The place of a job among those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueOrder {
    priority: std::cmp::Reverse<u8>,
    created_at: Timestamp,
    id: JobId,
}

impl QueueOrder {
    /// The job whose place it is.
    #[must_use]
    pub const fn job_id(&self) -> JobId {
        self.id
    }
}

/// Who asked for a change, and as what: kept with idempotency keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// Digest of the first body.
    pub fingerprint: Fingerprint,
    /// The job it made.
    pub job_id: JobId,
}
