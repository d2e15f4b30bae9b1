//! What a decision sees: the aggregates it asked for, all of one moment.

use std::collections::HashMap;
use std::sync::Arc;

use super::code::ClientName;
use super::cost::LedgerEntry;
use super::ids::{DeregistrationId, JobId, Name, WorkerId};
use super::job::{IdempotencyRecord, Job};
use super::time::Timestamp;
use super::worker::{Deregistration, NameRecord, WorkerView};

/// What a decision asks a store for.
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
