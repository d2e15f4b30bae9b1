//! Many at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use gh_tests::{Receiver, Server, Worker, eventually, submission};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_strict_submissions_for_one_idle_worker_exactly_one_gets_it() {
    const RACERS: usize = 1000;
    let (server, receiver) = (Server::start(0).await, Receiver::start().await);
    let client = server.client();
    let worker = Worker::register(&client, "worker-a", Some("sandbox-a")).await;
    // Long enough ago to be idle, short enough to be listening: it just asked.
    assert_eq!(worker.claim(0).await.status, 204);

    let body = submission(&json!({
        "worker_affinity": "strict", "target_worker_id": "sandbox-a", "callback_url": receiver.url(),
    }));
    let answers = join_all((0..RACERS).map(|_| client.post("/jobs", &body))).await;

    let (accepted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert_eq!((accepted.len(), refused.len()), (1, RACERS - 1));
    for answer in &refused {
        let problem = answer.expect(409);
        assert_eq!(problem["code"], "WORKER_UNAVAILABLE");
        assert_eq!(problem["worker_status"], "busy");
        assert_eq!(problem["job_status"], "failed");
        assert_eq!(problem["valet_task_id"], "task-1");
        assert!(problem["job_id"].is_string());
    }
    let failed = all_jobs(&client, "status=failed&error_code=WORKER_UNAVAILABLE").await;
    assert_eq!(failed.len(), RACERS - 1);
    eventually("a failed callback for each refused job", async || {
        let told = receiver.all().iter().filter(|callback| callback["status"] == "failed").count();
        (told == RACERS - 1).then_some(())
    })
    .await;
    assert!(receiver.all().iter().all(|callback| callback.get("worker_id").is_none()), "nobody ever held them");

    let granted = worker.claim(5).await.expect(200);
    assert_eq!(granted["job"]["job_id"], accepted[0].json()["job_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_workers_start_each_of_ten_thousand_jobs_exactly_once() {
    const WORKERS: usize = 64;
    const JOBS: usize = 10_000;
    let server = Server::start(0).await;
    let client = server.client();
    let all_submitted = AtomicBool::new(false);
    let submit = async {
        for batch in 0..JOBS / 500 {
            let jobs: Vec<Value> = (0..500)
                .map(|index| submission(&json!({ "valet_task_id": format!("task-{}", batch * 500 + index) })))
                .collect();
            let answer = client.post("/jobs/batch", &json!({ "jobs": jobs })).await.expect(200);
            let results = answer["results"].as_array().unwrap().clone();
            assert!(results.iter().all(|result| result["status"] == 201), "{answer}");
        }
        all_submitted.store(true, Ordering::Release);
    };
    let work = async |index: usize| {
        let worker = Worker::register(&client, &format!("worker-{index}"), None).await;
        let mut started = Vec::new();
        loop {
            // Asked before the claim: an empty answer then means that there are none left.
            let none_to_come = all_submitted.load(Ordering::Acquire);
            let answer = worker.claim(1).await;
            if answer.status == 204 {
                if none_to_come {
                    return started;
                }
                continue;
            }
            let granted = answer.expect(200);
            assert_eq!(granted["attempt"], 1);
            let job_id = granted["job"]["job_id"].as_str().unwrap().to_owned();
            worker.report(&job_id, "complete", &json!({})).await.expect(200);
            started.push(job_id);
        }
    };
    let ((), started) = tokio::join!(submit, join_all((0..WORKERS).map(work)));

    let mut times: HashMap<&String, u32> = HashMap::new();
    for job_id in started.iter().flatten() {
        *times.entry(job_id).or_default() += 1;
    }
    assert_eq!(times.len(), JOBS, "every job was started");
    assert!(times.values().all(|count| *count == 1), "no job was started twice");
    let completed = all_jobs(&client, "status=completed").await;
    assert_eq!(completed.len(), JOBS);
    assert!(completed.iter().all(|job| job["attempt"] == 1));
}

/// Every job that fits, page by page.
async fn all_jobs(client: &gh_tests::Client, filter: &str) -> Vec<Value> {
    let mut jobs = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("/jobs?limit=200&{filter}{cursor}")).await.expect(200);
        jobs.extend(page["jobs"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return jobs,
        }
    }
}
