//! Which rows a batch of changesets relies on or writes.

use std::collections::BTreeSet;

use gh_core::domain::changeset::{AggregateId, Changeset};
use gh_core::domain::code::{ClientName, Fingerprint};
use gh_core::domain::ids::{DeregistrationId, JobId, Name, Version, WorkerId};

/// Rows to be locked, by table and in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct Footprint {
    pub(crate) workers: BTreeSet<WorkerId>,
    pub(crate) vitals: BTreeSet<WorkerId>,
    pub(crate) jobs: BTreeSet<uuid::Uuid>,
    /// Those of the jobs that are written.
    pub(crate) written_jobs: BTreeSet<uuid::Uuid>,
    /// The versions of jobs that are relied on.
    job_versions: BTreeSet<(uuid::Uuid, Version)>,
    pub(crate) names: BTreeSet<Name>,
    pub(crate) deregistrations: BTreeSet<uuid::Uuid>,
    pub(crate) queues: BTreeSet<uuid::Uuid>,
    pub(crate) keys: BTreeSet<(ClientName, Box<str>)>,
    /// Workers and names that must not be there: they have no row that could be locked.
    pub(crate) absent: BTreeSet<i64>,
}

impl Footprint {
    /// All that these changesets rely on or write.
    pub(crate) fn of(changes: &[Changeset]) -> Self {
        let mut rows = Self::default();
        for changeset in changes {
            rows.add(changeset);
        }
        rows
    }

    /// The callbacks of these jobs alone.
    pub(crate) fn of_queues(jobs: impl IntoIterator<Item = JobId>) -> Self {
        Self { queues: jobs.into_iter().map(JobId::as_uuid).collect(), ..Self::default() }
    }

    fn add(&mut self, changes: &Changeset) {
        for (id, version) in changes.relied_on() {
            if *version == Version::ABSENT {
                self.absent.extend(lock_number(id));
            }
            match id {
                AggregateId::Worker(id) => {
                    self.workers.insert(id.clone());
                }
                AggregateId::Job(id) => {
                    self.job(*id);
                    self.job_versions.insert((id.as_uuid(), *version));
                }
                AggregateId::Name(name) => {
                    self.names.insert(name.clone());
                }
                AggregateId::Deregistration(id) => self.deregistration(*id),
            }
        }
        for (id, _) in changes.silent() {
            self.vitals.insert(id.clone());
        }
        for (id, _) in changes.occupants() {
            self.workers.insert(id.clone());
        }
        for change in changes.vitals() {
            self.vitals.insert(change.worker_id.clone());
        }
        for worker in changes.workers() {
            self.workers.insert(worker.id.clone());
            self.vitals.insert(worker.id.clone());
        }
        for write in changes.jobs() {
            self.job(write.job.id);
            self.written_jobs.insert(write.job.id.as_uuid());
            // Who wants to occupy a worker waits for those who want the same.
            if let Some(worker) = write.job.occupies() {
                self.workers.insert(worker.clone());
            }
        }
        self.names.extend(changes.names().iter().map(|record| record.name.clone()));
        for deregistration in changes.deregistrations() {
            self.deregistration(deregistration.id);
        }
        let callbacks = changes.callbacks().iter().map(|callback| callback.job_id);
        self.queues.extend(callbacks.chain(changes.released_callbacks().iter().copied()).map(JobId::as_uuid));
        self.keys.extend(changes.idempotency_keys().iter().map(|(key, _)| key.clone()));
    }

    /// Whether a job that has this version may be written: whoever writes a job relies on its version.
    pub(crate) fn may_write(&self, id: JobId, version: Version) -> bool {
        self.job_versions.contains(&(id.as_uuid(), version))
    }

    /// A job.
    pub(crate) fn job(&mut self, id: JobId) {
        self.jobs.insert(id.as_uuid());
    }

    fn deregistration(&mut self, id: DeregistrationId) {
        self.deregistrations.insert(id.as_uuid());
    }
}

/// The advisory lock that stands for a worker or a name that is not there. Jobs and deregistrations come with fresh
/// ids: nobody else makes the same.
pub(crate) fn lock_number(id: &AggregateId) -> Option<i64> {
    let digest = match id {
        AggregateId::Worker(id) => Fingerprint::of(&("gh_workers", id)),
        AggregateId::Name(name) => Fingerprint::of(&("gh_names", name)),
        AggregateId::Job(_) | AggregateId::Deregistration(_) => return None,
    };
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    Some(i64::from_be_bytes(first))
}
