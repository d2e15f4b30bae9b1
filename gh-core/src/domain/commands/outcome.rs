//! A worker reports the end of its attempt: complete, fail, release.

use serde::Serialize;

use super::job_lifecycle::{self, PutBack, Standing};
use super::worker_lifecycle::{self, Freed};
use super::{Command, Credential};
use crate::domain::code::{Actor, ErrorCode, Fingerprint};
use crate::domain::draft::Draft;
use crate::domain::ids::{Attempt, JobId};
use crate::domain::job::{
    AnnouncedCall, Completion, Job, JobState, JobStatus, Outcome, OutcomeAnswer, ReportedOutcome,
};
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;

/// How the attempt ended.
#[derive(Clone, Debug, Serialize)]
pub enum Report {
    /// It did what was asked.
    Complete(Completion, UsageClosing),
    /// It did not work.
    Fail(FailureReport, UsageClosing),
    /// It is given back unfinished, because the worker shuts down.
    Release(JobLeft),
}

/// Why an attempt failed.
#[derive(Clone, Debug, Serialize)]
pub struct FailureReport {
    /// For programs.
    pub error_code: ErrorCode,
    /// For people; 1–2,000 characters.
    pub error_message: Box<str>,
    /// Whether another attempt may help.
    pub retryable: bool,
}

/// Why an attempt is given back.
#[derive(Clone, Debug, Serialize)]
pub struct JobLeft {
    /// For people; at most 500 characters.
    pub reason: Box<str>,
}

/// What the worker says of its LLM calls at the end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UsageClosing {
    /// Its own count of actions; the greater of it and the count of completed steps counts.
    pub action_count: Option<u64>,
    /// How many LLM calls it made; 0 says that no usage is to be expected.
    pub llm_calls: Option<u64>,
    /// Calls whose usage is still to come.
    pub calls_in_flight: Vec<Box<str>>,
}

/// The end of an attempt, by the worker that has it.
#[derive(Clone, Debug)]
pub struct ReportOutcome {
    /// The worker's process.
    pub who: Credential,
    /// The job.
    pub job_id: JobId,
    /// The attempt.
    pub attempt: Attempt,
    /// How it ended.
    pub report: Report,
}

impl Command for ReportOutcome {
    type Answer = OutcomeAnswer;

    fn keys(&self) -> Keys {
        let calls = match &self.report {
            Report::Complete(_, closing) | Report::Fail(_, closing) => closing.calls_in_flight.as_slice(),
            Report::Release(_) => &[],
        };
        Keys {
            jobs: vec![self.job_id],
            workers: vec![self.who.worker_id.clone()],
            calls: calls.iter().map(|call| (self.job_id, call.clone())).collect(),
            ..Keys::default()
        }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<OutcomeAnswer, Rejection> {
        let job = draft.job(self.job_id)?;
        let fingerprint = Fingerprint::of(&self.report);
        if let Some(first) = self.first_report(&job) {
            if first.fingerprint != fingerprint {
                return Err(self.stale(draft));
            }
            return Ok(first.answer);
        }
        let standing = job_lifecycle::standing(&job, &self.who, self.attempt);
        match (standing, &self.report) {
            (Standing::Stale, _) | (Standing::InGrace, Report::Release(_)) => return Err(self.stale(draft)),
            (Standing::Holder, Report::Complete(..)) if job.status() == JobStatus::NeedsHuman => {
                draft.keep_on_rejection();
                draft.seen(&self.who.worker_id);
                return Err(Rejection::JobPaused);
            }
            (Standing::Holder, _) => draft.seen(&self.who.worker_id),
            (Standing::InGrace, _) => {}
        }
        let mut job = job.as_ref().clone();
        job_lifecycle::mark_started(&mut job);
        let (will_retry, freed) = self.apply(draft, &mut job);
        let answer = OutcomeAnswer { status: job.status(), attempt: self.attempt, will_retry };
        if let Some(holding) = job.holdings.iter_mut().rev().find(|holding| holding.attempt == self.attempt) {
            holding.reported = Some(ReportedOutcome { fingerprint, answer });
        }
        draft.save_job(job);
        if standing == Standing::Holder {
            job_lifecycle::free_reporter(draft, &self.who.worker_id, &self.who, freed);
        }
        Ok(answer)
    }
}

impl ReportOutcome {
    /// What the same process reported of this attempt before.
    fn first_report<'j>(&self, job: &'j Job) -> Option<&'j ReportedOutcome> {
        let holding = job.holding(self.attempt)?;
        let same = holding.worker_id == self.who.worker_id && holding.generation == self.who.generation;
        holding.reported.as_ref().filter(|_| same)
    }

    fn stale(&self, draft: &mut Draft<'_>) -> Rejection {
        let route = match &self.report {
            Report::Complete(..) => "complete",
            Report::Fail(..) => "fail",
            Report::Release(_) => "release",
        };
        worker_lifecycle::refuse_retired(draft, &self.who, route).err().unwrap_or(Rejection::StaleLease)
    }

    /// Ends the attempt; says whether the job will be tried again, and what its worker did.
    fn apply(&self, draft: &mut Draft<'_>, job: &mut Job) -> (bool, Freed) {
        let actor = Actor::Worker(self.who.worker_id.clone());
        match &self.report {
            Report::Complete(completion, closing) => {
                self.close_usage(draft, job, closing);
                job_lifecycle::end(draft, job, Outcome::Completed(completion.clone()), actor, None);
                (false, Freed::Completed)
            }
            Report::Fail(failure, closing) => {
                self.close_usage(draft, job, closing);
                (self.fail(draft, job, failure, actor), Freed::Failed)
            }
            Report::Release(left) => (self.release(draft, job, left, actor), Freed::Released),
        }
    }

    fn fail(&self, draft: &mut Draft<'_>, job: &mut Job, failure: &FailureReport, actor: Actor) -> bool {
        if failure.retryable && job.has_attempt_left() && !job.side_effects_started() {
            job.failures += 1;
            job.releases = 0;
            let backoff = draft.policy().backoff(job.failures);
            let why = PutBack {
                reason: "failed",
                message: format!("Will be tried again: {}", failure.error_message),
                counted: true,
                fence: None,
                backoff: Some(backoff),
                interaction_status: "cancelled",
            };
            job_lifecycle::put_back(draft, job, why);
            return true;
        }
        let outcome = Outcome::Failed { code: failure.error_code.clone(), message: failure.error_message.clone() };
        job_lifecycle::end(draft, job, outcome, actor, None);
        false
    }

    fn release(&self, draft: &mut Draft<'_>, job: &mut Job, left: &JobLeft, actor: Actor) -> bool {
        let lost = |message: String| Outcome::Failed { code: ErrorCode::WORKER_LOST, message: message.into() };
        if job.side_effects_started() {
            let message = format!("given back after the point of no return: {}", left.reason);
            job_lifecycle::end(draft, job, lost(message), actor, None);
            return false;
        }
        job.releases += 1;
        let counted = job.releases > draft.policy().max_releases;
        if counted && !job.has_attempt_left() {
            let message = format!("given back {} times in a row: {}", job.releases, left.reason);
            job_lifecycle::end(draft, job, lost(message), actor, None);
            return false;
        }
        let message = format!("Given back by {}: {}", self.who.worker_id, left.reason);
        let why = PutBack {
            reason: "released",
            message,
            counted,
            fence: None,
            backoff: None,
            interaction_status: "cancelled",
        };
        job_lifecycle::put_back(draft, job, why);
        true
    }

    /// What the worker says of its calls goes into the cost; announced calls hold the terminal callback for a while.
    fn close_usage(&self, draft: &Draft<'_>, job: &mut Job, closing: &UsageClosing) {
        if let Some(actions) = closing.action_count {
            job.cost.raise_actions(actions);
        }
        if closing.llm_calls == Some(0) {
            job.cost.declare_no_calls();
        }
        let until = draft.now() + draft.policy().announced_calls_lapse;
        for call_id in &closing.calls_in_flight {
            let reported = draft.snapshot().calls.contains_key(&(job.id, call_id.clone()));
            let known = job.announced_calls.iter().any(|call| call.call_id == *call_id);
            if !reported && !known {
                job.announced_calls.push(AnnouncedCall { call_id: call_id.clone(), open_until: Some(until) });
            }
        }
        count_missing_calls(job);
    }
}

/// Every announced call is one of an attempt that ended: until it is reported, the cost is not complete.
pub(super) fn count_missing_calls(job: &mut Job) {
    let missing = u32::try_from(job.announced_calls.len()).unwrap_or(u32::MAX);
    job.cost.set_missing_calls(missing);
}

/// Whether a job is at a place where its worker may go on.
pub(super) fn is_running(job: &Job) -> bool {
    matches!(&job.state, JobState::Running(lease) if lease.grace.is_none())
}
