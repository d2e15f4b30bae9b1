//! A world for pure tests: aggregates in maps, decided on directly, without any store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gh_core::domain::changeset::{AggregateId, Changeset};
use gh_core::domain::code::ClientName;
use gh_core::domain::commands::{Command, Credential, Decision, Register, Submit, decide, grant_jobs, sweep};
use gh_core::domain::cost::LedgerEntry;
use gh_core::domain::ids::{ConnectionId, DeregistrationId, JobId, Name, Version, WorkerId};
use gh_core::domain::job::{IdempotencyRecord, Job};
use gh_core::domain::rejection::Rejection;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::{NameView, Snapshot};
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::time::Timestamp;
use gh_core::domain::worker::{
    ConnectionChange, ConnectionKind, ConnectionUpdate, Deregistration, NameRecord, Vitals, VitalsChange, Worker,
    WorkerIdentity, WorkerView,
};
use gh_core::testing::{name, rules};
use uuid::Uuid;

/// Everything there is, and the time.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) rules: Rules,
    pub(crate) now: Timestamp,
    pub(crate) jobs: HashMap<JobId, Arc<Job>>,
    pub(crate) workers: HashMap<WorkerId, (Arc<Worker>, Vitals)>,
    pub(crate) names: HashMap<Name, NameRecord>,
    pub(crate) deregistrations: HashMap<DeregistrationId, Arc<Deregistration>>,
    pub(crate) keys: HashMap<(ClientName, Box<str>), IdempotencyRecord>,
    pub(crate) calls: HashMap<(JobId, Box<str>), LedgerEntry>,
    pub(crate) boots: u32,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            rules: rules(),
            now: Timestamp::parse("2026-02-18T09:00:00Z").expect("a time"),
            jobs: HashMap::new(),
            workers: HashMap::new(),
            names: HashMap::new(),
            deregistrations: HashMap::new(),
            keys: HashMap::new(),
            calls: HashMap::new(),
            boots: 0,
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new(self.now);
        snapshot.jobs.clone_from(&self.jobs);
        snapshot.deregistrations.clone_from(&self.deregistrations);
        snapshot.idempotency_keys.clone_from(&self.keys);
        snapshot.calls.clone_from(&self.calls);
        for record in self.names.values() {
            let view = NameView { record: Some(record.clone()), ..NameView::default() };
            snapshot.names.insert(record.name.clone(), view);
        }
        for (id, (worker, vitals)) in &self.workers {
            let (worker, vitals) = (Arc::clone(worker), vitals.clone());
            let view = WorkerView { worker, vitals, occupied_by: None, id_is_a_target: false, instance_load: 0 };
            snapshot.workers.insert(id.clone(), view);
        }
        snapshot.link();
        snapshot
    }

    pub(crate) fn view(&self, id: &WorkerId) -> WorkerView {
        self.snapshot().workers.remove(id).expect("a known worker")
    }

    /// Decides and stores.
    pub(crate) fn run<C: Command + ?Sized>(&mut self, command: &C) -> (Result<C::Answer, Rejection>, Changeset) {
        let Decision { answer, changes } = decide(&self.snapshot(), command, &self.rules);
        assert!(self.apply(&changes), "nothing moved since the decision");
        (answer, changes)
    }

    fn version(&self, id: &AggregateId) -> Version {
        let version = match id {
            AggregateId::Worker(id) => self.workers.get(id).map(|(worker, _)| worker.version),
            AggregateId::Job(id) => self.jobs.get(id).map(|job| job.version),
            AggregateId::Name(name) => self.names.get(name).map(|record| record.version),
            AggregateId::Deregistration(id) => self.deregistrations.get(id).map(|known| known.version),
        };
        version.unwrap_or(Version::ABSENT)
    }

    /// Stores a changeset, unless something that it relied on has moved.
    pub(crate) fn apply(&mut self, changes: &Changeset) -> bool {
        if changes.relied_on().iter().any(|(id, version)| self.version(id) != *version) {
            return false;
        }
        for write in changes.jobs() {
            self.jobs.insert(write.job.id, Arc::clone(&write.job));
        }
        for worker in changes.workers() {
            let fresh = || (Arc::clone(worker), Vitals::new(self.now));
            self.workers.entry(worker.id.clone()).or_insert_with(fresh).0 = Arc::clone(worker);
        }
        for change in changes.vitals() {
            self.vitals(change);
        }
        for record in changes.names() {
            self.names.insert(record.name.clone(), record.clone());
        }
        for deregistration in changes.deregistrations() {
            self.deregistrations.insert(deregistration.id, Arc::clone(deregistration));
        }
        self.keys.extend(changes.idempotency_keys().iter().cloned());
        for (job_id, entry) in changes.ledger() {
            self.calls.insert((*job_id, (&**entry.report.call_id()).into()), entry.clone());
        }
        true
    }

    pub(crate) fn vitals(&mut self, change: &VitalsChange) {
        if let Some((_, vitals)) = self.workers.get_mut(&change.worker_id) {
            vitals.apply(change);
        }
    }

    /// Time passes; nothing else happens.
    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    /// Applies what is over, in as many rounds as it takes.
    pub(crate) fn sweep(&mut self) -> Vec<Changeset> {
        let mut swept = Vec::new();
        loop {
            let round = sweep(&self.snapshot(), &self.rules);
            let stored: Vec<Changeset> = round.into_iter().filter(|changes| self.apply(changes)).collect();
            if stored.is_empty() {
                return swept;
            }
            swept.extend(stored);
        }
    }

    /// Gives waiting jobs to those who wait.
    pub(crate) fn dispatch(&mut self) -> Vec<Changeset> {
        let granted = grant_jobs(&self.snapshot(), &self.rules);
        granted.into_iter().filter(|changes| self.apply(changes)).collect()
    }

    /// A worker that is there and listens; its target, if any.
    pub(crate) fn worker(&mut self, id: &str, target: Option<&str>) -> Credential {
        self.boots += 1;
        let registration = Register {
            worker_id: name(id),
            boot_id: name(&format!("boot-{}", self.boots)),
            identity: WorkerIdentity { target_worker_id: target.map(name), ..WorkerIdentity::default() },
            metadata: None,
        };
        let (registered, _) = self.run(&registration);
        let credential = registered.expect("registered").credential;
        self.listens(&credential.worker_id);
        credential
    }

    /// The worker holds an open connection, and is heard from now.
    pub(crate) fn listens(&mut self, id: &WorkerId) {
        let until = self.now + Duration::from_secs(3600);
        let opened = ConnectionChange::Opened { until };
        let update =
            ConnectionUpdate { id: ConnectionId::new(Uuid::nil()), kind: ConnectionKind::Claim, change: opened };
        let change = VitalsChange { seen: Some(self.now), connections: vec![update], ..VitalsChange::of(id.clone()) };
        self.vitals(&change);
    }

    pub(crate) fn submit(&mut self, request: SubmissionRequest) -> Arc<Job> {
        let submission = request.validate().expect("a valid submission");
        let (submitted, _) = self.run(&Submit::new(ClientName::new("valet"), submission));
        submitted.expect("submitted").job
    }

    pub(crate) fn job(&self, id: JobId) -> Arc<Job> {
        Arc::clone(&self.jobs[&id])
    }

    /// Changes a job outside the rules, to put it where a test wants it.
    pub(crate) fn put(&mut self, id: JobId, change: impl FnOnce(&mut Job)) {
        let mut job = self.job(id).as_ref().clone();
        change(&mut job);
        self.jobs.insert(id, Arc::new(job));
    }
}
