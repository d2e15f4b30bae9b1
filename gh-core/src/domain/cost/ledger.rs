//! The ledger: for each call of a job, the one report that counts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::call::{CallReport, RefusalCode};
use super::price_book::{PriceBook, Rule};
use super::pricing::price;
use crate::domain::ids::{Attempt, WorkerId};
use crate::domain::time::Timestamp;
use crate::domain::usd::Usd;

/// What is stored for one (`job_id`, `call_id`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The greatest report of the call so far.
    pub report: CallReport,
    /// When the call was first heard of, by whichever report.
    pub first_received_at: Timestamp,
    /// The instant whose prices apply: when the call was made, or when it was first heard of.
    pub priced_at: Timestamp,
    /// The attempt that reported it.
    pub attempt: Attempt,
    /// The worker that reported it.
    pub worker_id: WorkerId,
    /// Its price; `None` while the model has none.
    pub priced: Option<PricedAs>,
}

/// The price that a call got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PricedAs {
    /// The price that was applied.
    pub price_id: Arc<str>,
    /// How that price was found.
    pub rule: Rule,
    /// The exact cost.
    pub cost: Usd,
}

/// Who reports a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reporter<'call> {
    /// The attempt that made the call.
    pub attempt: Attempt,
    /// The worker that held the attempt.
    pub worker_id: &'call WorkerId,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A new call, with its price.
    Recorded,
    /// The report says what was known.
    Unchanged,
    /// It says more than was known, and takes the place of the earlier report.
    Replaced,
    /// It counts, but its model has no price.
    Unpriced,
    /// It changes nothing.
    Refused(RefusalCode),
}

impl Outcome {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Unchanged => "unchanged",
            Self::Replaced => "replaced",
            Self::Unpriced => "unpriced",
            Self::Refused(_) => "refused",
        }
    }
}

/// What to answer to a report, and what to store.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The answer.
    pub outcome: Outcome,
    /// What takes the place of the known entry; `None` when nothing changes.
    pub entry: Option<LedgerEntry>,
}

/// Decides about a report of a call, of which `known` is what the ledger holds.
///
/// Of two reports the greater [`Usage`](super::Usage) counts, whichever came first, so the ledger ends the same in any
/// order of arrival. A report that does not say when the call was made is priced by the earlier receipt.
#[must_use]
pub fn record(
    known: Option<&LedgerEntry>,
    report: CallReport,
    reporter: Reporter<'_>,
    book: &PriceBook,
    now: Timestamp,
) -> Recorded {
    let unless_written = |outcome| Recorded { outcome, entry: None };
    if let Err(error) = report.check_time(now) {
        return unless_written(Outcome::Refused(error.code()));
    }
    match known.map(|known| report.usage().cmp(known.report.usage())) {
        Some(std::cmp::Ordering::Less) => return unless_written(Outcome::Refused(RefusalCode::UsageShrank)),
        Some(std::cmp::Ordering::Equal) => return unless_written(Outcome::Unchanged),
        Some(std::cmp::Ordering::Greater) | None => {}
    }
    let first_received_at = known.map_or(now, |known| known.first_received_at.min(now));
    let priced_at = report.occurred_at().unwrap_or(first_received_at);
    let priced = price(&report, book, priced_at).ok().map(|priced| PricedAs {
        price_id: priced.price_id,
        rule: priced.rule,
        cost: priced.cost,
    });
    let outcome = match (&priced, known) {
        (None, _) => Outcome::Unpriced,
        (Some(_), None) => Outcome::Recorded,
        (Some(_), Some(_)) => Outcome::Replaced,
    };
    let entry = LedgerEntry {
        report,
        first_received_at,
        priced_at,
        attempt: reporter.attempt,
        worker_id: reporter.worker_id.clone(),
        priced,
    };
    Recorded { outcome, entry: Some(entry) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::cost::call::ReportedCall;

    fn report(model: &str, output: u32, occurred_at: Option<Timestamp>) -> CallReport {
        let mut call: ReportedCall = serde_json::from_str(&format!(
            r#"{{"call_id": "c1", "provider": "deepseek", "model": "{model}", "usage": {{"output": {output}}}}}"#
        ))
        .unwrap();
        call.occurred_at = occurred_at;
        CallReport::new(call).unwrap()
    }

    fn told(known: Option<&LedgerEntry>, report: CallReport, now: Timestamp) -> Recorded {
        let worker_id = WorkerId::parse("worker-a").unwrap();
        let reporter = Reporter { attempt: Attempt::FIRST, worker_id: &worker_id };
        record(known, report, reporter, &PriceBook::embedded(), now)
    }

    fn peak() -> Timestamp {
        Timestamp::parse("2026-11-23T09:59:00Z").unwrap()
    }

    #[test]
    fn a_repeat_changes_nothing_and_a_smaller_report_is_refused() {
        let first = told(None, report("deepseek-v4-flash", 10, None), peak());
        assert_eq!(first.outcome, Outcome::Recorded);
        let known = first.entry.unwrap();
        let again = told(Some(&known), report("deepseek-v4-flash", 10, None), peak());
        assert_eq!((again.outcome, again.entry), (Outcome::Unchanged, None));
        let smaller = told(Some(&known), report("deepseek-v4-flash", 9, None), peak());
        assert_eq!((smaller.outcome, smaller.entry), (Outcome::Refused(RefusalCode::UsageShrank), None));
    }

    #[test]
    fn without_a_time_of_its_own_a_call_is_priced_by_the_earlier_receipt() {
        let off_peak = peak() + Duration::from_secs(3600);
        let known = told(None, report("deepseek-v4-flash", 10, None), peak()).entry.unwrap();
        let grown = told(Some(&known), report("deepseek-v4-flash", 1_000_000, None), off_peak);
        assert_eq!(grown.outcome, Outcome::Replaced);
        let grown = grown.entry.unwrap();
        assert_eq!(grown.priced_at, peak());
        assert_eq!(grown.priced.unwrap().cost.to_string(), "1.2");

        let dated = told(Some(&known), report("deepseek-v4-flash", 1_000_000, Some(off_peak)), off_peak);
        let dated = dated.entry.unwrap();
        assert_eq!((dated.priced_at, dated.first_received_at), (off_peak, peak()));
        assert_eq!(dated.priced.unwrap().cost.to_string(), "0.6");
    }

    #[test]
    fn an_unknown_model_is_kept_without_a_price() {
        let unknown = told(None, report("acme-model-9", 10, None), peak());
        assert_eq!(unknown.outcome, Outcome::Unpriced);
        assert_eq!(unknown.entry.unwrap().priced, None);
    }

    #[test]
    fn a_call_of_the_far_past_or_the_future_is_refused() {
        let future = peak() + Duration::from_secs(301);
        let refused = told(None, report("deepseek-v4-flash", 10, Some(future)), peak());
        assert_eq!((refused.outcome, refused.entry), (Outcome::Refused(RefusalCode::InvalidRequest), None));
    }
}
