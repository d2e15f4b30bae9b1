//! What a worker is told at its start.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gh_core::domain::ids::{TargetName, WorkerId};
use secrecy::SecretString;
use url::Url;

use super::host::{Host, SystemHost};

/// Everything a [`Worker`](super::Worker) needs to know. The public fields may be changed before the start.
#[derive(Clone)]
pub struct WorkerConfig {
    /// Where the control plane listens, without `/api/v1`.
    pub base_url: Url,
    /// The worker key, used for registering only.
    pub worker_key: SecretString,
    /// The HTTP client. It should follow no redirects, and it needs no timeout of its own.
    pub client: reqwest::Client,
    /// The worker's name; without one the server gives it one.
    pub worker_id: Option<WorkerId>,
    /// The client's routing key.
    pub target_worker_id: Option<TargetName>,
    /// Where it runs, in the operator's words.
    pub environment: Option<String>,
    /// The machine's id at its provider.
    pub ec2_instance_id: Option<String>,
    /// The machine's address.
    pub ec2_ip: Option<String>,
    /// Where a person can watch the browser.
    pub live_view_url: Option<String>,
    /// The worker's own version.
    pub version: Option<String>,
    /// What the server is told when this process stops: `shutdown`, `deploy`, `scale-down`, or other words.
    pub stop_reason: String,
    /// The clocks and the randomness.
    pub host: Arc<dyn Host>,
    /// How long things may take.
    pub limits: Limits,
}

/// How long a worker waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the answer to an ordinary call (10 s).
    pub request_timeout: Duration,
    /// How long a claim may wait for a job, in whole seconds up to 30 (25 s).
    pub claim_wait: Duration,
    /// The first wait before a call is repeated (200 ms).
    pub backoff_base: Duration,
    /// The longest wait before a call is repeated, unless the server asks for more (5 s).
    pub backoff_cap: Duration,
    /// How long an event waits for others to share its call (200 ms).
    pub event_linger: Duration,
    /// A job that was not held for so long ends (5 min).
    pub give_up_after: Duration,
    /// How long a job past its point of no return may go on when its lease is gone (5 min).
    pub outcome_grace: Duration,
    /// Within what time of *sending* the question a job may act past its point of no return (2 s).
    pub act_within: Duration,
    /// How long a handler is kept waiting for the answer to a usage report (10 s).
    pub usage_patience: Duration,
    /// How long a handler that was ended may clean up (10 s).
    pub clean_up: Duration,
    /// How long a running job may go on after the process was asked to stop (25 s).
    pub stop_grace: Duration,
    /// How long the last calls of a process may take: release, late usage, goodbye (5 s each).
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            claim_wait: Duration::from_secs(25),
            backoff_base: Duration::from_millis(200),
            backoff_cap: Duration::from_secs(5),
            event_linger: Duration::from_millis(200),
            give_up_after: Duration::from_secs(300),
            outcome_grace: Duration::from_secs(300),
            act_within: Duration::from_secs(2),
            usage_patience: Duration::from_secs(10),
            clean_up: Duration::from_secs(10),
            stop_grace: Duration::from_secs(25),
            farewell: Duration::from_secs(5),
        }
    }
}

impl WorkerConfig {
    /// A worker of the given control plane, with the usual limits and nothing said about itself.
    #[must_use]
    pub fn new(base_url: Url, worker_key: SecretString, client: reqwest::Client) -> Self {
        Self {
            base_url,
            worker_key,
            client,
            worker_id: None,
            target_worker_id: None,
            environment: None,
            ec2_instance_id: None,
            ec2_ip: None,
            live_view_url: None,
            version: None,
            stop_reason: "shutdown".to_owned(),
            host: Arc::new(SystemHost),
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for WorkerConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WorkerConfig")
            .field("base_url", &self.base_url.as_str())
            .field("worker_id", &self.worker_id)
            .field("target_worker_id", &self.target_worker_id)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
