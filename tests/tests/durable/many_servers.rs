//! A client and a worker may talk to a different server with each call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use gh_adapters_postgres::testing::TestDatabase;
use gh_tests::{Answer, Client, Server, Worker, submission};
use serde_json::{Value, json};

/// Jobs of one batch.
const BATCH: usize = 500;

/// Runs so many jobs through two servers, with 64 workers that talk to each in turn.
async fn each_job_runs_once(jobs: usize) {
    const WORKERS: usize = 64;
    let database = TestDatabase::create_empty().await;
    let url = database.url();
    // At once, on an empty database: one of them brings the tables up, the other waits for it.
    let (first, second) = tokio::join!(Server::ready_on(&url, &[]), Server::ready_on(&url, &[]));
    let servers = [first.client(), second.client()];
    let all_submitted = AtomicBool::new(false);
    let submit = async {
        for batch in 0..jobs.div_ceil(BATCH) {
            let count = BATCH.min(jobs - batch * BATCH);
            let bodies: Vec<Value> = (0..count)
                .map(|index| submission(&json!({ "valet_task_id": format!("task-{}", batch * BATCH + index) })))
                .collect();
            let body = json!({ "jobs": bodies });
            let answer = patiently(async || servers[batch % 2].post("/jobs/batch", &body).await).await.expect(200);
            assert!(answer["results"].as_array().unwrap().iter().all(|result| result["status"] == 201), "{answer}");
        }
        all_submitted.store(true, Ordering::Release);
    };
    let work = async |index: usize| {
        let worker = Worker::register(&servers[index % 2], &format!("worker-{index}"), None).await;
        let workers = servers.each_ref().map(|server| worker.at(server));
        let mut turn = index;
        let mut next = || {
            turn += 1;
            &workers[turn % 2]
        };
        let mut started = Vec::new();
        loop {
            // Asked before the claim: an empty answer then means that there are none left.
            let none_to_come = all_submitted.load(Ordering::Acquire);
            let at = next();
            let answer = patiently(async || at.claim(1).await).await;
            if answer.status == 204 {
                if none_to_come {
                    return started;
                }
                continue;
            }
            let granted = answer.expect(200);
            assert_eq!(granted["attempt"], 1);
            let job_id = granted["job"]["job_id"].as_str().unwrap().to_owned();
            let at = next();
            patiently(async || at.report(&job_id, "complete", &json!({})).await).await.expect(200);
            started.push(job_id);
        }
    };
    let ((), started) = tokio::join!(submit, join_all((0..WORKERS).map(work)));

    let mut times: HashMap<&String, u32> = HashMap::new();
    for job_id in started.iter().flatten() {
        *times.entry(job_id).or_default() += 1;
    }
    assert_eq!(times.len(), jobs, "every job was started");
    assert!(times.values().all(|count| *count == 1), "no job was started twice");
    let store = database.store(None);
    let count = async |sql: &'static str| -> i64 { sqlx::query_scalar(sql).fetch_one(store.pool()).await.unwrap() };
    let expected = i64::try_from(jobs).unwrap();
    assert_eq!(count("select count(*) from gh_jobs").await, expected);
    assert_eq!(count("select count(*) from gh_jobs where status = 'completed' and attempt = 1").await, expected);
    assert_eq!(count("select count(*) from gh_job_events where event_type = 'job_started'").await, expected);
    let with_gaps = "select count(*) from (select from gh_job_events group by job_id having max(seq) <> count(*)) gap";
    assert_eq!(count(with_gaps).await, 0, "events are numbered without gaps");
    drop((first, second));
}

/// Calls again what was answered with `503`, as every caller may.
async fn patiently(call: impl AsyncFn() -> Answer) -> Answer {
    gh_tests::eventually("an answer other than 503", async || {
        let answer = call().await;
        (answer.status != 503).then_some(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_workers_of_two_servers_start_each_of_two_thousand_jobs_exactly_once() {
    each_job_runs_once(2_000).await;
}

/// `GH_TEST_JOBS` says how many others.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/with-postgres cargo test --workspace --all-features --test durable -- --ignored"]
async fn sixty_four_workers_of_two_servers_start_each_of_twenty_thousand_jobs_exactly_once() {
    let jobs = std::env::var("GH_TEST_JOBS").ok().map_or(20_000, |jobs| jobs.parse().unwrap());
    each_job_runs_once(jobs).await;
}

/// Two servers on one database, and a worker that registered at the first.
async fn two_servers() -> (TestDatabase, Server, Server, Worker) {
    let database = TestDatabase::create().await;
    let url = database.url();
    let (first, second) = tokio::join!(Server::ready_on(&url, &[]), Server::ready_on(&url, &[]));
    let worker = Worker::register(&first.client(), "worker-a", Some("sandbox-a")).await;
    (database, first, second, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_waits_at_one_server_gets_the_job_submitted_at_the_other() {
    let (_database, first, second, worker) = two_servers().await;
    for affinity in ["any", "strict"] {
        let elsewhere = worker.at(&second.client());
        let claim = async { elsewhere.claim(30).await.expect(200) };
        let submit = async {
            gh_tests::eventually("the worker to wait for a job", async || {
                let body = json!({ "worker_affinity": affinity, "target_worker_id": "sandbox-a" });
                let answer = first.client().post("/jobs", &submission(&body)).await;
                (answer.status == 201).then(|| answer.json())
            })
            .await
        };
        let (granted, submitted) = tokio::join!(claim, submit);
        assert_eq!(granted["job"]["job_id"], submitted["job_id"], "{affinity}");
        let job_id = submitted["job_id"].as_str().unwrap();
        worker.report(job_id, "complete", &json!({})).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_decides_at_one_server_reaches_the_stream_that_is_open_at_the_other() {
    let (_database, first, second, worker) = two_servers().await;
    let elsewhere = worker.at(&second.client());
    let client: Client = first.client();
    let mut stream = elsewhere.client.open(&format!("/workers/{}/directives", worker.id)).await;
    let submitted = client.submit(&submission(&json!({}))).await;
    assert_eq!(worker.job().await, submitted);

    client.post(&format!("/jobs/{submitted}/cancel"), &json!({})).await.expect(200);
    until(&mut stream, "cancel").await;
    worker.report(&submitted, "release", &json!({ "reason": "cancelled" })).await;
    client.post("/workers/deregister", &json!({ "target_worker_id": "sandbox-a", "reason": "test" })).await;
    let rest = until(&mut stream, "shutdown").await;
    assert!(rest.contains("event:"), "{rest}");
}

/// Reads the stream until it said this; what it said.
async fn until(stream: &mut reqwest::Response, what: &str) -> String {
    let mut heard = String::new();
    let listening = async {
        while !heard.contains(what) {
            let chunk = stream.chunk().await.unwrap().unwrap_or_else(|| panic!("the stream ended after {heard:?}"));
            heard.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    tokio::time::timeout(gh_tests::PATIENCE, listening).await.unwrap_or_else(|_| panic!("no {what}"));
    heard
}
