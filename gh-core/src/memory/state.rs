//! Everything that is stored, and the one way in which it changes.

use std::collections::HashMap;
use std::sync::Arc;

use super::callbacks::CallbackTable;
use super::jobs::JobTable;
use super::workers::WorkerTable;
use crate::domain::changeset::{AggregateId, Changeset, Stored};
use crate::domain::code::ClientName;
use crate::domain::ids::{DeregistrationId, JobId, Name, Version, WorkerId};
use crate::domain::job::{IdempotencyRecord, Job};
use crate::domain::rules::Rules;
use crate::domain::time::Timestamp;
use crate::domain::watch::{FleetWatch, STOOD_STILL};
use crate::domain::worker::{Deregistration, NameRecord};
use crate::ports::store::Conflict;

/// All tables.
#[derive(Debug)]
pub(super) struct State {
    now: Timestamp,
    /// The end of the earliest call before a long silence that no look has seen yet.
    silent_from: Option<Timestamp>,
    writing: bool,
    pub(super) jobs: JobTable,
    pub(super) workers: WorkerTable,
    pub(super) callbacks: CallbackTable,
    pub(super) names: HashMap<Name, NameRecord>,
    pub(super) deregistrations: HashMap<DeregistrationId, Arc<Deregistration>>,
    pub(super) idempotency_keys: HashMap<(ClientName, Box<str>), IdempotencyRecord>,
    pub(super) watch: Arc<FleetWatch>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            now: Timestamp::from_micros(i64::MIN),
            silent_from: None,
            writing: false,
            jobs: JobTable::default(),
            workers: WorkerTable::default(),
            callbacks: CallbackTable::default(),
            names: HashMap::new(),
            deregistrations: HashMap::new(),
            idempotency_keys: HashMap::new(),
            watch: Arc::default(),
        }
    }
}

impl State {
    /// The store's time, now that the clock says `reading`.
    pub(super) fn advance(&mut self, reading: Timestamp) -> Timestamp {
        if reading.since(self.now) > STOOD_STILL {
            self.silent_from.get_or_insert(self.now);
        }
        self.now = self.now.max(reading);
        self.now
    }

    /// Since when the process has been silent, if it was for long since the last look.
    pub(super) const fn take_silence(&mut self) -> Option<Timestamp> {
        self.silent_from.take()
    }

    /// Whether a panic cut off a write.
    pub(super) const fn is_half_written(&self) -> bool {
        self.writing
    }

    /// Stores a changeset, whole or not at all.
    pub(super) fn commit(&mut self, changes: &Changeset, now: Timestamp, rules: &Rules) -> Result<(), Conflict> {
        if !changes.fits(self) {
            return Err(Conflict);
        }
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

    pub(super) fn write(&mut self, changes: &Changeset, now: Timestamp, rules: &Rules) {
        for worker in changes.workers() {
            self.workers.write(worker, now);
        }
        for change in changes.vitals() {
            self.workers.apply(change);
        }
        for write in changes.jobs() {
            let before = self.jobs.write(write, now);
            if let Some((worker, occupation)) = before.as_deref().and_then(Job::occupation) {
                self.workers.vacate(worker, occupation);
            }
        }
        for write in changes.jobs() {
            if let Some((worker, occupation)) = write.job.occupation() {
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
        if let Some(watch) = changes.watch() {
            self.watch = Arc::clone(watch);
        }
        for write in changes.jobs() {
            self.jobs.compact(write.job.id);
        }
    }
}

impl Stored for State {
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

    fn last_seen(&self, id: &WorkerId) -> Option<Timestamp> {
        self.workers.last_seen(id)
    }

    fn occupant(&self, id: &WorkerId) -> Option<JobId> {
        self.workers.occupant(id).map(|occupation| occupation.job_id)
    }

    fn has_idempotency_key(&self, key: &(ClientName, Box<str>)) -> bool {
        self.idempotency_keys.contains_key(key)
    }
}
