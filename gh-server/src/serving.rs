//! Binding, serving and shutting down in order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use gh_core::application::ControlPlane;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::startup::Outcome;

/// How long requests and callbacks that are under way may take to end. With what precedes it a stop takes under 10 s.
const GRACE: Duration = Duration::from_secs(8);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub(crate) struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Takes the address; port 0 picks a free one.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// Resolves when the process is asked to stop: SIGTERM, or Ctrl-C.
pub(crate) async fn stop_requested() -> io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

/// Serves until `stop` resolves, or until what runs beside it fails; then shuts down: waiting claims are answered,
/// streams close, requests that are under way may end.
///
/// `beside` are the loops and what belongs to them; they end when the control plane is closed.
pub(crate) async fn serve(
    control_plane: Arc<ControlPlane>,
    listener: TcpListener,
    router: Router,
    beside: impl Future<Output = Outcome>,
    stop: impl Future<Output = ()>,
) -> Outcome {
    let stopping = CancellationToken::new();
    let serving = axum::serve(listener, router).with_graceful_shutdown(stopping.clone().cancelled_owned());
    let work = async { tokio::try_join!(async { Ok(serving.into_future().await?) }, beside).map(drop) };
    tokio::pin!(work);
    tokio::select! {
        ended = &mut work => return ended,
        () = stop => {}
    }
    info!("shutting down");
    control_plane.close();
    stopping.cancel();
    match tokio::time::timeout(GRACE, work).await {
        Ok(ended) => ended,
        Err(_) => {
            warn!("requests were still under way after {} s and were cut off", GRACE.as_secs());
            Ok(())
        }
    }
}
