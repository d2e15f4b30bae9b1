//! The body of a callback as it goes over the wire.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{CallbackFacts, CallbackStatus};
use crate::domain::code::ErrorCode;
use crate::domain::cost::CostBlock;
use crate::domain::ids::{Attempt, DeliveryId, InteractionId, JobId, WorkerId};
use crate::domain::job::Job;
use crate::domain::submission::JobSpec;
use crate::domain::time::Timestamp;

/// The body of a callback as it goes over the wire.
#[derive(Serialize)]
struct CallbackBody<'c> {
    event_id: DeliveryId,
    sequence: u64,
    job_id: JobId,
    valet_task_id: &'c str,
    status: CallbackStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<&'c WorkerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_worker_id: Option<&'c str>,
    worker_affinity: &'static str,
    run: u32,
    attempt: Attempt,
    side_effects_started: bool,
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<&'c CostBlock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interaction_id: Option<InteractionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved_by: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_view_url: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kasm_url: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_data: Option<&'c RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_summary: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    screenshot_artifact_id: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'c ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<Timestamp>,
}

/// Writes the bytes that every attempt sends.
pub(super) fn render(
    job: &Job,
    id: DeliveryId,
    sequence: u64,
    facts: &CallbackFacts,
    cost: Option<&CostBlock>,
) -> Bytes {
    let spec: &JobSpec = &job.spec;
    let completion = facts.completion.as_deref();
    let error = facts.error.as_ref();
    let body = CallbackBody {
        event_id: id,
        sequence,
        job_id: job.id,
        valet_task_id: &spec.valet_task_id,
        status: facts.status,
        worker_id: facts.worker_id.as_ref(),
        target_worker_id: spec.routing.target().map(|target| target.as_str()),
        worker_affinity: spec.routing.affinity(),
        run: facts.run,
        attempt: facts.attempt,
        side_effects_started: facts.side_effects_started,
        timestamp: facts.timestamp,
        cost,
        interaction_id: facts.interaction_id,
        resolved_by: facts.resolved_by.as_deref(),
        live_view_url: facts.live_view_url.as_deref(),
        kasm_url: facts.live_view_url.as_deref(),
        result_data: completion.and_then(|completion| completion.result_data.as_deref()),
        result_summary: completion.and_then(|completion| completion.result_summary.as_deref()),
        screenshot_artifact_id: completion.and_then(|completion| completion.screenshot_artifact_id.as_deref()),
        error_code: error.map(|(code, _)| code),
        error_message: error.map(|(_, message)| &**message),
        completed_at: facts.completed_at,
    };
    let bytes = serde_json::to_vec(&body);
    debug_assert!(bytes.is_ok(), "{:?}", bytes.as_ref().err());
    bytes.unwrap_or_default().into()
}
