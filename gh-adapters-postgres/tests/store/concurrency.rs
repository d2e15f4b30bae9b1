//! Many at once on two servers: nobody waits in a circle, and nothing is lost or done twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gh_adapters_postgres::testing::TestDatabase;
use gh_adapters_postgres::{PgOptions, PgStore};
use gh_core::domain::code::{Actor, ClientName};
use gh_core::domain::commands::{
    Cancel, Claim, Command, Deregister, Report, ReportOutcome, Selector, UsageClosing, decide, decide_recalled,
};
use gh_core::domain::ids::{ConnectionId, JobId};
use gh_core::domain::job::Completion;
use gh_core::domain::rejection::Rejection;
use gh_core::domain::rules::Rules;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::watch::Sight;
use gh_core::ports::callback_sender::SendOutcome;
use gh_core::ports::outbox::{Outbox, Settlement};
use gh_core::ports::reader::{JobEventQuery, JobQuery, Reader};
use gh_core::ports::store::{ClaimRequest, Store, SweepRequest};
use gh_core::testing::{name, registration, rules, submission, submission_to};
use sqlx::Connection;

use crate::world::submit;

const WORKERS: usize = 8;
const ROUNDS: usize = 12;

/// One of the servers.
struct Server {
    store: PgStore,
    rules: Rules,
    /// How many decisions on what it remembered were stored, and how many were refused.
    recalled: AtomicUsize,
    misremembered: AtomicUsize,
}

impl Server {
    /// Decides on what is remembered, else loads, decides and commits until nobody is faster, as the application does.
    async fn run<C: Command>(&self, command: &C) -> Result<C::Answer, Rejection> {
        let recalled = self.store.recall(&command.keys());
        if let Some(decision) = recalled.and_then(|recalled| decide_recalled(&recalled, command, &self.rules)) {
            if self.store.commit(vec![decision.changes], &self.rules).await.unwrap()[0].is_ok() {
                self.recalled.fetch_add(1, Ordering::SeqCst);
                return decision.answer;
            }
            self.misremembered.fetch_add(1, Ordering::SeqCst);
        }
        loop {
            let snapshot = self.store.load(&command.keys()).await.unwrap();
            let decision = decide(&snapshot, command, &self.rules);
            if self.store.commit(vec![decision.changes], &self.rules).await.unwrap()[0].is_ok() {
                return decision.answer;
            }
        }
    }

    /// A worker that comes, works and is retired, over and over. Its machine and its target are those of others too.
    async fn work(&self, index: usize) {
        for round in 0..ROUNDS {
            let mut register = registration(&format!("w-{index}"));
            register.boot_id = name(&format!("w-{index}-boot-{round}"));
            register.identity.target_worker_id = Some(name(&format!("target-{}", index % 3)));
            register.identity.ec2_instance_id = Some(name(&format!("i-{}", index % 2)));
            // Its name may be held at this moment.
            let Ok(registered) = self.run(&register).await else { continue };
            let who = registered.credential;
            for _ in 0..3 {
                let connection = ConnectionId::new(self.rules.ids.uuid());
                let wait = Duration::from_secs(30);
                let _ = self.run(&Claim { who: who.clone(), connection, wait, waited: false }).await;
                let request = ClaimRequest::waiting((0..WORKERS).map(|index| name(&format!("w-{index}"))).collect());
                self.store.claim(request, &self.rules).await.unwrap();
                let (_, view) = self.store.worker(&who.worker_id).await.unwrap();
                let Some(job_id) = view.and_then(|view| view.live_job()) else { continue };
                let attempt = self.store.job(job_id).await.unwrap().unwrap().attempt;
                let report = Report::Complete(Completion::default(), UsageClosing::default());
                let _ = self.run(&ReportOutcome { who: who.clone(), job_id, attempt, report }).await;
            }
        }
    }

    /// A client that submits with keys that another one uses too, and cancels some of it.
    async fn submit(&self) -> Vec<(String, JobId)> {
        let mut accepted = Vec::new();
        for round in 0..ROUNDS * 3 {
            let key = format!("key-{round}");
            let affinity = if round % 2 == 0 { "strict" } else { "preferred" };
            let request = match round % 3 {
                0 => submission(),
                _ => SubmissionRequest {
                    affinity_wait_seconds: Some(3600),
                    ..submission_to(&format!("target-{}", round % 4), affinity)
                },
            };
            let request = SubmissionRequest { idempotency_key: Some(key.clone()), ..request };
            let job_id = self.run(&submit(request)).await.unwrap().job.id;
            accepted.push((key, job_id));
            if round % 7 == 0 {
                let actor = Actor::Client(ClientName::new("valet"));
                let _ = self.run(&Cancel { job_id, actor, reason: None }).await;
            }
        }
        accepted
    }

    /// A client that retires workers, by names that overlap.
    async fn deregister(&self) {
        for round in 0..ROUNDS {
            let selector = match round % 2 {
                0 => Selector::Instance(name(&format!("i-{}", round / 2 % 2))),
                _ => Selector::Target(name(&format!("target-{}", round % 3))),
            };
            let deregister = Deregister {
                selector,
                actor: Actor::Client(ClientName::new("valet")),
                reason: "scale-down".into(),
                cancel_active_jobs: round % 3 == 0,
                drain_timeout: Some(Duration::ZERO),
                hold: Some(Duration::ZERO),
                dry_run: false,
            };
            let _ = self.run(&deregister).await;
        }
    }

    /// What the loops of a server do.
    async fn background(&self) {
        for _ in 0..ROUNDS * 2 {
            let request = SweepRequest { limit: 100, sight: Sight::default() };
            self.store.sweep(request, &self.rules).await.unwrap();
            let leased = self.store.lease_due(20, &self.rules).await.unwrap();
            let settle = |(place, leased): (usize, gh_core::domain::callback::LeasedDelivery)| Settlement {
                job_id: leased.job_id,
                lease_id: leased.lease_id,
                delivery_id: leased.delivery_id,
                // Some receivers say that they never want it: a dead letter, which also changes the job.
                outcome: SendOutcome::Answered {
                    status: if place % 3 == 0 { 410 } else { 200 },
                    retry_after: None,
                    excerpt: String::new(),
                    took: Duration::from_millis(1),
                },
                jitter: 0.5,
            };
            self.store.settle(leased.into_iter().enumerate().map(settle).collect(), &self.rules).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_under_crossed_load_never_deadlock_and_lose_nothing() {
    let database = TestDatabase::create().await;
    // Ids of one source: those of two would be the same.
    let rules = rules();
    let options = PgOptions { max_connections: 12, ..PgOptions::default() };
    let servers: Vec<Arc<Server>> = (0..2)
        .map(|_| {
            let store = PgStore::connect_with(database.address(), &options);
            let (recalled, misremembered) = Default::default();
            Arc::new(Server { store, rules: rules.clone(), recalled, misremembered })
        })
        .collect();
    let workers = futures_util::future::join_all((0..WORKERS).map(|index| servers[index % 2].work(index)));
    let submitted = futures_util::future::join_all(servers.iter().map(|server| server.submit()));
    let others = futures_util::future::join_all(servers.iter().map(|server| async {
        futures_util::future::join(server.deregister(), server.background()).await;
    }));
    let (_, submitted, _) = futures_util::future::join3(workers, submitted, others).await;

    let mut by_key: HashMap<String, JobId> = HashMap::new();
    for (key, job_id) in submitted.into_iter().flatten() {
        assert_eq!(*by_key.entry(key).or_insert(job_id), job_id, "one key, one job");
    }
    let store = &servers[0].store;
    let jobs = store.jobs(&JobQuery { limit: 1000, ..JobQuery::default() }).await.unwrap();
    assert_eq!(jobs.len(), by_key.len(), "every accepted job is there, once");
    for job in &jobs {
        let query = JobEventQuery { job_id: job.id, after_seq: 0, event_types: Vec::new(), limit: 1000 };
        let events = store.job_events(&query).await.unwrap();
        let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (1..=job.event_seq).collect::<Vec<_>>(), "events without gaps");
        let mut deliveries = store.deliveries(job.id, None, 1000).await.unwrap();
        deliveries.reverse();
        let numbers: Vec<u64> = deliveries.iter().map(|delivery| delivery.sequence).collect();
        assert_eq!(numbers, (1..=job.callback_sequence).collect::<Vec<_>>(), "no callback is missing");
        if let Some(worker) = job.occupies() {
            let (_, view) = store.worker(worker).await.unwrap();
            assert_eq!(view.unwrap().occupied_by.map(|occupation| occupation.job_id), Some(job.id));
        }
    }
    let (_, views) = store.workers(&gh_core::ports::reader::WorkerQuery::default()).await.unwrap();
    for occupation in views.iter().filter_map(|view| view.occupied_by) {
        let job = jobs.iter().find(|job| job.id == occupation.job_id).unwrap();
        assert!(job.occupies().is_some(), "a worker is not kept by a job that left it");
    }
    assert!(jobs.iter().any(|job| job.ending().is_some()) && views.len() == WORKERS, "something happened");

    for (what, count) in servers.iter().flat_map(|server| {
        [("right", &server.recalled), ("wrong", &server.misremembered)]
            .map(|(what, count)| (what, count.load(Ordering::SeqCst)))
    }) {
        assert!(count > 0, "what was remembered was never {what}");
    }

    for server in &servers {
        server.store.pool().close().await;
    }
    let mut connection = sqlx::PgConnection::connect_with(&database.address()).await.unwrap();
    let deadlocks: i64 =
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    connection.close().await.unwrap();
    assert_eq!(deadlocks, 0);
}
