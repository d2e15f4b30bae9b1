//! Clients retire workers.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::support::{Api, SERVICE_KEY, WORKER_KEY, named_fields};

async fn fleet(api: &Api) -> (String, String, String) {
    let target = json!({"target_worker_id": "sandbox-1", "ec2_instance_id": "i-1"});
    let token = api.register_with("worker-a", target.clone()).await;
    let job_id = api.submit(json!({})).await;
    let claimed = api.claim("worker-a", &token).await;
    api.register_with("worker-b", target).await;
    (token, job_id.clone(), format!("/jobs/{job_id}/attempts/{}", claimed["attempt"]))
}

#[tokio::test]
async fn cancelling_jobs_answers_at_once_with_what_was_done() {
    let api = Api::new();
    let (token, job_id, attempt) = fleet(&api).await;
    let body = json!({"target_worker_id": "sandbox-1", "reason": "sandbox_terminated", "cancel_active_jobs": true});
    let mut answer = api.post("/workers/deregister", &body).await.expect(200);
    assert!(answer["deregistration_id"].is_string());
    answer["deregistration_id"] = Value::Null;
    assert_eq!(
        answer,
        json!({
            "deregistration_id": null, "deregistered_workers": ["worker-a", "worker-b"], "draining_workers": [],
            "cancelled_job_ids": [job_id], "draining_job_ids": [], "drain_deadline": "2026-01-01T00:00:00Z",
            "reason": "sandbox_terminated", "deregistered": ["worker-a", "worker-b"], "cancelled_jobs": [job_id],
            "dry_run": false,
        })
    );
    let complete = format!("{attempt}/complete");
    api.post_as(&token, &complete, &json!({})).await.problem(410, "WORKER_DEREGISTERED");
    let call = json!({"call_id": "c", "provider": "anthropic", "model": "claude-haiku-4-5-20251001",
        "usage": {"input": 1000}});
    let usage = api.post_as(&token, &format!("{attempt}/usage"), &json!({"calls": [call]})).await.expect(200);
    assert_eq!(usage["results"][0]["outcome"], "recorded");
    assert_eq!(usage["stop"], true);
    let ghost = json!({"worker_id": "worker-c", "boot_id": "b", "target_worker_id": "sandbox-1"});
    let refused = api.post_as(WORKER_KEY, "/workers/register", &ghost).await;
    refused.problem(410, "WORKER_DEREGISTERED");
    assert_eq!(refused.header("retry-after"), "3600");
    let hold = "/api/v1/targets/sandbox-1/hold";
    for _ in 0..2 {
        let lifted = api.call(Method::DELETE, hold, SERVICE_KEY, "").await;
        assert_eq!(lifted.expect(200), json!({"name": "sandbox-1", "held": false}));
    }
    api.post_as(WORKER_KEY, "/workers/register", &ghost).await.expect(201);
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let api = Api::new();
    let (_, job_id, _) = fleet(&api).await;
    let body = json!({"ec2_instance_id": "i-1", "reason": "stopped", "cancel_active_jobs": true});
    let before = api.get("/monitoring/workers").await.text;
    let told = api.post("/workers/deregister?dry_run=true", &body).await.expect(200);
    assert_eq!(told["dry_run"], true);
    assert_eq!(told["cancelled_job_ids"], json!([job_id]));
    assert_eq!(told["deregistered_workers"], json!(["worker-a", "worker-b"]));
    assert_eq!(api.get("/monitoring/workers").await.text, before);
    assert_eq!(api.get(&format!("/jobs/{job_id}")).await.expect(200)["status"], "running");
    let done = api.post("/workers/deregister", &body).await.expect(200);
    assert_eq!(done["cancelled_job_ids"], json!([job_id]));
    let bad = api.post("/workers/deregister?dry_run=perhaps", &body).await;
    assert_eq!(named_fields(&bad.problem(422, "INVALID_REQUEST")), ["dry_run"]);
}

#[tokio::test(start_paused = true)]
async fn a_preferred_wait_holds_the_answer_until_nothing_drains() {
    let api = Api::new();
    let (token, job_id, attempt) = fleet(&api).await;
    let request = |wait: &str| {
        let body = json!({"target_worker_id": "sandbox-1", "reason": "deploy"});
        Request::post("/api/v1/workers/deregister")
            .header("x-gh-service-key", SERVICE_KEY)
            .header("content-type", "application/json")
            .header("prefer", wait)
            .body(Body::from(body.to_string()))
            .unwrap()
    };
    let over = api.send(request("wait=1")).await;
    assert_eq!(over.header("preference-applied"), "wait=1");
    let over = over.expect(200);
    assert_eq!(over["draining_workers"], json!(["worker-a"]));
    assert_eq!(over["draining_job_ids"], json!([job_id]));
    assert_eq!(over["deregistered"], json!(["worker-b"]));
    let complete = format!("{attempt}/complete");
    let done = json!({});
    let (held, done) =
        tokio::join!(api.send(request("respond-async, wait=100")), api.post_as(&token, &complete, &done));
    done.expect(200);
    assert_eq!(held.header("preference-applied"), "wait=14");
    let held = held.expect(200);
    assert_eq!(held["deregistration_id"], over["deregistration_id"]);
    assert_eq!(held["draining_workers"], json!([]));
    assert_eq!(api.send(request("handling=lenient")).await.header("preference-applied"), "");
}

#[tokio::test]
async fn exactly_one_name_is_required_and_it_must_be_known() {
    let api = Api::new();
    for (body, field) in [
        (json!({"reason": "x"}), "target_worker_id"),
        (json!({"reason": "x", "target_worker_id": "a", "ec2_instance_id": "b"}), "ec2_instance_id"),
        (json!({"target_worker_id": "a"}), "reason"),
        (json!({"reason": "x", "target_worker_id": "a", "drain_timeout_seconds": 301}), "drain_timeout_seconds"),
        (json!({"reason": "x", "target_worker_id": "a", "hold_seconds": 86_401}), "hold_seconds"),
        (json!({"reason": "x", "target_worker_id": "a", "cancel_active_jobs": "yes"}), "cancel_active_jobs"),
    ] {
        let answer = api.post("/workers/deregister", &body).await;
        let problem = answer.problem(422, "INVALID_REQUEST");
        assert_eq!(named_fields(&problem), [field], "{body}");
    }
    let body = json!({"reason": "x", "target_worker_id": "never-seen"});
    api.post("/workers/deregister", &body).await.problem(404, "WORKER_NOT_FOUND");
}
