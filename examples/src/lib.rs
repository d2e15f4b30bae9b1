//! Runnable examples: a scripted worker and a callback receiver, and what both need.

use tokio::signal;
use tokio::signal::unix::SignalKind;

/// Waits until somebody asks this process to stop: SIGTERM or Ctrl-C.
///
/// # Errors
///
/// The signals cannot be listened for.
pub async fn asked_to_stop() -> std::io::Result<()> {
    let mut terminated = signal::unix::signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => Ok(()),
        interrupted = signal::ctrl_c() => interrupted,
    }
}
