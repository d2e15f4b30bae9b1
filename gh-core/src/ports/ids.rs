//! Fresh ids and the only randomness there is.

use uuid::Uuid;

/// Makes ids. Two calls never give the same, on any server.
///
/// # Example
///
/// ```
/// use gh_core::ports::ids::IdSource;
/// use uuid::Uuid;
///
/// #[derive(Debug)]
/// struct ServerIds;
///
/// impl IdSource for ServerIds {
///     fn uuid(&self) -> Uuid {
///         Uuid::now_v7()
///     }
///
///     fn jitter(&self) -> f64 {
///         rand::random()
///     }
/// }
///
/// assert!(ServerIds.uuid() < ServerIds.uuid());
/// assert!((0.0..1.0).contains(&ServerIds.jitter()));
/// ```
#[cfg_attr(feature = "testing", mockall::automock)]
pub trait IdSource: Send + Sync + std::fmt::Debug {
    /// A fresh UUID; ordered by time (version 7) where ids are stored, so that indexes stay compact.
    fn uuid(&self) -> Uuid;

    /// A random number from 0 up to but not including 1, to spread retries.
    fn jitter(&self) -> f64;
}
