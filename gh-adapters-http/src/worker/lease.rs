//! The self-fence: whether a job may act, by a clock that runs through suspension.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::host::Host;

/// How often a waiting fence looks at the clock. Timers stand still while a machine is suspended and the fence's clock
/// does not, so it cannot sleep until the moment.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether a job may act now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may.
    Live,
    /// It may not, until the next `held`.
    Frozen,
    /// It may never again.
    Over,
}

/// What the fence remembers. Times are readings of the continuous clock.
#[derive(Debug, Clone, Copy)]
struct Facts {
    /// When the last question was *sent* that was answered with `held`; the claim counts.
    held_as_of: Duration,
    /// The point of no return was passed.
    past_no_return: bool,
    /// Since when the lease is known to be gone while the job goes on.
    grace_since: Option<Duration>,
}

/// The limits of a fence.
#[derive(Debug, Clone, Copy)]
pub(super) struct FenceLimits {
    pub(super) freeze_after: Duration,
    pub(super) give_up_after: Duration,
    pub(super) outcome_grace: Duration,
}

impl Facts {
    fn standing(&self, now: Duration, limits: &FenceLimits) -> Standing {
        if let Some(since) = self.grace_since {
            return if now.saturating_sub(since) >= limits.outcome_grace { Standing::Over } else { Standing::Live };
        }
        // Nobody else will run a job past its point of no return, so silence does not stop it.
        if self.past_no_return {
            return Standing::Live;
        }
        match now.saturating_sub(self.held_as_of) {
            silent if silent >= limits.give_up_after => Standing::Over,
            silent if silent >= limits.freeze_after => Standing::Frozen,
            _ => Standing::Live,
        }
    }
}

/// The self-fence of one attempt.
#[derive(Debug)]
pub(super) struct Fence {
    host: Arc<dyn Host>,
    limits: FenceLimits,
    facts: Mutex<Facts>,
    changed: Notify,
}

impl Fence {
    /// The fence of a job whose claim was sent at `claimed_as_of`.
    pub(super) fn new(host: Arc<dyn Host>, limits: FenceLimits, claimed_as_of: Duration) -> Self {
        Self {
            host,
            limits,
            facts: Mutex::new(Facts { held_as_of: claimed_as_of, past_no_return: false, grace_since: None }),
            changed: Notify::new(),
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A heartbeat sent at `as_of` was answered with `held`.
    pub(super) fn held(&self, as_of: Duration) {
        let mut facts = self.facts();
        facts.held_as_of = facts.held_as_of.max(as_of);
        drop(facts);
        self.changed.notify_waiters();
    }

    /// The point of no return was granted.
    pub(super) fn pass_no_return(&self) {
        self.facts().past_no_return = true;
        self.changed.notify_waiters();
    }

    pub(super) fn past_no_return(&self) -> bool {
        self.facts().past_no_return
    }

    /// The lease is gone, but the job goes on to tell its outcome.
    pub(super) fn begin_grace(&self) {
        let now = self.host.continuous_clock();
        self.facts().grace_since.get_or_insert(now);
        self.changed.notify_waiters();
    }

    pub(super) fn standing(&self) -> Standing {
        let now = self.host.continuous_clock();
        self.facts().standing(now, &self.limits)
    }

    /// Returns when the job may act; at once when it may.
    pub(super) async fn live(&self) {
        loop {
            let changed = self.changed.notified();
            if self.standing() == Standing::Live {
                return;
            }
            changed.await;
        }
    }

    /// Returns when the job may never act again.
    pub(super) async fn over(&self) {
        while self.standing() != Standing::Over {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FenceLimits = FenceLimits {
        freeze_after: Duration::from_secs(15),
        give_up_after: Duration::from_secs(300),
        outcome_grace: Duration::from_secs(300),
    };

    fn standing_after(facts: Facts, seconds: u64) -> Standing {
        facts.standing(Duration::from_secs(1_000 + seconds), &LIMITS)
    }

    const CLAIMED: Facts = Facts { held_as_of: Duration::from_secs(1_000), past_no_return: false, grace_since: None };

    #[test]
    fn silence_freezes_a_job_and_then_ends_it() {
        assert_eq!(standing_after(CLAIMED, 14), Standing::Live);
        assert_eq!(standing_after(CLAIMED, 15), Standing::Frozen);
        assert_eq!(standing_after(CLAIMED, 299), Standing::Frozen);
        assert_eq!(standing_after(CLAIMED, 300), Standing::Over);
    }

    #[test]
    fn past_the_point_of_no_return_silence_neither_freezes_nor_ends() {
        let past = Facts { past_no_return: true, ..CLAIMED };
        assert_eq!(standing_after(past, 86_400), Standing::Live);
    }

    #[test]
    fn a_job_without_a_lease_goes_on_for_the_grace_only() {
        let grace = Facts { past_no_return: true, grace_since: Some(Duration::from_secs(1_000)), ..CLAIMED };
        assert_eq!(standing_after(grace, 299), Standing::Live);
        assert_eq!(standing_after(grace, 300), Standing::Over);
    }
}
