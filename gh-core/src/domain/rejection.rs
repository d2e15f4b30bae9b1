//! Why a command was refused: the rules said no, nothing went wrong.

use super::field::FieldError;
use super::ids::{Attempt, JobId};
use super::job::JobStatus;
use super::time::Timestamp;

/// A refusal by the rules. Each is one code of the API, with what a caller needs to act on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Fields are missing or out of range.
    #[error("the request has fields that are missing or out of range")]
    Invalid(Vec<FieldError>),
    /// Nothing has this id.
    #[error("there is no job with this id")]
    JobNotFound,
    /// Nothing has this name.
    #[error("no worker has, or ever had, this name")]
    WorkerNotFound,
    /// The name was never heard of.
    #[error("no worker ever registered under this name")]
    NameNotFound,
    /// The key was used for another submission.
    #[error("this idempotency_key was used for a submission with another body")]
    IdempotencyKeyReused,
    /// A strict job's target cannot take it.
    #[error("no worker of the target can take the job ({worker_status})")]
    WorkerUnavailable {
        /// What the workers of the target do instead.
        worker_status: &'static str,
    },
    /// The run is over.
    #[error("the job is {} and cannot be cancelled", status.as_str())]
    JobNotCancellable {
        /// Its status.
        status: JobStatus,
    },
    /// The job cannot be run again now.
    #[error("the job cannot be retried: {reason}")]
    JobNotRetryable {
        /// Why.
        reason: &'static str,
    },
    /// The run passed its point of no return.
    #[error(
        "the run passed its point of no return: look whether it happened, then retry with \
         side_effects_checked: true"
    )]
    SideEffectsStarted,
    /// A person is waited for.
    #[error("the job is paused for a person: wait for resume_job")]
    JobPaused,
    /// The attempt is not the worker's any more.
    #[error("this attempt is not the current one of the job, or it ended otherwise: stop working on it")]
    StaleLease,
    /// Another process has the name, or this one was given up.
    #[error("this registration was replaced by a newer one or given up as offline: register again")]
    StaleGeneration,
    /// The worker still holds a job that it knows of.
    #[error("this worker holds job {job_id}, attempt {attempt}: go on with it or release it")]
    LeaseHeld {
        /// The job.
        job_id: JobId,
        /// The attempt.
        attempt: Attempt,
    },
    /// The worker takes no more jobs.
    #[error("this worker is draining and gets no more jobs")]
    WorkerDraining,
    /// There is no drain to take back.
    #[error("this worker is not draining, or is being deregistered")]
    WorkerNotDraining,
    /// Two living processes fight for one name.
    #[error("two living processes use this worker_id: give each its own")]
    WorkerIdContested {
        /// When to try again.
        retry_at: Timestamp,
    },
    /// The process, or its name, was retired.
    #[error("this worker was deregistered, or its name is held by a deregistration")]
    WorkerDeregistered {
        /// When the name is free; none for a process that never comes back.
        retry_at: Option<Timestamp>,
    },
}

impl Rejection {
    /// The code of the API.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::JobNotFound => "JOB_NOT_FOUND",
            Self::WorkerNotFound => "WORKER_NOT_FOUND",
            Self::NameNotFound => "NOT_FOUND",
            Self::IdempotencyKeyReused => "IDEMPOTENCY_KEY_REUSED",
            Self::WorkerUnavailable { .. } => "WORKER_UNAVAILABLE",
            Self::JobNotCancellable { .. } => "JOB_NOT_CANCELLABLE",
            Self::JobNotRetryable { .. } => "JOB_NOT_RETRYABLE",
            Self::SideEffectsStarted => "SIDE_EFFECTS_STARTED",
            Self::JobPaused => "JOB_PAUSED",
            Self::StaleLease => "STALE_LEASE",
            Self::StaleGeneration => "STALE_GENERATION",
            Self::LeaseHeld { .. } => "LEASE_HELD",
            Self::WorkerDraining => "WORKER_DRAINING",
            Self::WorkerNotDraining => "WORKER_NOT_DRAINING",
            Self::WorkerIdContested { .. } => "WORKER_ID_CONTESTED",
            Self::WorkerDeregistered { .. } => "WORKER_DEREGISTERED",
        }
    }

    /// When it is worth trying again, where that is known.
    #[must_use]
    pub const fn retry_at(&self) -> Option<Timestamp> {
        match self {
            Self::WorkerIdContested { retry_at } => Some(*retry_at),
            Self::WorkerDeregistered { retry_at } => *retry_at,
            _ => None,
        }
    }
}
