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
#[cfg_attr(feature = "testing", mockall::automock)]
pub trait Signals: Send + Sync + std::fmt::Debug {
    /// Wakes whoever waits for this.
    fn wake(&self, wake: Wake);
}
