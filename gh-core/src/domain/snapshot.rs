//! What a decision sees: the aggregates it asked for, all of one moment.

use std::collections::HashMap;
use std::sync::Arc;

use super::changeset::{AggregateId, Changeset, Recorded, Stored};
use super::code::ClientName;
use super::cost::LedgerEntry;
use super::ids::{DeregistrationId, JobId, Name, Version, WorkerId};
use super::job::{IdempotencyRecord, Job};
use super::time::Timestamp;
use super::worker::{Deregistration, NameRecord, Occupation, Vitals, WorkerView};

/// What a decision asks a store for. A snapshot holds all of it, and may hold more aggregates; what it says of one is
/// exact, such as the workers and waiting jobs of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// These jobs, each with the worker that it occupies, or that held it last.
    pub jobs: Vec<JobId>,
    /// These workers, each with the job that occupies it. A worker, whichever way it comes in, brings along the
    /// deregistration that waits for it.
    pub workers: Vec<WorkerId>,
    /// These names: their record, the deregistration that holds them, and every worker that carries them as worker
    /// id, target or instance id, each with the job that occupies it. Workers that carry it as target or instance id
    /// bring along what their own id and target lead to.
    pub names: Vec<Name>,
    /// For these names also the jobs that wait for workers of that target only.
    pub waiting_for: Vec<Name>,
    /// These keys against double submission, each with the job it made.
    pub idempotency_keys: Vec<(ClientName, Box<str>)>,
    /// These LLM calls of these jobs.
    pub calls: Vec<(JobId, Box<str>)>,
}

/// The workers that a name leads to.
#[derive(Clone, Debug, Default)]
pub struct NameView {
    /// The record, if the name was ever told.
    pub record: Option<NameRecord>,
    /// Workers that carry it as their target.
    pub by_target: Vec<WorkerId>,
    /// Workers that carry it as their instance id.
    pub by_instance: Vec<WorkerId>,
    /// Jobs that wait for workers of this target only, where asked for.
    pub waiting_jobs: Vec<JobId>,
}

/// The aggregates that a decision asked for, all of one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The store's time: the one clock of the decision.
    pub now: Timestamp,
    /// Jobs by id. A job that was asked for and is not here does not exist.
    pub jobs: HashMap<JobId, Arc<Job>>,
    /// Workers by id.
    pub workers: HashMap<WorkerId, WorkerView>,
    /// What names lead to.
    pub names: HashMap<Name, NameView>,
    /// Deregistrations that hold, or held, one of the names.
    pub deregistrations: HashMap<DeregistrationId, Arc<Deregistration>>,
    /// Keys against double submission that were used.
    pub idempotency_keys: HashMap<(ClientName, Box<str>), IdempotencyRecord>,
    /// LLM calls that were reported before.
    pub calls: HashMap<(JobId, Box<str>), LedgerEntry>,
}

impl Snapshot {
    /// Nothing, at this moment.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            now,
            jobs: HashMap::new(),
            workers: HashMap::new(),
            names: HashMap::new(),
            deregistrations: HashMap::new(),
            idempotency_keys: HashMap::new(),
            calls: HashMap::new(),
        }
    }

    /// Puts the rows of a changeset in their places. For stores that hold everything there is as a snapshot; they
    /// [`link`](Self::link) it before it is looked at. What a snapshot does not show, they keep themselves.
    pub fn apply(&mut self, changes: &Changeset) {
        self.jobs.extend(changes.jobs().iter().map(|write| (write.job.id, Arc::clone(&write.job))));
        for worker in changes.workers() {
            let fresh = || WorkerView {
                worker: Arc::clone(worker),
                vitals: Vitals::new(self.now),
                occupied_by: None,
                id_is_a_target: false,
                instance_load: 0,
            };
            self.workers.entry(worker.id.clone()).or_insert_with(fresh).worker = Arc::clone(worker);
        }
        for change in changes.vitals() {
            if let Some(view) = self.workers.get_mut(&change.worker_id) {
                view.vitals.apply(change);
            }
        }
        for record in changes.names() {
            self.names.entry(record.name.clone()).or_default().record = Some(record.clone());
        }
        self.deregistrations.extend(changes.deregistrations().iter().map(|known| (known.id, Arc::clone(known))));
        self.idempotency_keys.extend(changes.idempotency_keys().iter().cloned());
        let call =
            |(job_id, entry): &(JobId, LedgerEntry)| ((*job_id, (&**entry.report.call_id()).into()), entry.clone());
        self.calls.extend(changes.ledger().iter().map(call));
    }

    /// Does the same with what a log gives back.
    pub fn replay(&mut self, recorded: &Recorded) {
        self.apply(recorded.changes());
    }

    /// Works out what follows from jobs, workers and records of names: which job occupies a worker, how loaded its
    /// machine is, and what names lead to. Right only where the snapshot holds everything there is.
    pub fn link(&mut self) {
        self.names.retain(|_, view| {
            *view = NameView { record: view.record.take(), ..NameView::default() };
            view.record.is_some()
        });
        let occupations: HashMap<WorkerId, Occupation> = self
            .jobs
            .values()
            .filter_map(|job| job.occupation())
            .map(|(id, occupation)| (id.clone(), occupation))
            .collect();
        let mut loads: HashMap<Name, u32> = HashMap::new();
        let mut ids: Vec<&WorkerId> = self.workers.keys().collect();
        ids.sort_unstable();
        for id in ids {
            let identity = &self.workers[id].worker.identity;
            if let Some(target) = &identity.target_worker_id {
                self.names.entry(target.clone()).or_default().by_target.push(id.clone());
            }
            if let Some(instance) = &identity.ec2_instance_id {
                self.names.entry(instance.clone()).or_default().by_instance.push(id.clone());
                *loads.entry(instance.clone()).or_default() += u32::from(occupations.contains_key(id));
            }
        }
        for (id, view) in &mut self.workers {
            view.occupied_by = occupations.get(id).copied();
            view.id_is_a_target = self.names.get(id).is_some_and(|name| !name.by_target.is_empty());
            let instance = view.worker.identity.ec2_instance_id.as_ref();
            view.instance_load = instance.and_then(|instance| loads.get(instance)).copied().unwrap_or_default();
        }
        let mut waiting: Vec<&Arc<Job>> = self.jobs.values().filter(|job| job.waits_for().is_some()).collect();
        waiting.sort_unstable_by_key(|job| (job.obstacle(self.now), job.wait().map(|wait| wait.since), job.id));
        for job in waiting {
            if let Some(target) = job.waits_for() {
                self.names.entry(target.clone()).or_default().waiting_jobs.push(job.id);
            }
        }
    }

    /// The workers that a client means by `name`: those that carry it as their target, else the one of that id.
    pub fn workers_of<'s>(&'s self, name: &'s Name) -> impl Iterator<Item = &'s WorkerView> {
        let view = self.names.get(name);
        let by_target = view.map(|view| view.by_target.as_slice()).unwrap_or_default();
        let by_id = if by_target.is_empty() { self.workers.get(name) } else { None };
        by_target.iter().filter_map(|id| self.workers.get(id)).chain(by_id)
    }

    /// The deregistration that holds `name` now, if one does.
    #[must_use]
    pub fn hold_on(&self, name: &Name) -> Option<&Arc<Deregistration>> {
        let held_by = self.names.get(name)?.record.as_ref()?.held_by?;
        self.deregistrations.get(&held_by).filter(|deregistration| deregistration.holds(self.now))
    }
}

/// What is stored, where a snapshot holds everything there is and is [linked](Snapshot::link).
impl Stored for Snapshot {
    fn version(&self, id: &AggregateId) -> Version {
        let version = match id {
            AggregateId::Worker(id) => self.workers.get(id).map(|view| view.worker.version),
            AggregateId::Job(id) => self.jobs.get(id).map(|job| job.version),
            AggregateId::Name(name) => self.names.get(name).and_then(|view| Some(view.record.as_ref()?.version)),
            AggregateId::Deregistration(id) => self.deregistrations.get(id).map(|known| known.version),
        };
        version.unwrap_or(Version::ABSENT)
    }

    fn last_seen(&self, id: &WorkerId) -> Option<Timestamp> {
        self.workers.get(id).map(|view| view.vitals.last_seen)
    }

    fn occupant(&self, id: &WorkerId) -> Option<JobId> {
        self.workers.get(id)?.occupied_by.map(|occupation| occupation.job_id)
    }

    fn has_idempotency_key(&self, key: &(ClientName, Box<str>)) -> bool {
        self.idempotency_keys.contains_key(key)
    }
}
