//! Which worker gets a job, and who is told.

use gh_tests::{Receiver, Server, Worker, submission};
use serde_json::json;

#[tokio::test]
async fn a_preferred_job_falls_to_another_worker_whose_id_is_in_every_callback() {
    let (server, receiver) = (Server::start(0).await, Receiver::start().await);
    let client = server.client();
    let wanted = Worker::register(&client, "worker-a", Some("sandbox-a")).await;
    let other = Worker::register(&client, "worker-b", Some("sandbox-b")).await;
    let first = client.submit(&submission(&json!({}))).await;
    assert_eq!(wanted.job().await, first, "the wanted worker is busy");

    let job_id = client
        .submit(&submission(&json!({
            "worker_affinity": "preferred", "target_worker_id": "sandbox-a", "callback_url": receiver.url(),
        })))
        .await;
    assert_eq!(other.job().await, job_id);
    other.report(&job_id, "complete", &json!({ "llm_calls": 0 })).await.expect(200);

    let callbacks = receiver.until(&job_id, "completed").await;
    let statuses: Vec<_> = callbacks.iter().map(|callback| callback["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["running", "completed"]);
    for callback in &callbacks {
        assert_eq!(callback["worker_id"], "worker-b");
        assert_eq!(callback["target_worker_id"], "sandbox-a");
        assert_eq!(callback["worker_affinity"], "preferred");
    }
}

#[tokio::test]
async fn a_strict_job_never_runs_on_a_worker_of_another_target() {
    let server = Server::start(0).await;
    let client = server.client();
    let other = Worker::register(&client, "worker-b", Some("sandbox-b")).await;
    let strict = submission(&json!({
        "worker_affinity": "strict", "target_worker_id": "sandbox-a", "affinity_wait_seconds": 60,
    }));
    let job_id = client.submit(&strict).await;
    assert_eq!(other.claim(1).await.status, 204, "not for this worker");
    let placement = client.get(&format!("/jobs/{job_id}/placement")).await.expect(200);
    assert_eq!((&placement["decision"], &placement["reason"]), (&json!("waiting"), &json!("target_unknown")));

    let wanted = Worker::register(&client, "worker-a", Some("sandbox-a")).await;
    assert_eq!(wanted.job().await, job_id);
}

#[tokio::test]
async fn higher_priority_goes_first_and_then_the_older_job() {
    let server = Server::start(0).await;
    let client = server.client();
    let mut expected = Vec::new();
    for priority in [5, 1, 9, 5] {
        expected.push((priority, client.submit(&submission(&json!({ "priority": priority }))).await));
    }
    expected.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    let worker = Worker::register(&client, "worker-a", None).await;
    for (_, job_id) in expected {
        assert_eq!(worker.job().await, job_id);
        worker.report(&job_id, "complete", &json!({})).await.expect(200);
    }
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_gets_the_same_job_again() {
    let server = Server::start(0).await;
    let client = server.client();
    let worker = Worker::register(&client, "worker-a", None).await;
    let job_id = client.submit(&submission(&json!({}))).await;
    assert_eq!(worker.job().await, job_id);
    assert_eq!(worker.job().await, job_id, "it never said that it has it");
    worker.beat(&json!({ "current_job_id": job_id })).await.expect(200);
    let held = worker.claim(0).await.expect(409);
    assert_eq!((&held["code"], &held["job_id"]), (&json!("LEASE_HELD"), &json!(job_id)));
}
