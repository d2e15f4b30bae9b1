//! Looking, without changing anything.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::store::StoreError;
use crate::domain::callback::Delivery;
use crate::domain::event::{EventType, JobEvent, WorkerEvent};
use crate::domain::ids::{JobId, Name, WorkerId};
use crate::domain::job::{Job, JobStatus};
use crate::domain::time::Timestamp;
use crate::domain::worker::{Deregistration, WorkerView};

/// Which jobs, newest first.
#[derive(Clone, Debug, Default)]
pub struct JobQuery {
    /// Only with this status.
    pub status: Option<JobStatus>,
    /// Only held by this worker, now or last.
    pub worker_id: Option<WorkerId>,
    /// Only with this target.
    pub target_worker_id: Option<Name>,
    /// Only of this task of the client.
    pub valet_task_id: Option<String>,
    /// Only of this user of the client.
    pub valet_user_id: Option<Uuid>,
    /// Only failed with this code.
    pub error_code: Option<String>,
    /// Only submitted at or after this time.
    pub created_after: Option<Timestamp>,
    /// Only submitted before this time.
    pub created_before: Option<Timestamp>,
    /// Only those after this one in the list's order.
    pub after: Option<JobPosition>,
    /// At most so many.
    pub limit: usize,
}

/// A place in the list of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobPosition {
    /// When the job was submitted.
    pub created_at: Timestamp,
    /// The job.
    pub id: JobId,
}

/// Which events of a job, oldest first.
#[derive(Clone, Debug)]
pub struct JobEventQuery {
    /// The job.
    pub job_id: JobId,
    /// Only those after this number.
    pub after_seq: u64,
    /// Only of one of these types; all when empty.
    pub event_types: Vec<EventType>,
    /// At most so many.
    pub limit: usize,
}

/// Which workers, by name.
#[derive(Clone, Debug, Default)]
pub struct WorkerQuery {
    /// Only with this target.
    pub target_worker_id: Option<Name>,
    /// Only on this machine.
    pub ec2_instance_id: Option<Name>,
}

/// Jobs that wait, grouped by what they wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingGroup {
    /// The target they wait for; none for those that anyone may take.
    pub target: Option<Name>,
    /// What keeps them beside the lack of a worker.
    pub obstacle: WaitObstacle,
    /// How many.
    pub jobs: u64,
    /// Since when the one waits that waits longest.
    pub oldest: Timestamp,
}

/// What keeps a waiting job beside the lack of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitObstacle {
    /// Nothing.
    None,
    /// It was put back after a failure and waits a while.
    Backoff,
    /// The worker that lost it may still act on it.
    Fencing,
    /// It is reserved for a worker.
    Reserved,
}

/// Figures for metrics.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How many jobs have each status.
    pub jobs: Vec<(JobStatus, u64)>,
    /// Jobs that wait.
    pub waiting: Vec<WaitingGroup>,
    /// Callbacks that are open.
    pub callbacks_open: u64,
    /// Queues that are due now.
    pub callbacks_due: u64,
}

/// Reads what is stored. Pages are stable while rows arrive; answers are of one moment each.
#[async_trait]
pub trait Reader: Send + Sync + std::fmt::Debug {
    /// The store's time; fails while the store is away.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// One job.
    async fn job(&self, id: JobId) -> Result<Option<Arc<Job>>, StoreError>;

    /// Jobs, newest first.
    async fn jobs(&self, query: &JobQuery) -> Result<Vec<Arc<Job>>, StoreError>;

    /// Events of a job, oldest first.
    async fn job_events(&self, query: &JobEventQuery) -> Result<Vec<JobEvent>, StoreError>;

    /// Deliveries of a job, newest first, only those with a smaller sequence than `before`.
    async fn deliveries(
        &self,
        job_id: JobId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Arc<Delivery>>, StoreError>;

    /// Workers by name, with the store's time.
    async fn workers(&self, query: &WorkerQuery) -> Result<(Timestamp, Vec<WorkerView>), StoreError>;

    /// One worker, with the store's time.
    async fn worker(&self, id: &WorkerId) -> Result<(Timestamp, Option<WorkerView>), StoreError>;

    /// Events of a worker, newest first, only those with a smaller number than `before`.
    async fn worker_events(
        &self,
        id: &WorkerId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<WorkerEvent>, StoreError>;

    /// A deregistration.
    async fn deregistration(
        &self,
        id: crate::domain::ids::DeregistrationId,
    ) -> Result<Option<Arc<Deregistration>>, StoreError>;

    /// Figures for metrics.
    async fn figures(&self) -> Result<Figures, StoreError>;
}
