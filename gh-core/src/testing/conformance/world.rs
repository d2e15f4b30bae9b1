//! A store, a clock and rules, and the commands that scenarios need most.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::bed::Handle;
use crate::domain::changeset::Changeset;
use crate::domain::code::{Actor, ClientName};
use crate::domain::commands::{
    Cancel, Claim, ClaimAnswer, Command, Credential, DrainWish, FailureReport, Heartbeat, JobClaim, Register, Report,
    ReportOutcome, Submit, UsageClosing, Watched, decide,
};
use crate::domain::ids::{ConnectionId, JobId, ServerId, WorkerId};
use crate::domain::job::{Completion, Job, JobStatus};
use crate::domain::rejection::Rejection;
use crate::domain::rules::Rules;
use crate::domain::snapshot::{Keys, Snapshot};
use crate::domain::submission::SubmissionRequest;
use crate::domain::watch::Lookout;
use crate::domain::worker::{Beat, WorkerView};
use crate::ports::outbox::Outbox;
use crate::ports::reader::Reader;
use crate::ports::store::{ClaimRequest, Conflict, Store, SweepRequest, Swept};
use crate::testing::{ManualClock, name, registration, rules, submission};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Opens a further handle on the store.
pub(super) type Open = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Handle> + Send>> + Send + Sync>;

/// A store with one handle that is open, and the clock and the rules with which it is used.
pub(in crate::testing) struct World {
    pub(super) store: Arc<dyn Store>,
    pub(super) reader: Arc<dyn Reader>,
    pub(super) outbox: Arc<dyn Outbox>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) rules: Rules,
    pub(super) server: ServerId,
    open: Arc<Open>,
}

impl World {
    pub(super) async fn new(clock: Arc<ManualClock>, open: Open) -> Self {
        let Handle { store, reader, outbox } = open().await;
        let rules = rules();
        let server = ServerId::new(rules.ids.uuid());
        Self { store, reader, outbox, clock, rules, server, open: Arc::new(open) }
    }

    /// The same store through another handle, as another server sees it; clock, ids and rules are shared.
    pub(super) async fn elsewhere(&self) -> Self {
        let Handle { store, reader, outbox } = (self.open)().await;
        let (clock, rules) = (Arc::clone(&self.clock), self.rules.clone());
        let server = ServerId::new(rules.ids.uuid());
        Self { store, reader, outbox, clock, rules, server, open: Arc::clone(&self.open) }
    }

    pub(super) async fn snapshot(&self, keys: &Keys) -> Snapshot {
        self.store.load(keys).await.unwrap()
    }

    /// What a command would change, decided on what is stored now.
    pub(super) async fn decision<C: Command>(&self, command: &C) -> Changeset {
        let snapshot = self.snapshot(&command.keys()).await;
        let decision = decide(&snapshot, command, &self.rules);
        assert!(decision.answer.is_ok(), "{:?}", decision.answer.err());
        decision.changes
    }

    pub(super) async fn commit(&self, changes: Vec<Changeset>) -> Vec<Result<(), Conflict>> {
        self.store.commit(changes, &self.rules).await.unwrap()
    }

    /// Decides and stores; nobody else interferes.
    pub(super) async fn attempt<C: Command>(&self, command: &C) -> Result<C::Answer, Rejection> {
        let snapshot = self.snapshot(&command.keys()).await;
        let decision = decide(&snapshot, command, &self.rules);
        let stored = self.commit(vec![decision.changes]).await;
        assert_eq!(stored, [Ok(())], "nothing moved since the snapshot");
        decision.answer
    }

    pub(super) async fn run<C: Command>(&self, command: &C) -> C::Answer {
        self.attempt(command).await.unwrap()
    }

    pub(super) async fn submit(&self, request: SubmissionRequest) -> JobId {
        self.run(&submit(request)).await.job.id
    }

    pub(super) async fn submit_many(&self, count: usize) -> Vec<JobId> {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.submit(submission()).await);
        }
        ids
    }

    /// Registers a worker that listens for half a minute.
    pub(super) async fn register(&self, register: Register) -> Credential {
        let who = self.run(&register).await.credential;
        self.listen(&who).await;
        who
    }

    pub(super) async fn worker(&self, id: &str) -> Credential {
        self.register(registration(id)).await
    }

    pub(super) async fn worker_of(&self, id: &str, target: &str, instance: &str) -> Credential {
        let mut register = registration(id);
        register.identity.target_worker_id = Some(name(target));
        register.identity.ec2_instance_id = Some(name(instance));
        self.register(register).await
    }

    /// A claim that finds nothing and waits.
    pub(super) async fn listen(&self, who: &Credential) {
        let answer = self.run(&self.claim_of(who)).await;
        assert!(matches!(answer, ClaimAnswer::Waiting), "{answer:?}");
    }

    pub(super) fn claim_of(&self, who: &Credential) -> Claim {
        Claim {
            who: who.clone(),
            connection: ConnectionId::new(self.rules.ids.uuid()),
            wait: 30 * SECOND,
            waited: false,
        }
    }

    /// Which job each of these waiting workers gets.
    pub(super) async fn claim(&self, workers: &[&Credential]) -> Vec<(WorkerId, JobId)> {
        let request = ClaimRequest::waiting(workers.iter().map(|who| who.worker_id.clone()).collect());
        let granted = self.store.claim(request, &self.rules).await.unwrap().committed;
        let pair = |job: &Arc<Job>| (job.occupies().unwrap().clone(), job.id);
        granted.iter().flat_map(Changeset::jobs).map(|write| pair(&write.job)).collect()
    }

    /// The job that this waiting worker gets.
    pub(super) async fn claim_one(&self, who: &Credential) -> Option<JobId> {
        let granted = self.claim(&[who]).await;
        granted.first().map(|(_, job)| *job)
    }

    pub(super) async fn watch(&self, lookout: Lookout) -> Watched {
        self.store.watch(lookout, &self.rules).await.unwrap()
    }

    pub(super) async fn sweep(&self, limit: usize) -> Swept {
        let sight = self.watch(Lookout::by_hand(self.server)).await.sight;
        let request = SweepRequest { limit, sight };
        self.store.sweep(request, &self.rules).await.unwrap()
    }

    pub(super) async fn complete(&self, who: &Credential, job_id: JobId) {
        let report = Report::Complete(Completion::default(), UsageClosing::default());
        self.report(who, job_id, report).await;
    }

    pub(super) async fn fail(&self, who: &Credential, job_id: JobId, retryable: bool) {
        let failure = FailureReport {
            error_code: crate::domain::code::ErrorCode::parse("network_error").unwrap(),
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

    pub(super) async fn job(&self, id: JobId) -> Arc<Job> {
        self.reader.job(id).await.unwrap().unwrap()
    }

    pub(super) async fn status(&self, id: JobId) -> JobStatus {
        self.job(id).await.status()
    }

    pub(super) async fn view(&self, id: &str) -> WorkerView {
        self.reader.worker(&name(id)).await.unwrap().1.unwrap()
    }
}

pub(super) fn submit(request: SubmissionRequest) -> Submit {
    Submit::new(ClientName::new("valet"), request.validate().unwrap())
}

pub(super) fn cancel(job_id: JobId) -> Cancel {
    Cancel { job_id, actor: Actor::Client(ClientName::new("valet")), reason: None }
}

pub(super) fn heartbeat(who: &Credential) -> Heartbeat {
    Heartbeat {
        who: who.clone(),
        beat: Beat::default(),
        job: JobClaim::Silent,
        drain: DrainWish::Silent,
        acknowledged: Vec::new(),
    }
}
