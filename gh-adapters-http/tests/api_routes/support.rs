//! A control plane in memory, and ways to ask it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use gh_adapters_http::api::{ApiConfig, KeyRing, Limits, Metrics, NamedKey, router};
use gh_adapters_http::callbacks::Guard;
use gh_core::application::{ControlPlane, Ports};
use gh_core::memory::MemoryStore;
use gh_core::ports::callback_sender::{MockCallbackSender, SendOutcome};
use gh_core::testing::{ManualClock, SequentialIds, rules};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) const SERVICE_KEY: &str = "service-key-1";
pub(crate) const WORKER_KEY: &str = "worker-key-1";

/// The API over a store in memory whose clock the test turns.
pub(crate) struct Api {
    pub(crate) router: Router,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) control_plane: Arc<ControlPlane>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body, after the status was looked at.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self.json()
    }

    /// The problem, after status and code were looked at.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(body["type"], format!("urn:ghosthands:error:{code}"));
        for member in ["title", "detail", "request_id"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{body}");
        }
        assert_eq!(body["request_id"], self.header("x-request-id"));
        body
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) fn named_keys(keys: &[&str]) -> Vec<NamedKey> {
    let named = |key: &&str| NamedKey { name: "valet".into(), key: (*key).into() };
    keys.iter().map(named).collect()
}

pub(crate) fn config(clock: &Arc<ManualClock>) -> ApiConfig {
    ApiConfig {
        auth: Arc::new(KeyRing::new(&named_keys(&[SERVICE_KEY, "service-key-2"]), &named_keys(&[WORKER_KEY]))),
        limits: Limits::default(),
        public_metrics: false,
        callback_guard: Guard::default(),
        ids: Arc::new(SequentialIds::default()),
        clock: clock.clone(),
        metrics: Arc::new(Metrics::new()),
    }
}

/// Receivers take everything.
pub(crate) fn ports(clock: &Arc<ManualClock>) -> Ports {
    let store = Arc::new(MemoryStore::new(clock.clone(), [7; 32]));
    let mut sender = MockCallbackSender::new();
    sender.expect_send().returning(|_| SendOutcome::Answered {
        status: 200,
        retry_after: None,
        excerpt: "taken".into(),
        took: std::time::Duration::from_millis(12),
    });
    Ports::alone(store, Arc::new(sender))
}

impl Api {
    pub(crate) fn new() -> Self {
        Self::with(|_| {}, |_| {})
    }

    /// With other ports or another configuration.
    pub(crate) fn with(change_ports: impl FnOnce(&mut Ports), change_config: impl FnOnce(&mut ApiConfig)) -> Self {
        let clock = Arc::new(ManualClock::default());
        let (mut ports, mut config) = (ports(&clock), config(&clock));
        change_ports(&mut ports);
        change_config(&mut config);
        let control_plane = Arc::new(ControlPlane::new(ports, rules()));
        Self { router: router(control_plane.clone(), config), clock, control_plane }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.into()).unwrap() }
    }

    pub(crate) async fn call(&self, method: Method, path: &str, key: &str, body: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        self.send(request).await
    }

    /// A client's GET, under `/api/v1`.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let path = format!("/api/v1{path}");
        self.call(Method::GET, &path, SERVICE_KEY, "").await
    }

    /// A client's POST, under `/api/v1`.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_as(SERVICE_KEY, path, body).await
    }

    /// A POST with any key, under `/api/v1`.
    pub(crate) async fn post_as(&self, key: &str, path: &str, body: &Value) -> Answer {
        let path = format!("/api/v1{path}");
        self.call(Method::POST, &path, key, &body.to_string()).await
    }

    /// Submits a job that anyone may take; gives back its id.
    pub(crate) async fn submit(&self, changes: Value) -> String {
        let answer = self.post("/jobs", &submission(changes)).await;
        text(&answer.expect(201)["job_id"])
    }

    /// Registers a worker; gives back its token.
    pub(crate) async fn register(&self, worker_id: &str) -> String {
        self.register_with(worker_id, json!({})).await
    }

    pub(crate) async fn register_with(&self, worker_id: &str, changes: Value) -> String {
        let body = merged(json!({"worker_id": worker_id, "boot_id": format!("{worker_id}-boot")}), changes);
        let answer = self.post_as(WORKER_KEY, "/workers/register", &body).await;
        text(&answer.expect(201)["token"])
    }

    /// The worker takes a job that waits; gives back what the claim answered.
    pub(crate) async fn claim(&self, worker_id: &str, token: &str) -> Value {
        let path = format!("/workers/{worker_id}/claim");
        self.post_as(token, &path, &json!({})).await.expect(200)
    }

    /// A worker that holds a job: the token, the job's id and the path of its attempt.
    pub(crate) async fn running_job(&self, worker_id: &str, changes: Value) -> (String, String, String) {
        let token = self.register(worker_id).await;
        let job_id = self.submit(changes).await;
        let claimed = self.claim(worker_id, &token).await;
        assert_eq!(claimed["job"]["job_id"], job_id.as_str());
        let attempt = format!("/jobs/{job_id}/attempts/{}", claimed["attempt"]);
        (token, job_id, attempt)
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

pub(crate) fn merged(mut body: Value, changes: Value) -> Value {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    for (key, value) in changes {
        body[key] = value;
    }
    body
}

/// A submission that is right, with changes.
pub(crate) fn submission(changes: Value) -> Value {
    let body = json!({
        "valet_task_id": "task-1",
        "valet_user_id": "7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11",
        "job_type": "apply",
        "target_url": "https://jobs.example.com/1",
        "task_description": "Apply to the posting",
    });
    merged(body, changes)
}

/// The names of the fields that a problem names.
pub(crate) fn named_fields(problem: &Value) -> Vec<String> {
    let errors = problem["errors"].as_array().unwrap();
    errors.iter().map(|error| text(&error["field"])).collect()
}
