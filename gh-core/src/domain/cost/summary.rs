//! The running totals of one job, as the client is told them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ledger::LedgerEntry;
use crate::domain::usd::Usd;

/// The totals of one job, in step with its ledger.
///
/// Every change goes through a method that counts it in the revision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CostSummary {
    /// By model, ascending by name.
    lines: Vec<Line>,
    action_count: u64,
    revision: u64,
    missing_calls: u32,
    said_no_calls: bool,
}

/// The calls of one model, whether priced or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    model: Arc<str>,
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
    cost: Usd,
    calls: u32,
    unpriced_calls: u32,
}

impl Line {
    const fn tokens(&self) -> u64 {
        self.input + self.output + self.cache_read + self.cache_write
    }
}

impl CostSummary {
    /// Puts a new ledger entry into the totals, in place of the `old` one of the same call if there was one.
    ///
    /// `old` must be the entry that the totals hold; both are of one call.
    pub fn apply(&mut self, old: Option<&LedgerEntry>, new: &LedgerEntry) {
        if let Some(old) = old {
            self.subtract(old);
        }
        self.add(new);
        self.revision += 1;
    }

    /// Counts further actions of the job.
    pub fn add_actions(&mut self, actions: u64) {
        if actions > 0 {
            self.action_count = self.action_count.saturating_add(actions);
            self.revision += 1;
        }
    }

    /// Sets the number of actions to what the worker counted itself, if that is more.
    pub fn raise_actions(&mut self, action_count: u64) {
        self.add_actions(action_count.saturating_sub(self.action_count));
    }

    /// Notes that the worker said that it made no LLM call at all: actions without usage are then complete.
    pub fn declare_no_calls(&mut self) {
        if !self.said_no_calls {
            self.said_no_calls = true;
            self.revision += 1;
        }
    }

    /// Sets how many calls were announced by attempts that have ended and are still not reported.
    pub fn set_missing_calls(&mut self, missing_calls: u32) {
        if self.missing_calls != missing_calls {
            self.missing_calls = missing_calls;
            self.revision += 1;
        }
    }

    /// Whether there was neither a call nor an action yet: there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.action_count == 0
    }

    /// The cost of the calls that have a price.
    #[must_use]
    pub fn total_cost_usd(&self) -> Usd {
        self.lines.iter().map(|line| line.cost).sum()
    }

    /// The tokens of all calls, priced or not.
    #[must_use]
    pub fn total_tokens(&self) -> u64 {
        self.lines.iter().map(Line::tokens).sum()
    }

    /// Actions counted so far.
    #[must_use]
    pub const fn action_count(&self) -> u64 {
        self.action_count
    }

    /// Counts the changes; 0 for totals that never changed.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Calls announced by attempts that have ended and are still not reported.
    #[must_use]
    pub const fn missing_calls(&self) -> u32 {
        self.missing_calls
    }

    /// The number of calls in the totals.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lines.iter().map(|line| u64::from(line.calls)).sum()
    }

    /// The number of calls in the totals that have no price.
    #[must_use]
    pub fn unpriced_calls(&self) -> u64 {
        self.lines.iter().map(|line| u64::from(line.unpriced_calls)).sum()
    }

    /// The models with calls that have no price, ascending.
    pub fn unpriced_models(&self) -> impl Iterator<Item = &Arc<str>> {
        self.lines.iter().filter(|line| line.unpriced_calls > 0).map(|line| &line.model)
    }

    /// Whether the total is the whole cost so far: every call has a price, no call of an ended attempt is missing, and
    /// actions did not happen without any usage (unless the worker said that it made no call).
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let silent = self.lines.is_empty() && self.action_count > 0 && !self.said_no_calls;
        !silent && self.missing_calls == 0 && self.unpriced_models().next().is_none()
    }

    /// The block for answers and callbacks. `is_final`: the run has ended and no announced call is open.
    #[must_use]
    pub fn block(&self, is_final: bool) -> CostBlock {
        CostBlock {
            total_cost_usd: self.total_cost_usd(),
            action_count: self.action_count,
            total_tokens: self.total_tokens(),
            breakdown: self
                .lines
                .iter()
                .map(|line| CostLine {
                    model: Arc::clone(&line.model),
                    tokens: line.tokens(),
                    cost_usd: line.cost,
                    input_tokens: line.input,
                    output_tokens: line.output,
                    cache_read_tokens: line.cache_read,
                    cache_write_tokens: line.cache_write,
                })
                .collect(),
            complete: self.is_complete(),
            is_final,
            revision: self.revision,
            unpriced_models: self.unpriced_models().map(Arc::clone).collect(),
        }
    }

    fn add(&mut self, entry: &LedgerEntry) {
        let (model, usage) = (entry.report.model(), entry.report.usage());
        let place = match self.position(model) {
            Ok(place) => place,
            Err(place) => {
                self.lines.insert(place, Line::new(Arc::clone(model)));
                place
            }
        };
        let line = &mut self.lines[place];
        line.input += usage.input();
        line.output += usage.output();
        line.cache_read += usage.cache_read();
        line.cache_write += usage.cache_write();
        line.calls += 1;
        match &entry.priced {
            Some(priced) => line.cost += priced.cost,
            None => line.unpriced_calls += 1,
        }
    }

    fn subtract(&mut self, entry: &LedgerEntry) {
        let (model, usage) = (entry.report.model(), entry.report.usage());
        let Ok(place) = self.position(model) else { return };
        let line = &mut self.lines[place];
        line.input -= usage.input();
        line.output -= usage.output();
        line.cache_read -= usage.cache_read();
        line.cache_write -= usage.cache_write();
        line.calls -= 1;
        match &entry.priced {
            Some(priced) => line.cost -= priced.cost,
            None => line.unpriced_calls -= 1,
        }
        if line.calls == 0 {
            self.lines.remove(place);
        }
    }

    fn position(&self, model: &str) -> Result<usize, usize> {
        self.lines.binary_search_by(|line| (*line.model).cmp(model))
    }
}

impl Line {
    const fn new(model: Arc<str>) -> Self {
        Self { model, input: 0, output: 0, cache_read: 0, cache_write: 0, cost: Usd::ZERO, calls: 0, unpriced_calls: 0 }
    }
}

/// The `cost` of a job in answers and callbacks: cumulative, exact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostBlock {
    /// The sum of the breakdown: the cost of the calls that have a price.
    pub total_cost_usd: Usd,
    /// Actions counted so far.
    pub action_count: u64,
    /// The tokens of all calls, cached ones included.
    pub total_tokens: u64,
    /// By model, ascending by name.
    pub breakdown: Vec<CostLine>,
    /// Whether the total is the whole cost so far.
    pub complete: bool,
    /// Whether the run has ended and no announced call is open.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Counts the changes of the totals.
    pub revision: u64,
    /// The models whose calls could not all be priced, ascending.
    pub unpriced_models: Vec<Arc<str>>,
}

/// The part of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostLine {
    /// The model, as reported.
    pub model: Arc<str>,
    /// The sum of the four counts below.
    pub tokens: u64,
    /// The cost of the calls that have a price; a model that has none is among the `unpriced_models`.
    pub cost_usd: Usd,
    /// Input that no cache was involved in.
    pub input_tokens: u64,
    /// Output, reasoning included.
    pub output_tokens: u64,
    /// Input read from a cache.
    pub cache_read_tokens: u64,
    /// Input written to a cache.
    pub cache_write_tokens: u64,
}
