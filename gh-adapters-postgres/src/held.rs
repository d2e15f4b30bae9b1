//! What is stored as far as a batch has it locked or remembers it, and what the changesets that were taken so far make of it.
//!
//! A batch is judged here, in order and in memory: each changeset on what the ones before it left. Only the last state
//! of each row is then written.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use gh_core::domain::callback::{CallbackQueue, Delivery, DeliveryState, Settled};
use gh_core::domain::changeset::{AggregateId, Changeset, JobWrite, Stored};
use gh_core::domain::code::ClientName;
use gh_core::domain::cost::LedgerEntry;
use gh_core::domain::event::{JobEvent, WorkerEvent};
use gh_core::domain::ids::{DeregistrationId, JobId, Name, Version, WorkerId};
use gh_core::domain::job::IdempotencyRecord;
use gh_core::domain::rules::Rules;
use gh_core::domain::time::Timestamp;
use gh_core::domain::worker::{Deregistration, NameRecord, Occupation, Vitals, Worker};
use gh_core::ports::outbox::Settlement;
use gh_core::ports::store::Conflict;

use crate::footprint::Footprint;
use crate::rows::worker::StoredVitals;

/// The callbacks of a job.
#[derive(Debug)]
pub(crate) struct HeldQueue {
    pub(crate) queue: CallbackQueue,
    /// How often its row was written; 0 where there is none.
    pub(crate) revision: u64,
    pub(crate) changed: bool,
}

/// Rows that are believed to be as they are held, in the order of their keys. Writing locks them first and checks that.
#[derive(Debug, Default)]
pub(crate) struct Unlocked {
    pub(crate) workers: Vec<WorkerId>,
    pub(crate) jobs: Vec<JobId>,
}

/// Rows that are locked or remembered, and what shall become of them.
#[derive(Debug)]
pub(crate) struct Held {
    /// The store's time.
    pub(crate) now: Timestamp,
    pub(crate) versions: HashMap<AggregateId, Version>,
    /// What somebody else is about to bring, or has locked where that is not waited for.
    pub(crate) elsewhere: HashSet<AggregateId>,
    /// Workers whose vitals somebody else has locked, where that is not waited for.
    pub(crate) vitals_elsewhere: HashSet<WorkerId>,
    /// Jobs whose callbacks somebody else has locked, where that is not waited for.
    pub(crate) queues_elsewhere: HashSet<JobId>,
    pub(crate) vitals: HashMap<WorkerId, StoredVitals>,
    pub(crate) keys: HashSet<(ClientName, Box<str>)>,
    /// Which job occupies each locked worker, by the rows of workers.
    pub(crate) occupants: HashMap<WorkerId, Option<Occupation>>,
    /// Locked workers whose occupant is another than in their row.
    pub(crate) reoccupied: BTreeSet<WorkerId>,
    /// Workers as their rows are.
    workers_before: HashMap<WorkerId, (Version, Option<Occupation>)>,
    /// Jobs as their rows are: the version, which worker each occupies, and whether it is only reserved.
    jobs_before: HashMap<JobId, (Version, Option<(WorkerId, bool)>)>,
    /// Rows that are not locked and that nothing but writing finds out about.
    pub(crate) unlocked: Unlocked,
    queues: BTreeMap<JobId, HeldQueue>,
    pub(crate) jobs: BTreeMap<JobId, JobWrite>,
    pub(crate) workers: BTreeMap<WorkerId, Arc<Worker>>,
    /// Workers whose vitals are to be written.
    pub(crate) called: HashSet<WorkerId>,
    pub(crate) names: BTreeMap<Name, NameRecord>,
    pub(crate) deregistrations: BTreeMap<uuid::Uuid, Arc<Deregistration>>,
    pub(crate) job_events: Vec<JobEvent>,
    pub(crate) worker_events: Vec<WorkerEvent>,
    pub(crate) through: Vec<(JobId, Delivery)>,
    pub(crate) calls: BTreeMap<(JobId, Box<str>), LedgerEntry>,
    pub(crate) new_keys: BTreeMap<(ClientName, Box<str>), IdempotencyRecord>,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            now: Timestamp::from_micros(i64::MIN),
            versions: HashMap::new(),
            elsewhere: HashSet::new(),
            vitals_elsewhere: HashSet::new(),
            queues_elsewhere: HashSet::new(),
            vitals: HashMap::new(),
            keys: HashSet::new(),
            occupants: HashMap::new(),
            reoccupied: BTreeSet::new(),
            workers_before: HashMap::new(),
            jobs_before: HashMap::new(),
            unlocked: Unlocked::default(),
            queues: BTreeMap::new(),
            jobs: BTreeMap::new(),
            workers: BTreeMap::new(),
            called: HashSet::new(),
            names: BTreeMap::new(),
            deregistrations: BTreeMap::new(),
            job_events: Vec::new(),
            worker_events: Vec::new(),
            through: Vec::new(),
            calls: BTreeMap::new(),
            new_keys: BTreeMap::new(),
        }
    }
}

impl Held {
    /// Notes the callbacks of a job as they are stored.
    pub(crate) fn keep_queue(&mut self, queue: CallbackQueue, revision: u64) {
        self.queues.insert(queue.job_id, HeldQueue { queue, revision, changed: false });
    }

    /// Queues that are to be written.
    pub(crate) fn changed_queues(&self) -> impl Iterator<Item = &HeldQueue> {
        self.queues.values().filter(|held| held.changed)
    }

    /// Takes a changeset, whole or not at all.
    pub(crate) fn take(&mut self, changes: &Changeset, rules: &Rules) -> Result<(), Conflict> {
        if self.is_elsewhere(changes) || !changes.fits(self) {
            return Err(Conflict);
        }
        for worker in changes.workers() {
            self.take_worker(worker);
        }
        for change in changes.vitals() {
            if let Some(known) = self.vitals.get_mut(&change.worker_id) {
                known.vitals.apply(change);
                // Only a new generation, or a clock that went back, makes a sign of life earlier than this.
                known.silent_since = known.silent_since.map(|since| since.min(known.vitals.last_seen));
                self.called.insert(change.worker_id.clone());
            }
        }
        self.take_jobs(changes.jobs());
        for record in changes.names() {
            self.versions.insert(AggregateId::Name(record.name.clone()), record.version);
            self.names.insert(record.name.clone(), record.clone());
        }
        for deregistration in changes.deregistrations() {
            let id: DeregistrationId = deregistration.id;
            self.versions.insert(AggregateId::Deregistration(id), deregistration.version);
            self.deregistrations.insert(id.as_uuid(), Arc::clone(deregistration));
        }
        self.job_events.extend(changes.job_events().iter().cloned());
        self.worker_events.extend(changes.worker_events().iter().cloned());
        for (id, entry) in changes.ledger() {
            self.calls.insert((*id, (**entry.report.call_id()).into()), entry.clone());
        }
        let now = self.now;
        for callback in changes.callbacks() {
            let id = callback.job_id;
            let held = self.queues.entry(id).or_insert_with(|| HeldQueue {
                queue: CallbackQueue::new(id),
                revision: 0,
                changed: false,
            });
            held.changed = true;
            let replaced = held.queue.enqueue(callback.clone(), now, &rules.policy);
            self.through.extend(replaced.into_iter().map(|delivery| (id, delivery)));
        }
        for id in changes.released_callbacks() {
            if let Some(held) = self.queues.get_mut(id) {
                held.queue.release_held(now);
                held.changed = true;
            }
        }
        for (key, record) in changes.idempotency_keys() {
            self.keys.insert(key.clone());
            self.new_keys.insert(key.clone(), record.clone());
        }
        Ok(())
    }

    /// Whether it touches what somebody else has locked, where that is not waited for.
    fn is_elsewhere(&self, changes: &Changeset) -> bool {
        let calls = changes.vitals().iter().map(|change| &change.worker_id);
        let silent = changes.silent().iter().map(|(id, _)| id);
        let workers = changes.workers().iter().map(|worker| &worker.id);
        let callbacks = changes.callbacks().iter().map(|callback| &callback.job_id);
        let mut touched = callbacks.chain(changes.released_callbacks());
        calls.chain(silent).chain(workers).any(|id| self.vitals_elsewhere.contains(id))
            || touched.any(|id| self.queues_elsewhere.contains(id))
    }

    fn take_worker(&mut self, worker: &Arc<Worker>) {
        let now = self.now;
        self.versions.insert(AggregateId::Worker(worker.id.clone()), worker.version);
        self.called.insert(worker.id.clone());
        let fresh = || StoredVitals { vitals: Vitals::new(now), silent_since: None, revision: 0 };
        let known = self.vitals.entry(worker.id.clone()).or_insert_with(fresh);
        let since = known.silent_since.unwrap_or(known.vitals.last_seen);
        known.silent_since = worker.is_present().then_some(since);
        self.workers.insert(worker.id.clone(), Arc::clone(worker));
    }

    fn take_jobs(&mut self, writes: &[JobWrite]) {
        // Jobs that leave a worker first, so that another of them can come.
        let mut coming = Vec::new();
        for write in writes {
            let id = write.job.id;
            let before = self.occupies(id);
            let after = write.job.occupation().map(|(worker, occupation)| (worker.clone(), occupation.reserved));
            self.versions.insert(AggregateId::Job(id), write.job.version);
            self.jobs.insert(id, write.clone());
            if before == after {
                continue;
            }
            if let Some((worker, _)) = before
                && self.occupants.get(&worker).copied().flatten().is_some_and(|occupant| occupant.job_id == id)
            {
                self.occupy(worker, None);
            }
            if let Some((worker, reserved)) = after {
                coming.push((worker, Occupation { job_id: id, reserved }));
            }
        }
        for (worker, occupation) in coming {
            self.occupy(worker, Some(occupation));
        }
    }

    fn occupy(&mut self, worker: WorkerId, occupation: Option<Occupation>) {
        self.occupants.insert(worker.clone(), occupation);
        self.reoccupied.insert(worker);
    }

    /// The worker that a job occupies, and whether it is only reserved, as far as the job was locked or written.
    fn occupies(&self, id: JobId) -> Option<(WorkerId, bool)> {
        match self.jobs.get(&id) {
            Some(write) => write.job.occupation().map(|(worker, occupation)| (worker.clone(), occupation.reserved)),
            None => self.jobs_before.get(&id).and_then(|(_, occupies)| occupies.clone()),
        }
    }

    /// Notes a worker as it is stored.
    pub(crate) fn keep_worker(&mut self, id: WorkerId, version: Version, occupant: Option<Occupation>) {
        self.versions.insert(AggregateId::Worker(id.clone()), version);
        self.workers_before.insert(id.clone(), (version, occupant));
        self.occupants.insert(id, occupant);
    }

    /// Notes a job as it is stored, with the worker that it occupies.
    pub(crate) fn keep_job(&mut self, id: JobId, version: Version, occupies: Option<(WorkerId, bool)>) {
        self.versions.insert(AggregateId::Job(id), version);
        self.jobs_before.insert(id, (version, occupies));
    }

    /// Whether a job has no row yet.
    pub(crate) fn is_new(&self, id: JobId) -> bool {
        !self.jobs_before.contains_key(&id)
    }

    /// The version that the row of a job has.
    pub(crate) fn job_before(&self, id: JobId) -> Version {
        self.jobs_before.get(&id).map_or(Version::ABSENT, |(version, _)| *version)
    }

    /// The version that the row of a worker has, and the job that occupies it by that row.
    pub(crate) fn worker_before(&self, id: &WorkerId) -> (Version, Option<Occupation>) {
        self.workers_before.get(id).copied().unwrap_or((Version::ABSENT, None))
    }

    /// Workers whose rows say nothing new but who occupies them.
    pub(crate) fn only_reoccupied(&self) -> impl Iterator<Item = &WorkerId> {
        self.reoccupied.iter().filter(|id| !self.workers.contains_key(*id))
    }

    /// Has writing find out whether these rows are as they are held, which nobody has locked. A row that is written
    /// with what is known of it needs no more than that. If there is another one in its table, all of the table's are
    /// locked first: so they are locked in one order.
    pub(crate) fn verify(&mut self, rows: &Footprint) {
        let only_reoccupied: HashSet<&WorkerId> = self.only_reoccupied().collect();
        if !rows.workers.iter().all(|id| only_reoccupied.contains(id)) {
            self.unlocked.workers = rows.workers.iter().cloned().collect();
        }
        if !rows.jobs.iter().all(|id| self.jobs.contains_key(&JobId::new(*id))) {
            let jobs = rows.jobs.iter().map(|id| JobId::new(*id));
            self.unlocked.jobs = jobs.filter(|id| !self.is_new(*id)).collect();
        }
    }

    /// Workers as their rows are after writing.
    pub(crate) fn workers_after(&self) -> impl Iterator<Item = (&WorkerId, Version, Option<Occupation>)> {
        self.workers_before.iter().map(|(id, (before, _))| {
            let version = self.workers.get(id).map_or(*before, |worker| worker.version);
            (id, version, self.occupants.get(id).copied().flatten())
        })
    }

    /// The callbacks of a job with the revision of their row, as they are after writing.
    pub(crate) fn queue_after(&self, id: JobId) -> Option<(u64, &CallbackQueue)> {
        self.queues.get(&id).map(|held| (held.revision + u64::from(held.changed), &held.queue))
    }

    /// Workers that these locked jobs occupy and that are not locked themselves.
    pub(crate) fn unlocked_workers(&self, jobs: &BTreeSet<uuid::Uuid>) -> BTreeSet<WorkerId> {
        let occupied = self.jobs_before.iter().filter(|(id, _)| jobs.contains(&id.as_uuid()));
        let workers = occupied.filter_map(|(_, (_, worker))| worker.as_ref().map(|(worker, _)| worker));
        workers.filter(|worker| !self.occupants.contains_key(*worker)).cloned().collect()
    }

    /// Takes jobs for moved whose worker is one of these, which somebody else has locked.
    pub(crate) fn leave_jobs_of(&mut self, workers: &BTreeSet<WorkerId>) {
        let is_one = |worker: &Option<(WorkerId, bool)>| worker.as_ref().is_some_and(|(id, _)| workers.contains(id));
        let left = self.jobs_before.iter().filter(|(_, (_, worker))| is_one(worker));
        self.elsewhere.extend(left.map(|(id, _)| AggregateId::Job(*id)));
    }

    /// The queue of a job, to be changed.
    pub(crate) fn queue_mut(&mut self, id: JobId) -> Option<&mut HeldQueue> {
        self.queues.get_mut(&id)
    }

    /// Records what came of an attempt to send; gives back the deliveries that were given up.
    pub(crate) fn settle(&mut self, settlement: &Settlement) -> Vec<Delivery> {
        let now = self.now;
        let settled = self.queues.get_mut(&settlement.job_id).and_then(|held| {
            held.queue.open.front().filter(|head| head.id == settlement.delivery_id)?;
            let settled = held.queue.settle(settlement.lease_id, &settlement.outcome, now, settlement.jitter)?;
            held.changed = true;
            Some(settled)
        });
        let Some(Settled { closed, overtaken }) = settled else {
            return Vec::new();
        };
        let through: Vec<Delivery> = closed.into_iter().chain(overtaken).collect();
        let dead = through.iter().filter(|delivery| delivery.state == DeliveryState::Dead).cloned().collect();
        self.through.extend(through.into_iter().map(|delivery| (settlement.job_id, delivery)));
        dead
    }
}

impl Stored for Held {
    fn version(&self, id: &AggregateId) -> Version {
        // What somebody else is changing has a version that nobody has seen yet.
        const UNSEEN: Version = Version(u64::MAX);
        if self.elsewhere.contains(id) {
            return UNSEEN;
        }
        self.versions.get(id).copied().unwrap_or(Version::ABSENT)
    }

    fn last_seen(&self, id: &WorkerId) -> Option<Timestamp> {
        self.vitals.get(id).map(|known| known.vitals.last_seen)
    }

    fn occupant(&self, id: &WorkerId) -> Option<JobId> {
        self.occupants.get(id).copied().flatten().map(|occupant| occupant.job_id)
    }

    fn has_idempotency_key(&self, key: &(ClientName, Box<str>)) -> bool {
        self.keys.contains(key)
    }
}
