//! A store, a clock and rules, and the commands that the tests need most.

use std::sync::Arc;
use std::time::Duration;

use gh_core::domain::changeset::Changeset;
use gh_core::domain::code::{Actor, ClientName};
use gh_core::domain::commands::{
    Cancel, Claim, ClaimAnswer, Command, Credential, DrainWish, FailureReport, Heartbeat, JobClaim, Register, Report,
    ReportOutcome, Submit, UsageClosing, decide,
};
use gh_core::domain::ids::{ConnectionId, JobId, WorkerId};
use gh_core::domain::job::{Completion, Job, JobStatus};
use gh_core::domain::rejection::Rejection;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::{Keys, Snapshot};
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::worker::{Beat, WorkerView};
use gh_core::memory::MemoryStore;
use gh_core::ports::reader::Reader;
use gh_core::ports::store::{ClaimRequest, Conflict, Store, SweepRequest, Swept};
use gh_core::testing::{ManualClock, name, registration, rules, submission};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) rules: Rules,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        Self { store: MemoryStore::new(clock.clone(), [7; 32]), clock, rules: rules() }
    }

    pub(crate) async fn snapshot(&self, keys: &Keys) -> Snapshot {
        self.store.load(keys).await.unwrap()
    }

    /// What a command would change, decided on what is stored now.
    pub(crate) async fn decision<C: Command>(&self, command: &C) -> Changeset {
        let snapshot = self.snapshot(&command.keys()).await;
        let decision = decide(&snapshot, command, &self.rules);
        assert!(decision.answer.is_ok(), "{:?}", decision.answer.err());
        decision.changes
    }

    pub(crate) async fn commit(&self, changes: Vec<Changeset>) -> Vec<Result<(), Conflict>> {
        self.store.commit(changes, &self.rules).await.unwrap()
    }

    /// Decides and stores; nobody else interferes.
    pub(crate) async fn attempt<C: Command>(&self, command: &C) -> Result<C::Answer, Rejection> {
        let snapshot = self.snapshot(&command.keys()).await;
        let decision = decide(&snapshot, command, &self.rules);
        let stored = self.commit(vec![decision.changes]).await;
        assert_eq!(stored, [Ok(())], "nothing moved since the snapshot");
        decision.answer
    }

    pub(crate) async fn run<C: Command>(&self, command: &C) -> C::Answer {
        self.attempt(command).await.unwrap()
    }

    pub(crate) async fn submit(&self, request: SubmissionRequest) -> JobId {
        self.run(&submit(request)).await.job.id
    }

    pub(crate) async fn submit_many(&self, count: usize) -> Vec<JobId> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.submit(submission()).await);
        }
        ids
    }

    /// Registers a worker that listens for half a minute.
    pub(crate) async fn register(&self, register: Register) -> Credential {
        let who = self.run(&register).await.credential;
        self.listen(&who).await;
        who
    }

    pub(crate) async fn worker(&self, id: &str) -> Credential {
        self.register(registration(id)).await
    }

    pub(crate) async fn worker_of(&self, id: &str, target: &str, instance: &str) -> Credential {
        let mut register = registration(id);
        register.identity.target_worker_id = Some(name(target));
        register.identity.ec2_instance_id = Some(name(instance));
        self.register(register).await
    }

    /// A claim that finds nothing and waits.
    pub(crate) async fn listen(&self, who: &Credential) {
        let answer = self.run(&self.claim_of(who)).await;
        assert!(matches!(answer, ClaimAnswer::Waiting), "{answer:?}");
    }

    pub(crate) fn claim_of(&self, who: &Credential) -> Claim {
        Claim {
            who: who.clone(),
            connection: ConnectionId::new(self.rules.ids.uuid()),
            wait: 30 * SECOND,
            waited: false,
        }
    }

    /// Which job each of these waiting workers gets.
    pub(crate) async fn claim(&self, workers: &[&Credential]) -> Vec<(WorkerId, JobId)> {
        let request = ClaimRequest { workers: workers.iter().map(|who| who.worker_id.clone()).collect() };
        let granted = self.store.claim(request, &self.rules).await.unwrap();
        let pair = |job: &Arc<Job>| (job.occupies().unwrap().clone(), job.id);
        granted.iter().flat_map(Changeset::jobs).map(|write| pair(&write.job)).collect()
    }

    /// The job that this waiting worker gets.
    pub(crate) async fn claim_one(&self, who: &Credential) -> Option<JobId> {
        let granted = self.claim(&[who]).await;
        granted.first().map(|(_, job)| *job)
    }

    pub(crate) async fn sweep(&self, limit: usize) -> Swept {
        let request = SweepRequest { limit, offline_after: self.rules.policy.offline_after };
        self.store.sweep(request, &self.rules).await.unwrap()
    }

    pub(crate) async fn complete(&self, who: &Credential, job_id: JobId) {
        let report = Report::Complete(Completion::default(), UsageClosing::default());
        self.report(who, job_id, report).await;
    }

    pub(crate) async fn fail(&self, who: &Credential, job_id: JobId, retryable: bool) {
        let failure = FailureReport {
            error_code: gh_core::domain::code::ErrorCode::parse("network_error").unwrap(),
            error_message: "no route".into(),
            retryable,
        };
        self.report(who, job_id, Report::Fail(failure, UsageClosing::default())).await;
    }

    async fn report(&self, who: &Credential, job_id: JobId, report: Report) {
        let attempt = self.job(job_id).await.attempt;
        let who = who.clone();
        self.run(&ReportOutcome { who, job_id, attempt, report }).await;
    }

    pub(crate) async fn job(&self, id: JobId) -> Arc<Job> {
        self.store.job(id).await.unwrap().unwrap()
    }

    pub(crate) async fn status(&self, id: JobId) -> JobStatus {
        self.job(id).await.status()
    }

    pub(crate) async fn view(&self, id: &str) -> WorkerView {
        self.store.worker(&name(id)).await.unwrap().1.unwrap()
    }
}

pub(crate) fn submit(request: SubmissionRequest) -> Submit {
    Submit::new(ClientName::new("valet"), request.validate().unwrap())
}

pub(crate) fn cancel(job_id: JobId) -> Cancel {
    Cancel { job_id, actor: Actor::Client(ClientName::new("valet")), reason: None }
}

pub(crate) fn heartbeat(who: &Credential) -> Heartbeat {
    Heartbeat {
        who: who.clone(),
        beat: Beat::default(),
        job: JobClaim::Silent,
        drain: DrainWish::Silent,
        acknowledged: Vec::new(),
    }
}
