//! Clients hand over jobs, cancel them and run them again.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use gh_core::application::{JobAnswer, UseCaseError};
use gh_core::domain::commands::Submitted;
use gh_core::domain::field::Fields;
use gh_core::domain::job::Job;
use gh_core::domain::submission::SubmissionRequest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use url::Url;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::Client;
use super::super::body::{self, ItemsBody, JsonBody, json_answer};
use super::super::codes::{
    CALLBACK_URL_REFUSED, IDEMPOTENCY_KEY_REUSED, INTERNAL_ERROR, INVALID_REQUEST, JOB_NOT_CANCELLABLE, JOB_NOT_FOUND,
    JOB_NOT_RETRYABLE, PAYLOAD_TOO_LARGE, SIDE_EFFECTS_STARTED, UNAVAILABLE, WORKER_UNAVAILABLE,
};
use super::super::context::RequestId;
use super::super::declared::with_items;
use super::super::paths::JobPath;
use super::super::problem::{Problem, ProblemBody};
use super::super::views::{JobSubmission, JobView};

/// Submits a job.
#[utoipa::path(
    post,
    path = "/jobs",
    tag = "jobs",
    request_body = JobSubmission,
    responses(
        (status = CREATED, body = JobView),
        (status = OK, body = JobView, description = "Submitted before with the same key and body."),
    ),
    extensions(("x-error-codes" = json!([WORKER_UNAVAILABLE, IDEMPOTENCY_KEY_REUSED, CALLBACK_URL_REFUSED]))),
)]
pub(in super::super) async fn submit(
    State(state): State<Arc<ApiState>>,
    client: Client,
    JsonBody(JobSubmission(request)): JsonBody<JobSubmission>,
) -> Result<Response, Problem> {
    vet_callback(&state, &request)?;
    let submitted = state.control_plane.submit(&client.0, request).await?;
    let job = with_waiting(&state, Arc::clone(&submitted.job)).await?;
    let (status, view) = answer(&submitted, &job)?;
    Ok(json_answer(status, &view))
}

/// Refuses a callback URL that may not be called. One that is no web address at all is left to the other checks.
fn vet_callback(state: &ApiState, request: &SubmissionRequest) -> Result<(), Problem> {
    let url = request.callback_url.as_deref().and_then(|url| Url::parse(url).ok());
    let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) else {
        return Ok(());
    };
    state.callback_guard.permits(&url).map_err(|refused| {
        let detail = format!("The callback_url may not be called: {refused}.");
        Problem::new(&CALLBACK_URL_REFUSED, detail).naming("callback_url", refused.to_string())
    })
}

async fn with_waiting(state: &ApiState, job: Arc<Job>) -> Result<JobAnswer, Problem> {
    let mut answers = state.control_plane.with_waiting(vec![job]).await?;
    answers.pop().ok_or_else(Problem::internal)
}

/// The answer to a submission; a strict job that was recorded as failed is a problem that carries the job.
fn answer<'j>(submitted: &Submitted, job: &'j JobAnswer) -> Result<(StatusCode, JobView<'j>), Problem> {
    let view = JobView::of(job).duplicate(submitted.duplicate);
    match &submitted.worker_status {
        Some(worker_status) => {
            let detail = format!("No worker of the target can take the job ({worker_status}).");
            let problem = Problem::new(&WORKER_UNAVAILABLE, detail)
                .with("job_id", &job.job.id)
                .with("valet_task_id", &job.job.spec.valet_task_id)
                .with("job_status", &job.job.status())
                .with("worker_status", worker_status)
                .with("job", &view);
            Err(if submitted.duplicate { problem.with("duplicate", &true) } else { problem })
        }
        None if submitted.duplicate => Ok((StatusCode::OK, view)),
        None => Ok((StatusCode::CREATED, view)),
    }
}

/// Jobs to submit together.
#[derive(Deserialize, ToSchema)]
pub(in super::super) struct Batch {
    /// At most 500.
    #[schema(value_type = Vec<JobSubmission>)]
    jobs: Vec<Box<RawValue>>,
}

#[derive(Serialize, ToSchema)]
struct BatchAnswer<'b> {
    results: Vec<BatchResult<'b>>,
}

/// What became of one job of a batch.
#[derive(Serialize, ToSchema)]
struct BatchResult<'b> {
    index: usize,
    /// The HTTP status that the job would have had alone.
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<JobView>)]
    job: Option<&'b JobView<'b>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    error: Option<ProblemBody<'b>>,
}

/// Submits many jobs; one that is refused fails alone.
#[utoipa::path(
    post,
    path = "/jobs/batch",
    tag = "jobs",
    request_body = Batch,
    responses((status = OK, body = BatchAnswer)),
    extensions(("x-item-error-codes" = json!([WORKER_UNAVAILABLE, IDEMPOTENCY_KEY_REUSED, CALLBACK_URL_REFUSED, INVALID_REQUEST, INTERNAL_ERROR, UNAVAILABLE]))),
)]
pub(in super::super) async fn submit_batch(
    State(state): State<Arc<ApiState>>,
    client: Client,
    request_id: RequestId,
    items: ItemsBody<Batch>,
) -> Result<Response, Problem> {
    let ItemsBody { body, route } = items;
    check_count("jobs", body.jobs.len(), state.limits.batch_items)?;
    let read = body.jobs.iter().map(|item| read_item(&state, &route, item));
    let read: Vec<Result<SubmissionRequest, Problem>> = read.collect();
    let mut refused = Vec::with_capacity(read.len());
    let mut requests = Vec::with_capacity(read.len());
    for item in read {
        refused.push(item.map(|request| requests.push(Ok(request))).err());
    }
    let mut submitted = VecDeque::from(state.control_plane.submit_batch(&client.0, requests).await);
    let submitted: Vec<Result<Submitted, Problem>> = refused
        .into_iter()
        .map(|refused| match refused {
            Some(problem) => Err(problem),
            None => submitted.pop_front().map_or_else(|| Err(Problem::internal()), |item| item.map_err(Problem::from)),
        })
        .collect();
    let jobs = submitted.iter().flatten().map(|item| Arc::clone(&item.job));
    let jobs = state.control_plane.with_waiting(jobs.collect()).await?;
    let mut jobs = jobs.iter();
    let answers: Vec<Result<(StatusCode, JobView<'_>), Problem>> =
        submitted.into_iter().map(|item| answer(&item?, jobs.next().ok_or_else(Problem::internal)?)).collect();
    let results = answers.iter().enumerate().map(|(index, item)| match item {
        Ok((status, view)) => BatchResult { index, status: status.as_u16(), job: Some(view), error: None },
        Err(problem) => BatchResult {
            index,
            status: problem.code().status().as_u16(),
            job: None,
            error: Some(problem.body(request_id.as_str())),
        },
    });
    let results = results.collect();
    let response = json_answer(StatusCode::OK, &BatchAnswer { results });
    Ok(with_items(response, answers.iter().filter_map(|item| item.as_ref().err()).map(Problem::code)))
}

fn read_item(state: &ApiState, route: &str, item: &RawValue) -> Result<SubmissionRequest, Problem> {
    body::refuse_nul(item.get())?;
    let JobSubmission(request) = body::parse(item.get(), state, route)?;
    vet_callback(state, &request)?;
    Ok(request)
}

/// Refuses a list with too many items.
pub(super) fn check_count(field: &str, count: usize, limit: usize) -> Result<(), Problem> {
    if count <= limit {
        return Ok(());
    }
    Err(Problem::new(&PAYLOAD_TOO_LARGE, format!("{field} may have at most {limit} items.")))
}

#[derive(Deserialize, ToSchema)]
pub(in super::super) struct Cancellation {
    /// At most 500 characters.
    reason: Option<String>,
}

/// Cancels a job: final at once.
#[utoipa::path(
    post,
    path = "/jobs/{job_id}/cancel",
    tag = "jobs",
    params(("job_id" = uuid::Uuid, Path)),
    request_body = Cancellation,
    responses((status = OK, body = JobView)),
    extensions(("x-error-codes" = json!([JOB_NOT_FOUND, JOB_NOT_CANCELLABLE]))),
)]
pub(in super::super) async fn cancel(
    State(state): State<Arc<ApiState>>,
    client: Client,
    JobPath(job_id): JobPath,
    JsonBody(body): JsonBody<Cancellation>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let reason = fields.optional_text("reason", body.reason.as_deref(), 500);
    fields.finish().map_err(Problem::invalid)?;
    let job = state.control_plane.cancel(&client.0, job_id, reason).await?;
    job_answer(&state, job).await
}

#[derive(Deserialize, ToSchema)]
pub(in super::super) struct RetryRequest {
    /// The run that is retried; another one than the latest is refused.
    run: Option<i64>,
    /// Past the point of no return: somebody looked whether it happened.
    side_effects_checked: Option<bool>,
}

/// Runs a failed or cancelled job again.
#[utoipa::path(
    post,
    path = "/jobs/{job_id}/retry",
    tag = "jobs",
    params(("job_id" = uuid::Uuid, Path)),
    request_body = RetryRequest,
    responses((status = OK, body = JobView)),
    extensions(("x-error-codes" = json!([JOB_NOT_FOUND, JOB_NOT_RETRYABLE, SIDE_EFFECTS_STARTED, WORKER_UNAVAILABLE]))),
)]
pub(in super::super) async fn retry(
    State(state): State<Arc<ApiState>>,
    client: Client,
    JobPath(job_id): JobPath,
    JsonBody(body): JsonBody<RetryRequest>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let run = fields.number("run", body.run, 1..=i64::from(u32::MAX));
    fields.finish().map_err(Problem::invalid)?;
    let run = run.and_then(|run| u32::try_from(run).ok());
    let checked = body.side_effects_checked.unwrap_or(false);
    let retried = state.control_plane.retry(&client.0, job_id, run, checked).await;
    let job = retried.map_err(|error| match error {
        UseCaseError::Rejected(rejection) => Problem::from(rejection).with("job_id", &job_id),
        other => other.into(),
    })?;
    job_answer(&state, job).await
}

/// A job as the whole answer.
pub(super) async fn job_answer(state: &ApiState, job: Arc<Job>) -> Result<Response, Problem> {
    let answer = with_waiting(state, job).await?;
    Ok(json_answer(StatusCode::OK, &JobView::of(&answer)))
}
