//! What the tests of usage and cost share.

use std::time::Duration;

use gh_core::domain::cost::{CallReport, CostSummary, LedgerEntry, Outcome, PriceBook, ReportedCall, Reporter, record};
use gh_core::domain::ids::{Attempt, WorkerId};
use gh_core::domain::time::Timestamp;

/// A Monday, 08:00 UTC.
pub(crate) fn now() -> Timestamp {
    Timestamp::parse("2026-11-23T08:00:00Z").unwrap()
}

/// The ledger and the totals of one job, kept as a store would keep them.
#[derive(Default)]
pub(crate) struct Job {
    entries: Vec<LedgerEntry>,
    pub(crate) summary: CostSummary,
    clock: u32,
}

impl Job {
    /// Reports a call one second after the report before.
    pub(crate) fn report(&mut self, call: ReportedCall) -> Outcome {
        let book = PriceBook::embedded();
        let report = CallReport::new(call).unwrap();
        let worker_id = WorkerId::parse("worker-a").unwrap();
        let reporter = Reporter { attempt: Attempt::FIRST, worker_id: &worker_id };
        let place = self.entries.iter().position(|entry| entry.report.call_id() == report.call_id());
        let known = place.map(|place| &self.entries[place]);
        let received_at = now() + Duration::from_secs(self.clock.into());
        let recorded = record(known, report, reporter, &book, received_at);
        self.clock += 1;
        if let Some(entry) = recorded.entry {
            self.summary.apply(known, &entry);
            match place {
                Some(place) => self.entries[place] = entry,
                None => self.entries.push(entry),
            }
        }
        recorded.outcome
    }
}
