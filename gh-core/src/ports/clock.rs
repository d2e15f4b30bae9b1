//! The time.

use crate::domain::time::Timestamp;

/// Tells the time. It never goes back within one process.
///
/// # Example
///
/// The wall clock can be set back while the process runs, so it is read once; from then on the monotonic clock counts.
///
/// ```
/// use std::time::{Instant, SystemTime, UNIX_EPOCH};
///
/// use gh_core::domain::time::Timestamp;
/// use gh_core::ports::clock::Clock;
///
/// #[derive(Debug)]
/// struct ServerClock {
///     started_at: Timestamp,
///     started: Instant,
/// }
///
/// impl ServerClock {
///     fn start() -> Self {
///         let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
///         Self { started_at: Timestamp::from_micros(0) + since_1970, started: Instant::now() }
///     }
/// }
///
/// impl Clock for ServerClock {
///     fn now(&self) -> Timestamp {
///         self.started_at + self.started.elapsed()
///     }
/// }
///
/// let clock = ServerClock::start();
/// let earlier = clock.now();
/// assert!(clock.now() >= earlier);
/// ```
#[cfg_attr(feature = "testing", mockall::automock)]
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present instant.
    fn now(&self) -> Timestamp;
}
