//! What requests leave in the log, and what they do not. Alone in its process: the log is the whole process's.
#![expect(clippy::unwrap_used, reason = "a test stops where its surroundings fail")]

#[expect(dead_code, reason = "shared with the tests of routes, which use all of it")]
#[path = "api_routes/support.rs"]
mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use support::{Api, SERVICE_KEY, WORKER_KEY, submission, text};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn each_request_is_one_line_without_bodies_keys_or_queries() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let api = Api::new();
    let listening = tracing::subscriber::set_default(subscriber);
    let body = submission(json!({"task_description": "b0dy-s3cret", "priority": "pr1o-s3cret"}));
    api.post("/jobs", &body).await.problem(422, "INVALID_REQUEST");
    let registration = json!({"worker_id": "worker-a", "boot_id": "b00t-s3cret"});
    let registered = api.post_as(WORKER_KEY, "/workers/register", &registration).await;
    let token = text(&registered.expect(201)["token"]);
    api.post_as(&token, "/workers/worker-a/heartbeat", &json!({})).await.expect(200);
    let request = Request::get("/api/v1/jobs?worker_id=qu3ry-s3cret")
        .header("x-gh-service-key", SERVICE_KEY)
        .header("x-request-id", "request-7");
    api.send(request.body(Body::empty()).unwrap()).await.expect(200);
    drop(listening);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for secret in ["b0dy-s3cret", "pr1o-s3cret", "b00t-s3cret", "qu3ry-s3cret", SERVICE_KEY, WORKER_KEY, &token] {
        assert!(!log.contains(secret), "{secret}\n{log}");
    }
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("answered")).collect();
    assert_eq!(lines.len(), 4, "{log}");
    for expected in
        ["request_id=\"request-7\"", "method=\"GET\"", "route=\"/api/v1/jobs\"", "status=200", "duration_ms=0"]
    {
        assert!(lines[3].contains(expected), "{expected}: {}", lines[3]);
    }
}
