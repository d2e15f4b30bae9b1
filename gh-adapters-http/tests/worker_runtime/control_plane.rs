//! A control plane of the tests' own: it keeps one worker's registration, lease and directives, records every call,
//! and answers as it is told to.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::response::Response;
use axum::{Router, http};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use url::Url;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One call as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The last segment of its path: `heartbeat`, `claim`, `complete`.
    pub(crate) route: String,
    pub(crate) path: String,
    pub(crate) token: String,
    pub(crate) body: Value,
}

/// An answer other than the usual one.
#[derive(Debug, Clone)]
pub(crate) enum Odd {
    /// This status and body, and nothing is done.
    Say(u16, Value),
    /// The same with `Retry-After`, in seconds.
    SayRetryAfter(u16, Value, u64),
    /// The usual thing is done, and its answer arrives when the test says so.
    AnswerWhen(Arc<Notify>),
    /// The usual thing is done, but its answer never arrives.
    LoseAnswer,
}

pub(crate) fn code(status: u16, code: &str) -> Odd {
    Odd::Say(status, json!({"code": code, "status": status}))
}

#[derive(Default)]
struct Facts {
    calls: Vec<Call>,
    odd: HashMap<String, VecDeque<Odd>>,
    always: HashMap<String, Odd>,
    jobs: VecDeque<Value>,
    lease: Option<(String, u64)>,
    /// The answer that granted the lease, until the job is heard of.
    unstarted: Option<Value>,
    directives: Vec<Value>,
    boots: Vec<String>,
    generation: u32,
    draining: bool,
}

pub(crate) struct ControlPlane {
    facts: Mutex<Facts>,
    changed: watch::Sender<u64>,
    stream: broadcast::Sender<Value>,
    /// Seconds, as registration tells them.
    pub(crate) heartbeat: f64,
    pub(crate) self_fence: f64,
}

/// A running stand-in. Dropping it closes its port.
pub(crate) struct Running {
    pub(crate) plane: Arc<ControlPlane>,
    pub(crate) url: Url,
    _server: JoinSet<()>,
}

pub(crate) async fn start() -> Running {
    start_with(0.05, 15.0).await
}

pub(crate) async fn start_with(heartbeat: f64, self_fence: f64) -> Running {
    let plane = Arc::new(ControlPlane {
        facts: Mutex::default(),
        changed: watch::Sender::new(0),
        stream: broadcast::Sender::new(64),
        heartbeat,
        self_fence,
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().fallback(answer).with_state(Arc::clone(&plane));
    let mut server = JoinSet::new();
    server.spawn(async move {
        axum::serve(listener, router).await.expect("serving");
    });
    Running { plane, url: format!("http://{address}").parse().expect("a URL"), _server: server }
}

async fn answer(State(plane): State<Arc<ControlPlane>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let route = path.rsplit('/').next().unwrap_or_default().to_owned();
    let token = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default()
        .to_owned();
    let body = to_bytes(request.into_body(), 1 << 20).await.expect("a body");
    let body: Value = if body.is_empty() { json!({}) } else { serde_json::from_slice(&body).expect("JSON") };
    let odd = {
        let mut facts = plane.facts();
        facts.calls.push(Call { route: route.clone(), path, token, body: body.clone() });
        let queued = facts.odd.get_mut(&route).and_then(VecDeque::pop_front);
        queued.or_else(|| facts.always.get(&route).cloned())
    };
    plane.tell();
    match odd {
        Some(Odd::Say(status, body)) => respond(status, &body, None),
        Some(Odd::SayRetryAfter(status, body, seconds)) => respond(status, &body, Some(seconds)),
        Some(Odd::AnswerWhen(told)) => {
            let (status, body) = plane.usual(&route, &body).await;
            told.notified().await;
            respond(status, &body, None)
        }
        Some(Odd::LoseAnswer) => {
            plane.usual(&route, &body).await;
            std::future::pending().await
        }
        None if route == "directives" => plane.open_stream(),
        None => {
            let (status, body) = plane.usual(&route, &body).await;
            respond(status, &body, None)
        }
    }
}

fn respond(status: u16, body: &Value, retry_after: Option<u64>) -> Response {
    let mut response = http::Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    if let Some(seconds) = retry_after {
        response = response.header(RETRY_AFTER, seconds);
    }
    let body = if status == 204 { Body::empty() } else { Body::from(body.to_string()) };
    response.body(body).expect("a response")
}

impl ControlPlane {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// What a route does when nothing else was ordered.
    async fn usual(&self, route: &str, body: &Value) -> (u16, Value) {
        let answer = match route {
            "register" => self.register(body),
            "heartbeat" => self.heartbeat(body),
            "claim" => self.claim().await,
            "events" | "usage" => (200, json!({"results": [], "stop": false})),
            "complete" | "fail" | "release" => {
                let mut facts = self.facts();
                facts.lease = None;
                facts.unstarted = None;
                drop(facts);
                (200, json!({"status": "completed"}))
            }
            "side-effects-started" | "deregister" => (200, json!({})),
            _ => (404, json!({"code": "NOT_FOUND"})),
        };
        self.tell();
        answer
    }

    fn register(&self, body: &Value) -> (u16, Value) {
        let boot_id = body["boot_id"].as_str().unwrap_or_default().to_owned();
        let mut facts = self.facts();
        facts.boots.push(boot_id);
        facts.generation += 1;
        facts.lease = None;
        facts.unstarted = None;
        let worker_id = body["worker_id"].as_str().unwrap_or("minted-1");
        let answer = json!({
            "worker_id": worker_id,
            "generation": facts.generation,
            "token": format!("token-{}", facts.generation),
            "heartbeat_interval_seconds": self.heartbeat,
            "suspect_after_seconds": self.self_fence * 0.7,
            "self_fence_after_seconds": self.self_fence,
            "offline_after_seconds": self.self_fence * 1.3,
        });
        (201, answer)
    }

    fn heartbeat(&self, body: &Value) -> (u16, Value) {
        let mut facts = self.facts();
        let acknowledged = body["acknowledged"].as_array().cloned().unwrap_or_default();
        facts.directives.retain(|directive| !acknowledged.contains(&directive["id"]));
        let held = facts.lease.clone();
        if body["current_job_id"].is_string() {
            facts.unstarted = None;
        }
        let lease = match (body["current_job_id"].as_str(), &held) {
            (None, _) => "none",
            (Some(named), Some((job_id, _))) if named == job_id => "held",
            (Some(_), _) => "lost",
        };
        let status = match (facts.draining, &held) {
            (true, _) => "draining",
            (false, Some(_)) => "busy",
            (false, None) => "idle",
        };
        let answer = json!({
            "status": status,
            "lease": lease,
            "job_id": held.as_ref().map(|(job_id, _)| job_id),
            "attempt": held.as_ref().map(|(_, attempt)| attempt),
            "directives": facts.directives,
        });
        (200, answer)
    }

    async fn claim(&self) -> (u16, Value) {
        let mut changed = self.changed.subscribe();
        let granted = async {
            loop {
                changed.borrow_and_update();
                {
                    let mut facts = self.facts();
                    // A lease that never started is granted again: its answer was lost.
                    let next = facts.unstarted.take().or_else(|| facts.jobs.pop_front());
                    if let Some(job) = next {
                        let job_id = job["job"]["job_id"].as_str().unwrap_or_default().to_owned();
                        facts.lease = Some((job_id, job["attempt"].as_u64().unwrap_or(1)));
                        facts.unstarted = Some(job.clone());
                        return job;
                    }
                }
                changed.changed().await.expect("the sender lives");
            }
        };
        match tokio::time::timeout(Duration::from_secs(5), granted).await {
            Ok(job) => (200, job),
            Err(_) => (204, json!(null)),
        }
    }

    fn open_stream(&self) -> Response {
        let frames = futures_util::stream::unfold(self.stream.subscribe(), |mut frames| async move {
            let directive = frames.recv().await.ok()?;
            let frame = format!("id: {}\nevent: {}\ndata: {directive}\n\n", directive["id"], directive["type"]);
            Some((Ok::<_, std::convert::Infallible>(frame), frames))
        });
        let opened = futures_util::stream::once(async { Ok(": open\n\n".to_owned()) });
        http::Response::builder()
            .header(CONTENT_TYPE, "text/event-stream")
            .body(Body::from_stream(opened.chain(frames)))
            .expect("a response")
    }

    /// The next calls of a route are answered so, in this order.
    pub(crate) fn next(&self, route: &str, answers: impl IntoIterator<Item = Odd>) {
        self.facts().odd.entry(route.to_owned()).or_default().extend(answers);
    }

    /// All calls of a route are answered so, or as usual again.
    pub(crate) fn always(&self, route: &str, answer: Option<Odd>) {
        let mut facts = self.facts();
        match answer {
            Some(answer) => facts.always.insert(route.to_owned(), answer),
            None => facts.always.remove(route),
        };
    }

    /// A job to be claimed.
    pub(crate) fn offer_job(&self, number: u32, input_data: Value) -> String {
        let job_id = job_id(number);
        self.facts().jobs.push_back(json!({
            "job": {
                "job_id": job_id, "valet_task_id": "task-1", "job_type": "apply", "run": 1, "attempt": 1,
                "target_url": "https://jobs.example/1", "task_description": "Apply", "timeout_seconds": 300,
                "input_data": input_data, "unheard_of": {"x": 1},
            },
            "attempt": 1,
            "lease_expires_at": "2026-11-23T10:00:00Z",
        }));
        self.tell();
        job_id
    }

    /// A job that was claimed is another's, or nobody's.
    pub(crate) fn take_lease_away(&self) {
        let mut facts = self.facts();
        facts.lease = None;
        facts.unstarted = None;
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.facts().draining = draining;
    }

    /// A directive that only heartbeats bring.
    pub(crate) fn direct(&self, directive: Value) {
        self.facts().directives.push(directive);
    }

    /// A directive that only the stream brings; waits until the stream is open.
    pub(crate) async fn stream(&self, directive: Value) {
        let sent = async {
            while self.stream.receiver_count() == 0 {
                tokio::task::yield_now().await;
            }
            self.stream.send(directive).expect("an open stream");
        };
        tokio::time::timeout(PATIENCE, sent).await.expect("the stream opens");
    }

    pub(crate) fn calls(&self, route: &str) -> Vec<Call> {
        let facts = self.facts();
        facts.calls.iter().filter(|call| call.route == route).cloned().collect()
    }

    pub(crate) fn all_calls(&self) -> Vec<Call> {
        self.facts().calls.clone()
    }

    pub(crate) fn generation(&self) -> u32 {
        self.facts().generation
    }

    /// Waits until so many calls of a route have arrived, and gives them back.
    pub(crate) async fn wait_for(&self, route: &str, count: usize) -> Vec<Call> {
        self.wait_until(&format!("{count} calls of {route}"), |plane| plane.calls(route).len() >= count).await;
        self.calls(route)
    }

    /// Waits for a call of a route that has a quality.
    pub(crate) async fn wait_for_call(&self, route: &str, quality: impl Fn(&Call) -> bool) -> Call {
        let found = || self.calls(route).into_iter().find(&quality);
        self.wait_until(&format!("a certain call of {route}"), |_| found().is_some()).await;
        found().expect("a call that was just seen")
    }

    /// Waits until so many more calls of a route have arrived.
    pub(crate) async fn wait_for_more(&self, route: &str, more: usize) {
        let before = self.calls(route).len();
        self.wait_for(route, before + more).await;
    }

    pub(crate) async fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let met = async {
            loop {
                changed.borrow_and_update();
                if condition(self) {
                    return;
                }
                changed.changed().await.expect("the sender lives");
            }
        };
        if tokio::time::timeout(PATIENCE, met).await.is_err() {
            let routes: Vec<_> = self.all_calls().into_iter().map(|call| call.route).collect();
            panic!("{what} did not come; calls: {routes:?}");
        }
    }
}

pub(crate) fn job_id(number: u32) -> String {
    format!("00000000-0000-7000-8000-{number:012}")
}

pub(crate) fn directive(number: u32, kind: &str, generation: u32, job: Option<u32>) -> Value {
    let mut directive = json!({
        "id": format!("00000000-0000-7000-9000-{number:012}"),
        "type": kind, "generation": generation, "issued_at": "2026-11-23T10:00:00Z",
    });
    if let Some(number) = job {
        directive["job_id"] = json!(job_id(number));
        directive["attempt"] = json!(1);
    }
    directive
}
