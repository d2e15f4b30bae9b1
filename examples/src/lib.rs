//! Runnable examples: a scripted worker, a callback receiver, a product with the control plane in it ([`careers`]), a
//! store of one's own ([`file_log`]), and what they need.

pub mod careers;
pub mod file_log;
pub mod machine;

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

/// The programs in docs/embedding.md, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
#[derive(Debug)]
pub struct EmbeddingPage;
