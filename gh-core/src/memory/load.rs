//! Snapshots: everything that a decision asks for, all of one moment.

use std::collections::HashSet;
use std::sync::Arc;

use super::state::State;
use crate::domain::ids::{DeregistrationId, JobId, Name, WorkerId};
use crate::domain::snapshot::{Keys, NameView, Snapshot};
use crate::domain::time::Timestamp;
use crate::domain::worker::WorkerView;

/// A snapshot in the making.
#[derive(Debug)]
pub(super) struct Loading<'s> {
    state: &'s State,
    snapshot: Snapshot,
    /// Names that were loaded with the names of their workers.
    asked: HashSet<Name>,
}

impl<'s> Loading<'s> {
    pub(super) fn new(state: &'s State, now: Timestamp) -> Self {
        Self { state, snapshot: Snapshot::new(now), asked: HashSet::new() }
    }

    pub(super) fn finish(self) -> Snapshot {
        self.snapshot
    }

    /// Exactly what is promised for these keys.
    pub(super) fn keys(mut self, keys: &Keys) -> Self {
        for id in &keys.jobs {
            self.job_with_workers(*id);
        }
        for id in &keys.workers {
            self.worker(id);
        }
        for name in keys.names.iter().chain(&keys.waiting_for) {
            self.name(name);
        }
        for name in &keys.waiting_for {
            let waiting = self.state.jobs.waiting().of_target(name);
            for id in &waiting {
                self.job(*id);
            }
            if let Some(view) = self.snapshot.names.get_mut(name) {
                view.waiting_jobs = waiting;
            }
        }
        for key in &keys.idempotency_keys {
            if let Some(record) = self.state.idempotency_keys.get(key) {
                self.job_with_workers(record.job_id);
                self.snapshot.idempotency_keys.insert(key.clone(), record.clone());
            }
        }
        for (id, call_id) in &keys.calls {
            if let Some(entry) = self.state.jobs.call(*id, call_id) {
                self.snapshot.calls.insert((*id, call_id.clone()), entry.clone());
            }
        }
        self
    }

    /// The job alone.
    pub(super) fn job(&mut self, id: JobId) {
        if let Some(job) = self.state.jobs.get(id) {
            self.snapshot.jobs.insert(id, Arc::clone(job));
        }
    }

    /// The job, the worker that it occupies, and the one that held it last.
    pub(super) fn job_with_workers(&mut self, id: JobId) {
        self.job(id);
        if let Some(job) = self.state.jobs.get(id) {
            for worker in [job.occupies(), job.last_holder()].into_iter().flatten() {
                self.worker(worker);
            }
        }
    }

    /// The worker, the job that occupies it, and the deregistration that waits for it: whatever brings a worker in,
    /// what is decided of it can be decided wholly.
    pub(super) fn worker(&mut self, id: &WorkerId) {
        if self.snapshot.workers.contains_key(id) {
            return;
        }
        let Some(view) = self.state.workers.view(id) else {
            return;
        };
        if let Some(occupation) = view.occupied_by {
            self.job(occupation.job_id);
        }
        if let Some(deregistration) = view.worker.deregistration() {
            self.deregistration(deregistration);
        }
        self.snapshot.workers.insert(id.clone(), view);
    }

    /// Everything that a name leads to. Every worker that carries it brings along its own id and target as names: who
    /// retires workers of one name holds the names of all of them, and looks for others who can do their work.
    pub(super) fn name(&mut self, name: &Name) {
        if !self.asked.insert(name.clone()) {
            return;
        }
        for worker in self.name_alone(name) {
            let target = self.snapshot.workers.get(&worker).and_then(target_of);
            for own in target.into_iter().chain([worker]) {
                if !self.snapshot.names.contains_key(&own) {
                    self.name_alone(&own);
                }
            }
        }
    }

    /// What a name leads to; gives back the workers that carry it as target or instance id.
    fn name_alone(&mut self, name: &Name) -> Vec<WorkerId> {
        let workers = &self.state.workers;
        let view = NameView {
            record: self.state.names.get(name).cloned(),
            by_target: workers.of_target(name).cloned().collect(),
            by_instance: workers.of_instance(name).cloned().collect(),
            waiting_jobs: Vec::new(),
        };
        if let Some(held_by) = view.record.as_ref().and_then(|record| record.held_by) {
            self.deregistration(held_by);
        }
        let carriers: Vec<WorkerId> = view.by_target.iter().chain(&view.by_instance).cloned().collect();
        for id in carriers.iter().chain([name]) {
            self.worker(id);
        }
        self.snapshot.names.insert(name.clone(), view);
        carriers
    }

    fn deregistration(&mut self, id: DeregistrationId) {
        if let Some(deregistration) = self.state.deregistrations.get(&id) {
            self.snapshot.deregistrations.insert(id, Arc::clone(deregistration));
        }
    }
}

fn target_of(view: &WorkerView) -> Option<Name> {
    view.worker.identity.target_worker_id.clone()
}
