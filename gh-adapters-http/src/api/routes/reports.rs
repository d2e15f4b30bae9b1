//! Workers report what happens in their jobs.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use gh_core::domain::commands::{EventOutcome, EventReport, ReportEvents, SideEffectsStarted};
use gh_core::domain::field::{FieldError, Fields};
use gh_core::domain::ids::{Attempt, JobId};
use gh_core::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::body::{JsonBody, json_answer};
use super::super::codes::{ErrorCode, INVALID_REQUEST, JOB_PAUSED};
use super::super::declared::with_items;
use super::super::paths::AttemptPath;
use super::super::problem::Problem;
use super::jobs::check_count;

#[derive(Deserialize, ToSchema)]
pub(in super::super) struct EventsRequest {
    /// At most 500.
    events: Vec<EventRequest>,
}

/// One event.
#[derive(Deserialize, ToSchema)]
struct EventRequest {
    event_type: String,
    /// A sentence for people; cut at 500 characters.
    message: Option<String>,
    /// A JSON object; cut at 8 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    #[schema(value_type = Option<String>, format = DateTime)]
    occurred_at: Option<Timestamp>,
    /// Unique and ascending within an attempt: by it a repetition is known.
    worker_seq: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct EventsView {
    results: Vec<EventResult>,
}

/// What became of one event.
#[derive(Serialize, ToSchema)]
struct EventResult {
    index: usize,
    /// `accepted`, `duplicate` or `refused`
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    code: Option<&'static ErrorCode>,
}

impl EventResult {
    fn new(index: usize, outcome: EventOutcome) -> Self {
        let (outcome, seq, code) = match outcome {
            EventOutcome::Accepted(seq) => ("accepted", Some(seq), None),
            EventOutcome::Duplicate => ("duplicate", None, None),
            EventOutcome::Refused => ("refused", None, Some(&INVALID_REQUEST)),
        };
        Self { index, outcome, seq, code }
    }
}

/// Events of an attempt; each gets an outcome.
#[utoipa::path(
    post,
    path = "/jobs/{job_id}/attempts/{attempt}/events",
    tag = "worker",
    params(("job_id" = Uuid, Path), ("attempt" = u32, Path)),
    request_body = EventsRequest,
    responses((status = OK, body = EventsView)),
    extensions(("x-item-error-codes" = json!([INVALID_REQUEST]))),
)]
pub(in super::super) async fn events(
    State(state): State<Arc<ApiState>>,
    path: AttemptPath,
    JsonBody(body): JsonBody<EventsRequest>,
) -> Result<Response, Problem> {
    check_count("events", body.events.len(), state.limits.batch_items)?;
    let is_object = |metadata: &RawValue| metadata.get().starts_with('{');
    let wrong: Vec<FieldError> = body
        .events
        .iter()
        .enumerate()
        .filter(|(_, event)| !event.metadata.as_deref().is_none_or(is_object))
        .map(|(index, _)| FieldError::new(format!("events[{index}].metadata"), "must be a JSON object"))
        .collect();
    if !wrong.is_empty() {
        return Err(Problem::invalid(wrong));
    }
    let report = ReportEvents {
        who: path.who,
        job_id: path.job_id,
        attempt: path.attempt,
        events: body.events.into_iter().map(EventReport::from).collect(),
    };
    let outcomes = state.control_plane.report_events(&report).await?;
    let results = outcomes.into_iter().enumerate();
    let results: Vec<EventResult> = results.map(|(index, outcome)| EventResult::new(index, outcome)).collect();
    let refused: Vec<_> = results.iter().filter_map(|result| result.code).collect();
    Ok(with_items(json_answer(StatusCode::OK, &EventsView { results }), refused))
}

impl From<EventRequest> for EventReport {
    fn from(event: EventRequest) -> Self {
        Self {
            event_type: event.event_type.into(),
            message: event.message.map(Into::into),
            metadata: event.metadata,
            occurred_at: event.occurred_at,
            worker_seq: event.worker_seq,
        }
    }
}

#[derive(Deserialize, ToSchema)]
pub(in super::super) struct SideEffectsRequest {
    /// What is about to happen; at most 500 characters.
    what: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct SideEffectsView {
    #[schema(value_type = Uuid)]
    job_id: JobId,
    #[schema(value_type = u32)]
    attempt: Attempt,
    side_effects_started: bool,
}

/// The point of no return: the worker acts only after the answer.
#[utoipa::path(
    post,
    path = "/jobs/{job_id}/attempts/{attempt}/side-effects-started",
    tag = "worker",
    params(("job_id" = Uuid, Path), ("attempt" = u32, Path)),
    request_body = SideEffectsRequest,
    responses((status = OK, body = SideEffectsView)),
    extensions(("x-error-codes" = json!([JOB_PAUSED]))),
)]
pub(in super::super) async fn side_effects_started(
    State(state): State<Arc<ApiState>>,
    path: AttemptPath,
    JsonBody(body): JsonBody<SideEffectsRequest>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let what = fields.optional_text("what", body.what.as_deref(), 500);
    fields.finish().map_err(Problem::invalid)?;
    let (job_id, attempt) = (path.job_id, path.attempt);
    let report = SideEffectsStarted { who: path.who, job_id, attempt, what };
    state.control_plane.side_effects_started(&report).await?;
    let view = SideEffectsView { job_id, attempt, side_effects_started: true };
    Ok(json_answer(StatusCode::OK, &view))
}
