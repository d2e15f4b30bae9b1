//! The machine's clock and its randomness, as the core's ports.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use gh_core::domain::time::Timestamp;
use gh_core::ports::clock::Clock;
use gh_core::ports::ids::IdSource;
use uuid::Uuid;

/// Reads the wall clock once and then counts monotonically: a clock that is set while the server runs moves nothing.
#[derive(Debug)]
pub(crate) struct SystemClock {
    started_at: Timestamp,
    started: Instant,
}

impl SystemClock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the Clock port")]
    pub(crate) fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_at: Timestamp::from_micros(0) + since_epoch, started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.started_at + self.started.elapsed()
    }
}

/// UUIDs of version 7, and random numbers from the operating system's generator.
#[derive(Debug)]
pub(crate) struct SystemIds;

impl IdSource for SystemIds {
    #[expect(clippy::disallowed_methods, reason = "this is the IdSource port")]
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the IdSource port")]
    fn jitter(&self) -> f64 {
        rand::random()
    }
}

/// A secret for this process alone.
#[expect(clippy::disallowed_methods, reason = "beside the IdSource port, the only randomness of the server")]
pub(crate) fn random_key() -> [u8; 32] {
    rand::random()
}
