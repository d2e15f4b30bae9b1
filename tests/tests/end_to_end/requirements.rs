//! The client's own examples: real answers have their keys, with values of their types.

use gh_tests::{Receiver, Server, Worker, submission};
use serde_json::{Value, json};

/// Every key of the example is there, with a value of the same type; other keys may be there too.
fn fits(example: &Value, real: &Value, place: &str) {
    match (example, real) {
        (Value::Object(example), Value::Object(real)) => {
            for (key, value) in example {
                let found = real.get(key).unwrap_or_else(|| panic!("{place}.{key} is missing in {real:?}"));
                fits(value, found, &format!("{place}.{key}"));
            }
        }
        (Value::Array(example), Value::Array(real)) => {
            assert!(!real.is_empty(), "{place} is empty");
            real.iter().for_each(|item| fits(&example[0], item, place));
        }
        _ => assert_eq!(
            std::mem::discriminant(example),
            std::mem::discriminant(real),
            "{place} is {real}, the example has {example}"
        ),
    }
}

/// A busy worker with a target and a machine, its job, and the receiver of its callbacks.
async fn busy_worker(server: &Server) -> (Worker, String, Receiver) {
    let (client, receiver) = (server.client(), Receiver::start().await);
    let registration = json!({
        "worker_id": "worker-production-1771386675208", "boot_id": "boot-1", "target_worker_id": "sandbox-a",
        "ec2_instance_id": "i-0abc123def456", "ec2_ip": "34.197.248.80",
    });
    let answer = client.with_key("dev-worker-key").post("/workers/register", &registration).await.expect(201);
    let token = answer["token"].as_str().unwrap();
    let worker = Worker { id: "worker-production-1771386675208".to_owned(), client: client.with_key(token) };
    let job_id = client
        .submit(&submission(&json!({
            "worker_affinity": "preferred", "target_worker_id": "sandbox-a", "callback_url": receiver.url(),
        })))
        .await;
    assert_eq!(worker.job().await, job_id);
    let beat = json!({
        "current_job_id": job_id, "memory_usage": 268_435_456, "current_task_url": "https://jobs.example.com/1/form",
        "browser_session_id": "session-1",
    });
    worker.beat(&beat).await.expect(200);
    (worker, job_id, receiver)
}

#[tokio::test]
async fn the_registry_has_every_field_that_was_asked_for() {
    let server = Server::start(0).await;
    let (_, job_id, _receiver) = busy_worker(&server).await;
    let example = json!({ "workers": [{
        "worker_id": "worker-production-1771386675208",
        "status": "busy",
        "target_worker_id": "sandbox-uuid",
        "ec2_instance_id": "i-0abc123def456",
        "ec2_ip": "34.197.248.80",
        "current_job_id": "uuid-or-null",
        "current_task_url": "https://...",
        "browser_session_id": "session-uuid-or-null",
        "registered_at": "2026-02-18T...",
        "last_heartbeat": "2026-02-18T...",
        "jobs_completed": 42,
        "jobs_failed": 3,
        "uptime_seconds": 86400,
    }] });
    let real = server.client().get("/monitoring/workers").await.expect(200);
    fits(&example, &real, "registry");
    assert_eq!(real["workers"][0]["current_job_id"], job_id.as_str());
    assert_eq!(real["workers"][0]["status"], "busy");
}

#[tokio::test]
async fn worker_events_have_the_metadata_that_was_asked_for() {
    let server = Server::start(0).await;
    let (worker, ..) = busy_worker(&server).await;
    let request =
        json!({ "target_worker_id": "sandbox-a", "reason": "sandbox_terminated", "cancel_active_jobs": true });
    server.client().post("/workers/deregister", &request).await.expect(200);
    let real = server.client().get(&format!("/workers/{}/events", worker.id)).await.expect(200);
    let examples = json!({
        "worker_registered": { "ec2_instance_id": "i-0", "ec2_ip": "1.2.3.4", "target_worker_id": "sandbox" },
        "worker_heartbeat": { "status": "busy", "current_job_id": "uuid", "memory_usage": 1 },
        "worker_draining": { "reason": "shutdown" },
        "worker_deregistered": { "reason": "shutdown", "jobs_completed": 1, "uptime": 1 },
    });
    for (event_type, metadata) in examples.as_object().unwrap() {
        let events = real["events"].as_array().unwrap();
        let event = events.iter().find(|event| event["event_type"] == event_type.as_str());
        let event = event.unwrap_or_else(|| panic!("{event_type} is missing in {events:?}"));
        fits(metadata, &event["metadata"], event_type);
    }
}

#[tokio::test]
async fn callbacks_and_events_have_the_fields_that_were_asked_for() {
    let server = Server::start(0).await;
    let (worker, job_id, receiver) = busy_worker(&server).await;
    let usage = json!({ "calls": [
        { "call_id": "c1", "provider": "anthropic", "model": "claude-sonnet-4-20250514",
          "usage": { "input": 11500, "output": 500 } },
        { "call_id": "c2", "provider": "anthropic", "model": "claude-haiku-4-5-20251001",
          "usage": { "input": 2463, "cache_read": 20, "output": 747 } },
    ] });
    worker.report(&job_id, "usage", &usage).await.expect(200);
    gh_tests::eventually("the cost to be told while the job runs", async || {
        receiver.of(&job_id).iter().any(|callback| callback.get("cost").is_some()).then_some(())
    })
    .await;
    let events = json!({ "events": [{
        "event_type": "step_completed", "message": "Form fields identified: 12",
        "metadata": { "step_index": 3, "total_steps": 8 },
    }] });
    worker.report(&job_id, "events", &events).await.expect(200);
    worker.report(&job_id, "complete", &json!({ "result_summary": "Application submitted" })).await.expect(200);

    let running = json!({
        "job_id": "...", "valet_task_id": "...", "status": "running",
        "worker_id": "worker-production-1771386675208", "target_worker_id": "sandbox-uuid",
    });
    let cost = json!({ "cost": {
        "total_cost_usd": 0.0342,
        "action_count": 4,
        "total_tokens": 15230,
        "breakdown": [{ "model": "claude-sonnet-4-20250514", "tokens": 12000, "cost_usd": 0.028 }],
    } });
    let callbacks = receiver.until(&job_id, "completed").await;
    for callback in &callbacks {
        fits(&running, callback, "callback");
    }
    let last = callbacks.last().unwrap();
    fits(&cost, last, "callback");
    assert_eq!(last["cost"]["total_tokens"], 15230);
    let snapshot = callbacks.iter().find(|callback| callback["status"] == "running" && callback.get("cost").is_some());
    fits(&cost, snapshot.expect("cost is told while it runs"), "callback");

    let example = json!({
        "actor": "worker-production-1771386675208",
        "metadata": {
            "worker_id": "worker-production-1771386675208", "elapsed_ms": 3420, "step_index": 3, "total_steps": 8,
        },
    });
    let feed = server.client().get(&format!("/jobs/{job_id}/events?event_type=step_completed")).await.expect(200);
    fits(&example, &feed["events"][0], "event");
    let all = server.client().get(&format!("/jobs/{job_id}/events")).await.expect(200);
    for event in all["events"].as_array().unwrap() {
        assert!(event["actor"].is_string(), "{event}");
        for key in ["worker_id", "elapsed_ms", "step_index", "total_steps"] {
            assert!(event["metadata"].get(key).is_some(), "{key} is missing in {event}");
        }
    }
}
