//! The times and limits that an operator may set, with the defaults of the design.

use std::time::Duration;

/// Every configurable time and limit of the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How often a worker says that it lives.
    pub heartbeat_interval: Duration,
    /// Silence after which a worker gets no job.
    pub suspect_after: Duration,
    /// Silence after which a worker by itself stops acting on its job.
    pub self_fence_after: Duration,
    /// Silence after which a worker is given up and its job handled as lost.
    pub offline_after: Duration,
    /// How long a broken stream or an answered claim still counts as listening.
    pub reconnect_grace: Duration,
    /// How long a free worker may listen to nothing before it counts as deaf.
    pub deaf_after: Duration,
    /// How long a worker whose job was ended by somebody else is not eligible, unless it says that it is free.
    pub closing_after: Duration,
    /// How long a reservation waits for its worker.
    pub pickup_timeout: Duration,
    /// How long a lost worker may still report the outcome of a job past its point of no return.
    pub outcome_grace: Duration,
    /// The least time that a strict job which was put back waits for its target.
    pub strict_return_wait: Duration,
    /// The wait before the first try after a retryable failure; it doubles with each.
    pub backoff_base: Duration,
    /// The longest wait between two tries.
    pub backoff_cap: Duration,
    /// How many releases in a row put a job back.
    pub max_releases: u32,
    /// How often a heartbeat leaves an event.
    pub heartbeat_event_interval: Duration,
    /// The least time between two callbacks that only tell a changed cost.
    pub cost_callback_interval: Duration,
    /// How long a terminal callback waits for announced calls.
    pub announced_calls_wait: Duration,
    /// How long an announced call may stay unreported.
    pub announced_calls_lapse: Duration,
    /// How long after the end of an attempt its usage is taken.
    pub usage_accepted_for: Duration,
    /// How long a repeated deregistration answers with the same record.
    pub deregistration_repeat: Duration,
    /// How many replacements of each other make two living processes contest one worker id…
    pub contested_replacements: usize,
    /// … within this time.
    pub contested_within: Duration,
    /// How long the newcomer of a contested worker id is refused.
    pub contested_refusal: Duration,
    /// How long a sender may keep a callback to itself.
    pub send_lease: Duration,
    /// Whether nobody is given up while it may be the control plane that does not hear: see [`watch`](super::watch).
    pub brake: bool,
}

impl Default for Policy {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            heartbeat_interval: seconds(5),
            suspect_after: seconds(10),
            self_fence_after: seconds(15),
            offline_after: seconds(20),
            reconnect_grace: seconds(3),
            deaf_after: seconds(10),
            closing_after: seconds(10),
            pickup_timeout: seconds(10),
            outcome_grace: seconds(300),
            strict_return_wait: seconds(30),
            backoff_base: seconds(5),
            backoff_cap: seconds(60),
            max_releases: 10,
            heartbeat_event_interval: seconds(30),
            cost_callback_interval: seconds(5),
            announced_calls_wait: seconds(3),
            announced_calls_lapse: seconds(600),
            usage_accepted_for: seconds(24 * 3600),
            deregistration_repeat: seconds(24 * 3600),
            contested_replacements: 3,
            contested_within: seconds(300),
            contested_refusal: seconds(60),
            send_lease: seconds(30),
            brake: true,
        }
    }
}

/// Why a policy cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The times of a worker's silence are out of order.
    #[error(
        "2 × heartbeat ({heartbeat:?}) ≤ suspect ({suspect:?}) < self-fence ({self_fence:?}) < offline ({offline:?}) \
         does not hold"
    )]
    SilenceOrder {
        /// [`Policy::heartbeat_interval`].
        heartbeat: Duration,
        /// [`Policy::suspect_after`].
        suspect: Duration,
        /// [`Policy::self_fence_after`].
        self_fence: Duration,
        /// [`Policy::offline_after`].
        offline: Duration,
    },
}

impl Policy {
    /// Checks what the rules take for granted.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] names the times that contradict each other.
    pub fn check(&self) -> Result<(), PolicyError> {
        let ordered = self.heartbeat_interval * 2 <= self.suspect_after
            && self.suspect_after < self.self_fence_after
            && self.self_fence_after < self.offline_after;
        if ordered {
            return Ok(());
        }
        Err(PolicyError::SilenceOrder {
            heartbeat: self.heartbeat_interval,
            suspect: self.suspect_after,
            self_fence: self.self_fence_after,
            offline: self.offline_after,
        })
    }

    /// The wait before the try that follows `failures` retryable failures (at least 1).
    #[must_use]
    pub fn backoff(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.backoff_base.saturating_mul(1 << doublings).min(self.backoff_cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_together_and_a_wrong_order_is_named() {
        let policy = Policy::default();
        assert_eq!(policy.check(), Ok(()));
        let wrong = Policy { suspect_after: Duration::from_secs(9), ..policy };
        assert!(wrong.check().unwrap_err().to_string().contains("suspect (9s)"));
    }

    #[test]
    fn backoff_doubles_from_five_seconds_to_a_minute() {
        let policy = Policy::default();
        let waits: Vec<u64> = (1..=6).map(|failures| policy.backoff(failures).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
    }
}
