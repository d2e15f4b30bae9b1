//! What a job's LLM calls cost: a fact about the past, not a claim on the job.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use super::job_lifecycle::{self, Standing};
use super::{Command, Credential, outcome};
use crate::domain::callback::CallbackKind;
use crate::domain::code::{Actor, ErrorCode};
use crate::domain::cost::{CallReport, CostBlock, LedgerEntry, Outcome, RefusalCode, Reporter, record};
use crate::domain::draft::{Draft, EventDraft};
use crate::domain::event::EventType;
use crate::domain::ids::{Attempt, JobId};
use crate::domain::job::{Holding, Job, JobState};
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;
use crate::domain::usd::Usd;

/// LLM calls of one attempt, by whoever held it: also after it ended, also by a retired worker.
#[derive(Clone, Debug)]
pub struct ReportUsage {
    /// The worker's process.
    pub who: Credential,
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: Attempt,
    /// The calls; each stands alone.
    pub calls: Vec<CallReport>,
}

/// What became of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallResult {
    /// The call.
    pub call_id: Arc<str>,
    /// What became of it.
    pub outcome: Outcome,
    /// What it costs, if it has a price.
    pub cost_usd: Option<Usd>,
}

/// The answer to a usage report.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageAnswer {
    /// One for each call, in order.
    pub results: Vec<CallResult>,
    /// The job's cost, as callbacks tell it.
    pub cost: CostBlock,
    /// Whether the worker must make no further call.
    pub stop: bool,
}

impl Command for ReportUsage {
    type Answer = UsageAnswer;

    fn keys(&self) -> Keys {
        let calls = self.calls.iter().map(|call| (self.job_id, Box::from(&**call.call_id()))).collect();
        Keys { jobs: vec![self.job_id], calls, ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<UsageAnswer, Rejection> {
        let mut job = draft.job(self.job_id)?.as_ref().clone();
        let results = if self.may_report(draft, &job) { self.book(draft, &mut job) } else { self.refuse_all() };
        let changed = results
            .iter()
            .any(|result| matches!(result.outcome, Outcome::Recorded | Outcome::Replaced | Outcome::Unpriced));
        if changed {
            self.tell(draft, &mut job);
            check_budget(draft, &mut job);
            draft.save_job(job.clone());
        }
        let over_budget = job.spec.budget_usd.is_some_and(|budget| job.cost.total_cost_usd() > budget);
        let holds = job_lifecycle::standing(&job, &self.who, self.attempt) == Standing::Holder;
        let stop = over_budget || !holds;
        Ok(UsageAnswer { results, cost: job.cost.block(job.cost_is_final()), stop })
    }
}

impl ReportUsage {
    /// Fenced by having held the attempt, not by holding it.
    fn may_report(&self, draft: &Draft<'_>, job: &Job) -> bool {
        let (now, accepted_for) = (draft.now(), draft.policy().usage_accepted_for);
        let mine =
            |holding: &&Holding| holding.worker_id == self.who.worker_id && holding.generation == self.who.generation;
        let holding = job.holding(self.attempt).filter(mine);
        holding.is_some_and(|holding| holding.ended_at.is_none_or(|ended| now.since(ended) <= accepted_for))
    }

    fn refuse_all(&self) -> Vec<CallResult> {
        let outcome = Outcome::Refused(RefusalCode::UsageTooLate);
        self.calls
            .iter()
            .map(|call| CallResult { call_id: Arc::clone(call.call_id()), outcome, cost_usd: None })
            .collect()
    }

    /// Books every call, each on what those before it left.
    fn book(&self, draft: &mut Draft<'_>, job: &mut Job) -> Vec<CallResult> {
        let mut booked: HashMap<Box<str>, LedgerEntry> = HashMap::new();
        let mut results = Vec::with_capacity(self.calls.len());
        for call in &self.calls {
            let call_id: Box<str> = (&**call.call_id()).into();
            let known = booked.get(&call_id).or_else(|| draft.snapshot().calls.get(&(job.id, call_id.clone())));
            let reporter = Reporter { attempt: self.attempt, worker_id: &self.who.worker_id };
            let recorded = record(known, call.clone(), reporter, &draft.rules().prices, draft.now());
            let counted = recorded.entry.as_ref().or(known);
            let cost_usd = counted.and_then(|entry| entry.priced.as_ref()).map(|priced| priced.cost);
            results.push(CallResult {
                call_id: Arc::clone(call.call_id()),
                outcome: recorded.outcome,
                cost_usd: cost_usd.filter(|_| !matches!(recorded.outcome, Outcome::Refused(_))),
            });
            if let Some(entry) = recorded.entry {
                let first_unpriced = entry.priced.is_none()
                    && !job.cost.unpriced_models().any(|model| **model == **entry.report.model());
                job.cost.apply(known, &entry);
                close_call(job, &call_id);
                self.event(draft, job, &entry, first_unpriced);
                booked.insert(call_id, entry);
            }
        }
        let mut entries: Vec<(Box<str>, LedgerEntry)> = booked.into_iter().collect();
        entries.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        for (_, entry) in entries {
            draft.record_call(job.id, entry);
        }
        results
    }

    fn event(&self, draft: &mut Draft<'_>, job: &mut Job, entry: &LedgerEntry, first_unpriced: bool) {
        let actor = Actor::Worker(self.who.worker_id.clone());
        let report = &entry.report;
        let tokens = report.usage().total_tokens();
        let Some(priced) = &entry.priced else {
            if first_unpriced {
                let message = format!("No price is known for {}: its cost is missing from the total", report.model());
                let facts = json!({ "model": report.model(), "provider": report.provider(), "tokens": tokens });
                draft.job_event(job, EventDraft::new(EventType::MODEL_UNPRICED, message).with(&facts));
            }
            return;
        };
        // Exact numbers: written as text, not through a float.
        #[derive(serde::Serialize)]
        #[serde(rename_all = "snake_case")]
        struct TokensUsed<'e> {
            model: &'e str,
            provider: &'e str,
            call_id: &'e str,
            tokens: u64,
            cost_usd: Usd,
            #[serde(rename = "totalCostUsd")]
            total_cost_usd: Usd,
        }
        let facts = TokensUsed {
            model: report.model(),
            provider: report.provider(),
            call_id: report.call_id(),
            tokens,
            cost_usd: priced.cost,
            total_cost_usd: job.cost.total_cost_usd(),
        };
        let message = format!("{} used {tokens} tokens for ${}", report.model(), priced.cost);
        draft.job_event(job, EventDraft::new(EventType::TOKENS_USED, message).by(actor).with(&facts));
    }

    /// Tells the client: a snapshot while the job runs, a follow-up after it ended. A paused or waiting job is left
    /// alone, since a late snapshot would un-pause the client's card.
    fn tell(&self, draft: &mut Draft<'_>, job: &mut Job) {
        match &job.state {
            JobState::Ended(_) => {
                if job.announced_calls_settled() {
                    draft.release_callback(job.id);
                }
                draft.callback(job, CallbackKind::CostFollowUp);
            }
            JobState::Running(_) => draft.callback(job, CallbackKind::CostSnapshot),
            JobState::Pending(_) | JobState::Queued(..) | JobState::NeedsHuman(..) => {}
        }
    }
}

/// A reported call is not open any more.
fn close_call(job: &mut Job, call_id: &str) {
    let before = job.announced_calls.len();
    job.announced_calls.retain(|call| *call.call_id != *call_id);
    if job.announced_calls.len() != before {
        outcome::count_missing_calls(job);
    }
}

/// Whether 80 % of a budget are spent, exactly: 5 × spent ≥ 4 × budget.
fn is_at_four_fifths(spent: Usd, budget: Usd) -> bool {
    let times = |amount: Usd, factor: u32| amount.amount().checked_mul(factor.into());
    match (times(spent, 5), times(budget, 4)) {
        (Some(spent), Some(budget)) => spent >= budget,
        // What cannot be counted is more than what can; a budget of that size is never spent.
        (None, Some(_)) => true,
        (_, None) => false,
    }
}

/// Warns at 80 % of the budget; above it the job is stopped, unless it is past its point of no return.
fn check_budget(draft: &mut Draft<'_>, job: &mut Job) {
    let Some(budget) = job.spec.budget_usd else { return };
    let spent = job.cost.total_cost_usd();
    let level = if spent > budget {
        100
    } else if is_at_four_fifths(spent, budget) {
        80
    } else {
        0
    };
    if level > job.budget_told {
        job.budget_told = level;
        let message = if level == 100 {
            format!("The budget of ${budget} is spent: ${spent}")
        } else {
            format!("80 % of the budget of ${budget} are spent: ${spent}")
        };
        #[derive(serde::Serialize)]
        struct Budget {
            budget_usd: Usd,
            total_cost_usd: Usd,
        }
        let facts = Budget { budget_usd: budget, total_cost_usd: spent };
        draft.job_event(job, EventDraft::new(EventType::BUDGET_WARNING, message).with(&facts));
    }
    let running = job.live_lease().is_some() && !job.side_effects_started();
    if level == 100 && running {
        let fence = job_lifecycle::take_from_worker(draft, job, "budget_exceeded");
        let message = format!("it cost ${spent}, more than its budget of ${budget}");
        job_lifecycle::fail(draft, job, ErrorCode::BUDGET_EXCEEDED, &message, fence);
    }
}
