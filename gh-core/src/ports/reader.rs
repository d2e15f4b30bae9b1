//! Looking, without changing anything.

use std::cmp::Reverse;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::store::StoreError;
use crate::domain::callback::{CallbackQueue, Delivery};
use crate::domain::event::{EventType, JobEvent, WorkerEvent};
use crate::domain::ids::{JobId, Name, WorkerId};
use crate::domain::job::{Job, JobStatus};
use crate::domain::placement::WaitingGroup;
use crate::domain::time::Timestamp;
use crate::domain::watch::FleetWatch;
use crate::domain::worker::{Deregistration, Worker, WorkerView};

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

impl JobPosition {
    /// The place of a job.
    #[must_use]
    pub const fn of(job: &Job) -> Self {
        Self { created_at: job.created_at, id: job.id }
    }
}

impl JobQuery {
    /// The jobs that were asked for, in their order, for stores that can look at all of them.
    #[must_use]
    pub fn select<'s>(&self, jobs: impl IntoIterator<Item = &'s Arc<Job>>) -> Vec<Arc<Job>> {
        let mut jobs: Vec<&Arc<Job>> = jobs.into_iter().filter(|job| self.accepts(job)).collect();
        jobs.sort_unstable_by_key(|job| Reverse(JobPosition::of(job)));
        jobs.into_iter().take(self.limit).cloned().collect()
    }

    /// Whether the job is one that was asked for: every condition but the limit.
    #[must_use]
    pub fn accepts(&self, job: &Job) -> bool {
        let spec = &job.spec;
        let error_code = || {
            let error = job.ending()?.outcome.error()?;
            Some(error.0.as_str())
        };
        self.status.is_none_or(|wanted| job.status() == wanted)
            && self.worker_id.as_ref().is_none_or(|wanted| job.worker_id() == Some(wanted))
            && self.target_worker_id.as_ref().is_none_or(|wanted| spec.routing.target() == Some(wanted))
            && self.valet_task_id.as_ref().is_none_or(|wanted| **wanted == *spec.valet_task_id)
            && self.valet_user_id.is_none_or(|wanted| wanted == spec.valet_user_id)
            && self.error_code.as_ref().is_none_or(|wanted| error_code() == Some(wanted))
            && self.created_after.is_none_or(|after| job.created_at >= after)
            && self.created_before.is_none_or(|before| job.created_at < before)
            && self.after.is_none_or(|after| JobPosition::of(job) < after)
    }
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

impl JobEventQuery {
    /// Whether the event is one that was asked for: every condition but the limit.
    #[must_use]
    pub fn accepts(&self, event: &JobEvent) -> bool {
        event.job_id == self.job_id
            && event.seq > self.after_seq
            && (self.event_types.is_empty() || self.event_types.contains(&event.event_type))
    }
}

/// Which workers, by name.
#[derive(Clone, Debug, Default)]
pub struct WorkerQuery {
    /// Only with this target.
    pub target_worker_id: Option<Name>,
    /// Only on this machine.
    pub ec2_instance_id: Option<Name>,
}

impl WorkerQuery {
    /// The workers that were asked for, in their order, for stores that can look at all of them.
    #[must_use]
    pub fn select<'s>(&self, workers: impl IntoIterator<Item = &'s WorkerView>) -> Vec<WorkerView> {
        let mut workers: Vec<&WorkerView> = workers.into_iter().filter(|view| self.accepts(&view.worker)).collect();
        workers.sort_unstable_by_key(|view| &view.worker.id);
        workers.into_iter().cloned().collect()
    }

    /// Whether the worker is one that was asked for.
    #[must_use]
    pub fn accepts(&self, worker: &Worker) -> bool {
        let identity = &worker.identity;
        let asked = |wanted: &Option<Name>, own: &Option<Name>| wanted.is_none() || wanted == own;
        asked(&self.target_worker_id, &identity.target_worker_id)
            && asked(&self.ec2_instance_id, &identity.ec2_instance_id)
    }
}

/// Figures for metrics.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How many jobs have each [live](JobStatus::LIVE) status. Those that are over are history, which nobody counts
    /// each time somebody looks.
    pub jobs: Vec<(JobStatus, u64)>,
    /// Jobs that wait.
    pub waiting: Vec<WaitingGroup>,
    /// Callbacks that are open.
    pub callbacks_open: u64,
    /// Queues that are due now.
    pub callbacks_due: u64,
}

impl Figures {
    /// The figures of everything that is stored, for stores that can look at all of it.
    #[must_use]
    pub fn of<'s>(
        jobs: impl IntoIterator<Item = &'s Arc<Job>>,
        queues: impl IntoIterator<Item = &'s CallbackQueue>,
        now: Timestamp,
    ) -> Self {
        let jobs: Vec<&Job> = jobs.into_iter().map(AsRef::as_ref).collect();
        let count = |status| jobs.iter().filter(|job| job.status() == status).count() as u64;
        let mut figures = Self {
            jobs: JobStatus::LIVE.into_iter().map(|status| (status, count(status))).collect(),
            waiting: WaitingGroup::of_jobs(jobs.iter().copied(), now),
            ..Self::default()
        };
        for queue in queues {
            figures.callbacks_open += queue.open.len() as u64;
            figures.callbacks_due += u64::from(queue.due_at().is_some_and(|due| due <= now));
        }
        figures
    }
}

/// Reads what is stored. Pages are stable while rows arrive; answers are of one moment each.
///
/// # Example
///
/// All jobs, page by page: the next page begins after the last job of the one before, so a job that comes meanwhile
/// moves nothing.
///
/// ```
/// # use std::sync::Arc;
/// # use gh_core::domain::code::ClientName;
/// # use gh_core::domain::commands::{Command, Submit, decide};
/// # use gh_core::memory::MemoryStore;
/// use gh_core::ports::reader::{JobPosition, JobQuery, Reader};
/// # use gh_core::ports::store::Store;
/// # use gh_core::testing::{ManualClock, rules, submission};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let rules = rules();
/// # let store = MemoryStore::new(Arc::new(ManualClock::default()), [7; 32]);
/// # for _ in 0..5 {
/// #     let submit = Submit::new(ClientName::new("valet"), submission().validate().expect("in order"));
/// #     let snapshot = store.load(&submit.keys()).await?;
/// #     store.commit(vec![decide(&snapshot, &submit, &rules).changes], &rules).await?;
/// # }
/// let reader: &dyn Reader = &store;
///
/// let mut pages = Vec::new();
/// let mut query = JobQuery { limit: 2, ..JobQuery::default() };
/// loop {
///     let page = reader.jobs(&query).await?;
///     let Some(last) = page.last() else { break };
///     query.after = Some(JobPosition { created_at: last.created_at, id: last.id });
///     pages.push(page.len());
/// }
/// assert_eq!(pages, [2, 2, 1]);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Reader: Send + Sync + std::fmt::Debug {
    /// The store's time; fails while the store is away.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// Fails while the store is away, or takes no changes although it can be read: a control plane over it cannot serve.
    /// A store that takes changes whenever it can be read has nothing to add.
    async fn ready(&self) -> Result<(), StoreError> {
        self.now().await.map(drop)
    }

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

    /// All workers by name, with the time at which they were so: at most a second ago. For explanations, which many ask
    /// for at once and which nobody decides by.
    async fn glance(&self) -> Result<(Timestamp, Arc<Vec<WorkerView>>), StoreError> {
        let (now, workers) = self.workers(&WorkerQuery::default()).await?;
        Ok((now, Arc::new(workers)))
    }

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

    /// The record of the watch over the fleet, at most a second old.
    async fn fleet_watch(&self) -> Result<Arc<FleetWatch>, StoreError>;

    /// Figures for metrics.
    async fn figures(&self) -> Result<Figures, StoreError>;
}
