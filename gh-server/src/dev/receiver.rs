//! The client's side of callbacks in the demo: a server that takes them and keeps them.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use gh_core::domain::usd::Usd;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use url::Url;

/// A callback as the receiver understood it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Callback {
    pub(super) job_id: String,
    pub(super) status: String,
    pub(super) sequence: u64,
    pub(super) worker_id: Option<String>,
    pub(super) target_worker_id: Option<String>,
    pub(super) cost: Option<Cost>,
    pub(super) error_code: Option<String>,
}

/// Its cost block.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Cost {
    pub(super) total_cost_usd: Usd,
    pub(super) action_count: u64,
    pub(super) complete: bool,
}

/// Takes callbacks on a port of its own.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) url: Url,
    pub(super) received: Mutex<mpsc::UnboundedReceiver<Callback>>,
    router: Mutex<Option<(TcpListener, Router)>>,
}

impl Receiver {
    /// Listens on a free port of this machine.
    pub(super) async fn bind() -> Result<Self, Box<dyn std::error::Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = Url::parse(&format!("http://{}/callbacks", listener.local_addr()?))?;
        let (sender, received) = mpsc::unbounded_channel();
        let router = Router::new().route("/callbacks", post(receive)).with_state(Arc::new(sender));
        Ok(Self { url, received: Mutex::new(received), router: Mutex::new(Some((listener, router))) })
    }

    /// Serves for as long as it is polled.
    pub(super) async fn serve(&self) {
        let taken = self.router.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((listener, router)) = taken
            && let Err(error) = axum::serve(listener, router).await
        {
            tracing::warn!(%error, "the demo's callback receiver stopped");
        }
    }

    /// What came since the last time.
    pub(super) fn take(&self) -> Vec<Callback> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| received.try_recv().ok()).collect()
    }
}

async fn receive(
    State(sender): State<Arc<mpsc::UnboundedSender<Callback>>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let Ok(callback) = serde_json::from_slice::<Callback>(&body) else {
        tracing::warn!("the demo's receiver got a callback that it does not understand");
        return StatusCode::UNPROCESSABLE_ENTITY;
    };
    if !headers.contains_key("webhook-id") {
        return StatusCode::BAD_REQUEST;
    }
    // Whoever tells the story may be done; a callback that comes later was received all the same.
    let _told = sender.send(callback);
    StatusCode::OK
}
