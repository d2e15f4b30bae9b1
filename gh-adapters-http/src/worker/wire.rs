//! The bodies of the worker routes. Unknown fields are ignored and unknown words kept, because servers and workers of
//! different ages meet.

use std::collections::BTreeMap;
use std::time::Duration;

use gh_core::domain::ids::{Attempt, DirectiveId, Generation, JobId, TargetName, WorkerId};
use gh_core::domain::time::Timestamp;
use gh_core::domain::usd::Usd;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// Body of `POST /workers/register`.
#[derive(Debug, Clone, Serialize)]
pub struct RegisterRequest {
    /// The name the worker wants, or none to be given one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    /// Random per process start.
    pub boot_id: Uuid,
    /// Where it runs, in the operator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The client's routing key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_worker_id: Option<TargetName>,
    /// The machine's id at its provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ec2_instance_id: Option<String>,
    /// The machine's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ec2_ip: Option<String>,
    /// Where a person can watch the browser.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_view_url: Option<String>,
    /// The worker's own version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Answer to a registration.
#[derive(Debug, Clone, Deserialize)]
pub struct Registration {
    /// The name it has from now on.
    pub worker_id: WorkerId,
    /// Which life of that name this is.
    pub generation: Generation,
    /// What every further call presents.
    pub token: SecretString,
    /// How often to send a heartbeat.
    #[serde(rename = "heartbeat_interval_seconds", deserialize_with = "seconds")]
    pub heartbeat_interval: Duration,
    /// After how long without `held` a job is frozen.
    #[serde(rename = "self_fence_after_seconds", deserialize_with = "seconds")]
    pub self_fence_after: Duration,
    /// After how long without a sign of life the server gives the worker up.
    #[serde(rename = "offline_after_seconds", deserialize_with = "seconds")]
    pub offline_after: Duration,
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    let duration =
        Duration::try_from_secs_f64(seconds).map_err(|_| serde::de::Error::custom("expected a number of seconds"))?;
    if duration.is_zero() {
        return Err(serde::de::Error::custom("expected more than no time"));
    }
    Ok(duration)
}

/// Body of a heartbeat.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HeartbeatRequest {
    /// Resident memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_usage: Option<u64>,
    /// Left out: says nothing about the job. `Some(None)` is `null`: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_job_id: Option<Option<JobId>>,
    /// The page that the browser shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_task_url: Option<String>,
    /// The browser's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub browser_session_id: Option<String>,
    /// The worker takes no more jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draining: Option<DrainNotice>,
    /// Directives that were obeyed or ignored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acknowledged: Vec<DirectiveId>,
}

/// Why a worker takes no more jobs.
#[derive(Debug, Clone, Serialize)]
pub struct DrainNotice {
    /// `shutdown`, `deploy`, `scale-down`, or words of the operator.
    pub reason: String,
}

/// Answer to a heartbeat.
#[derive(Debug, Deserialize)]
pub struct HeartbeatAnswer {
    /// How the server sees this worker.
    pub status: WorkerStatus,
    /// What it says about the job that the heartbeat named.
    pub lease: LeaseState,
    /// The attempt of the lease that the server has for this worker.
    pub attempt: Option<Attempt>,
    /// What the worker should do; each is read by itself, so that one of an unknown form spoils no other.
    #[serde(default)]
    pub directives: Vec<Box<RawValue>>,
}

/// A worker's status.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    /// Without a job.
    Idle,
    /// With a job.
    Busy,
    /// Takes no more jobs.
    Draining,
    /// Given up.
    Offline,
    /// A word of a newer server.
    #[serde(untagged)]
    Other(String),
}

/// What a heartbeat's answer says about the job that was named.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// This worker holds it.
    Held,
    /// It does not any more.
    Lost,
    /// No job was named.
    None,
    /// A word of a newer server.
    #[serde(untagged)]
    Other(String),
}

/// One instruction of the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Directive {
    /// Its id: repeated deliveries carry the same.
    pub id: DirectiveId,
    /// What to do.
    #[serde(rename = "type")]
    pub kind: DirectiveKind,
    /// The registration it is meant for.
    pub generation: Generation,
    /// The job it is about.
    pub job_id: Option<JobId>,
    /// The attempt it is about.
    pub attempt: Option<Attempt>,
    /// Why, in words.
    pub reason: Option<String>,
}

/// What a directive asks for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectiveKind {
    /// End the job without a further act.
    CancelJob,
    /// A person has done their part.
    ResumeJob,
    /// Take a fresh picture for the person who looks.
    TakeScreenshot,
    /// A person has taken the interaction.
    InteractionClaimed,
    /// Finish the job and take no more.
    Drain,
    /// Exit.
    Shutdown,
    /// A word of a newer server.
    #[serde(untagged)]
    Other(String),
}

/// Answer to a claim: the job and the lease on it.
#[derive(Debug, Clone, Deserialize)]
pub struct ClaimedJob {
    /// What to do.
    pub job: Job,
    /// The fence that every report names.
    pub attempt: Attempt,
    /// Until when the lease lasts without a sign of life; for information.
    pub lease_expires_at: Option<Timestamp>,
}

/// A job as its worker gets it.
#[derive(Debug, Clone, Deserialize)]
pub struct Job {
    /// Its id.
    pub job_id: JobId,
    /// The client's id for it.
    #[serde(default)]
    pub valet_task_id: String,
    /// The person it is for.
    pub valet_user_id: Option<Uuid>,
    /// What kind of job it is.
    #[serde(default)]
    pub job_type: String,
    /// The page it is about.
    #[serde(default)]
    pub target_url: String,
    /// The task in words.
    #[serde(default)]
    pub task_description: String,
    /// The person's data, as the client sent it.
    pub profile: Option<Box<RawValue>>,
    /// The job's data, as the client sent it.
    pub input_data: Option<Box<RawValue>>,
    /// Which run of the job this is.
    #[serde(default)]
    pub run: u32,
    /// How long the attempt may take.
    #[serde(default)]
    pub timeout_seconds: u64,
    /// How much the LLM calls of the job may cost.
    pub budget_usd: Option<Usd>,
    /// The routing key that the client asked for.
    pub target_worker_id: Option<TargetName>,
}

/// One event as it is sent.
#[derive(Debug, Clone, Serialize)]
pub struct EventReport {
    /// What happened.
    pub event_type: String,
    /// A sentence that a person can read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Details.
    pub metadata: BTreeMap<String, Box<RawValue>>,
    /// When it happened, by the worker's clock.
    pub occurred_at: Timestamp,
    /// Its place in the order of this attempt, from 0.
    pub worker_seq: u64,
}

/// Answer to a batch of events.
#[derive(Debug, Deserialize)]
pub struct EventsAnswer {
    /// One per event.
    #[serde(default)]
    pub results: Vec<ReportResult>,
}

/// What became of one event or one call of a batch.
#[derive(Debug, Deserialize)]
pub struct ReportResult {
    /// The call that it is about, for usage.
    pub call_id: Option<String>,
    /// `accepted`, `duplicate`, `recorded`, `refused` and so on.
    pub outcome: String,
    /// Why it was refused.
    pub code: Option<String>,
}

/// One LLM call.
#[derive(Debug, Clone, Serialize)]
pub struct UsageCall {
    /// The provider's id of the call; reported twice it counts once.
    pub call_id: String,
    /// Who answered it.
    pub provider: String,
    /// Which model.
    pub model: String,
    /// When; it decides the price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<Timestamp>,
    /// Disjoint token counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<TokenCounts>,
    /// The provider's own usage object, instead of `usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_usage: Option<Box<RawValue>>,
    /// `standard`, `batch`, `flex` or `priority`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// Where it was computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference_geo: Option<String>,
    /// `fast` or `standard`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
    /// How many web searches it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_searches: Option<u64>,
    /// What the worker believes it cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_cost_usd: Option<Usd>,
}

/// Token counts of one call. No token is in two of them, but `reasoning` is part of `output`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TokenCounts {
    /// Read neither from nor into a cache.
    pub input: u64,
    /// Read from a cache.
    pub cache_read: u64,
    /// Written to a cache for five minutes.
    pub cache_write_5m: u64,
    /// Written to a cache for an hour.
    pub cache_write_1h: u64,
    /// Everything the model wrote.
    pub output: u64,
    /// The part of `output` that was reasoning.
    pub reasoning: u64,
}

/// Answer to a usage report.
#[derive(Debug, Deserialize)]
pub struct UsageAnswer {
    /// One per call.
    #[serde(default)]
    pub results: Vec<ReportResult>,
    /// No further LLM call is allowed.
    #[serde(default)]
    pub stop: bool,
}

/// Body of `complete`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CompleteRequest {
    /// What the client gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_data: Option<Box<RawValue>>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_summary: Option<String>,
    /// How many acts the worker made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action_count: Option<u64>,
    /// How many LLM calls it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llm_calls: Option<u64>,
    /// Calls whose usage is still to come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls_in_flight: Vec<String>,
}

/// Body of `fail`.
#[derive(Debug, Clone, Serialize)]
pub struct FailRequest {
    /// A code of 1–64 letters, digits and underscores.
    pub error_code: String,
    /// The same in words.
    pub error_message: String,
    /// Another attempt may help.
    pub retryable: bool,
    /// How many acts the worker made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action_count: Option<u64>,
    /// How many LLM calls it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llm_calls: Option<u64>,
    /// Calls whose usage is still to come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls_in_flight: Vec<String>,
}

/// Body of `release` and of a goodbye.
#[derive(Debug, Clone, Serialize)]
pub struct ReasonRequest {
    /// Why.
    pub reason: String,
}

/// An answer whose content does not matter to the worker.
#[derive(Debug, Deserialize)]
pub struct Acknowledgement {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_fields_of_a_newer_server_are_taken() {
        let answer: HeartbeatAnswer = serde_json::from_str(
            r#"{"status":"hibernating","lease":"shared","directives":[{"type":"dance"}],"weather":"fine"}"#,
        )
        .unwrap();
        assert_eq!(answer.status, WorkerStatus::Other("hibernating".into()));
        assert_eq!(answer.lease, LeaseState::Other("shared".into()));
        assert_eq!(answer.directives.len(), 1);
    }

    #[test]
    fn a_heartbeat_says_nothing_or_null_or_a_job() {
        let json = |current_job_id| {
            serde_json::to_string(&HeartbeatRequest { current_job_id, ..HeartbeatRequest::default() }).unwrap()
        };
        assert_eq!(json(None), "{}");
        assert_eq!(json(Some(None)), r#"{"current_job_id":null}"#);
    }
}
