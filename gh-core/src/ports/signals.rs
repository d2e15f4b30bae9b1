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

/// Wakes those who wait. Sent after the commit, best effort: a wake that is lost costs time, never a job, since for
/// everything that is waited for somebody also looks without being woken.
///
/// | who waits | looks without being woken |
/// | --- | --- |
/// | a claim: for a job of its own, or to be told that its worker is drained or retired | each second, the [dispatch loop](crate::application::BackgroundLoops::DISPATCH) of its process for all claims together |
/// | a stream of directives | every seven seconds |
/// | a deregistration that is waited for | every quarter of a second |
/// | jobs for claims, callbacks to be sent | each second, the loops that [dispatch](crate::application::BackgroundLoops::DISPATCH) and [deliver](crate::application::BackgroundLoops::DELIVER) |
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
///         // A full channel loses a wake. That costs time: the other servers also look without being woken.
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
