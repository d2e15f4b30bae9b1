//! The time.

use crate::domain::time::Timestamp;

/// Tells the time. It never goes back within one process.
#[cfg_attr(feature = "testing", mockall::automock)]
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present instant.
    fn now(&self) -> Timestamp;
}
