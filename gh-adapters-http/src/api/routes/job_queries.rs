//! Clients look at jobs.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use gh_core::domain::event::{EventType, JobEvent};
use gh_core::domain::job::JobStatus;
use gh_core::domain::time::Timestamp;
use gh_core::ports::reader::{JobEventQuery, JobPosition, JobQuery};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::body::json_answer;
use super::super::codes::{INVALID_CURSOR, INVALID_REQUEST, JOB_NOT_FOUND};
use super::super::paths::JobPath;
use super::super::problem::Problem;
use super::super::query::{self, Query};
use super::super::views::{CallbackView, JobView};
use super::jobs::job_answer;

#[derive(Serialize, ToSchema)]
struct JobPage<'j> {
    jobs: Vec<JobView<'j>>,
    /// For the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// Lists jobs, newest first.
#[utoipa::path(
    get,
    path = "/jobs",
    tag = "jobs",
    params(
        ("status" = Option<String>, Query),
        ("worker_id" = Option<String>, Query),
        ("target_worker_id" = Option<String>, Query),
        ("valet_task_id" = Option<String>, Query),
        ("valet_user_id" = Option<Uuid>, Query),
        ("error_code" = Option<String>, Query),
        ("created_after" = Option<String>, Query),
        ("created_before" = Option<String>, Query),
        ("limit" = Option<u32>, Query, description = "Default 50; above 200 counts as 200."),
        ("cursor" = Option<String>, Query),
    ),
    responses((status = OK, body = JobPage)),
    extensions(("x-error-codes" = json!([INVALID_CURSOR, INVALID_REQUEST]))),
)]
pub(in super::super) async fn list(State(state): State<Arc<ApiState>>, mut query: Query) -> Result<Response, Problem> {
    let limit = query.limit();
    let filter = JobQuery {
        status: query.parsed("status", job_status),
        worker_id: query.name("worker_id"),
        target_worker_id: query.name("target_worker_id"),
        valet_task_id: query.text("valet_task_id"),
        valet_user_id: query.parsed("valet_user_id", |text| text.parse().map_err(|_| "must be a UUID".into())),
        error_code: query.text("error_code"),
        created_after: query.time("created_after"),
        created_before: query.time("created_before"),
        after: query.cursor(position)?,
        limit: limit + 1,
    };
    query.finish()?;
    let jobs = state.control_plane.reader().jobs(&filter).await?;
    let (jobs, next_cursor) = query::page(jobs, limit, |job| format!("{}.{}", job.created_at.as_micros(), job.id));
    let answers = state.control_plane.with_waiting(jobs).await?;
    let jobs = answers.iter().map(JobView::of).collect();
    Ok(json_answer(StatusCode::OK, &JobPage { jobs, next_cursor }))
}

fn job_status(text: &str) -> Result<JobStatus, String> {
    let known = JobStatus::ALL.into_iter().find(|status| status.as_str() == text);
    known.ok_or_else(|| {
        let words = JobStatus::ALL.map(JobStatus::as_str).join(", ");
        format!("must be one of {words}")
    })
}

fn position(cursor: &str) -> Option<JobPosition> {
    let (micros, id) = cursor.split_once('.')?;
    Some(JobPosition { created_at: Timestamp::from_micros(micros.parse().ok()?), id: id.parse().ok()? })
}

/// One job.
#[utoipa::path(
    get,
    path = "/jobs/{job_id}",
    tag = "jobs",
    params(("job_id" = Uuid, Path)),
    responses((status = OK, body = JobView)),
    extensions(("x-error-codes" = json!([JOB_NOT_FOUND]))),
)]
pub(in super::super) async fn job(
    State(state): State<Arc<ApiState>>,
    JobPath(job_id): JobPath,
) -> Result<Response, Problem> {
    let job = state.control_plane.job(job_id).await?;
    job_answer(&state, job).await
}

#[derive(Serialize, ToSchema)]
struct EventPage {
    #[schema(value_type = Vec<Object>)]
    events: Vec<JobEvent>,
    /// The next `after_seq`; `null` while there are no more.
    next_cursor: Option<u64>,
}

/// What happened to a job, oldest first.
#[utoipa::path(
    get,
    path = "/jobs/{job_id}/events",
    tag = "jobs",
    params(
        ("job_id" = Uuid, Path),
        ("after_seq" = Option<u64>, Query),
        ("event_type" = Option<String>, Query, description = "One or more, repeated or separated by commas."),
        ("limit" = Option<u32>, Query),
    ),
    responses((status = OK, body = EventPage)),
    extensions(("x-error-codes" = json!([JOB_NOT_FOUND, INVALID_CURSOR, INVALID_REQUEST]))),
)]
pub(in super::super) async fn events(
    State(state): State<Arc<ApiState>>,
    JobPath(job_id): JobPath,
    mut query: Query,
) -> Result<Response, Problem> {
    let limit = query.limit();
    let filter = JobEventQuery {
        job_id,
        after_seq: query.after_seq()?,
        event_types: query
            .list("event_type", |text| EventType::parse(text).ok_or_else(|| "must be event types".into())),
        limit: limit + 1,
    };
    query.finish()?;
    // A job without events of these types is told from one that is not there.
    state.control_plane.job(job_id).await?;
    let mut events = state.control_plane.reader().job_events(&filter).await?;
    let more = events.len() > limit;
    events.truncate(limit);
    let next_cursor = events.last().filter(|_| more).map(|event| event.seq);
    Ok(json_answer(StatusCode::OK, &EventPage { events, next_cursor }))
}

/// Why a job is where it is, or why it still waits.
#[utoipa::path(
    get,
    path = "/jobs/{job_id}/placement",
    tag = "jobs",
    params(("job_id" = Uuid, Path)),
    responses((status = OK, body = Object)),
    extensions(("x-error-codes" = json!([JOB_NOT_FOUND]))),
)]
pub(in super::super) async fn placement(
    State(state): State<Arc<ApiState>>,
    JobPath(job_id): JobPath,
) -> Result<Response, Problem> {
    let placement = state.control_plane.placement(job_id).await?;
    Ok(json_answer(StatusCode::OK, &placement))
}

#[derive(Serialize, ToSchema)]
struct CallbackPage<'c> {
    callbacks: Vec<CallbackView<'c>>,
    /// For the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// Callbacks of a job and their attempts, newest first.
#[utoipa::path(
    get,
    path = "/jobs/{job_id}/callbacks",
    tag = "jobs",
    params(
        ("job_id" = Uuid, Path),
        ("limit" = Option<u32>, Query),
        ("cursor" = Option<String>, Query),
    ),
    responses((status = OK, body = CallbackPage)),
    extensions(("x-error-codes" = json!([JOB_NOT_FOUND, INVALID_CURSOR, INVALID_REQUEST]))),
)]
pub(in super::super) async fn callbacks(
    State(state): State<Arc<ApiState>>,
    JobPath(job_id): JobPath,
    mut query: Query,
) -> Result<Response, Problem> {
    let limit = query.limit();
    let before = query.cursor(|cursor| cursor.parse().ok())?;
    query.finish()?;
    let job = state.control_plane.job(job_id).await?;
    let reader = state.control_plane.reader();
    let deliveries = reader.deliveries(job_id, before, limit + 1).await?;
    let (deliveries, next_cursor) = query::page(deliveries, limit, |delivery| delivery.sequence.to_string());
    let url = job.spec.callback_url.as_deref();
    let view = |delivery| CallbackView::new(job_id, url, delivery);
    let page = CallbackPage { callbacks: deliveries.iter().map(|delivery| view(delivery)).collect(), next_cursor };
    Ok(json_answer(StatusCode::OK, &page))
}
