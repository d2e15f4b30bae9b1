//! A store on a fresh database, and the commands that the tests need most.

use std::sync::Arc;
use std::time::Duration;

use gh_adapters_postgres::PgStore;
use gh_adapters_postgres::testing::TestDatabase;
use gh_core::domain::changeset::Changeset;
use gh_core::domain::code::ClientName;
use gh_core::domain::commands::{
    Claim, Command, Credential, Register, Report, ReportOutcome, Submit, UsageClosing, decide,
};
use gh_core::domain::ids::{ConnectionId, JobId};
use gh_core::domain::job::Completion;
use gh_core::domain::rules::Rules;
use gh_core::domain::submission::{JobSpec, SubmissionRequest};
use gh_core::ports::reader::Reader;
use gh_core::ports::store::{ClaimRequest, Store};
use gh_core::testing::{ManualClock, registration, rules, submission};
use sqlx::{AssertSqlSafe, PgPool};

pub(crate) struct World {
    pub(crate) store: PgStore,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) rules: Rules,
    // Removed last.
    pub(crate) database: TestDatabase,
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create().await;
        let clock = Arc::new(ManualClock::default());
        Self { store: database.store(Some(clock.clone())), clock, rules: rules(), database }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        self.store.pool()
    }

    pub(crate) async fn sql(&self, sql: &str) -> u64 {
        sqlx::query(AssertSqlSafe(sql.to_owned())).execute(self.pool()).await.unwrap().rows_affected()
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        let sql = AssertSqlSafe(format!("select count(*) from {table}"));
        sqlx::query_scalar(sql).fetch_one(self.pool()).await.unwrap()
    }

    pub(crate) async fn decision<C: Command>(&self, command: &C) -> Changeset {
        let snapshot = self.store.load(&command.keys()).await.unwrap();
        let decision = decide(&snapshot, command, &self.rules);
        assert!(decision.answer.is_ok());
        decision.changes
    }

    pub(crate) async fn run<C: Command>(&self, command: &C) -> C::Answer {
        let snapshot = self.store.load(&command.keys()).await.unwrap();
        let decision = decide(&snapshot, command, &self.rules);
        assert_eq!(self.store.commit(vec![decision.changes], &self.rules).await.unwrap(), [Ok(())]);
        decision.answer.unwrap()
    }

    pub(crate) async fn submit(&self, request: SubmissionRequest) -> JobId {
        self.run(&submit(request)).await.job.id
    }

    /// A worker that waits for a job.
    pub(crate) async fn worker(&self, id: &str) -> Credential {
        let register: Register = registration(id);
        let who = self.run(&register).await.credential;
        self.listen(&who).await;
        who
    }

    pub(crate) async fn listen(&self, who: &Credential) {
        let connection = ConnectionId::new(self.rules.ids.uuid());
        self.run(&Claim { who: who.clone(), connection, wait: Duration::from_secs(30), waited: false }).await;
    }

    pub(crate) async fn claim(&self, who: &Credential) -> Option<JobId> {
        let request = ClaimRequest::waiting(vec![who.worker_id.clone()]);
        let granted = self.store.claim(request, &self.rules).await.unwrap().committed;
        granted.first().map(|changes| changes.jobs()[0].job.id)
    }

    pub(crate) async fn complete(&self, who: &Credential, job_id: JobId, completion: Completion) {
        let attempt = self.store.job(job_id).await.unwrap().unwrap().attempt;
        let report = Report::Complete(completion, UsageClosing::default());
        self.run(&ReportOutcome { who: who.clone(), job_id, attempt, report }).await;
    }
}

pub(crate) fn submit(request: SubmissionRequest) -> Submit {
    Submit::new(ClientName::new("valet"), request.validate().unwrap())
}

/// A submission that no validation would let through: the table refuses its priority.
pub(crate) fn poison() -> Submit {
    let mut submission = submission().validate().unwrap();
    submission.spec = JobSpec { priority: 11, ..submission.spec };
    Submit::new(ClientName::new("valet"), submission)
}
