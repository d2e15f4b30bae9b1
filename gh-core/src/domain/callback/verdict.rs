//! What an attempt to deliver means: delivered, again later, or never.

use std::time::Duration;

use super::DeliveryAttempt;
use crate::domain::time::Timestamp;
use crate::ports::callback_sender::{SendError, SendOutcome};

/// The longest that a receiver's `Retry-After` is believed.
const LONGEST_HINT: Duration = Duration::from_secs(24 * 3600);

/// The waits after each failed attempt, in seconds, before jitter. Dense at first, since job state is a live view.
const RETRY_SCHEDULE: [u64; 11] = [5, 30, 120, 600, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// The wait after `attempts` attempts, up to 20 % longer by `jitter` (0 to 1); none when there are no more.
#[must_use]
pub fn retry_delay(attempts: usize, jitter: f64) -> Option<Duration> {
    let seconds = RETRY_SCHEDULE.get(attempts.checked_sub(1)?)?;
    Some(Duration::from_secs(*seconds).mul_f64(1.0 + 0.2 * jitter.clamp(0.0, 1.0)))
}

/// What an attempt means for its delivery.
pub(super) struct Verdict<'o> {
    pub(super) next: Next,
    http_status: Option<u16>,
    error_class: Option<Box<str>>,
    excerpt: Option<&'o str>,
    took: Duration,
}

/// What becomes of the delivery.
pub(super) enum Next {
    Delivered,
    Again { refused: bool, hint: Option<Duration> },
    Dead(&'static str),
}

/// Reads what came of an attempt.
pub(super) fn judge(outcome: &SendOutcome) -> Verdict<'_> {
    match outcome {
        SendOutcome::Answered { status, retry_after, excerpt, took } => {
            let delivered = (200..300).contains(status);
            let asks_to_wait = matches!(status, 429 | 502..=504) || retry_after.is_some();
            let hint = retry_after.map(|hint| hint.min(LONGEST_HINT));
            Verdict {
                next: if delivered { Next::Delivered } else { Next::Again { refused: !asks_to_wait, hint } },
                http_status: Some(*status),
                error_class: (!delivered).then(|| format!("http_{status}").into()),
                excerpt: Some(excerpt),
                took: *took,
            }
        }
        SendOutcome::Unanswered { error, took } => Verdict {
            next: match error {
                SendError::BlockedAddress => Next::Dead("blocked_ip"),
                SendError::Dns | SendError::Connect | SendError::Tls | SendError::Timeout | SendError::Internal => {
                    Next::Again { refused: false, hint: None }
                }
            },
            http_status: None,
            error_class: Some(error.to_string().into()),
            excerpt: None,
            took: *took,
        },
    }
}

impl Verdict<'_> {
    pub(super) fn record(&self, now: Timestamp) -> DeliveryAttempt {
        DeliveryAttempt {
            at: now,
            http_status: self.http_status,
            error_class: self.error_class.clone(),
            duration_ms: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            response_excerpt: self.excerpt.filter(|excerpt| !excerpt.is_empty()).map(Into::into),
        }
    }
}
