//! The registry, and a worker's own calls.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{Api, WORKER_KEY, text};

#[tokio::test]
async fn a_registration_says_everything_a_worker_must_know_and_may_be_repeated() {
    let api = Api::new();
    let body = json!({"worker_id": "worker-a", "boot_id": "boot-1"});
    let first = api.post_as(WORKER_KEY, "/workers/register", &body).await.expect(201);
    let mut shown = first.clone();
    shown["token"] = json!("");
    assert_eq!(
        shown,
        json!({"worker_id": "worker-a", "generation": 1, "token": "", "heartbeat_interval_seconds": 5,
            "suspect_after_seconds": 10, "self_fence_after_seconds": 15, "offline_after_seconds": 20})
    );
    let again = api.post_as(WORKER_KEY, "/workers/register", &body).await.expect(200);
    assert_eq!(again, first);
    let restarted = json!({"worker_id": "worker-a", "boot_id": "boot-2"});
    let second = api.post_as(WORKER_KEY, "/workers/register", &restarted).await.expect(201);
    assert_eq!(second["generation"], 2);
    let old = api.post_as(&text(&first["token"]), "/workers/worker-a/heartbeat", &json!({})).await;
    old.problem(409, "STALE_GENERATION");
}

#[tokio::test]
async fn a_worker_without_a_name_gets_one_by_its_boot() {
    let api = Api::new();
    let register = async |boot: &str, status| {
        let body = json!({"boot_id": boot});
        let answer = api.post_as(WORKER_KEY, "/workers/register", &body).await;
        text(&answer.expect(status)["worker_id"])
    };
    let name = register("boot-1", 201).await;
    assert_eq!(register("boot-1", 200).await, name, "a lost answer makes no second worker");
    assert_ne!(register("boot-2", 201).await, name);
}

#[tokio::test]
async fn the_registry_shows_every_field_of_every_worker() {
    let api = Api::new();
    let machine = json!({"target_worker_id": "sandbox-1", "ec2_instance_id": "i-1", "ec2_ip": "34.197.248.80",
        "version": "1.2", "live_view_url": "https://view.example.com/a"});
    let token = api.register_with("worker-a", machine).await;
    let job_id = api.submit(json!({})).await;
    api.claim("worker-a", &token).await;
    let beat = json!({"memory_usage": 1024, "browser_session_id": "s-1", "current_job_id": job_id});
    let heard = api.post_as(&token, "/workers/worker-a/heartbeat", &beat).await.expect(200);
    assert_eq!(heard, json!({"status": "busy", "lease": "held", "job_id": job_id, "attempt": 1, "directives": []}));
    api.clock.advance(Duration::from_secs(2));
    api.register("worker-b").await;
    let registry = api.get("/monitoring/workers").await.expect(200);
    assert_eq!(registry["next_cursor"], Value::Null);
    let busy = json!({
        "worker_id": "worker-a", "status": "busy", "target_worker_id": "sandbox-1", "ec2_instance_id": "i-1",
        "ec2_ip": "34.197.248.80", "current_job_id": job_id, "current_task_url": "https://jobs.example.com/1",
        "browser_session_id": "s-1", "registered_at": "2026-01-01T00:00:00Z",
        "last_heartbeat": "2026-01-01T00:00:00Z", "jobs_completed": 0, "jobs_failed": 0, "uptime_seconds": 2,
        "generation": 1, "responsive": true, "condition": null, "drain_deadline": null, "memory_usage": 1024,
        "live_view_url": "https://view.example.com/a", "version": "1.2", "refused_calls": 0,
        "last_refused_at": null,
    });
    let idle = json!({
        "worker_id": "worker-b", "status": "idle", "target_worker_id": null, "ec2_instance_id": null,
        "ec2_ip": null, "current_job_id": null, "current_task_url": null, "browser_session_id": null,
        "registered_at": "2026-01-01T00:00:02Z", "last_heartbeat": "2026-01-01T00:00:02Z", "jobs_completed": 0,
        "jobs_failed": 0, "uptime_seconds": 0, "generation": 1, "responsive": true, "condition": null,
        "drain_deadline": null, "memory_usage": null, "live_view_url": null, "version": null,
        "refused_calls": 0, "last_refused_at": null,
    });
    assert_eq!(registry["workers"], json!([idle, busy]));
    assert_eq!(api.get("/workers/worker-a").await.expect(200), busy);
    for query in ["status=busy", "target_worker_id=sandbox-1", "ec2_instance_id=i-1"] {
        let found = api.get(&format!("/monitoring/workers?{query}")).await.expect(200);
        assert_eq!(found["workers"], json!([busy]), "{query}");
    }
    let beat = json!({"current_task_url": "https://jobs.example.com/1/form"});
    api.post_as(&token, "/workers/worker-a/heartbeat", &beat).await.expect(200);
    let said = api.get("/workers/worker-a").await.expect(200);
    assert_eq!(said["current_task_url"], "https://jobs.example.com/1/form");
}

#[tokio::test]
async fn the_registry_pages_only_when_asked_to() {
    let api = Api::new();
    for number in 0..60 {
        api.register(&format!("worker-{number:02}")).await;
    }
    let all = api.get("/monitoring/workers").await.expect(200);
    assert_eq!(all["workers"].as_array().unwrap().len(), 60);
    let mut seen = 0;
    let mut cursor = String::new();
    loop {
        let path = format!("/monitoring/workers?limit=25&cursor={cursor}");
        let page = api.get(&path).await.expect(200);
        seen += page["workers"].as_array().unwrap().len();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, 60);
}

#[tokio::test(start_paused = true)]
async fn a_claim_waits_and_comes_back_with_what_the_worker_needs_or_empty() {
    let api = Api::new();
    let token = api.register("worker-a").await;
    let nothing = api.post_as(&token, "/workers/worker-a/claim?wait=2", &json!({})).await;
    assert_eq!((nothing.status.as_u16(), nothing.text.as_str()), (204, ""));
    let empty = json!({});
    let (claimed, job_id) = tokio::join!(api.post_as(&token, "/workers/worker-a/claim?wait=30", &empty), async {
        let job_id = api.submit(json!({"profile": {"name": "A"}, "timeout_seconds": 60})).await;
        api.control_plane.dispatch_once().await.unwrap();
        job_id
    });
    let claimed = claimed.expect(200);
    assert_eq!(claimed["job"]["job_id"], job_id.as_str());
    assert_eq!(claimed["job"]["status"], "running");
    assert_eq!(claimed["job"]["task_description"], "Apply to the posting");
    assert_eq!(claimed["job"]["profile"], json!({"name": "A"}));
    assert_eq!(claimed["job"]["timeout_seconds"], 60);
    assert_eq!(claimed["job"].get("input_data"), None);
    assert_eq!(claimed["attempt"], 1);
    assert_eq!(claimed["lease_expires_at"], "2026-01-01T00:00:20Z");
}

#[tokio::test]
async fn draining_is_told_to_the_worker_and_taken_back() {
    let api = Api::new();
    let token = api.register("worker-a").await;
    let drain = json!({"reason": "deploy", "drain_timeout_seconds": 30});
    let entry = api.post("/workers/worker-a/drain", &drain).await.expect(200);
    assert_eq!(entry["status"], "draining");
    assert_eq!(entry["drain_deadline"], "2026-01-01T00:00:30Z");
    api.post_as(&token, "/workers/worker-a/claim", &json!({})).await.problem(409, "WORKER_DRAINING");
    let entry = api.post("/workers/worker-a/undrain", &json!({})).await.expect(200);
    assert_eq!(entry["status"], "idle");
    api.post("/workers/worker-a/undrain", &json!({})).await.problem(409, "WORKER_NOT_DRAINING");
    let own = json!({"draining": {"reason": "shutdown"}});
    let heard = api.post_as(&token, "/workers/worker-a/heartbeat", &own).await.expect(200);
    assert_eq!(heard["status"], "draining");
    let heard = api.post_as(&token, "/workers/worker-a/heartbeat", &json!({"draining": null})).await;
    assert_eq!(heard.expect(200)["status"], "idle");
}

#[tokio::test]
async fn a_worker_says_goodbye_and_its_life_is_on_record() {
    let api = Api::new();
    let (token, _, _) = api.running_job("worker-a", json!({})).await;
    let goodbye = api.post_as(&token, "/workers/worker-a/deregister", &json!({"reason": "scale-down"})).await;
    assert_eq!(goodbye.expect(200), json!({"status": "offline", "job_outcome": "requeued"}));
    let events = api.get("/workers/worker-a/events").await.expect(200);
    let kinds: Vec<&str> =
        events["events"].as_array().unwrap().iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["worker_deregistered", "worker_registered"]);
    assert_eq!(events["events"][0]["metadata"]["reason"], "scale-down");
    let page = api.get("/workers/worker-a/events?limit=1").await.expect(200);
    let cursor = text(&page["next_cursor"]);
    let rest = api.get(&format!("/workers/worker-a/events?limit=1&cursor={cursor}")).await.expect(200);
    assert_eq!(rest["events"][0]["event_type"], "worker_registered");
    assert_eq!(rest["next_cursor"], Value::Null);
    api.post_as(&token, "/workers/worker-a/heartbeat", &json!({})).await.problem(410, "WORKER_DEREGISTERED");
}

#[tokio::test(start_paused = true)]
async fn directives_come_over_the_stream_as_frames_and_comments_keep_it_open() {
    let api = Api::new();
    let (token, job_id, _) = api.running_job("worker-a", json!({})).await;
    let request = Request::get("/api/v1/workers/worker-a/directives")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap();
    let response = api.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let mut frame = async || {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        String::from_utf8(frame.into()).unwrap()
    };
    assert_eq!(frame().await, ": quiet\n\n");
    api.post(&format!("/jobs/{job_id}/cancel"), &json!({"reason": "enough"})).await.expect(200);
    let told = frame().await;
    let field = |name: &str| told.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap();
    assert_eq!(field("event"), "cancel_job");
    let data: Value = serde_json::from_str(field("data")).unwrap();
    assert_eq!(data["id"], field("id"));
    assert_eq!(data["type"], "cancel_job");
    assert_eq!(data["job_id"], job_id.as_str());
    assert_eq!((&data["generation"], &data["attempt"]), (&json!(1), &json!(1)));
    let beat = json!({"acknowledged": [field("id")]});
    let heard = api.post_as(&token, "/workers/worker-a/heartbeat", &beat).await.expect(200);
    assert_eq!(heard["directives"], json!([]));
}
