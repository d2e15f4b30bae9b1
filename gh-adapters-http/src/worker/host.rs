//! What a worker takes from the machine it runs on: clocks, randomness and its own size.

use std::fmt;
use std::time::Duration;

use gh_core::domain::time::Timestamp;

/// The machine below a worker. Tests put one of their own in its place.
pub trait Host: Send + Sync + fmt::Debug {
    /// The time of day, for `occurred_at`.
    fn wall_clock(&self) -> Timestamp;

    /// Time since some fixed point. It never goes back, and it runs on while the machine is suspended: the
    /// self-fence depends on that.
    fn continuous_clock(&self) -> Duration;

    /// 128 random bits.
    fn random_bits(&self) -> u128;

    /// The resident memory of this process in bytes, when it can be told.
    fn memory_usage(&self) -> Option<u64>;
}

/// The real machine.
///
/// On Linux the continuous clock is `CLOCK_BOOTTIME`. Elsewhere it is the standard library's monotonic clock, which
/// on some systems stands still during suspension.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemHost;

impl Host for SystemHost {
    #[expect(clippy::disallowed_methods, reason = "this is where a worker reads the wall clock")]
    fn wall_clock(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
    }

    #[cfg(target_os = "linux")]
    fn continuous_clock(&self) -> Duration {
        let reading = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(u64::try_from(reading.tv_sec).unwrap_or(0), u32::try_from(reading.tv_nsec).unwrap_or(0))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::disallowed_methods, reason = "this is where a worker reads the monotonic clock")]
    fn continuous_clock(&self) -> Duration {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is where a worker takes its randomness")]
    fn random_bits(&self) -> u128 {
        rand::random()
    }

    fn memory_usage(&self) -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        kibibytes.checked_mul(1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_continuous_clock_never_goes_back() {
        let first = SystemHost.continuous_clock();
        assert!(SystemHost.continuous_clock() >= first);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_running_process_has_a_size() {
        assert!(SystemHost.memory_usage().is_some_and(|bytes| bytes > 64 * 1024));
    }
}
