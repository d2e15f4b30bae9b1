//! The store's time as this process knows it: told by the database, carried on in between, never going back.
//!
//! A clock can be set. So what the database tells is only believed as long as it agrees with the time that has passed
//! here since it was last believed. Where it does not, time goes on as it did, and the next look at the fleet finds out
//! who is right ([`watch`](crate::watch)): the database's clock was set, which is put right for all servers at once
//! (`gh_clock`), or this process stood still in a way that its own clock did not notice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gh_core::domain::time::Timestamp;
use gh_core::domain::watch::STOOD_STILL;
use gh_core::ports::clock::Clock;
use tokio::time::Instant;

/// What the database tells may be so far off.
const TOLERANCE: Duration = Duration::from_secs(1);

/// An answer may have been under way for so long and still set the time.
const PROMPT: Duration = Duration::from_millis(100);

/// What is off for so long is believed: whoever looks at the fleet has left it so.
const BELIEVED_AFTER: Duration = Duration::from_secs(5);

/// How long the time that the database told serves, with what has passed since.
const SERVES: Duration = Duration::from_secs(1);

/// The time of the store as SQL.
macro_rules! moment {
    () => {
        "(clock_timestamp() + (select shift_micros from gh_clock) * interval '1 microsecond')"
    };
}
pub(crate) use moment;

/// The store's time in this process.
#[derive(Debug)]
pub(crate) struct StoreTime {
    clock: Option<Arc<dyn Clock>>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// The latest time that was told.
    latest: Timestamp,
    /// What the database told when it was last believed, and when that was.
    base: Option<(Timestamp, Instant)>,
    /// Whether a look has compared it with what other servers know.
    compared: bool,
    /// Since when it is off.
    off_since: Option<Instant>,
    /// When it was last heard of.
    heard: Option<Timestamp>,
    /// Since when it was not heard of for long, where no look has seen that yet.
    silent_from: Option<Timestamp>,
}

/// How what the database tells at a look stands to what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// It agrees.
    Agrees,
    /// This process has not compared it with anything yet.
    First,
    /// It is later than it should be.
    Ahead {
        /// What it should be.
        expected: Timestamp,
    },
    /// It is earlier than it should be.
    Behind {
        /// What it should be.
        expected: Timestamp,
    },
}

impl Known {
    fn expected(&self, at: Instant) -> Option<Timestamp> {
        self.base.map(|(reading, since)| reading + at.saturating_duration_since(since))
    }

    fn tell(&mut self, time: Timestamp) -> Timestamp {
        self.latest = self.latest.max(time);
        self.latest
    }

    /// Tells a time at which the store was heard of.
    fn hear(&mut self, time: Timestamp) -> Timestamp {
        let now = self.tell(time);
        if let Some(heard) = self.heard.filter(|heard| now.since(*heard) > STOOD_STILL) {
            self.silent_from.get_or_insert(heard);
        }
        self.heard = Some(now);
        now
    }

    fn believe(&mut self, reading: Timestamp, at: Instant) -> Timestamp {
        self.base = Some((reading, at));
        self.off_since = None;
        self.hear(reading)
    }

    fn sample(&mut self, reading: Timestamp, at: Instant) -> Timestamp {
        let Some(expected) = self.expected(at) else {
            return self.believe(reading, at);
        };
        if reading.since(expected) <= TOLERANCE && expected.since(reading) <= PROMPT {
            return self.believe(reading, at);
        }
        if reading < expected && expected.since(reading) <= TOLERANCE {
            // It was under way for a while: it says nothing new of the time.
            self.off_since = None;
            return self.hear(reading);
        }
        let off_since = *self.off_since.get_or_insert(at);
        if at.saturating_duration_since(off_since) > BELIEVED_AFTER {
            return self.believe(reading, at);
        }
        self.hear(expected)
    }

    fn compare(&self, reading: Timestamp, asked: Instant, answered: Instant) -> Agreement {
        if !self.compared {
            return Agreement::First;
        }
        match (self.expected(asked), self.expected(answered)) {
            (_, Some(expected)) if reading.since(expected) > TOLERANCE => Agreement::Ahead { expected },
            (Some(earliest), Some(expected)) if earliest.since(reading) > TOLERANCE => Agreement::Behind { expected },
            _ => Agreement::Agrees,
        }
    }
}

impl StoreTime {
    /// The clock's time, or the database's.
    pub(crate) fn new(clock: Option<Arc<dyn Clock>>) -> Self {
        let known = Known {
            latest: Timestamp::from_micros(i64::MIN),
            base: None,
            compared: false,
            off_since: None,
            heard: None,
            silent_from: None,
        };
        Self { clock, known: Mutex::new(known) }
    }

    /// Whether it is a clock's.
    pub(crate) const fn is_a_clocks(&self) -> bool {
        self.clock.is_some()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store's time, now that the database has told this one.
    pub(crate) fn sample(&self, reading: Timestamp) -> Timestamp {
        match &self.clock {
            Some(clock) => self.known().hear(clock.now()),
            None => self.known().sample(reading, now()),
        }
    }

    /// The store's time without asking, where the database told it a moment ago.
    pub(crate) fn unasked(&self) -> Option<Timestamp> {
        let mut known = self.known();
        if let Some(clock) = &self.clock {
            return Some(known.tell(clock.now()));
        }
        let at = now();
        let fresh = known.base.is_some_and(|(_, since)| at.saturating_duration_since(since) < SERVES);
        known.expected(at).filter(|_| fresh).map(|expected| known.tell(expected))
    }

    /// How what the database told at a look, which was asked for at this time, stands to what is known. Nothing is
    /// believed of it yet.
    pub(crate) fn compare(&self, reading: Timestamp, asked: Instant) -> Agreement {
        if self.clock.is_some() {
            return Agreement::Agrees;
        }
        self.known().compare(reading, asked, now())
    }

    /// Believes this time from now on, whatever was known before.
    pub(crate) fn believe(&self, time: Timestamp) -> Timestamp {
        self.known().believe(time, now())
    }

    /// Notes that a look has compared the time with what other servers know.
    pub(crate) fn compared(&self) {
        self.known().compared = true;
    }

    /// Since when the store was not heard of for long, if no look that was stored has seen that.
    pub(crate) fn silence(&self) -> Option<Timestamp> {
        self.known().silent_from
    }

    /// Forgets such a time: a look that was stored has seen it.
    pub(crate) fn forget_silence(&self, seen: Option<Timestamp>) {
        let mut known = self.known();
        if known.silent_from == seen {
            known.silent_from = None;
        }
    }
}

/// The process's own clock, by which the time since the database told its own is measured.
#[expect(clippy::disallowed_methods, reason = "the store's time is carried on by this clock, and made here")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    fn known() -> (Known, Timestamp, Instant) {
        let time = StoreTime::new(None);
        let (start, at) = (Timestamp::from_micros(1_000_000_000_000), now());
        let mut known = time.known.into_inner().unwrap();
        known.sample(start, at);
        known.compared = true;
        (known, start, at)
    }

    #[test]
    fn a_clock_that_is_set_does_not_move_the_time_that_is_told() {
        for step in [HOUR, 2 * SECOND] {
            let (mut ahead, start, at) = known();
            assert_eq!(ahead.sample(start + SECOND + step, at + SECOND), start + SECOND);
            assert_eq!(
                ahead.compare(start + 2 * SECOND + step, at + 2 * SECOND, at + 2 * SECOND),
                Agreement::Ahead { expected: start + 2 * SECOND }
            );
            let (mut behind, start, at) = known();
            assert_eq!(behind.sample(start + SECOND - step, at + SECOND), start + SECOND);
            assert_eq!(
                behind.compare(start + SECOND - step, at + SECOND, at + SECOND),
                Agreement::Behind { expected: start + SECOND }
            );
        }
    }

    #[test]
    fn an_answer_that_was_under_way_for_long_is_no_clock_that_was_set() {
        let (mut known, start, at) = known();
        known.sample(start + 10 * SECOND, at + 10 * SECOND);
        assert_eq!(known.compare(start + 10 * SECOND, at + 10 * SECOND, at + 18 * SECOND), Agreement::Agrees);
        // Nor does it set the time back for those who come after it.
        assert_eq!(known.sample(start + 10 * SECOND, at + 18 * SECOND), start + 18 * SECOND);
        assert_eq!(known.sample(start + 19 * SECOND, at + 19 * SECOND), start + 19 * SECOND);
    }

    #[test]
    fn what_stays_off_is_believed_in_the_end() {
        let (mut known, start, at) = known();
        for second in 1..=6 {
            assert_eq!(known.sample(start + HOUR + SECOND * second, at + SECOND * second), start + SECOND * second);
        }
        assert_eq!(known.sample(start + HOUR + 7 * SECOND, at + 7 * SECOND), start + HOUR + 7 * SECOND);
    }

    #[test]
    fn clocks_that_run_at_slightly_different_speeds_agree() {
        let (mut known, start, at) = known();
        for second in 1..100_000_u32 {
            let reading = start + SECOND * second - Duration::from_micros(50) * second;
            let told = known.sample(reading, at + SECOND * second);
            assert!(told.since(reading) < TOLERANCE && known.off_since.is_none(), "{second}: {told}");
        }
    }

    #[test]
    fn silence_is_noted_from_the_last_word_until_a_look_has_seen_it() {
        let (mut known, start, at) = known();
        known.sample(start + SECOND, at + SECOND);
        known.sample(start + 61 * SECOND, at + 61 * SECOND);
        known.sample(start + 62 * SECOND, at + 62 * SECOND);
        let time = StoreTime { clock: None, known: Mutex::new(known) };
        let seen = time.silence();
        assert_eq!(seen, Some(start + SECOND));
        time.forget_silence(None);
        assert_eq!(time.silence(), seen);
        time.forget_silence(seen);
        assert_eq!(time.silence(), None);
    }
}
