//! The machine's clock and its randomness, as the core's ports: what a service that embeds the core brings.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use gh_core::domain::time::Timestamp;
use gh_core::ports::clock::Clock;
use gh_core::ports::ids::IdSource;
use uuid::Uuid;

/// Reads the wall clock once and counts on from there: who sets the clock while the service runs moves nothing.
#[derive(Debug)]
pub struct MachineClock {
    started_at: Timestamp,
    started: Instant,
}

impl MachineClock {
    /// A clock that starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the Clock port")]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_at: Timestamp::from_micros(0) + since_epoch, started: Instant::now() }
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        self.started_at + self.started.elapsed()
    }
}

/// UUIDs of version 7, and random numbers of the operating system.
#[derive(Debug)]
pub struct MachineIds;

impl IdSource for MachineIds {
    #[expect(clippy::disallowed_methods, reason = "this is the IdSource port")]
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the IdSource port")]
    fn jitter(&self) -> f64 {
        rand::random()
    }
}

/// 32 random bytes that nobody can guess.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "beside the IdSource port, the only randomness of the examples")]
pub fn random_key() -> [u8; 32] {
    rand::random()
}
