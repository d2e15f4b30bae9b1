//! Retiring a worker, and being certain that it is gone.

use gh_tests::{Receiver, Server, Worker, submission};
use serde_json::{Value, json};

fn call(id: &str) -> Value {
    json!({ "calls": [{
        "call_id": id, "provider": "anthropic", "model": "claude-haiku-4-5-20251001",
        "usage": { "input": 2463, "cache_read": 20, "output": 747 },
    }] })
}

#[tokio::test]
async fn after_a_cancelling_deregistration_the_worker_is_refused_everything_but_usage() {
    let (server, receiver) = (Server::start(0).await, Receiver::start().await);
    let client = server.client();
    let worker = Worker::register(&client, "worker-a", Some("sandbox-a")).await;
    let body = json!({
        "worker_affinity": "preferred", "target_worker_id": "sandbox-a", "callback_url": receiver.url(),
    });
    let job_id = client.submit(&submission(&body)).await;
    assert_eq!(worker.job().await, job_id);
    worker.beat(&json!({ "current_job_id": job_id })).await.expect(200);

    let request = json!({
        "target_worker_id": "sandbox-a", "reason": "sandbox_terminated", "cancel_active_jobs": true,
    });
    let answer = client.post("/workers/deregister", &request).await.expect(200);
    assert_eq!(answer["cancelled_job_ids"], json!([job_id]));
    assert_eq!(answer["cancelled_jobs"], json!([job_id]));
    assert_eq!(answer["deregistered_workers"], json!(["worker-a"]));

    let callbacks = receiver.until(&job_id, "cancelled").await;
    assert!(callbacks.iter().all(|callback| callback["worker_id"] == "worker-a"), "{callbacks:?}");

    for what in ["events", "side-effects-started", "complete", "fail", "release"] {
        let body = json!({
            "events": [{ "event_type": "thought" }], "error_code": "network_error", "error_message": "too late",
            "retryable": false, "reason": "too late",
        });
        let refused = worker.report(&job_id, what, &body).await;
        assert_eq!((refused.status, refused.code().as_str()), (410, "WORKER_DEREGISTERED"), "{what}");
    }
    assert_eq!(worker.beat(&json!({})).await.code(), "WORKER_DEREGISTERED");
    assert_eq!(worker.claim(0).await.code(), "WORKER_DEREGISTERED");
    let job = client.get(&format!("/jobs/{job_id}")).await.expect(200);
    assert_eq!(job["status"], "cancelled", "nothing that it said changed anything");

    let usage = worker.report(&job_id, "usage", &call("late")).await.expect(200);
    assert_eq!(usage["results"][0]["outcome"], "recorded");
    let job = client.get(&format!("/jobs/{job_id}")).await;
    assert_eq!(job.total_cost(), "0.0062".parse().ok());
    let registered = client
        .with_key("dev-worker-key")
        .post(
            "/workers/register",
            &json!({
                "worker_id": "worker-a", "boot_id": "another", "target_worker_id": "sandbox-a",
            }),
        )
        .await;
    assert_eq!(registered.code(), "WORKER_DEREGISTERED", "its name is held");
    let entry = client.get("/workers/worker-a").await.expect(200);
    assert!(entry["refused_calls"].as_u64().unwrap() >= 7, "its calls are seen: {entry}");
}

#[tokio::test]
async fn a_draining_deregistration_lets_the_job_end_and_then_the_worker_is_gone_in_the_same_call() {
    let server = Server::start(0).await;
    let client = server.client();
    let worker = Worker::register(&client, "worker-a", Some("sandbox-a")).await;
    let job_id = client.submit(&submission(&json!({}))).await;
    assert_eq!(worker.job().await, job_id);
    worker.beat(&json!({ "current_job_id": job_id })).await.expect(200);
    let request = json!({ "target_worker_id": "sandbox-a", "reason": "scale-down" });

    let dry_run = client.post("/workers/deregister?dry_run=true", &request).await.expect(200);
    assert_eq!((&dry_run["dry_run"], &dry_run["draining_workers"]), (&json!(true), &json!(["worker-a"])));
    let entry = client.get("/workers/worker-a").await.expect(200);
    assert_eq!(entry["status"], "busy", "a dry run changes nothing");

    let answer = client.post("/workers/deregister", &request).await.expect(200);
    assert_eq!(answer["draining_job_ids"], json!([job_id]));
    worker.report(&job_id, "complete", &json!({})).await.expect(200);
    assert_eq!(worker.claim(0).await.code(), "WORKER_DEREGISTERED");
    let again = client.post("/workers/deregister", &request).await.expect(200);
    assert_eq!(again["deregistration_id"], answer["deregistration_id"]);
    assert_eq!(again["deregistered_workers"], json!(["worker-a"]));
    let entry = client.get("/workers/worker-a").await.expect(200);
    assert_eq!((&entry["status"], &entry["jobs_completed"]), (&json!("offline"), &json!(1)));
}

#[tokio::test]
async fn a_scripted_worker_that_is_deregistered_ends_and_the_server_lives_on() {
    let server = Server::start(1).await;
    let client = server.client();
    gh_tests::eventually("the worker to be there", async || {
        (client.get("/workers/dev-worker-1").await.status == 200).then_some(())
    })
    .await;
    let request = json!({ "target_worker_id": "sandbox-1", "reason": "sandbox_terminated" });
    client.post("/workers/deregister", &request).await.expect(200);
    let events = client.get("/workers/dev-worker-1/events").await.expect(200);
    let types: Vec<_> = events["events"].as_array().unwrap().iter().map(|event| &event["event_type"]).collect();
    assert!(types.contains(&&json!("worker_deregistered")), "{types:?}");
    client.submit(&submission(&json!({}))).await;
}
