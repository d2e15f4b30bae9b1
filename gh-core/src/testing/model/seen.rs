//! All that readers see at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::callback::Delivery;
use crate::domain::event::JobEvent;
use crate::domain::ids::{DeregistrationId, JobId, Version, WorkerId};
use crate::domain::job::Job;
use crate::domain::time::Timestamp;
use crate::domain::worker::{Deregistration, WorkerView};
use crate::ports::reader::{JobEventQuery, JobQuery, Reader, WorkerQuery};
use crate::ports::store::StoreError;

/// More than any history brings about.
const ALL: usize = 10_000;

/// A job with its whole record.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) job: Arc<Job>,
    pub(super) events: Arc<[JobEvent]>,
    /// Oldest first.
    pub(super) deliveries: Arc<[Arc<Delivery>]>,
}

/// All that readers see at one moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) now: Timestamp,
    pub(super) jobs: BTreeMap<JobId, Record>,
    pub(super) workers: BTreeMap<WorkerId, WorkerView>,
    pub(super) deregistrations: BTreeMap<DeregistrationId, Arc<Deregistration>>,
}

impl Seen {
    /// Looks at everything; at these deregistrations, since they cannot be listed.
    pub(super) async fn look(
        reader: &dyn Reader,
        known: impl Iterator<Item = DeregistrationId>,
    ) -> Result<Self, StoreError> {
        let (now, views) = reader.workers(&WorkerQuery::default()).await?;
        let mut jobs = BTreeMap::new();
        for job in reader.jobs(&JobQuery { limit: ALL, ..JobQuery::default() }).await? {
            let query = JobEventQuery { job_id: job.id, after_seq: 0, event_types: Vec::new(), limit: ALL };
            let events = reader.job_events(&query).await?.into();
            let deliveries = reader.deliveries(job.id, None, ALL).await?.into_iter().rev().collect();
            jobs.insert(job.id, Record { job, events, deliveries });
        }
        let mut deregistrations = BTreeMap::new();
        for id in known {
            if let Some(record) = reader.deregistration(id).await? {
                deregistrations.insert(id, record);
            }
        }
        let workers = views.into_iter().map(|view| (view.worker.id.clone(), view)).collect();
        Ok(Self { now, jobs, workers, deregistrations })
    }

    /// The jobs with events and callbacks, as text: the same exactly if nothing of it changed. How often a job was
    /// written does not count.
    pub(super) fn text_of_jobs(&self) -> Vec<String> {
        let text = |record: &Record| {
            let Record { job, events, deliveries } = record;
            let job = Job { version: Version::ABSENT, ..job.as_ref().clone() };
            serde_json::to_string(&(job, events.as_ref(), deliveries.iter().map(AsRef::as_ref).collect::<Vec<_>>()))
                .unwrap_or_default()
        };
        self.jobs.values().map(text).collect()
    }

    /// What is decided of the workers, as text; without signs of life and counts of refusals.
    pub(super) fn text_of_workers(&self) -> Vec<String> {
        let text = |view: &WorkerView| {
            let worker = &view.worker;
            format!(
                "{} {} {} {:?} {:?} {:?} {:?}",
                worker.id,
                worker.boot_id,
                worker.generation,
                worker.state,
                worker.directives,
                worker.closing,
                view.occupied_by
            )
        };
        self.workers.values().map(text).collect()
    }
}
