//! A worker, as the registry shows it.

use gh_core::domain::ids::{Generation, JobId, Name};
use gh_core::domain::policy::Policy;
use gh_core::domain::time::Timestamp;
use gh_core::domain::worker::{WorkerStatus, WorkerView};
use serde::Serialize;
use utoipa::ToSchema;

/// One worker. All fields are there, `null` when unknown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Worker)]
pub(crate) struct WorkerEntry<'w> {
    #[schema(value_type = String)]
    worker_id: &'w Name,
    /// `idle`, `busy`, `draining` or `offline`.
    #[schema(value_type = String)]
    status: WorkerStatus,
    #[schema(value_type = Option<String>)]
    target_worker_id: Option<&'w Name>,
    #[schema(value_type = Option<String>)]
    ec2_instance_id: Option<&'w Name>,
    ec2_ip: Option<&'w str>,
    #[schema(value_type = Option<Uuid>)]
    current_job_id: Option<JobId>,
    /// The page it is at; the job's `target_url` until the worker says otherwise.
    current_task_url: Option<&'w str>,
    browser_session_id: Option<&'w str>,
    #[schema(value_type = String, format = DateTime)]
    registered_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last_heartbeat: Timestamp,
    /// Since `registered_at`.
    jobs_completed: u64,
    /// Since `registered_at`.
    jobs_failed: u64,
    uptime_seconds: u64,
    /// Counts the processes under this name, and their returns; from 1.
    #[schema(value_type = u32)]
    generation: Generation,
    /// Whether it was heard from lately.
    responsive: bool,
    /// `suspect`, `deaf`, `closing`, `lapsed` or `null`.
    condition: Option<&'static str>,
    #[schema(value_type = Option<String>, format = DateTime)]
    drain_deadline: Option<Timestamp>,
    /// Bytes, by its own word.
    memory_usage: Option<u64>,
    live_view_url: Option<&'w str>,
    version: Option<&'w str>,
    /// Calls that were refused because it is retired.
    refused_calls: u64,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_refused_at: Option<Timestamp>,
}

impl<'w> WorkerEntry<'w> {
    /// The entry of a worker; `task_url` is the `target_url` of its job, if it has one.
    pub(crate) fn new(view: &'w WorkerView, task_url: Option<&'w str>, now: Timestamp, policy: &Policy) -> Self {
        let WorkerView { worker, vitals, .. } = view;
        let identity = &worker.identity;
        let live_view_url = vitals.live_view_url.as_ref().or(identity.live_view_url.as_ref());
        let said_url = vitals.current_task_url.as_deref();
        Self {
            worker_id: &worker.id,
            status: view.status(),
            target_worker_id: identity.target_worker_id.as_ref(),
            ec2_instance_id: identity.ec2_instance_id.as_ref(),
            ec2_ip: identity.ec2_ip.as_deref(),
            current_job_id: view.live_job(),
            current_task_url: said_url.or(task_url),
            browser_session_id: vitals.browser_session_id.as_deref(),
            registered_at: worker.registered_at,
            last_heartbeat: vitals.last_seen,
            jobs_completed: worker.jobs_completed,
            jobs_failed: worker.jobs_failed,
            uptime_seconds: view.uptime(now).as_secs(),
            generation: worker.generation,
            responsive: view.is_responsive(now, policy),
            condition: view.condition(now, policy),
            drain_deadline: worker.drain().and_then(|drain| drain.deadline),
            memory_usage: vitals.memory_usage,
            live_view_url: live_view_url.map(AsRef::as_ref),
            version: identity.version.as_deref(),
            refused_calls: vitals.refused_calls,
            last_refused_at: vitals.last_refused_at,
        }
    }
}
