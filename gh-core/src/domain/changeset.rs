//! What a decision changes, and what it relied on. Only the core can make one.
//!
//! A store does one thing with a [`Changeset`]: all of it, or none of it and a conflict. Its fields are private, so
//! nothing outside this crate can store a status without its event and its callback. Stores that are logs write it down;
//! what they read back is a [`Recorded`], which can be looked at but not stored again.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::callback::NewCallback;
use super::code::ClientName;
use super::cost::LedgerEntry;
use super::event::{JobEvent, WorkerEvent};
use super::ids::{DeregistrationId, JobId, Name, Version, WorkerId};
use super::job::{IdempotencyRecord, Job};
use super::snapshot::Snapshot;
use super::time::Timestamp;
use super::watch::FleetWatch;
use super::worker::{Deregistration, NameRecord, VitalsChange, Worker};

/// One of the things whose version a decision can rely on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AggregateId {
    /// A worker.
    Worker(WorkerId),
    /// A job.
    Job(JobId),
    /// A name.
    Name(Name),
    /// A deregistration.
    Deregistration(DeregistrationId),
}

/// A job as it shall be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobWrite {
    /// The new state; its version is later than the one that must be stored now: by one for each decision that the
    /// changeset holds.
    pub job: Arc<Job>,
    /// When the sweeper has to look at it.
    pub next_deadline: Option<Timestamp>,
}

/// What is stored now, as far as a changeset can be refused for it.
pub trait Stored {
    /// The version of an aggregate; [`Version::ABSENT`] where there is none.
    fn version(&self, id: &AggregateId) -> Version;

    /// The last sign of life of a worker.
    fn last_seen(&self, id: &WorkerId) -> Option<Timestamp>;

    /// The job that [occupies](Job::occupies) a worker.
    fn occupant(&self, id: &WorkerId) -> Option<JobId>;

    /// Whether this key against double submission was used.
    fn has_idempotency_key(&self, key: &(ClientName, Box<str>)) -> bool;
}

/// All that one decision changes, and the version of everything it relied on.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Changeset {
    pub(super) relied_on: Vec<(AggregateId, Version)>,
    pub(super) silent: Vec<(WorkerId, Timestamp)>,
    pub(super) occupants: Vec<(WorkerId, Option<JobId>)>,
    pub(super) jobs: Vec<JobWrite>,
    pub(super) workers: Vec<Arc<Worker>>,
    pub(super) names: Vec<NameRecord>,
    pub(super) deregistrations: Vec<Arc<Deregistration>>,
    pub(super) vitals: Vec<VitalsChange>,
    pub(super) job_events: Vec<JobEvent>,
    pub(super) worker_events: Vec<WorkerEvent>,
    pub(super) callbacks: Vec<NewCallback>,
    pub(super) released_callbacks: Vec<JobId>,
    pub(super) ledger: Vec<(JobId, LedgerEntry)>,
    pub(super) idempotency_keys: Vec<((ClientName, Box<str>), IdempotencyRecord)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) watch: Option<Arc<FleetWatch>>,
}

impl Changeset {
    /// Whether it may be stored now, with all that the accessors below say of refusals. For stores that have what is
    /// stored at hand; a database checks the same in its own way.
    #[must_use]
    pub fn fits(&self, stored: &impl Stored) -> bool {
        self.relied_on.iter().all(|(id, version)| stored.version(id) == *version)
            && self.silent.iter().all(|(id, last_seen)| stored.last_seen(id).is_none_or(|seen| seen <= *last_seen))
            && self.occupants.iter().all(|(id, occupant)| stored.occupant(id) == *occupant)
            && !self.idempotency_keys.iter().any(|(key, _)| stored.has_idempotency_key(key))
            && !self.occupies_twice(stored)
    }

    /// Whether this was decided on something that `other` would have written. A store that refuses `other` refuses
    /// this too, where both are in one batch: a version alone does not tell who wrote it.
    #[must_use]
    pub fn builds_on(&self, other: &Self) -> bool {
        self.relied_on.iter().any(|(id, version)| {
            let written = match id {
                AggregateId::Job(id) => {
                    other.jobs.iter().find(|write| write.job.id == *id).map(|write| write.job.version)
                }
                AggregateId::Worker(id) => {
                    other.workers.iter().find(|known| known.id == *id).map(|known| known.version)
                }
                AggregateId::Name(name) => {
                    other.names.iter().find(|known| known.name == *name).map(|known| known.version)
                }
                AggregateId::Deregistration(id) => {
                    other.deregistrations.iter().find(|known| known.id == *id).map(|known| known.version)
                }
            };
            written == Some(*version)
        })
    }

    /// Whether two jobs would occupy one worker.
    fn occupies_twice(&self, stored: &impl Stored) -> bool {
        self.jobs.iter().enumerate().any(|(index, write)| {
            let Some(worker) = write.job.occupies() else {
                return false;
            };
            let by_another_write = self.jobs[..index].iter().any(|other| other.job.occupies() == Some(worker));
            let by_a_stored_job =
                stored.occupant(worker).is_some_and(|occupant| !self.jobs.iter().any(|other| other.job.id == occupant));
            by_another_write || by_a_stored_job
        })
    }

    /// The version that each aggregate must have now, written or only relied on; absent ones have version 0. A store
    /// that finds another refuses the whole changeset.
    #[must_use]
    pub fn relied_on(&self) -> &[(AggregateId, Version)] {
        &self.relied_on
    }

    /// Workers whose last sign of life must not be later than this: a store that finds a later one refuses the whole
    /// changeset.
    #[must_use]
    pub fn silent(&self) -> &[(WorkerId, Timestamp)] {
        &self.silent
    }

    /// By which job, if by any, each of these workers must be [occupied](Job::occupies): a store that finds another
    /// refuses the whole changeset. Every write of a worker asks for this, since a grant relies on its worker without
    /// writing it.
    #[must_use]
    pub fn occupants(&self) -> &[(WorkerId, Option<JobId>)] {
        &self.occupants
    }

    /// Jobs to write. The worker that a job [occupies](Job::occupies) may be occupied by no other: a store that finds
    /// another refuses the whole changeset.
    #[must_use]
    pub fn jobs(&self) -> &[JobWrite] {
        &self.jobs
    }

    /// Workers to write.
    #[must_use]
    pub fn workers(&self) -> &[Arc<Worker>] {
        &self.workers
    }

    /// Names to write.
    #[must_use]
    pub fn names(&self) -> &[NameRecord] {
        &self.names
    }

    /// Deregistrations to write.
    #[must_use]
    pub fn deregistrations(&self) -> &[Arc<Deregistration>] {
        &self.deregistrations
    }

    /// What calls of workers left behind; folded in with [`Vitals::apply`](super::worker::Vitals::apply), never refused.
    #[must_use]
    pub fn vitals(&self) -> &[VitalsChange] {
        &self.vitals
    }

    /// Events of jobs to append, numbered.
    #[must_use]
    pub fn job_events(&self) -> &[JobEvent] {
        &self.job_events
    }

    /// Events of workers to append, numbered.
    #[must_use]
    pub fn worker_events(&self) -> &[WorkerEvent] {
        &self.worker_events
    }

    /// Callbacks to enqueue with [`CallbackQueue::enqueue`](super::callback::CallbackQueue::enqueue), in this order.
    #[must_use]
    pub fn callbacks(&self) -> &[NewCallback] {
        &self.callbacks
    }

    /// Jobs whose held terminal callback may go now
    /// ([`CallbackQueue::release_held`](super::callback::CallbackQueue::release_held)).
    #[must_use]
    pub fn released_callbacks(&self) -> &[JobId] {
        &self.released_callbacks
    }

    /// LLM calls to insert or replace, by job and call id.
    #[must_use]
    pub fn ledger(&self) -> &[(JobId, LedgerEntry)] {
        &self.ledger
    }

    /// Keys against double submission to insert: a store that has one of them refuses the whole changeset.
    #[must_use]
    pub fn idempotency_keys(&self) -> &[((ClientName, Box<str>), IdempotencyRecord)] {
        &self.idempotency_keys
    }

    /// The record of the watch over the fleet as it shall be. Only a [look](crate::ports::store::Store::watch) writes
    /// it, and no two at once.
    #[must_use]
    pub const fn watch(&self) -> Option<&Arc<FleetWatch>> {
        self.watch.as_ref()
    }

    /// One changeset for decisions that were made in this order, each on what the one before it left: stored together
    /// or not at all. What it relies on are the versions from before the first; of everything that was written the
    /// last state counts.
    pub(crate) fn in_sequence(decisions: impl IntoIterator<Item = Self>) -> Self {
        let mut decisions = decisions.into_iter();
        let mut whole = decisions.next().unwrap_or_default();
        let Some(second) = decisions.next() else {
            return whole;
        };
        let mut relied_on = Latest::of(std::mem::take(&mut whole.relied_on), |(id, _)| id.clone());
        let mut occupants = Latest::of(std::mem::take(&mut whole.occupants), |(id, _)| id.clone());
        let mut jobs = Latest::of(std::mem::take(&mut whole.jobs), |write| write.job.id);
        let mut workers = Latest::of(std::mem::take(&mut whole.workers), |worker| worker.id.clone());
        let mut names = Latest::of(std::mem::take(&mut whole.names), |record| record.name.clone());
        let mut deregistrations = Latest::of(std::mem::take(&mut whole.deregistrations), |known| known.id);
        let mut ledger = Latest::of(std::mem::take(&mut whole.ledger), |(id, entry)| {
            (*id, Box::<str>::from(&**entry.report.call_id()))
        });
        for next in [second].into_iter().chain(decisions) {
            relied_on.keep_first(next.relied_on);
            occupants.keep_first(next.occupants);
            jobs.replace(next.jobs);
            workers.replace(next.workers);
            names.replace(next.names);
            deregistrations.replace(next.deregistrations);
            ledger.replace(next.ledger);
            whole.silent.extend(next.silent);
            whole.vitals.extend(next.vitals);
            whole.job_events.extend(next.job_events);
            whole.worker_events.extend(next.worker_events);
            whole.callbacks.extend(next.callbacks);
            whole.released_callbacks.extend(next.released_callbacks);
            whole.idempotency_keys.extend(next.idempotency_keys);
            whole.watch = next.watch.or(whole.watch);
        }
        whole.relied_on = relied_on.items;
        whole.occupants = occupants.items;
        whole.jobs = jobs.items;
        whole.workers = workers.items;
        whole.names = names.items;
        whole.deregistrations = deregistrations.items;
        whole.ledger = ledger.items;
        whole
    }

    /// Relies on all that the snapshot shows of the workers it relies on: also on what occupies them, and on there
    /// being no later sign of life. Versions do not tell of these.
    pub(super) fn rely_on_all_of_workers(&mut self, snapshot: &Snapshot) {
        let Self { relied_on, silent, occupants, .. } = self;
        let workers = relied_on.iter().filter_map(|(id, _)| match id {
            AggregateId::Worker(id) => snapshot.workers.get(id),
            AggregateId::Job(_) | AggregateId::Name(_) | AggregateId::Deregistration(_) => None,
        });
        for view in workers {
            let id = &view.worker.id;
            silent.push((id.clone(), view.vitals.last_seen));
            if !occupants.iter().any(|(known, _)| known == id) {
                occupants.push((id.clone(), view.occupied_by.map(|occupation| occupation.job_id)));
            }
        }
    }

    /// Does not rely any more on what occupies these workers: earlier decisions of its [sequence](Self::in_sequence)
    /// have changed that, and what they rely on stands for it.
    pub(crate) fn trust_occupants_of(&mut self, changed: &HashSet<WorkerId>) {
        self.occupants.retain(|(worker, _)| !changed.contains(worker));
    }

    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
            && self.workers.is_empty()
            && self.names.is_empty()
            && self.deregistrations.is_empty()
            && self.vitals.is_empty()
            && self.worker_events.is_empty()
            && self.watch.is_none()
    }
}

/// A changeset that was stored, as a log gives it back.
///
/// It is believed, like everything that a store gives back; but no store takes it for a decision.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Parts")]
pub struct Recorded(Changeset);

impl Recorded {
    /// What was stored.
    pub(super) const fn changes(&self) -> &Changeset {
        &self.0
    }

    /// Events of jobs that it appended.
    #[must_use]
    pub fn job_events(&self) -> &[JobEvent] {
        &self.0.job_events
    }

    /// Events of workers that it appended.
    #[must_use]
    pub fn worker_events(&self) -> &[WorkerEvent] {
        &self.0.worker_events
    }
}

/// What a log holds of a [`Changeset`]: what its check was made against, and callbacks, which are kept by job, matter
/// no more.
#[derive(Deserialize)]
struct Parts {
    jobs: Vec<JobWrite>,
    workers: Vec<Arc<Worker>>,
    names: Vec<NameRecord>,
    deregistrations: Vec<Arc<Deregistration>>,
    vitals: Vec<VitalsChange>,
    job_events: Vec<JobEvent>,
    worker_events: Vec<WorkerEvent>,
    ledger: Vec<(JobId, LedgerEntry)>,
    idempotency_keys: Vec<((ClientName, Box<str>), IdempotencyRecord)>,
    #[serde(default)]
    watch: Option<Arc<FleetWatch>>,
}

impl From<Parts> for Recorded {
    fn from(parts: Parts) -> Self {
        Self(Changeset {
            jobs: parts.jobs,
            workers: parts.workers,
            names: parts.names,
            deregistrations: parts.deregistrations,
            vitals: parts.vitals,
            job_events: parts.job_events,
            worker_events: parts.worker_events,
            ledger: parts.ledger,
            idempotency_keys: parts.idempotency_keys,
            watch: parts.watch,
            ..Changeset::default()
        })
    }
}

/// A list in which each key stands once, in the order in which the keys came.
struct Latest<K, V> {
    items: Vec<V>,
    places: HashMap<K, usize>,
    key: fn(&V) -> K,
}

impl<K: Hash + Eq, V> Latest<K, V> {
    fn of(items: Vec<V>, key: fn(&V) -> K) -> Self {
        let mut latest = Self { items: Vec::with_capacity(items.len()), places: HashMap::new(), key };
        latest.replace(items);
        latest
    }

    /// Adds items; of two with one key the later takes the place of the earlier.
    fn replace(&mut self, items: Vec<V>) {
        for item in items {
            match self.places.get(&(self.key)(&item)) {
                Some(place) => self.items[*place] = item,
                None => self.push(item),
            }
        }
    }

    /// Adds items; of two with one key the earlier stays.
    fn keep_first(&mut self, items: Vec<V>) {
        for item in items {
            if !self.places.contains_key(&(self.key)(&item)) {
                self.push(item);
            }
        }
    }

    fn push(&mut self, item: V) {
        self.places.insert((self.key)(&item), self.items.len());
        self.items.push(item);
    }
}
