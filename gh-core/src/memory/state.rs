//! Everything that is stored, and the one way in which it changes.

use std::collections::HashMap;
use std::sync::Arc;

use super::callbacks::CallbackTable;
use super::jobs::JobTable;
use super::workers::WorkerTable;
use crate::domain::changeset::{AggregateId, Changeset};
use crate::domain::code::ClientName;
use crate::domain::ids::{DeregistrationId, Name, Version, WorkerId};
use crate::domain::job::{IdempotencyRecord, Job, JobState};
use crate::domain::rules::Rules;
use crate::domain::time::Timestamp;
use crate::domain::worker::{Deregistration, NameRecord, Occupation};
use crate::ports::store::Conflict;

/// All tables.
#[derive(Debug)]
pub(super) struct State {
    now: Timestamp,
    writing: bool,
    pub(super) jobs: JobTable,
    pub(super) workers: WorkerTable,
    pub(super) callbacks: CallbackTable,
    pub(super) names: HashMap<Name, NameRecord>,
    pub(super) deregistrations: HashMap<DeregistrationId, Arc<Deregistration>>,
    pub(super) idempotency_keys: HashMap<(ClientName, Box<str>), IdempotencyRecord>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            now: Timestamp::from_micros(i64::MIN),
            writing: false,
            jobs: JobTable::default(),
            workers: WorkerTable::default(),
            callbacks: CallbackTable::default(),
            names: HashMap::new(),
            deregistrations: HashMap::new(),
            idempotency_keys: HashMap::new(),
        }
    }
}

/// How a job occupies a worker, if it does.
fn occupation(job: &Job) -> Option<(&WorkerId, Occupation)> {
    let reserved = matches!(job.state, JobState::Queued(..));
    let job_id = job.id;
    job.occupies().map(|id| (id, Occupation { job_id, reserved }))
}

impl State {
    /// The store's time, now that the clock says `reading`.
    pub(super) fn advance(&mut self, reading: Timestamp) -> Timestamp {
        self.now = self.now.max(reading);
        self.now
    }

    /// Whether a panic cut off a write.
    pub(super) const fn is_half_written(&self) -> bool {
        self.writing
    }

    /// Stores a changeset, whole or not at all.
    pub(super) fn commit(&mut self, changes: &Changeset, now: Timestamp, rules: &Rules) -> Result<(), Conflict> {
        self.check(changes)?;
        self.change(|state| state.write(changes, now, rules));
        Ok(())
    }

    /// Changes tables; if that panics, nothing that is stored is believed any more.
    pub(super) fn change<R>(&mut self, change: impl FnOnce(&mut Self) -> R) -> R {
        self.writing = true;
        let result = change(self);
        self.writing = false;
        result
    }

    fn version(&self, id: &AggregateId) -> Version {
        match id {
            AggregateId::Worker(id) => self.workers.version(id),
            AggregateId::Job(id) => self.jobs.version(*id),
            AggregateId::Name(name) => self.names.get(name).map_or(Version::ABSENT, |record| record.version),
            AggregateId::Deregistration(id) => {
                self.deregistrations.get(id).map_or(Version::ABSENT, |known| known.version)
            }
        }
    }

    fn check(&self, changes: &Changeset) -> Result<(), Conflict> {
        let moved = changes.relied_on().iter().any(|(id, version)| self.version(id) != *version);
        let heard = changes
            .silent()
            .iter()
            .any(|(id, last_seen)| self.workers.last_seen(id).is_some_and(|seen| seen > *last_seen));
        let repeated = changes.idempotency_keys().iter().any(|(key, _)| self.idempotency_keys.contains_key(key));
        if moved || heard || repeated || !self.writes_follow(changes) || self.occupies_twice(changes) {
            return Err(Conflict);
        }
        Ok(())
    }

    /// Whether every written aggregate has the version after the stored one.
    fn writes_follow(&self, changes: &Changeset) -> bool {
        let follows = |id: &AggregateId, version: Version| self.version(id).next() == version;
        changes.jobs().iter().all(|write| self.jobs.version(write.job.id).next() == write.job.version)
            && changes.workers().iter().all(|worker| self.workers.version(&worker.id).next() == worker.version)
            && changes.names().iter().all(|record| follows(&AggregateId::Name(record.name.clone()), record.version))
            && changes
                .deregistrations()
                .iter()
                .all(|known| follows(&AggregateId::Deregistration(known.id), known.version))
    }

    /// Whether two jobs would occupy one worker.
    fn occupies_twice(&self, changes: &Changeset) -> bool {
        let writes = changes.jobs();
        writes.iter().enumerate().any(|(index, write)| {
            let Some(worker) = write.job.occupies() else {
                return false;
            };
            let by_another_write = writes[..index].iter().any(|other| other.job.occupies() == Some(worker));
            let by_a_stored_job = self
                .workers
                .occupant(worker)
                .is_some_and(|occupation| !writes.iter().any(|other| other.job.id == occupation.job_id));
            by_another_write || by_a_stored_job
        })
    }

    fn write(&mut self, changes: &Changeset, now: Timestamp, rules: &Rules) {
        for worker in changes.workers() {
            self.workers.write(worker, now);
        }
        for change in changes.vitals() {
            self.workers.apply(change);
        }
        for write in changes.jobs() {
            let before = self.jobs.write(write, now);
            if let Some((worker, occupation)) = before.as_deref().and_then(occupation) {
                self.workers.vacate(worker, occupation);
            }
        }
        for write in changes.jobs() {
            if let Some((worker, occupation)) = occupation(&write.job) {
                self.workers.occupy(worker, occupation);
            }
        }
        for record in changes.names() {
            self.names.insert(record.name.clone(), record.clone());
        }
        for deregistration in changes.deregistrations() {
            self.deregistrations.insert(deregistration.id, Arc::clone(deregistration));
        }
        for event in changes.job_events() {
            self.jobs.append(event.clone());
        }
        for event in changes.worker_events() {
            self.workers.append(event.clone());
        }
        for (id, entry) in changes.ledger() {
            self.jobs.record(*id, entry);
        }
        for callback in changes.callbacks() {
            self.callbacks.enqueue(callback.clone(), now, &rules.policy);
        }
        for id in changes.released_callbacks() {
            self.callbacks.release(*id, now);
        }
        for (key, record) in changes.idempotency_keys() {
            self.idempotency_keys.insert(key.clone(), record.clone());
        }
        for write in changes.jobs() {
            self.jobs.compact(write.job.id);
        }
    }
}
