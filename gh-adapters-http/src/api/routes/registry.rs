//! Clients look at workers, stop them and start them again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use gh_core::domain::commands::Drain;
use gh_core::domain::event::WorkerEvent;
use gh_core::domain::field::Fields;
use gh_core::domain::ids::{JobId, Name};
use gh_core::domain::job::Job;
use gh_core::domain::time::Timestamp;
use gh_core::domain::worker::{WorkerStatus, WorkerView};
use gh_core::ports::reader::WorkerQuery;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::Client;
use super::super::body::{JsonBody, json_answer};
use super::super::codes::{INVALID_CURSOR, INVALID_REQUEST, WORKER_NOT_DRAINING, WORKER_NOT_FOUND};
use super::super::paths::WorkerPath;
use super::super::problem::Problem;
use super::super::query::{self, Query};
use super::super::views::WorkerEntry;

#[derive(Serialize, ToSchema)]
struct Registry<'w> {
    workers: Vec<WorkerEntry<'w>>,
    /// For the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// All known workers, the newest registration first.
#[utoipa::path(
    get,
    path = "/monitoring/workers",
    tag = "workers",
    params(
        ("status" = Option<String>, Query),
        ("target_worker_id" = Option<String>, Query),
        ("ec2_instance_id" = Option<String>, Query),
        ("limit" = Option<u32>, Query, description = "All workers when absent."),
        ("cursor" = Option<String>, Query),
    ),
    responses((status = OK, body = Registry)),
    extensions(("x-error-codes" = json!([INVALID_CURSOR, INVALID_REQUEST]))),
)]
pub(in super::super) async fn workers(
    State(state): State<Arc<ApiState>>,
    mut query: Query,
) -> Result<Response, Problem> {
    let status = query.parsed("status", worker_status);
    let limit = query.limit_if_sent();
    let after = query.cursor(position)?;
    let names = WorkerQuery {
        target_worker_id: query.name("target_worker_id"),
        ec2_instance_id: query.name("ec2_instance_id"),
    };
    query.finish()?;
    let (now, mut workers) = state.control_plane.reader().workers(&names).await?;
    workers.retain(|view| status.is_none_or(|status| view.status() == status));
    workers.sort_by_key(place);
    if let Some(after) = after {
        workers.retain(|view| place(view) > after);
    }
    let (workers, next_cursor) = query::page(workers, limit.unwrap_or(usize::MAX), |view| {
        format!("{}.{}", view.worker.registered_at.as_micros(), view.worker.id)
    });
    let jobs = jobs_of(&state, &workers).await?;
    let policy = state.control_plane.policy();
    let entry = |view| WorkerEntry::new(view, task_url(&jobs, view), now, policy);
    let registry = Registry { workers: workers.iter().map(entry).collect(), next_cursor };
    Ok(json_answer(StatusCode::OK, &registry))
}

/// The place in the registry: newest first.
type Place = (std::cmp::Reverse<Timestamp>, Name);

fn place(view: &WorkerView) -> Place {
    let WorkerView { worker, .. } = view;
    (std::cmp::Reverse(worker.registered_at), worker.id.clone())
}

fn position(cursor: &str) -> Option<Place> {
    let (micros, id) = cursor.split_once('.')?;
    let registered_at = Timestamp::from_micros(micros.parse().ok()?);
    Some((std::cmp::Reverse(registered_at), Name::parse(id).ok()?))
}

fn worker_status(text: &str) -> Result<WorkerStatus, String> {
    let known = WorkerStatus::ALL.into_iter().find(|status| status.as_str() == text);
    known.ok_or_else(|| {
        let words = WorkerStatus::ALL.map(WorkerStatus::as_str).join(", ");
        format!("must be one of {words}")
    })
}

/// The jobs of those workers that have not said themselves which page they are at.
async fn jobs_of(state: &ApiState, workers: &[WorkerView]) -> Result<HashMap<JobId, Arc<Job>>, Problem> {
    let mut jobs = HashMap::new();
    for view in workers.iter().filter(|view| view.vitals.current_task_url.is_none()) {
        if let Some(id) = view.live_job()
            && let Some(job) = state.control_plane.reader().job(id).await?
        {
            jobs.insert(id, job);
        }
    }
    Ok(jobs)
}

fn task_url<'j>(jobs: &'j HashMap<JobId, Arc<Job>>, view: &WorkerView) -> Option<&'j str> {
    let job = jobs.get(&view.live_job()?)?;
    Some(&job.spec.target_url)
}

async fn entry(state: &ApiState, (now, view): (Timestamp, WorkerView)) -> Result<Response, Problem> {
    let jobs = jobs_of(state, std::slice::from_ref(&view)).await?;
    let policy = state.control_plane.policy();
    let entry = WorkerEntry::new(&view, task_url(&jobs, &view), now, policy);
    Ok(json_answer(StatusCode::OK, &entry))
}

/// One worker.
#[utoipa::path(
    get,
    path = "/workers/{worker_id}",
    tag = "workers",
    params(("worker_id" = String, Path)),
    responses((status = OK, body = WorkerEntry)),
    extensions(("x-error-codes" = json!([WORKER_NOT_FOUND]))),
)]
pub(in super::super) async fn worker(
    State(state): State<Arc<ApiState>>,
    WorkerPath(worker_id): WorkerPath,
) -> Result<Response, Problem> {
    let seen = state.control_plane.worker(&worker_id).await?;
    entry(&state, seen).await
}

#[derive(Serialize, ToSchema)]
struct WorkerEventPage {
    #[schema(value_type = Vec<Object>)]
    events: Vec<WorkerEvent>,
    /// For the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// The life of a worker, newest first.
#[utoipa::path(
    get,
    path = "/workers/{worker_id}/events",
    tag = "workers",
    params(
        ("worker_id" = String, Path),
        ("limit" = Option<u32>, Query),
        ("cursor" = Option<String>, Query),
    ),
    responses((status = OK, body = WorkerEventPage)),
    extensions(("x-error-codes" = json!([WORKER_NOT_FOUND, INVALID_CURSOR, INVALID_REQUEST]))),
)]
pub(in super::super) async fn events(
    State(state): State<Arc<ApiState>>,
    WorkerPath(worker_id): WorkerPath,
    mut query: Query,
) -> Result<Response, Problem> {
    let limit = query.limit();
    let before = query.cursor(|cursor| cursor.parse().ok())?;
    query.finish()?;
    // A worker without events is told from one that is not there.
    state.control_plane.worker(&worker_id).await?;
    let reader = state.control_plane.reader();
    let events = reader.worker_events(&worker_id, before, limit + 1).await?;
    let (events, next_cursor) = query::page(events, limit, |event| event.seq.to_string());
    Ok(json_answer(StatusCode::OK, &WorkerEventPage { events, next_cursor }))
}

#[derive(Deserialize, ToSchema)]
pub(in super::super) struct DrainRequest {
    /// Why; at most 500 characters.
    reason: Option<String>,
    /// How long its job may take, 0 to 86,400; without end when absent.
    drain_timeout_seconds: Option<i64>,
}

/// Tells a worker to take no more jobs; it stays registered.
#[utoipa::path(
    post,
    path = "/workers/{worker_id}/drain",
    tag = "workers",
    params(("worker_id" = String, Path)),
    request_body = DrainRequest,
    responses((status = OK, body = WorkerEntry)),
    extensions(("x-error-codes" = json!([WORKER_NOT_FOUND]))),
)]
pub(in super::super) async fn drain(
    State(state): State<Arc<ApiState>>,
    client: Client,
    WorkerPath(worker_id): WorkerPath,
    JsonBody(body): JsonBody<DrainRequest>,
) -> Result<Response, Problem> {
    let mut fields = Fields::default();
    let reason = fields.required_text("reason", body.reason.as_deref(), 500);
    let timeout = drain_timeout(&mut fields, body.drain_timeout_seconds, 86_400);
    fields.finish().map_err(Problem::invalid)?;
    let drain = Drain { worker_id, actor: client.actor(), reason: reason.unwrap_or_default(), timeout };
    let seen = state.control_plane.drain(&drain).await?;
    entry(&state, seen).await
}

/// `drain_timeout_seconds`, up to a limit.
pub(super) fn drain_timeout(fields: &mut Fields, seconds: Option<i64>, longest: i64) -> Option<Duration> {
    fields.seconds("drain_timeout_seconds", seconds, 0..=longest)
}

/// Lets a drained worker take jobs again.
#[utoipa::path(
    post,
    path = "/workers/{worker_id}/undrain",
    tag = "workers",
    params(("worker_id" = String, Path)),
    responses((status = OK, body = WorkerEntry)),
    extensions(("x-error-codes" = json!([WORKER_NOT_FOUND, WORKER_NOT_DRAINING]))),
)]
pub(in super::super) async fn undrain(
    State(state): State<Arc<ApiState>>,
    WorkerPath(worker_id): WorkerPath,
) -> Result<Response, Problem> {
    let seen = state.control_plane.undrain(&worker_id).await?;
    entry(&state, seen).await
}
