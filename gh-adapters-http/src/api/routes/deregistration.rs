//! Clients retire workers, and let names come back.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use gh_core::domain::commands::{Deregister, DeregistrationAnswer, Selector};
use gh_core::domain::field::Fields;
use gh_core::domain::ids::{DeregistrationId, JobId, Name, WorkerId};
use gh_core::domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::auth::Client;
use super::super::body::{JsonBody, json_answer};
use super::super::codes::{NOT_FOUND, WORKER_NOT_FOUND};
use super::super::fields;
use super::super::paths::TargetPath;
use super::super::problem::Problem;
use super::super::query::Query;
use super::registry::drain_timeout;

/// The longest that an answer is held for `Prefer: wait=N`, in seconds.
const LONGEST_WAIT: u64 = 14;

/// Which workers to retire: exactly one of the two names.
#[derive(Deserialize, ToSchema)]
pub(in super::super) struct DeregisterRequest {
    /// Workers that carry this target; where there are none, the worker of this id.
    target_worker_id: Option<String>,
    /// Workers on this machine.
    ec2_instance_id: Option<String>,
    /// Why; at most 500 characters.
    reason: Option<String>,
    /// Whether their running jobs are cancelled; default false.
    cancel_active_jobs: Option<bool>,
    /// How long they may take to finish, 0 to 300; default 300, or 0 with `cancel_active_jobs`.
    drain_timeout_seconds: Option<i64>,
    /// How long the names stay held afterwards, 0 to 86,400; default 3,600 when matched by target, else 0.
    hold_seconds: Option<i64>,
}

/// How far a deregistration is.
#[derive(Serialize, ToSchema)]
struct DeregistrationView<'d> {
    #[schema(value_type = Uuid)]
    deregistration_id: DeregistrationId,
    #[schema(value_type = Vec<String>)]
    deregistered_workers: &'d [WorkerId],
    #[schema(value_type = Vec<String>)]
    draining_workers: &'d [WorkerId],
    #[schema(value_type = Vec<Uuid>)]
    cancelled_job_ids: &'d [JobId],
    #[schema(value_type = Vec<Uuid>)]
    draining_job_ids: &'d [JobId],
    #[schema(value_type = String, format = DateTime)]
    drain_deadline: Timestamp,
    reason: &'d str,
    /// The same as `deregistered_workers`.
    #[schema(value_type = Vec<String>)]
    deregistered: &'d [WorkerId],
    /// The same as `cancelled_job_ids`.
    #[schema(value_type = Vec<Uuid>)]
    cancelled_jobs: &'d [JobId],
    dry_run: bool,
}

impl<'d> DeregistrationView<'d> {
    fn new(answer: &'d DeregistrationAnswer) -> Self {
        let known = &answer.deregistration;
        Self {
            deregistration_id: known.id,
            deregistered_workers: &known.deregistered,
            draining_workers: &known.draining,
            cancelled_job_ids: &known.cancelled_jobs,
            draining_job_ids: &known.draining_jobs,
            drain_deadline: known.drain_deadline,
            reason: &known.reason,
            deregistered: &known.deregistered,
            cancelled_jobs: &known.cancelled_jobs,
            dry_run: answer.dry_run,
        }
    }
}

/// Retires workers: they get no job from this moment, and are gone when they are free or the time is over.
#[utoipa::path(
    post,
    path = "/workers/deregister",
    tag = "workers",
    params(
        ("dry_run" = Option<bool>, Query, description = "Says what would happen, and changes nothing."),
        ("Prefer" = Option<String>, Header, description = "wait=N holds the answer up to 14 s until nothing drains."),
    ),
    request_body = DeregisterRequest,
    responses((status = OK, body = DeregistrationView)),
    extensions(("x-error-codes" = json!([WORKER_NOT_FOUND]))),
)]
pub(in super::super) async fn deregister(
    State(state): State<Arc<ApiState>>,
    client: Client,
    headers: HeaderMap,
    mut query: Query,
    JsonBody(body): JsonBody<DeregisterRequest>,
) -> Result<Response, Problem> {
    let dry_run = query.flag("dry_run");
    query.finish()?;
    let mut fields = Fields::default();
    let selector = selector(&mut fields, &body);
    let reason = fields.required_text("reason", body.reason.as_deref(), 500);
    let drain_timeout = drain_timeout(&mut fields, body.drain_timeout_seconds, 300);
    let hold = fields.seconds("hold_seconds", body.hold_seconds, 0..=86_400);
    let (Some(selector), Some(reason)) = (selector, reason) else {
        return Err(Problem::invalid(fields.into_errors()));
    };
    fields.finish().map_err(Problem::invalid)?;
    let deregistration = Deregister {
        selector,
        actor: client.actor(),
        reason,
        cancel_active_jobs: body.cancel_active_jobs.unwrap_or(false),
        drain_timeout,
        hold,
        dry_run,
    };
    let wait = preferred_wait(&headers);
    let answer = state.control_plane.deregister(&deregistration, Duration::from_secs(wait.unwrap_or(0))).await?;
    let mut response = json_answer(StatusCode::OK, &DeregistrationView::new(&answer));
    if let Some(applied) = wait.and_then(|wait| HeaderValue::from_str(&format!("wait={wait}")).ok()) {
        response.headers_mut().insert("preference-applied", applied);
    }
    Ok(response)
}

fn selector(known: &mut Fields, body: &DeregisterRequest) -> Option<Selector> {
    let (target, instance) = (body.target_worker_id.as_deref(), body.ec2_instance_id.as_deref());
    match (target, instance) {
        (Some(_), Some(_)) => {
            known.refuse("ec2_instance_id", "must be absent when target_worker_id is given");
            None
        }
        (None, None) => {
            known.refuse("target_worker_id", "is required, or ec2_instance_id");
            None
        }
        (Some(_), None) => fields::name(known, "target_worker_id", target).map(Selector::Target),
        (None, Some(_)) => fields::name(known, "ec2_instance_id", instance).map(Selector::Instance),
    }
}

/// `Prefer: wait=N` in seconds (RFC 7240); a greater wait counts as the longest. What cannot be read is ignored.
fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all("prefer").iter();
    let preferences = values.filter_map(|value| value.to_str().ok());
    preferences.flat_map(|value| value.split(',')).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let seconds: u64 = value.trim().trim_matches('"').parse().ok()?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        is_wait.then_some(seconds.min(LONGEST_WAIT))
    })
}

#[derive(Serialize, ToSchema)]
struct HoldView {
    #[schema(value_type = String)]
    name: Name,
    /// A deregistration that still runs keeps its hold.
    held: bool,
}

/// Lets workers of a deregistered name come back.
#[utoipa::path(
    delete,
    path = "/targets/{name}/hold",
    tag = "workers",
    params(("name" = String, Path)),
    responses((status = OK, body = HoldView)),
    extensions(("x-error-codes" = json!([NOT_FOUND]))),
)]
pub(in super::super) async fn lift_hold(
    State(state): State<Arc<ApiState>>,
    TargetPath(name): TargetPath,
) -> Result<Response, Problem> {
    let answer = state.control_plane.lift_hold(&name).await?;
    let view = HoldView { name: answer.name, held: answer.held };
    Ok(json_answer(StatusCode::OK, &view))
}
