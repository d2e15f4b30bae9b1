//! Workers report how an attempt ended.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use gh_core::domain::code::ErrorCode;
use gh_core::domain::commands::{FailureReport, JobLeft, Report, ReportOutcome, UsageClosing};
use gh_core::domain::field::{FieldError, Fields};
use gh_core::domain::ids::{Attempt, JobId};
use gh_core::domain::job::{Completion, JobStatus};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::body::{JsonBody, json_answer};
use super::super::codes::JOB_PAUSED;
use super::super::paths::AttemptPath;
use super::super::problem::Problem;
use super::jobs::check_count;

/// The greatest count of actions or calls that a worker may claim.
const MAX_COUNT: i64 = 1_000_000_000;

#[derive(Serialize, ToSchema)]
struct OutcomeView {
    #[schema(value_type = Uuid)]
    job_id: JobId,
    /// The job's status after the report.
    #[schema(value_type = String)]
    status: JobStatus,
    #[schema(value_type = u32)]
    attempt: Attempt,
    /// Whether the job will be tried again by itself.
    will_retry: bool,
}

async fn report(state: &ApiState, path: AttemptPath, report: Report) -> Result<Response, Problem> {
    let job_id = path.job_id;
    let report = ReportOutcome { who: path.who, job_id, attempt: path.attempt, report };
    let answer = state.control_plane.report_outcome(&report).await?;
    let view = OutcomeView { job_id, status: answer.status, attempt: answer.attempt, will_retry: answer.will_retry };
    Ok(json_answer(StatusCode::OK, &view))
}

/// What the worker says of its LLM calls at the end.
fn closing(
    fields: &mut Fields,
    action_count: Option<i64>,
    llm_calls: Option<i64>,
    calls_in_flight: Vec<String>,
) -> Result<UsageClosing, Problem> {
    let fits = |call: &str| (1..=255).contains(&call.chars().count());
    let wrong: Vec<FieldError> = calls_in_flight
        .iter()
        .enumerate()
        .filter(|(_, call)| !fits(call))
        .map(|(index, _)| FieldError::new(format!("calls_in_flight[{index}]"), "must have 1 to 255 characters"))
        .collect();
    if !wrong.is_empty() {
        return Err(Problem::invalid(wrong));
    }
    let mut count = |field, count| fields.number(field, count, 0..=MAX_COUNT).map(i64::unsigned_abs);
    Ok(UsageClosing {
        action_count: count("action_count", action_count),
        llm_calls: count("llm_calls", llm_calls),
        calls_in_flight: calls_in_flight.into_iter().map(Into::into).collect(),
    })
}

#[derive(Deserialize, ToSchema)]
pub(in super::super) struct CompleteRequest {
    /// Opaque.
    #[schema(value_type = Option<Object>)]
    result_data: Option<Box<RawValue>>,
    /// One sentence for people; at most 2,000 characters.
    result_summary: Option<String>,
    screenshot_artifact_id: Option<String>,
    action_count: Option<i64>,
    /// 0 says that no usage is to be expected.
    llm_calls: Option<i64>,
    /// Calls whose usage is still to come; at most 500.
    #[serde(default)]
    calls_in_flight: Vec<String>,
}

/// The job is done.
#[utoipa::path(
    post,
    path = "/jobs/{job_id}/attempts/{attempt}/complete",
    tag = "worker",
    params(("job_id" = Uuid, Path), ("attempt" = u32, Path)),
    request_body = CompleteRequest,
    responses((status = OK, body = OutcomeView)),
    extensions(("x-error-codes" = json!([JOB_PAUSED]))),
)]
pub(in super::super) async fn complete(
    State(state): State<Arc<ApiState>>,
    path: AttemptPath,
    JsonBody(body): JsonBody<CompleteRequest>,
) -> Result<Response, Problem> {
    check_count("calls_in_flight", body.calls_in_flight.len(), state.limits.batch_items)?;
    let mut fields = Fields::default();
    let completion = Completion {
        result_data: body.result_data.map(Into::into),
        result_summary: fields.optional_text("result_summary", body.result_summary.as_deref(), 2000),
        screenshot_artifact_id: fields.optional_text(
            "screenshot_artifact_id",
            body.screenshot_artifact_id.as_deref(),
            255,
        ),
    };
    let closing = closing(&mut fields, body.action_count, body.llm_calls, body.calls_in_flight)?;
    fields.finish().map_err(Problem::invalid)?;
    report(&state, path, Report::Complete(completion, closing)).await
}

#[derive(Deserialize, ToSchema)]
pub(in super::super) struct FailRequest {
    /// `^[A-Za-z0-9_]{1,64}$`
    error_code: Option<String>,
    /// For people; 1 to 2,000 characters.
    error_message: Option<String>,
    /// Whether another attempt may help.
    retryable: bool,
    action_count: Option<i64>,
    /// 0 says that no usage is to be expected.
    llm_calls: Option<i64>,
    /// Calls whose usage is still to come; at most 500.
    #[serde(default)]
    calls_in_flight: Vec<String>,
}

/// The attempt did not work.
#[utoipa::path(
    post,
    path = "/jobs/{job_id}/attempts/{attempt}/fail",
    tag = "worker",
    params(("job_id" = Uuid, Path), ("attempt" = u32, Path)),
    request_body = FailRequest,
    responses((status = OK, body = OutcomeView))
)]
pub(in super::super) async fn fail(
    State(state): State<Arc<ApiState>>,
    path: AttemptPath,
    JsonBody(body): JsonBody<FailRequest>,
) -> Result<Response, Problem> {
    check_count("calls_in_flight", body.calls_in_flight.len(), state.limits.batch_items)?;
    let mut fields = Fields::default();
    let error_code = fields.required("error_code", body.error_code.as_deref(), |text| {
        ErrorCode::parse(text).ok_or_else(|| "must have 1 to 64 letters, digits or underscores".into())
    });
    let error_message = fields.required_text("error_message", body.error_message.as_deref(), 2000);
    let closing = closing(&mut fields, body.action_count, body.llm_calls, body.calls_in_flight)?;
    let (Some(error_code), Some(error_message)) = (error_code, error_message) else {
        return Err(Problem::invalid(fields.into_errors()));
    };
    fields.finish().map_err(Problem::invalid)?;
    let failure = FailureReport { error_code, error_message, retryable: body.retryable };
    report(&state, path, Report::Fail(failure, closing)).await
}

#[derive(Deserialize, ToSchema)]
pub(in super::super) struct ReleaseRequest {
    /// Why; at most 500 characters.
    reason: Option<String>,
}

/// The job is given back unfinished, because the worker shuts down.
#[utoipa::path(
    post,
    path = "/jobs/{job_id}/attempts/{attempt}/release",
    tag = "worker",
    params(("job_id" = Uuid, Path), ("attempt" = u32, Path)),
    request_body = ReleaseRequest,
    responses((status = OK, body = OutcomeView))
)]
pub(in super::super) async fn release(
    State(state): State<Arc<ApiState>>,
    path: AttemptPath,
    JsonBody(body): JsonBody<ReleaseRequest>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let reason = fields.required_text("reason", body.reason.as_deref(), 500);
    fields.finish().map_err(Problem::invalid)?;
    let left = JobLeft { reason: reason.unwrap_or_default() };
    report(&state, path, Report::Release(left)).await
}
