//! Fresh ids and the only randomness there is.

use uuid::Uuid;

/// Makes ids. Two calls never give the same, on any server.
#[cfg_attr(feature = "testing", mockall::automock)]
pub trait IdSource: Send + Sync + std::fmt::Debug {
    /// A fresh UUID; ordered by time (version 7) where ids are stored, so that indexes stay compact.
    fn uuid(&self) -> Uuid;

    /// A random number from 0 up to but not including 1, to spread retries.
    fn jitter(&self) -> f64;
}
