//! Workers come, say that they live, and go.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use gh_core::application::ControlPlane;
use gh_core::domain::commands::{DrainWish, Goodbye, Heartbeat, HeartbeatAnswer, JobClaim, LeaseWord, Register};
use gh_core::domain::field::Fields;
use gh_core::domain::ids::{Attempt, DirectiveId, JobId, Name};
use gh_core::domain::worker::{Beat, Directive, WorkerIdentity, WorkerStatus};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::body::{JsonBody, json_answer};
use super::super::codes::{WORKER_DEREGISTERED, WORKER_ID_CONTESTED};
use super::super::fields;
use super::super::paths::OwnWorker;
use super::super::problem::Problem;
use super::super::views::Seconds;
use super::jobs::check_count;

/// What a worker says of itself.
#[derive(Deserialize, ToSchema)]
pub(in super::super) struct Registration {
    /// Its name, 1 to 100 printable characters without `/`; made from the boot when absent.
    worker_id: Option<String>,
    /// Random for each process.
    boot_id: Option<String>,
    environment: Option<String>,
    target_worker_id: Option<String>,
    ec2_instance_id: Option<String>,
    ec2_ip: Option<String>,
    live_view_url: Option<String>,
    version: Option<String>,
    /// A JSON object of at most 8 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
}

impl Registration {
    fn check(self) -> Result<Register, Problem> {
        let mut known = Fields::default();
        let boot_id = known
            .required("boot_id", self.boot_id.as_deref(), |text| Name::parse(text).map_err(|error| error.to_string()));
        let worker_id = fields::name(&mut known, "worker_id", self.worker_id.as_deref());
        let identity = WorkerIdentity {
            environment: known.optional_text("environment", self.environment.as_deref(), 100),
            target_worker_id: fields::name(&mut known, "target_worker_id", self.target_worker_id.as_deref()),
            ec2_instance_id: fields::name(&mut known, "ec2_instance_id", self.ec2_instance_id.as_deref()),
            ec2_ip: known.optional_text("ec2_ip", self.ec2_ip.as_deref(), 100),
            live_view_url: fields::web_address(&mut known, "live_view_url", self.live_view_url.as_deref()),
            version: known.optional_text("version", self.version.as_deref(), 100),
        };
        let metadata = fields::small_object(&mut known, "metadata", self.metadata);
        let Some(boot_id) = boot_id else {
            return Err(Problem::invalid(known.into_errors()));
        };
        known.finish().map_err(Problem::invalid)?;
        Ok(Register {
            worker_id: worker_id.unwrap_or_else(|| ControlPlane::mint_worker_id(&boot_id)),
            boot_id,
            identity,
            metadata,
        })
    }
}

#[derive(Serialize, ToSchema)]
struct RegistrationView<'r> {
    worker_id: &'r str,
    generation: u32,
    /// What every later call presents, as `Authorization: Bearer`.
    token: String,
    #[schema(value_type = f64)]
    heartbeat_interval_seconds: Seconds,
    #[schema(value_type = f64)]
    suspect_after_seconds: Seconds,
    #[schema(value_type = f64)]
    self_fence_after_seconds: Seconds,
    #[schema(value_type = f64)]
    offline_after_seconds: Seconds,
}

/// A worker's process comes.
#[utoipa::path(
    post,
    path = "/workers/register",
    tag = "worker",
    request_body = Registration,
    responses(
        (status = CREATED, body = RegistrationView),
        (status = OK, body = RegistrationView, description = "This process is registered already."),
    ),
    extensions(("x-error-codes" = json!([WORKER_DEREGISTERED, WORKER_ID_CONTESTED]))),
)]
pub(in super::super) async fn register(
    State(state): State<Arc<ApiState>>,
    JsonBody(body): JsonBody<Registration>,
) -> Result<Response, Problem> {
    // Asked first: a registration that is stored must be answered.
    let seal = state.token_seal().await?;
    let registered = state.control_plane.register(&body.check()?).await?;
    let policy = state.control_plane.policy();
    let view = RegistrationView {
        worker_id: registered.credential.worker_id.as_str(),
        generation: registered.credential.generation.0,
        token: seal.seal(&registered.credential),
        heartbeat_interval_seconds: Seconds(policy.heartbeat_interval),
        suspect_after_seconds: Seconds(policy.suspect_after),
        self_fence_after_seconds: Seconds(policy.self_fence_after),
        offline_after_seconds: Seconds(policy.offline_after),
    };
    let status = if registered.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json_answer(status, &view))
}

/// A sign of life. What is absent says nothing.
#[derive(Deserialize, ToSchema)]
pub(in super::super) struct HeartbeatRequest {
    /// Resident memory in bytes.
    memory_usage: Option<u64>,
    /// The job it has; `null` says that it has none.
    #[serde(default, deserialize_with = "fields::present")]
    #[schema(value_type = Option<Uuid>)]
    current_job_id: Option<Option<JobId>>,
    current_task_url: Option<String>,
    browser_session_id: Option<String>,
    live_view_url: Option<String>,
    /// It takes no more jobs; `null` takes its own drain back.
    #[serde(default, deserialize_with = "fields::present")]
    #[schema(value_type = Option<DrainNotice>)]
    draining: Option<Option<DrainNotice>>,
    /// Directives that it has done.
    #[serde(default)]
    #[schema(value_type = Vec<Uuid>)]
    acknowledged: Vec<DirectiveId>,
}

#[derive(Deserialize, ToSchema)]
struct DrainNotice {
    /// Why; at most 500 characters.
    reason: Option<String>,
    /// How long its job may take, 0 to 86,400; without end when absent.
    drain_timeout_seconds: Option<i64>,
}

impl HeartbeatRequest {
    fn check(self) -> Result<(Beat, JobClaim, DrainWish, Vec<DirectiveId>), Problem> {
        let mut known = Fields::default();
        let beat = Beat {
            memory_usage: self.memory_usage,
            current_task_url: known.optional_text("current_task_url", self.current_task_url.as_deref(), 2048),
            browser_session_id: known.optional_text("browser_session_id", self.browser_session_id.as_deref(), 255),
            live_view_url: fields::web_address(&mut known, "live_view_url", self.live_view_url.as_deref()),
        };
        if self.memory_usage.is_some_and(|bytes| i64::try_from(bytes).is_err()) {
            known.refuse("memory_usage", "must be a number of bytes");
        }
        let job = match self.current_job_id {
            None => JobClaim::Silent,
            Some(None) => JobClaim::None,
            Some(Some(job_id)) => JobClaim::Job(job_id),
        };
        let drain = match self.draining {
            None => DrainWish::Silent,
            Some(None) => DrainWish::Undo,
            Some(Some(notice)) => DrainWish::Drain {
                reason: known.required_text("draining.reason", notice.reason.as_deref(), 500).unwrap_or_default(),
                timeout: known.seconds("draining.drain_timeout_seconds", notice.drain_timeout_seconds, 0..=86_400),
            },
        };
        known.finish().map_err(Problem::invalid)?;
        Ok((beat, job, drain, self.acknowledged))
    }
}

#[derive(Serialize, ToSchema)]
struct HeartbeatView<'h> {
    #[schema(value_type = String)]
    status: WorkerStatus,
    /// `held`, `lost` or `none`: about the job that was named.
    #[schema(value_type = String)]
    lease: LeaseWord,
    /// The lease that the server has for this worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Uuid>)]
    job_id: Option<JobId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    attempt: Option<Attempt>,
    #[schema(value_type = Vec<Object>)]
    directives: &'h [Directive],
}

/// A worker says that it lives, and hears what there is for it.
#[utoipa::path(
    post,
    path = "/workers/{worker_id}/heartbeat",
    tag = "worker",
    params(("worker_id" = String, Path)),
    request_body = HeartbeatRequest,
    responses((status = OK, body = HeartbeatView))
)]
pub(in super::super) async fn heartbeat(
    State(state): State<Arc<ApiState>>,
    OwnWorker(who): OwnWorker,
    JsonBody(body): JsonBody<HeartbeatRequest>,
) -> Result<Response, Problem> {
    check_count("acknowledged", body.acknowledged.len(), state.limits.batch_items)?;
    let (beat, job, drain, acknowledged) = body.check()?;
    let heartbeat = Heartbeat { who, beat, job, drain, acknowledged };
    let HeartbeatAnswer { status, lease, held, directives } = state.control_plane.heartbeat(&heartbeat).await?;
    let view = HeartbeatView {
        status,
        lease,
        job_id: held.map(|(job_id, _)| job_id),
        attempt: held.map(|(_, attempt)| attempt),
        directives: &directives,
    };
    Ok(json_answer(StatusCode::OK, &view))
}

#[derive(Deserialize, ToSchema)]
pub(in super::super) struct GoodbyeRequest {
    /// Why; at most 500 characters.
    reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct GoodbyeView {
    /// `offline`
    status: &'static str,
    /// What became of its job: `requeued`, `failed`, `cancelled`, `in_grace`, or `null` without one.
    job_outcome: Option<&'static str>,
}

/// A worker says goodbye.
#[utoipa::path(
    post,
    path = "/workers/{worker_id}/deregister",
    tag = "worker",
    params(("worker_id" = String, Path)),
    request_body = GoodbyeRequest,
    responses((status = OK, body = GoodbyeView))
)]
pub(in super::super) async fn goodbye(
    State(state): State<Arc<ApiState>>,
    OwnWorker(who): OwnWorker,
    JsonBody(body): JsonBody<GoodbyeRequest>,
) -> Result<Response, Problem> {
    let mut known = Fields::default();
    let reason = known.required_text("reason", body.reason.as_deref(), 500);
    known.finish().map_err(Problem::invalid)?;
    let goodbye = Goodbye { who, reason: reason.unwrap_or_default() };
    let answer = state.control_plane.goodbye(&goodbye).await?;
    let view = GoodbyeView { status: WorkerStatus::Offline.as_str(), job_outcome: answer.job_outcome };
    Ok(json_answer(StatusCode::OK, &view))
}
