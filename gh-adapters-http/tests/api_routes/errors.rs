//! What every error has, and where the state of a job refuses.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;

use crate::support::{Api, SERVICE_KEY, text};

#[tokio::test]
async fn unknown_paths_are_problems_too() {
    let api = Api::new();
    for path in ["/", "/api/v1", "/api/v1/nothing", "/api/v2/jobs"] {
        let answer = api.call(Method::GET, path, SERVICE_KEY, "").await;
        answer.problem(404, "NOT_FOUND");
    }
}

#[tokio::test]
async fn request_ids_are_taken_if_printable_and_minted_otherwise() {
    let api = Api::new();
    let asked = async |id: Option<&[u8]>| {
        let mut request = Request::get("/api/v1/jobs/none");
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        let answer = api.send(request.body(Body::empty()).unwrap()).await;
        text(&answer.problem(401, "UNAUTHENTICATED")["request_id"])
    };
    assert_eq!(asked(Some(b"trace-1:abc")).await, "trace-1:abc");
    let long = "x".repeat(129);
    for bad in [None, Some(b"".as_slice()), Some(b"a b"), Some(b"\xff"), Some(long.as_bytes())] {
        let minted = asked(bad).await;
        assert!(minted.parse::<uuid::Uuid>().is_ok(), "{minted}");
    }
}

#[tokio::test]
async fn a_job_that_is_over_cannot_be_cancelled_or_retried() {
    let api = Api::new();
    let (token, job_id, attempt) = api.running_job("worker-a", json!({})).await;
    let retry = format!("/jobs/{job_id}/retry");
    api.post(&retry, &json!({})).await.problem(409, "JOB_NOT_RETRYABLE");
    api.post_as(&token, &format!("{attempt}/complete"), &json!({})).await.expect(200);
    let cancel = format!("/jobs/{job_id}/cancel");
    api.post(&cancel, &json!({})).await.problem(409, "JOB_NOT_CANCELLABLE");
    api.post(&retry, &json!({})).await.problem(409, "JOB_NOT_RETRYABLE");
}

#[tokio::test]
async fn reports_on_another_attempt_or_of_another_worker_are_stale() {
    let api = Api::new();
    let (token, job_id, attempt) = api.running_job("worker-a", json!({})).await;
    let other = api.register("worker-b").await;
    for (token, attempt) in [(&token, format!("/jobs/{job_id}/attempts/2")), (&other, attempt.clone())] {
        for (end, body) in [
            ("events", json!({"events": []})),
            ("side-effects-started", json!({})),
            ("complete", json!({})),
            ("release", json!({"reason": "x"})),
        ] {
            let answer = api.post_as(token, &format!("{attempt}/{end}"), &body).await;
            answer.problem(409, "STALE_LEASE");
        }
    }
    let job = api.get(&format!("/jobs/{job_id}")).await.expect(200);
    assert_eq!(job["status"], "running");
    let call = json!({"call_id": "c", "provider": "p", "model": "m", "usage": {}});
    let usage = api.post_as(&other, &format!("{attempt}/usage"), &json!({"calls": [call]})).await.expect(200);
    assert_eq!(usage["results"][0]["code"], "USAGE_TOO_LATE");
}
