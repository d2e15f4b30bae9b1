//! A world for pure tests: all aggregates in one snapshot, decided on directly, without any store.

use std::sync::Arc;
use std::time::Duration;

use gh_core::domain::changeset::Changeset;
use gh_core::domain::code::ClientName;
use gh_core::domain::commands::{Command, Credential, Decision, Register, Submit, decide, grant_jobs, sweep};
use gh_core::domain::ids::{ConnectionId, JobId, WorkerId};
use gh_core::domain::job::Job;
use gh_core::domain::rejection::Rejection;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::Snapshot;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::time::Timestamp;
use gh_core::domain::watch::Sight;
use gh_core::domain::worker::{
    ConnectionChange, ConnectionKind, ConnectionUpdate, VitalsChange, WorkerIdentity, WorkerView,
};
use gh_core::testing::{name, rules};
use uuid::Uuid;

/// Everything there is, and the time.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) rules: Rules,
    pub(crate) snapshot: Snapshot,
    pub(crate) boots: u32,
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Timestamp::parse("2026-02-18T09:00:00Z").expect("a time");
        Self { rules: rules(), snapshot: Snapshot::new(now), boots: 0 }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.snapshot.now
    }

    pub(crate) fn view(&self, id: &WorkerId) -> WorkerView {
        self.snapshot.workers[id].clone()
    }

    /// A worker, to change it outside the rules.
    pub(crate) fn known(&mut self, id: &WorkerId) -> &mut WorkerView {
        self.snapshot.workers.get_mut(id).expect("a known worker")
    }

    /// Decides and stores.
    pub(crate) fn run<C: Command + ?Sized>(&mut self, command: &C) -> (Result<C::Answer, Rejection>, Changeset) {
        let Decision { answer, changes } = decide(&self.snapshot, command, &self.rules);
        assert!(self.apply(&changes), "nothing moved since the decision");
        (answer, changes)
    }

    /// Stores a changeset, unless something that it relied on has moved.
    pub(crate) fn apply(&mut self, changes: &Changeset) -> bool {
        let fits = changes.fits(&self.snapshot);
        if fits {
            self.snapshot.apply(changes);
            self.snapshot.link();
        }
        fits
    }

    /// Seconds pass; nothing else happens.
    pub(crate) fn pass(&mut self, seconds: u64) {
        self.wait(Duration::from_secs(seconds));
    }

    /// Time passes; nothing else happens.
    pub(crate) fn wait(&mut self, duration: Duration) {
        self.snapshot.now = self.now() + duration;
        self.snapshot.link();
    }

    /// Applies what is over, in as many rounds as it takes.
    pub(crate) fn sweep(&mut self) -> Vec<Changeset> {
        let mut swept = Vec::new();
        loop {
            let round = sweep(&self.snapshot, &Sight::default(), &self.rules);
            let stored: Vec<Changeset> = round.into_iter().filter(|changes| self.apply(changes)).collect();
            if stored.is_empty() {
                return swept;
            }
            swept.extend(stored);
        }
    }

    /// Gives waiting jobs to those who wait.
    pub(crate) fn dispatch(&mut self) -> Vec<Changeset> {
        let granted = grant_jobs(&self.snapshot, &self.rules);
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
        let until = self.now() + Duration::from_secs(3600);
        let opened = ConnectionChange::Opened { until };
        let update =
            ConnectionUpdate { id: ConnectionId::new(Uuid::nil()), kind: ConnectionKind::Claim, change: opened };
        let change = VitalsChange { seen: Some(self.now()), connections: vec![update], ..VitalsChange::of(id.clone()) };
        self.known(id).vitals.apply(&change);
    }

    pub(crate) fn submit(&mut self, request: SubmissionRequest) -> Arc<Job> {
        let submission = request.validate().expect("a valid submission");
        let (submitted, _) = self.run(&Submit::new(ClientName::new("valet"), submission));
        submitted.expect("submitted").job
    }

    pub(crate) fn job(&self, id: JobId) -> Arc<Job> {
        Arc::clone(&self.snapshot.jobs[&id])
    }

    /// Changes a job outside the rules, to put it where a test wants it.
    pub(crate) fn put(&mut self, id: JobId, change: impl FnOnce(&mut Job)) {
        let mut job = self.job(id).as_ref().clone();
        change(&mut job);
        self.snapshot.jobs.insert(id, Arc::new(job));
        self.snapshot.link();
    }
}
