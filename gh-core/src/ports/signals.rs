//! Waking those who wait, on whichever server they wait.

use crate::domain::ids::WorkerId;

/// What somebody may be waiting for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wake {
    /// A job waits for a worker.
    Dispatch,
    /// Something is there for this worker: a reservation, a directive, an end of its job.
    Worker(WorkerId),
    /// A callback is to be sent.
    Deliver,
}

/// Wakes those who wait. Sent after the commit, at least once, best effort: whoever waits also looks by itself from
/// time to time.
///
/// # Example
///
/// A single server hands in its [`Wakeups`](crate::application::Wakeups) as they are. With several, each wake also goes
/// to the others, here into a channel that a task of yours empties onto your message bus:
///
/// ```
/// use std::sync::Arc;
///
/// use gh_core::application::Wakeups;
/// use gh_core::ports::signals::{Signals, Wake};
/// use tokio::sync::mpsc;
///
/// #[derive(Debug)]
/// struct Everywhere {
///     here: Arc<Wakeups>,
///     others: mpsc::Sender<Wake>,
/// }
///
/// impl Signals for Everywhere {
///     fn wake(&self, wake: Wake) {
///         // A full channel loses a wake. That costs a moment: the other servers look by themselves.
///         let _sent_or_lost = self.others.try_send(wake.clone());
///         self.here.wake(wake);
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let here = Arc::new(Wakeups::new());
/// let (others, mut bus) = mpsc::channel(64);
/// let signals = Everywhere { here: here.clone(), others };
/// signals.wake(Wake::Dispatch);
/// here.dispatch_requested().await;
/// assert_eq!(bus.recv().await, Some(Wake::Dispatch));
/// # }
/// ```
#[cfg_attr(feature = "testing", mockall::automock)]
pub trait Signals: Send + Sync + std::fmt::Debug {
    /// Wakes whoever waits for this.
    fn wake(&self, wake: Wake);
}
