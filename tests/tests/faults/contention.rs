//! Transactions of two servers that want the same rows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{join, join_all};
use gh_adapters_postgres::testing::TestDatabase;
use gh_tests::{Addresses, Caller, Client, Ledger, LoadSize, PrivatePostgres, Receiver, Worker, submission};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::stage::{Stage, server};

/// Each job is run, fails, and is retried by its client, so often.
const RUNS: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_that_are_added_while_others_are_settled_all_arrive_and_in_order() {
    const JOBS: usize = 30;
    const WORKERS: usize = 8;
    let database = TestDatabase::create().await;
    let url = database.url();
    let (first, second) = tokio::join!(server(&url), server(&url));
    let receiver = Receiver::start().await;
    let clients = [first.client(), second.client()];
    let left = AtomicUsize::new(JOBS);
    let follow = async |number: usize| {
        let [here, there] = [&clients[number % 2], &clients[(number + 1) % 2]];
        let job_id = here.submit(&submission(&json!({ "callback_url": receiver.url() }))).await;
        for run in 1..RUNS {
            there.job_when(&job_id, "failed").await;
            gh_tests::eventually("a retry", async || {
                let answer = here.post(&format!("/jobs/{job_id}/retry"), &json!({ "run": run })).await;
                (answer.status == 200).then_some(())
            })
            .await;
        }
        there.job_when(&job_id, "completed").await;
        left.fetch_sub(1, Ordering::Relaxed);
        job_id
    };
    let work = async |number: usize| {
        let worker = Worker::register(&clients[number % 2], &format!("worker-{number}"), None).await;
        let workers = clients.each_ref().map(|client| worker.at(client));
        for turn in 0.. {
            let worker = &workers[turn % 2];
            let answer = worker.claim(1).await;
            if answer.status == 204 {
                if left.load(Ordering::Relaxed) == 0 {
                    break;
                }
                continue;
            }
            run_once(worker, &clients[(turn + 1) % 2], &answer.expect(200)).await;
        }
    };
    let (jobs, _) = join(join_all((0..JOBS).map(follow)), join_all((0..WORKERS).map(work))).await;

    for job_id in &jobs {
        let callbacks = receiver.until(job_id, "completed").await;
        let numbers: Vec<u64> = callbacks.iter().map(|callback| callback["sequence"].as_u64().unwrap()).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        let mut seen = BTreeSet::new();
        let told: Vec<_> = callbacks
            .iter()
            .filter(|callback| seen.insert(callback["sequence"].as_u64()))
            .map(|callback| (callback["run"].as_u64().unwrap(), callback["status"].as_str().unwrap()))
            .collect();
        let end = |run| if run == RUNS { "completed" } else { "failed" };
        let expected: Vec<_> = (1..=RUNS).flat_map(|run| [(run, "running"), (run, end(run))]).collect();
        assert_eq!(told, expected, "{job_id}");
    }
}

/// Runs what was granted: all runs but the last one fail.
async fn run_once(worker: &Worker, at: &Client, granted: &Value) {
    let job = &granted["job"];
    let (what, body) = match job["run"].as_u64().unwrap() {
        RUNS => ("complete", json!({})),
        _ => ("fail", json!({ "error_code": "no", "error_message": "It says no", "retryable": false })),
    };
    let path = format!("/jobs/{}/attempts/{}/{what}", job["job_id"].as_str().unwrap(), granted["attempt"]);
    worker.at(at).client.post(&path, &body).await.expect(200);
}

/// Everything that locks rows of several jobs or workers, in every order, on two servers.
async fn hunt_for_deadlocks(deregistrations: usize) {
    let postgres = PrivatePostgres::start(&["deadlock_timeout = '100ms'", "log_lock_waits = off"]);
    let url = postgres.url("postgres");
    let size = LoadSize { clients: 3, workers: 8, targets: 3, open_jobs: 40 };
    let mut stage = Stage::start(&url, &size).await;
    {
        let chaos = Chaos::new(&stage);
        for round in 0..deregistrations {
            tokio::join!(
                stage.load.ledger().grows_by(15),
                chaos.deregister(round),
                chaos.deregister(round + 1),
                chaos.submit(round, false),
                chaos.submit(round, true),
                chaos.register_and_fall_silent(round),
            );
        }
    }
    stage.load.check();
    stage.check(&url).await;
    assert!(!postgres.log().contains("deadlock detected"), "{}", postgres.log());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let count: i64 = sqlx::query_scalar("select sum(deadlocks)::bigint from pg_stat_database")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(count, 0);
}

struct Chaos {
    client: Caller,
    worker: Caller,
    receiver: Arc<Receiver>,
    ledger: Arc<Ledger>,
}

impl Chaos {
    fn new(stage: &Stage) -> Self {
        let addresses: &Addresses = &stage.addresses;
        Self {
            client: Caller::new(addresses, "dev-service-key"),
            worker: Caller::new(addresses, "dev-worker-key"),
            receiver: Arc::clone(&stage.receiver),
            ledger: Arc::clone(stage.load.ledger()),
        }
    }

    /// Retires the workers of a target, in different ways.
    async fn deregister(&self, round: usize) {
        let body = json!({ "target_worker_id": format!("target-{}", round % 3), "reason": "test", "hold_seconds": 0,
            "cancel_active_jobs": round.is_multiple_of(2), "drain_timeout_seconds": round % 2 });
        let answer = self.client.post("/workers/deregister", &body).await;
        assert!(matches!(answer.status, 200 | 404), "{}: {}", answer.status, answer.text);
    }

    /// The same jobs with the same keys in one order or the other.
    async fn submit(&self, round: usize, backwards: bool) {
        let mut jobs: Vec<_> = (0..6)
            .map(|number| {
                let key = format!("crossed-{round}-{number}");
                let affinity = ["strict", "preferred", "any"][number % 3];
                submission(&json!({ "valet_task_id": key, "idempotency_key": key, "max_attempts": 10,
                    "worker_affinity": affinity, "target_worker_id": format!("target-{}", (round + number) % 3),
                    "affinity_wait_seconds": 1, "callback_url": self.receiver.url(),
                    "input_data": { "plan": "complete" } }))
            })
            .collect();
        if backwards {
            jobs.reverse();
        }
        let mut waiting = jobs;
        while !waiting.is_empty() {
            let answer = self.client.post("/jobs/batch", &json!({ "jobs": waiting })).await.expect(200);
            let mut again = Vec::new();
            for (result, job) in answer["results"].as_array().unwrap().iter().zip(waiting) {
                match result["status"].as_u64().unwrap() {
                    200 | 201 => self.ledger.submitted(key(&job), result["job"]["job_id"].as_str().unwrap()),
                    409 => self.ledger.submitted(key(&job), result["error"]["job_id"].as_str().unwrap()),
                    503 => again.push(job),
                    _ => panic!("{result}"),
                }
            }
            waiting = again;
        }
    }

    /// A worker that is lost: the sweep finds it.
    async fn register_and_fall_silent(&self, round: usize) {
        let body = json!({ "worker_id": format!("silent-{round}"), "boot_id": format!("silent-{round}"),
            "target_worker_id": format!("target-{}", round % 3) });
        let answer = self.worker.post("/workers/register", &body).await;
        assert!(matches!(answer.status, 200 | 201 | 410), "{}: {}", answer.status, answer.text);
        if let Some(token) = answer.json()["token"].as_str() {
            let path = format!("/workers/silent-{round}/claim?wait=0");
            self.worker.with_key(token).post(&path, &json!({})).await;
        }
    }
}

fn key(job: &Value) -> &str {
    job["idempotency_key"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn deregistrations_claims_completions_sweeps_and_crossed_submissions_never_wait_in_a_circle() {
    hunt_for_deadlocks(40).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/long-faults"]
async fn a_hundred_and_fifty_rounds_of_what_locks_many_rows_never_wait_in_a_circle() {
    hunt_for_deadlocks(150).await;
}
