//! How long to wait before a call is repeated.

use std::time::Duration;

use super::host::Host;

/// Doubling waits with jitter, so that a fleet that lost its server does not come back in step.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    base: Duration,
    cap: Duration,
    repeats: u32,
}

impl Backoff {
    pub(super) const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, repeats: 0 }
    }

    /// The next wait: between half of the doubled base and all of it, at most the cap, and never less than what the
    /// server asked for.
    pub(super) fn next(&mut self, host: &dyn Host, retry_after: Option<Duration>) -> Duration {
        let whole = self.base.saturating_mul(1_u32.checked_shl(self.repeats.min(20)).unwrap_or(u32::MAX)).min(self.cap);
        self.repeats = self.repeats.saturating_add(1);
        let fraction = u32::try_from(host.random_bits() & 0xffff).unwrap_or(0);
        let jittered = whole / 2 + (whole / 2).saturating_mul(fraction) / 0xffff;
        jittered.max(retry_after.unwrap_or_default())
    }

    /// The next wait will be the first again.
    pub(super) const fn reset(&mut self) {
        self.repeats = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::host::SystemHost;

    #[test]
    fn waits_grow_to_the_cap_and_honour_the_server() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let first = backoff.next(&SystemHost, None);
        assert!(first >= Duration::from_millis(50) && first <= Duration::from_millis(100));
        for _ in 0..40 {
            assert!(backoff.next(&SystemHost, None) <= Duration::from_secs(2));
        }
        assert!(backoff.next(&SystemHost, None) >= Duration::from_secs(1));
        assert!(backoff.next(&SystemHost, Some(Duration::from_secs(7))) >= Duration::from_secs(7));
        backoff.reset();
        assert!(backoff.next(&SystemHost, None) <= Duration::from_millis(100));
    }
}
