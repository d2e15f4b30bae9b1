//! The receiver of callbacks, on a thread of its own so that its processor time can be told apart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::Failure;
use crate::cpu::SINK_THREAD;

/// Takes callbacks on a port of 127.0.0.1.
#[derive(Debug)]
pub(crate) struct Sink {
    address: String,
    received: Arc<AtomicU64>,
    thread: Option<Runtime>,
}

impl Sink {
    /// Listens on a free port.
    pub(crate) fn start() -> Result<Self, Failure> {
        let failed = || Failure::system("cannot listen for callbacks");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(failed())?;
        listener.set_nonblocking(true).map_err(failed())?;
        let address = format!("http://{}", listener.local_addr().map_err(failed())?);
        let received = Arc::new(AtomicU64::new(0));
        let router = Router::new()
            .route("/answered", post(answer))
            .route("/silent", post(async || std::future::pending::<StatusCode>().await))
            .with_state(Arc::clone(&received));
        let thread = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(SINK_THREAD)
            .enable_all()
            .build()
            .map_err(failed())?;
        thread.spawn(async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => axum::serve(listener, router).await,
                Err(error) => Err(error),
            }
        });
        Ok(Self { address, received, thread: Some(thread) })
    }

    /// The address where each callback is answered with 200 at once.
    pub(crate) fn answering(&self) -> String {
        format!("{}/answered", self.address)
    }

    /// The address where callbacks are taken and never answered.
    pub(crate) fn silent(&self) -> String {
        format!("{}/silent", self.address)
    }

    /// How many callbacks it has answered.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.shutdown_background();
        }
    }
}

async fn answer(State(received): State<Arc<AtomicU64>>, _body: Bytes) -> StatusCode {
    received.fetch_add(1, Ordering::Relaxed);
    StatusCode::OK
}
