//! Callbacks arrive, in order, and one receiver's trouble is nobody else's.

use gh_tests::{Receiver, Server, Worker, eventually, submission};
use serde_json::json;

#[tokio::test]
async fn a_receiver_that_is_down_delays_its_own_jobs_only() {
    let (server, receiver) = (Server::start(0).await, Receiver::start().await);
    let client = server.client();
    let worker = Worker::register(&client, "worker-a", None).await;
    let mut failing = Vec::new();
    for _ in 0..20 {
        let job_id = client.submit(&submission(&json!({ "callback_url": receiver.answering(500) }))).await;
        client.post(&format!("/jobs/{job_id}/cancel"), &json!({})).await.expect(200);
        failing.push(job_id);
    }
    let healthy = client.submit(&submission(&json!({ "callback_url": receiver.url() }))).await;
    assert_eq!(worker.job().await, healthy);
    worker.report(&healthy, "complete", &json!({ "llm_calls": 0 })).await.expect(200);
    receiver.until(&healthy, "completed").await;

    let waiting = eventually("a failed attempt to be recorded", async || {
        let answer = client.get(&format!("/jobs/{}/callbacks", failing[0])).await.expect(200);
        (!answer["callbacks"][0]["attempts"].as_array().unwrap().is_empty()).then_some(answer)
    })
    .await;
    let delivery = &waiting["callbacks"][0];
    assert_eq!((&delivery["state"], &delivery["attempts"][0]["http_status"]), (&json!("pending"), &json!(500)));
    assert!(delivery["next_attempt_at"].is_string());
}

#[tokio::test]
async fn callbacks_of_a_job_come_in_the_order_in_which_things_happened() {
    let (server, receiver) = (Server::start(2).await, Receiver::start().await);
    let client = server.client();
    let mut jobs = Vec::new();
    for _ in 0..10 {
        jobs.push(client.submit(&submission(&json!({ "callback_url": receiver.url() }))).await);
    }
    for job_id in &jobs {
        let callbacks = receiver.until(job_id, "completed").await;
        assert_eq!(callbacks[0]["status"], "running");
        let sequence: Vec<_> = callbacks.iter().map(|callback| callback["sequence"].as_u64().unwrap()).collect();
        assert!(sequence.is_sorted(), "{sequence:?}");
        let ends = callbacks.iter().filter(|callback| callback.get("completed_at").is_some()).count();
        assert!(ends >= 1);
        assert!(callbacks.iter().all(|callback| callback["worker_id"].is_string()));
        let spent: Vec<_> =
            callbacks.iter().filter_map(|callback| callback["cost"]["total_cost_usd"].as_f64()).collect();
        assert!(spent.is_sorted(), "cost only grows: {spent:?}");
    }
}
