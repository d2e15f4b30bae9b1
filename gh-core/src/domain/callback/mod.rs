//! Callbacks of one job: what they say, in which order they go, and when one is tried again.
//!
//! Each job has one queue. A [`Changeset`](super::changeset::Changeset) only names what to enqueue; the store applies
//! it with [`CallbackQueue::enqueue`] in the same commit. Sending is [`CallbackQueue::lease`], an attempt without any
//! lock held, then [`CallbackQueue::settle`]. The bytes of a callback are frozen when it is first leased: until then
//! its cost block follows the ledger, afterwards every attempt sends the same bytes.

mod body;
mod of_job;
mod queue;
mod verdict;

pub use of_job::JobCallbacks;
pub use queue::{CallbackQueue, LeasedDelivery, SendLease, Settled};
pub use verdict::retry_delay;

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::code::ErrorCode;
use super::ids::{Attempt, DeliveryId, InteractionId, JobId, WorkerId};
use super::job::{Completion, JobStatus};
use super::time::Timestamp;

/// What a callback is about: which of them may be replaced depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallbackKind {
    /// Something happened that the client must see: an attempt started, a person is needed, a blocker is gone.
    Transition,
    /// The cost of a running job changed.
    CostSnapshot,
    /// The run is over.
    Terminal,
    /// The cost of an ended run changed.
    CostFollowUp,
}

/// The status that a callback tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallbackStatus {
    /// An attempt runs.
    Running,
    /// A person is needed.
    NeedsHuman,
    /// Nobody is needed any more.
    Resumed,
    /// Done.
    Completed,
    /// Ended without success.
    Failed,
    /// Ended by a client.
    Cancelled,
    /// Waited too long.
    Expired,
}

impl CallbackStatus {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::NeedsHuman => "needs_human",
            Self::Resumed => "resumed",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// What a callback says, but for its cost block.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallbackFacts {
    /// The status it tells.
    pub status: CallbackStatus,
    /// The run.
    pub run: u32,
    /// The attempt.
    pub attempt: Attempt,
    /// Who has the job, or had it last.
    pub worker_id: Option<WorkerId>,
    /// Whether the run is past its point of no return.
    pub side_effects_started: bool,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Where a person can watch.
    pub live_view_url: Option<Box<str>>,
    /// Who resolved the blocker, in `resumed`.
    pub resolved_by: Option<Box<str>>,
    /// The interaction that `resumed` is about.
    pub interaction_id: Option<InteractionId>,
    /// What the worker handed in, in `completed`.
    pub completion: Option<Arc<Completion>>,
    /// Why it failed, for programs and for people.
    pub error: Option<(ErrorCode, Box<str>)>,
    /// When the run ended, in terminal ones.
    pub completed_at: Option<Timestamp>,
}

/// A callback to be enqueued.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewCallback {
    /// Its id, `webhook-id` and `event_id`.
    pub id: DeliveryId,
    /// The job.
    pub job_id: JobId,
    /// Its place among the callbacks of the job; grows, may skip.
    pub sequence: u64,
    /// What it is about.
    pub kind: CallbackKind,
    /// What it says.
    pub facts: CallbackFacts,
    /// Not before this time.
    pub not_before: Timestamp,
}

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Waits for its time, or for those before it.
    Pending,
    /// A sender has it.
    Sending,
    /// The receiver took it.
    Delivered,
    /// A newer one says more.
    Replaced,
    /// Given up.
    Dead,
}

/// One attempt at a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryAttempt {
    /// When it was made.
    pub at: Timestamp,
    /// The answer's status, if there was an answer.
    pub http_status: Option<u16>,
    /// The class of error, if it failed.
    pub error_class: Option<Box<str>>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The beginning of the answer.
    pub response_excerpt: Option<Box<str>>,
}

/// One callback on its way to one destination.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// Its id, `webhook-id` and `event_id`.
    pub id: DeliveryId,
    /// Its place among the callbacks of the job.
    pub sequence: u64,
    /// What it is about.
    pub kind: CallbackKind,
    /// The status it tells.
    pub status: CallbackStatus,
    /// What it says, until its bytes are frozen.
    pub facts: Option<Box<CallbackFacts>>,
    /// The bytes of its body, once frozen.
    pub body: Option<Bytes>,
    /// Where it is.
    pub state: DeliveryState,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// Not before this time.
    pub not_before: Timestamp,
    /// Attempts so far.
    pub attempts: Vec<DeliveryAttempt>,
    /// How many answers refused it, of the kind that says that the receiver does not want it.
    pub refusals: u32,
    /// Why it was given up.
    pub dead_reason: Option<Box<str>>,
}

impl From<JobStatus> for CallbackStatus {
    /// The status that a callback tells of a job in this state; waiting is told as `running`, which it was last.
    fn from(status: JobStatus) -> Self {
        match status {
            JobStatus::Pending | JobStatus::Queued | JobStatus::Running => Self::Running,
            JobStatus::NeedsHuman => Self::NeedsHuman,
            JobStatus::Completed => Self::Completed,
            JobStatus::Failed => Self::Failed,
            JobStatus::Cancelled => Self::Cancelled,
            JobStatus::Expired => Self::Expired,
        }
    }
}
