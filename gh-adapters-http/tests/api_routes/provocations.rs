//! Each error code, provoked over HTTP: the registry of them, one test for each.
//!
//! A code that a route declares and that is missing here fails `pages::every_declared_code_has_a_page_and_a_provocation`.
//! The test of a code compares its page with the answer; `UPDATE_GOLDEN=1` writes the page's example anew.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::faults::{faulty_api, pausing_api};
use crate::over_the_wire::over_tcp;
use crate::support::{Answer, Api, SERVICE_KEY, WORKER_KEY, submission, text};

macro_rules! provoked {
    ($($code:ident by $route:literal;)*) => {
        /// Each code in small letters, and the route at which it is provoked.
        pub(crate) const PROVOKED: &[(&str, &str)] = &[$((stringify!($code), $route)),*];

        /// One test for each, so that the one that fails has its name.
        mod provoked {
            $(
                #[tokio::test(start_paused = true)]
                async fn $code() {
                    crate::pages::check(stringify!($code), $route, &super::$code().await);
                }
            )*
        }
    };
}

provoked! {
    malformed_json by "POST /api/v1/jobs";
    invalid_cursor by "GET /api/v1/jobs";
    unauthenticated by "GET /api/v1/jobs";
    wrong_key_kind by "POST /api/v1/workers/register";
    not_your_worker by "POST /api/v1/workers/{worker_id}/heartbeat";
    not_found by "DELETE /api/v1/targets/{name}/hold";
    job_not_found by "GET /api/v1/jobs/{job_id}";
    worker_not_found by "GET /api/v1/workers/{worker_id}";
    method_not_allowed by "PUT /api/v1/jobs";
    request_timeout by "POST /api/v1/jobs";
    worker_unavailable by "POST /api/v1/jobs";
    job_not_cancellable by "POST /api/v1/jobs/{job_id}/cancel";
    job_not_retryable by "POST /api/v1/jobs/{job_id}/retry";
    side_effects_started by "POST /api/v1/jobs/{job_id}/retry";
    job_paused by "POST /api/v1/jobs/{job_id}/attempts/{attempt}/complete";
    stale_lease by "POST /api/v1/jobs/{job_id}/attempts/{attempt}/events";
    stale_generation by "POST /api/v1/workers/{worker_id}/heartbeat";
    lease_held by "POST /api/v1/workers/{worker_id}/claim";
    worker_draining by "POST /api/v1/workers/{worker_id}/claim";
    worker_not_draining by "POST /api/v1/workers/{worker_id}/undrain";
    worker_id_contested by "POST /api/v1/workers/register";
    worker_deregistered by "POST /api/v1/workers/register";
    payload_too_large by "POST /api/v1/jobs/batch";
    unsupported_media_type by "POST /api/v1/jobs";
    invalid_request by "POST /api/v1/jobs";
    idempotency_key_reused by "POST /api/v1/jobs";
    callback_url_refused by "POST /api/v1/jobs";
    internal_error by "GET /api/v1/jobs";
    unavailable by "GET /api/v1/jobs";
    usage_shrank by "POST /api/v1/jobs/{job_id}/attempts/{attempt}/usage";
    usage_too_late by "POST /api/v1/jobs/{job_id}/attempts/{attempt}/usage";
    usage_impossible by "POST /api/v1/jobs/{job_id}/attempts/{attempt}/usage";
}

async fn malformed_json() -> Value {
    let api = Api::new();
    let answer = api.call(Method::POST, "/api/v1/jobs", SERVICE_KEY, r#"{"valet_task_id": "task-1","#).await;
    answer.problem(400, "MALFORMED_JSON")
}

async fn invalid_cursor() -> Value {
    Api::new().get("/jobs?cursor=page-2").await.problem(400, "INVALID_CURSOR")
}

async fn unauthenticated() -> Value {
    let answer = Api::new().call(Method::GET, "/api/v1/jobs", "a-key-from-elsewhere", "").await;
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    answer.problem(401, "UNAUTHENTICATED")
}

async fn wrong_key_kind() -> Value {
    Api::new().post("/workers/register", &json!({"boot_id": "boot-1"})).await.problem(403, "WRONG_KEY_KIND")
}

async fn not_your_worker() -> Value {
    let api = Api::new();
    let token = api.register("worker-a").await;
    api.register("worker-b").await;
    api.post_as(&token, "/workers/worker-b/heartbeat", &json!({})).await.problem(403, "NOT_YOUR_WORKER")
}

async fn not_found() -> Value {
    let answer = Api::new().call(Method::DELETE, "/api/v1/targets/sandbox-9/hold", SERVICE_KEY, "").await;
    answer.problem(404, "NOT_FOUND")
}

async fn job_not_found() -> Value {
    Api::new().get("/jobs/7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11").await.problem(404, "JOB_NOT_FOUND")
}

async fn worker_not_found() -> Value {
    Api::new().get("/workers/worker-z").await.problem(404, "WORKER_NOT_FOUND")
}

async fn method_not_allowed() -> Value {
    let answer = Api::new().call(Method::PUT, "/api/v1/jobs", SERVICE_KEY, "{}").await;
    assert!(answer.header("allow").contains("POST"), "{answer:?}");
    answer.problem(405, "METHOD_NOT_ALLOWED")
}

/// Over a real connection: a body that is announced and does not come. The time passes by itself, for nothing else is
/// to be done.
async fn request_timeout() -> Value {
    let api = Api::new();
    let answer = over_tcp(&api, async |base| {
        let mut stream = tokio::net::TcpStream::connect(base.trim_start_matches("http://")).await.unwrap();
        let head = format!(
            "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-gh-service-key: {SERVICE_KEY}\r\n\
             content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    })
    .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    serde_json::from_str(body).unwrap()
}

async fn worker_unavailable() -> Value {
    let strict = submission(json!({"worker_affinity": "strict", "target_worker_id": "sandbox-1"}));
    Api::new().post("/jobs", &strict).await.problem(409, "WORKER_UNAVAILABLE")
}

async fn job_not_cancellable() -> Value {
    let api = Api::new();
    let (token, job_id, attempt) = api.running_job("worker-a", json!({})).await;
    api.post_as(&token, &format!("{attempt}/complete"), &json!({})).await.expect(200);
    api.post(&format!("/jobs/{job_id}/cancel"), &json!({})).await.problem(409, "JOB_NOT_CANCELLABLE")
}

async fn job_not_retryable() -> Value {
    let api = Api::new();
    let (_, job_id, _) = api.running_job("worker-a", json!({})).await;
    api.post(&format!("/jobs/{job_id}/retry"), &json!({})).await.problem(409, "JOB_NOT_RETRYABLE")
}

async fn side_effects_started() -> Value {
    let api = Api::new();
    let (token, job_id, attempt) = api.running_job("worker-a", json!({})).await;
    let about = json!({"what": "submit the form"});
    api.post_as(&token, &format!("{attempt}/side-effects-started"), &about).await.expect(200);
    let failure = json!({"error_code": "browser_crashed", "error_message": "It went away", "retryable": true});
    api.post_as(&token, &format!("{attempt}/fail"), &failure).await.expect(200);
    api.post(&format!("/jobs/{job_id}/retry"), &json!({})).await.problem(409, "SIDE_EFFECTS_STARTED")
}

/// No route pauses a job yet: the store says that it is paused.
async fn job_paused() -> Value {
    let (api, store) = pausing_api();
    let (token, _, attempt) = api.running_job("worker-a", json!({})).await;
    store.pause();
    let started = api.post_as(&token, &format!("{attempt}/side-effects-started"), &json!({})).await;
    started.problem(409, "JOB_PAUSED");
    api.post_as(&token, &format!("{attempt}/complete"), &json!({})).await.problem(409, "JOB_PAUSED")
}

async fn stale_lease() -> Value {
    let api = Api::new();
    let (token, job_id, _) = api.running_job("worker-a", json!({})).await;
    let path = format!("/jobs/{job_id}/attempts/2/events");
    api.post_as(&token, &path, &json!({"events": []})).await.problem(409, "STALE_LEASE")
}

async fn stale_generation() -> Value {
    let api = Api::new();
    let token = api.register("worker-a").await;
    let restarted = json!({"worker_id": "worker-a", "boot_id": "another boot"});
    api.post_as(WORKER_KEY, "/workers/register", &restarted).await.expect(201);
    api.post_as(&token, "/workers/worker-a/heartbeat", &json!({})).await.problem(409, "STALE_GENERATION")
}

async fn lease_held() -> Value {
    let api = Api::new();
    let (token, job_id, _) = api.running_job("worker-a", json!({})).await;
    let beat = json!({"current_job_id": job_id});
    api.post_as(&token, "/workers/worker-a/heartbeat", &beat).await.expect(200);
    let problem = api.post_as(&token, "/workers/worker-a/claim", &json!({})).await.problem(409, "LEASE_HELD");
    assert_eq!((&problem["job_id"], &problem["attempt"]), (&json!(job_id), &json!(1)));
    problem
}

async fn worker_draining() -> Value {
    let api = Api::new();
    let token = api.register("worker-a").await;
    api.post("/workers/worker-a/drain", &json!({"reason": "deploy"})).await.expect(200);
    api.post_as(&token, "/workers/worker-a/claim", &json!({})).await.problem(409, "WORKER_DRAINING")
}

async fn worker_not_draining() -> Value {
    let api = Api::new();
    api.register("worker-a").await;
    api.post("/workers/worker-a/undrain", &json!({})).await.problem(409, "WORKER_NOT_DRAINING")
}

/// Two processes fight for a name, and are told when to come again.
async fn worker_id_contested() -> Value {
    let api = Api::new();
    let mut last = None;
    for boot in 0..5 {
        let body = json!({"worker_id": "worker-a", "boot_id": format!("boot-{}", boot % 2)});
        last = Some(api.post_as(WORKER_KEY, "/workers/register", &body).await);
        api.clock.advance(Duration::from_millis(1500));
    }
    let refused = last.unwrap();
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    refused.problem(409, "WORKER_ID_CONTESTED")
}

async fn worker_deregistered() -> Value {
    let api = Api::new();
    api.register_with("worker-a", json!({"target_worker_id": "sandbox-1"})).await;
    let body = json!({"target_worker_id": "sandbox-1", "reason": "sandbox_terminated", "cancel_active_jobs": true});
    api.post("/workers/deregister", &body).await.expect(200);
    let ghost = json!({"worker_id": "worker-b", "boot_id": "boot-1", "target_worker_id": "sandbox-1"});
    let refused = api.post_as(WORKER_KEY, "/workers/register", &ghost).await;
    assert_eq!(refused.header("retry-after"), "3600");
    refused.problem(410, "WORKER_DEREGISTERED")
}

async fn payload_too_large() -> Value {
    let jobs = json!({"jobs": vec![submission(json!({})); 501]});
    Api::new().post("/jobs/batch", &jobs).await.problem(413, "PAYLOAD_TOO_LARGE")
}

async fn unsupported_media_type() -> Value {
    let request = axum::http::Request::post("/api/v1/jobs")
        .header("x-gh-service-key", SERVICE_KEY)
        .header("content-type", "text/plain")
        .body(submission(json!({})).to_string().into())
        .unwrap();
    Api::new().send(request).await.problem(415, "UNSUPPORTED_MEDIA_TYPE")
}

async fn invalid_request() -> Value {
    // An event and a call are refused with the same code, each alone.
    let api = Api::new();
    let (token, _, attempt) = api.running_job("worker-a", json!({})).await;
    let report = json!({"events": [{"event_type": "No Type"}]});
    let answer = api.post_as(&token, &format!("{attempt}/events"), &report).await.expect(200);
    assert_eq!(answer["results"], json!([{"index": 0, "outcome": "refused", "code": "INVALID_REQUEST"}]));
    refused_call(&api, &token, &attempt, json!({"call_id": "x".repeat(256)}), "INVALID_REQUEST").await;
    let wrong = submission(json!({"priority": 11, "target_url": "ftp://example.com"}));
    api.post("/jobs", &wrong).await.problem(422, "INVALID_REQUEST")
}

async fn idempotency_key_reused() -> Value {
    let api = Api::new();
    api.submit(json!({"idempotency_key": "apply-1"})).await;
    let other = submission(json!({"idempotency_key": "apply-1", "priority": 9}));
    api.post("/jobs", &other).await.problem(422, "IDEMPOTENCY_KEY_REUSED")
}

async fn callback_url_refused() -> Value {
    let inside = submission(json!({"callback_url": "https://10.0.0.1/hook"}));
    Api::new().post("/jobs", &inside).await.problem(422, "CALLBACK_URL_REFUSED")
}

async fn internal_error() -> Value {
    let (api, reader) = faulty_api();
    reader.panic();
    api.get("/jobs").await.problem(500, "INTERNAL_ERROR")
}

async fn unavailable() -> Value {
    let (api, reader) = faulty_api();
    reader.go_away();
    let answer: Answer = api.get("/jobs").await;
    assert_eq!(answer.header("retry-after"), "1");
    answer.problem(503, "UNAVAILABLE")
}

async fn usage_shrank() -> Value {
    let api = Api::new();
    let (token, _, attempt) = api.running_job("worker-a", json!({})).await;
    let calls = json!({"calls": [call(json!({"usage": {"input": 2463, "output": 747}}))]});
    api.post_as(&token, &format!("{attempt}/usage"), &calls).await.expect(200);
    refused_call(&api, &token, &attempt, json!({"usage": {"input": 2000, "output": 747}}), "USAGE_SHRANK").await
}

async fn usage_too_late() -> Value {
    let api = Api::new();
    let (_, _, attempt) = api.running_job("worker-a", json!({})).await;
    let other = api.register("worker-b").await;
    refused_call(&api, &other, &attempt, json!({}), "USAGE_TOO_LATE").await
}

async fn usage_impossible() -> Value {
    let api = Api::new();
    let (token, _, attempt) = api.running_job("worker-a", json!({})).await;
    let more_reasoning_than_output = json!({"usage": {"output": 1, "reasoning": 2}});
    refused_call(&api, &token, &attempt, more_reasoning_than_output, "USAGE_IMPOSSIBLE").await
}

fn call(changes: Value) -> Value {
    let call = json!({"call_id": "call-1", "provider": "anthropic", "model": "claude-haiku-4-5-20251001",
        "usage": {"input": 1, "output": 1}});
    crate::support::merged(call, changes)
}

/// Reports one call, which is refused; gives back what the answer says of it.
async fn refused_call(api: &Api, token: &str, attempt: &str, changes: Value, code: &str) -> Value {
    let calls = json!({"calls": [call(changes)]});
    let answer = api.post_as(token, &format!("{attempt}/usage"), &calls).await.expect(200);
    assert_eq!(text(&answer["results"][0]["outcome"]), "refused");
    assert_eq!(answer["results"][0]["code"], code);
    answer
}
