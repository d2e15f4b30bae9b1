//! What a decision sees: the aggregates it asked for, all of one moment.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::changeset::{AggregateId, Changeset, JobWrite, Recorded, Stored};
use super::code::ClientName;
use super::cost::LedgerEntry;
use super::ids::{DeregistrationId, JobId, Name, Version, WorkerId};
use super::job::{IdempotencyRecord, Job};
use super::time::Timestamp;
use super::watch::FleetWatch;
use super::worker::{Deregistration, NameRecord, Occupation, Vitals, Worker, WorkerView};

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

impl Keys {
    /// Whether these ask for nothing but jobs and workers, with what hangs on them.
    #[must_use]
    pub const fn of_jobs_and_workers(&self) -> bool {
        let Self { jobs: _, workers: _, names, waiting_for, idempotency_keys, calls } = self;
        names.is_empty() && waiting_for.is_empty() && idempotency_keys.is_empty() && calls.is_empty()
    }

    /// All that any of these asks for, each once.
    #[must_use]
    pub fn merged<'k>(all: impl IntoIterator<Item = &'k Self>) -> Self {
        let mut merged = Self::default();
        for keys in all {
            merged.jobs.extend_from_slice(&keys.jobs);
            merged.workers.extend_from_slice(&keys.workers);
            merged.names.extend_from_slice(&keys.names);
            merged.waiting_for.extend_from_slice(&keys.waiting_for);
            merged.idempotency_keys.extend_from_slice(&keys.idempotency_keys);
            merged.calls.extend_from_slice(&keys.calls);
        }
        each_once(&mut merged.jobs);
        each_once(&mut merged.workers);
        each_once(&mut merged.names);
        each_once(&mut merged.waiting_for);
        each_once(&mut merged.idempotency_keys);
        each_once(&mut merged.calls);
        merged
    }
}

fn each_once<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
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
    /// The record of the watch over the fleet: only in a snapshot of everything there is.
    pub watch: Arc<FleetWatch>,
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
            watch: Arc::default(),
        }
    }

    /// Does [the same](Self::apply) with what a log gives back.
    pub fn replay(&mut self, recorded: &Recorded) {
        self.apply(recorded.changes());
    }

    /// Adds the jobs and workers that it does not hold, but for those that were asked for: they are not there. The time
    /// is the later one.
    pub(crate) fn fill(&mut self, other: Self, asked: &Keys) {
        self.now = self.now.max(other.now);
        for (id, job) in other.jobs.into_iter().filter(|(id, _)| !asked.jobs.contains(id)) {
            self.jobs.entry(id).or_insert(job);
        }
        for (id, view) in other.workers.into_iter().filter(|(id, _)| !asked.workers.contains(id)) {
            self.workers.entry(id).or_insert(view);
        }
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

    /// What is known after these changes, for the next decision: as a store that took them would answer the same keys.
    /// A list of jobs that wait for a target ends with those that began to wait.
    ///
    /// What a name leads to is not worked out for names that were not asked for, whoever carries them now: after a
    /// decision that changes the names of a worker, load anew, or [`link`](Self::link) a snapshot of everything.
    pub fn apply(&mut self, changes: &Changeset) {
        for JobWrite { job, .. } in changes.jobs() {
            let before = self.jobs.insert(job.id, Arc::clone(job));
            if let Some((worker, occupation)) = before.as_deref().and_then(Job::occupation) {
                self.occupy(worker, occupation, None);
            }
            self.requeue(job);
        }
        for worker in changes.workers() {
            self.write_worker(worker);
        }
        for change in changes.vitals() {
            if let Some(view) = self.workers.get_mut(&change.worker_id) {
                view.vitals.apply(change);
            }
        }
        for JobWrite { job, .. } in changes.jobs() {
            if let Some((worker, occupation)) = job.occupation() {
                self.occupy(worker, occupation, Some(occupation));
            }
        }
        for record in changes.names() {
            self.names.entry(record.name.clone()).or_default().record = Some(record.clone());
        }
        for deregistration in changes.deregistrations() {
            self.deregistrations.insert(deregistration.id, Arc::clone(deregistration));
        }
        for (job_id, entry) in changes.ledger() {
            self.calls.insert((*job_id, Box::from(&**entry.report.call_id())), entry.clone());
        }
        for (key, record) in changes.idempotency_keys() {
            self.idempotency_keys.insert(key.clone(), record.clone());
        }
        if let Some(watch) = changes.watch() {
            self.watch = Arc::clone(watch);
        }
    }

    /// Puts a job onto a worker (`to` is `Some`), or takes it off if it still is there; the machine's load follows.
    fn occupy(&mut self, worker: &WorkerId, job: Occupation, to: Option<Occupation>) {
        let Some(view) = self.workers.get_mut(worker) else {
            return;
        };
        let before = view.occupied_by;
        if to.is_none() && before != Some(job) {
            return;
        }
        view.occupied_by = to;
        let Some(machine) = view.worker.identity.ec2_instance_id.clone() else {
            return;
        };
        let of_machine = |view: &&mut WorkerView| view.worker.identity.ec2_instance_id.as_ref() == Some(&machine);
        for view in self.workers.values_mut().filter(of_machine) {
            view.instance_load = match (before, to) {
                (None, Some(_)) => view.instance_load.saturating_add(1),
                (Some(_), None) => view.instance_load.saturating_sub(1),
                (None, None) | (Some(_), Some(_)) => view.instance_load,
            };
        }
    }

    /// Puts a job onto the lists of the targets that it waits for, and off those of others.
    fn requeue(&mut self, job: &Job) {
        for (name, view) in &mut self.names {
            let listed = view.waiting_jobs.contains(&job.id);
            let waits = job.waits_for() == Some(name);
            if waits && !listed {
                view.waiting_jobs.push(job.id);
            } else if listed && !waits {
                view.waiting_jobs.retain(|id| *id != job.id);
            }
        }
    }

    /// Writes a worker; one that is new is heard from now.
    fn write_worker(&mut self, worker: &Arc<Worker>) {
        let identity = &worker.identity;
        let (target, machine) = (identity.target_worker_id.as_ref(), identity.ec2_instance_id.as_ref());
        let known = self.workers.get(&worker.id).map(|view| view.worker.identity.clone()).unwrap_or_default();
        let occupation = self.workers.get(&worker.id).and_then(|view| view.occupied_by);
        let moving = occupation.filter(|_| known.ec2_instance_id.as_ref() != machine);
        if let Some(occupation) = moving {
            self.occupy(&worker.id, occupation, None);
        }
        if let Some(view) = self.workers.get_mut(&worker.id) {
            view.worker = Arc::clone(worker);
        } else {
            let id_is_a_target = self.workers.values().any(|view| target_of(view) == Some(&worker.id));
            let view = WorkerView {
                worker: Arc::clone(worker),
                vitals: Vitals::new(self.now),
                occupied_by: None,
                id_is_a_target,
                instance_load: 0,
            };
            self.workers.insert(worker.id.clone(), view);
        }
        if known.ec2_instance_id.as_ref() != machine {
            self.rename(known.ec2_instance_id.as_ref(), machine, &worker.id, |view| &mut view.by_instance);
            let others = |view: &&WorkerView| {
                view.worker.id != worker.id && machine.is_some_and(|_| machine_of(view) == machine)
            };
            let load = self.workers.values().find(others).map_or(0, |view| view.instance_load);
            if let Some(view) = self.workers.get_mut(&worker.id) {
                view.instance_load = load;
            }
        }
        if let Some(occupation) = moving {
            self.occupy(&worker.id, occupation, Some(occupation));
        }
        if known.target_worker_id.as_ref() != target {
            self.rename(known.target_worker_id.as_ref(), target, &worker.id, |view| &mut view.by_target);
            for name in known.target_worker_id.iter().chain(target) {
                let carried = self.names.get(name).map(|view| !view.by_target.is_empty());
                let carried =
                    carried.unwrap_or_else(|| self.workers.values().any(|view| target_of(view) == Some(name)));
                if let Some(view) = self.workers.get_mut(name) {
                    view.id_is_a_target = carried;
                }
            }
        }
    }

    /// Moves a worker from the list of one name to that of another, by id as all such lists are.
    fn rename(
        &mut self,
        from: Option<&Name>,
        to: Option<&Name>,
        worker: &WorkerId,
        list: impl Fn(&mut NameView) -> &mut Vec<WorkerId>,
    ) {
        if let Some(view) = from.and_then(|name| self.names.get_mut(name)) {
            list(view).retain(|id| id != worker);
        }
        if let Some(view) = to.and_then(|name| self.names.get_mut(name)) {
            let list = list(view);
            if let Err(place) = list.binary_search(worker) {
                list.insert(place, worker.clone());
            }
        }
    }

    /// Every aggregate that a decision which asked for these keys can have seen, there or not.
    pub(crate) fn in_sight(&self, keys: &Keys) -> HashSet<AggregateId> {
        let mut sight = Sight { snapshot: self, seen: HashSet::new() };
        for id in keys.jobs.iter().chain(keys.calls.iter().map(|(id, _)| id)) {
            sight.job_with_workers(*id);
        }
        for id in &keys.workers {
            sight.worker(id);
        }
        for name in keys.names.iter().chain(&keys.waiting_for) {
            sight.name(name);
        }
        for record in keys.idempotency_keys.iter().filter_map(|key| self.idempotency_keys.get(key)) {
            sight.job_with_workers(record.job_id);
        }
        sight.seen
    }
}

fn target_of(view: &WorkerView) -> Option<&Name> {
    view.worker.identity.target_worker_id.as_ref()
}

fn machine_of(view: &WorkerView) -> Option<&Name> {
    view.worker.identity.ec2_instance_id.as_ref()
}

/// Follows keys to everything that they lead to.
struct Sight<'s> {
    snapshot: &'s Snapshot,
    seen: HashSet<AggregateId>,
}

impl Sight<'_> {
    fn job_with_workers(&mut self, id: JobId) {
        // Not passed over when it was seen before: it may have come in alone, as what occupies a worker.
        self.seen.insert(AggregateId::Job(id));
        if let Some(job) = self.snapshot.jobs.get(&id) {
            for worker in [job.occupies(), job.last_holder()].into_iter().flatten() {
                self.worker(worker);
            }
        }
    }

    fn worker(&mut self, id: &WorkerId) {
        if self.seen.insert(AggregateId::Worker(id.clone()))
            && let Some(view) = self.snapshot.workers.get(id)
        {
            self.seen.extend(view.occupied_by.map(|occupation| AggregateId::Job(occupation.job_id)));
            self.seen.extend(view.worker.deregistration().map(AggregateId::Deregistration));
        }
    }

    fn name(&mut self, name: &Name) {
        for worker in self.name_alone(name) {
            let target = self.snapshot.workers.get(&worker).and_then(target_of).cloned();
            for own in target.into_iter().chain([worker]) {
                if !self.seen.contains(&AggregateId::Name(own.clone())) {
                    self.name_alone(&own);
                }
            }
        }
    }

    /// What a name leads to; gives back the workers that carry it as target or instance id.
    fn name_alone(&mut self, name: &Name) -> Vec<WorkerId> {
        self.seen.insert(AggregateId::Name(name.clone()));
        self.worker(name);
        let Some(view) = self.snapshot.names.get(name) else {
            return Vec::new();
        };
        let held_by = view.record.as_ref().and_then(|record| record.held_by);
        self.seen.extend(held_by.map(AggregateId::Deregistration));
        self.seen.extend(view.waiting_jobs.iter().copied().map(AggregateId::Job));
        let carriers: Vec<WorkerId> = view.by_target.iter().chain(&view.by_instance).cloned().collect();
        for id in &carriers {
            self.worker(id);
        }
        carriers
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
