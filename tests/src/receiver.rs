//! A client's callback receiver.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The `webhook-id` header.
    pub webhook_id: String,
    /// The body as it came.
    pub text: String,
    /// The body, read.
    pub callback: Value,
}

/// Takes callbacks and keeps them. A callback to `/STATUS` is answered with that status.
#[derive(Debug)]
pub struct Receiver {
    base_url: String,
    received: Arc<Mutex<Vec<Arrival>>>,
    _serving: JoinSet<()>,
}

impl Receiver {
    /// Listens on a free port.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base_url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let received = Arc::new(Mutex::new(Vec::new()));
        let router = Router::new().route("/{status}", post(receive)).with_state(Arc::clone(&received));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.expect("the receiver serves") });
        Self { base_url, received, _serving: serving }
    }

    /// The address whose callbacks are taken.
    #[must_use]
    pub fn url(&self) -> String {
        self.answering(200)
    }

    /// The address whose callbacks are answered with this status.
    #[must_use]
    pub fn answering(&self, status: u16) -> String {
        format!("{}/{status}", self.base_url)
    }

    /// All callbacks so far, in the order of their arrival.
    #[must_use]
    pub fn all(&self) -> Vec<Value> {
        self.arrivals().into_iter().map(|arrival| arrival.callback).collect()
    }

    /// The same as they came.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All callbacks after the first so many.
    #[must_use]
    pub fn after(&self, known: usize) -> Vec<Value> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.iter().skip(known).map(|arrival| arrival.callback.clone()).collect()
    }

    /// The callbacks of one job so far.
    #[must_use]
    pub fn of(&self, job_id: &str) -> Vec<Value> {
        self.all().into_iter().filter(|callback| callback["job_id"] == job_id).collect()
    }

    /// Waits until a job's callback with this status came; all callbacks of the job.
    pub async fn until(&self, job_id: &str, status: &str) -> Vec<Value> {
        crate::eventually(&format!("callback {status} of job {job_id}"), async || {
            let callbacks = self.of(job_id);
            callbacks.iter().any(|callback| callback["status"] == status).then_some(callbacks)
        })
        .await
    }
}

async fn receive(
    State(received): State<Arc<Mutex<Vec<Arrival>>>>,
    Path(status): Path<u16>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let webhook_id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let text = String::from_utf8_lossy(&body).into_owned();
    let callback = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    received.lock().unwrap_or_else(PoisonError::into_inner).push(Arrival { webhook_id, text, callback });
    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST)
}
