//! What a user of the runtime writes: something that performs jobs.

use async_trait::async_trait;
use gh_core::domain::ids::JobId;
use serde::Serialize;
use serde_json::value::RawValue;

use super::context::{Interrupted, JobContext};
use super::wire::ClaimedJob;

/// Performs jobs, one at a time.
#[async_trait]
pub trait JobHandler: Send + Sync + 'static {
    /// Performs one job.
    ///
    /// Call [`JobContext::checkpoint`] before every act on the page and before every LLM call, and
    /// [`JobContext::side_effects_started`] right before what must not happen twice. When the job is cancelled or
    /// lost, this future is dropped at its next `await`; [`JobContext::cancelled`] tells tasks of its own.
    ///
    /// # Errors
    ///
    /// [`Failure`], which is reported as the attempt's outcome. A panic counts as a retryable `internal_error`.
    async fn run(&self, job: ClaimedJob, context: JobContext) -> Result<Completion, Failure>;

    /// Closes what a job left open. It is called, with a time limit, after [`run`](Self::run) was dropped or panicked,
    /// and before the control plane hears that the worker is free.
    async fn clean_up(&self, _job_id: JobId) {}
}

/// A job that was done.
#[derive(Debug, Clone, Default)]
pub struct Completion {
    /// What the client gets.
    pub result_data: Option<Box<RawValue>>,
    /// The same in a sentence.
    pub result_summary: Option<String>,
    /// How many acts were made on the page.
    pub action_count: Option<u64>,
    /// How many LLM calls were made; `Some(0)` makes a cost of zero believable.
    pub llm_calls: Option<u64>,
}

impl Completion {
    /// With a sentence for the client.
    #[must_use]
    pub fn new(summary: impl Into<String>) -> Self {
        Self { result_summary: Some(summary.into()), ..Self::default() }
    }

    /// With data for the client. Data that JSON cannot hold is left out.
    #[must_use]
    pub fn data(mut self, data: impl Serialize) -> Self {
        self.result_data = serde_json::value::to_raw_value(&data).ok();
        self
    }
}

/// A job that could not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error_code}: {error_message}")]
pub struct Failure {
    /// One of API.md's codes or the worker's own, `^[A-Za-z0-9_]{1,64}$`.
    pub error_code: String,
    /// The same in words.
    pub error_message: String,
    /// Another attempt may help.
    pub retryable: bool,
    /// How many acts were made on the page.
    pub action_count: Option<u64>,
    /// How many LLM calls were made.
    pub llm_calls: Option<u64>,
}

impl Failure {
    /// A failure that another attempt would meet again.
    #[must_use]
    pub fn new(error_code: impl Into<String>, error_message: impl Into<String>) -> Self {
        Self {
            error_code: error_code.into(),
            error_message: error_message.into(),
            retryable: false,
            action_count: None,
            llm_calls: None,
        }
    }

    /// Another attempt may help.
    #[must_use]
    pub const fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }
}

impl From<Interrupted> for Failure {
    fn from(interrupted: Interrupted) -> Self {
        Self::new("internal_error", interrupted.to_string())
    }
}
