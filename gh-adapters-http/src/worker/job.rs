//! One job from its claim to the answer to its outcome.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::answer::Refusal;
use super::assignment::{Assignment, JobEnd, Next};
use super::context::JobContext;
use super::handler::{Completion, Failure, JobHandler};
use super::session::count_dropped;
use super::usage::UsageReport;
use super::wire::{ClaimedJob, CompleteRequest, FailRequest};

/// How long each try to offer an outcome waits for earlier events to be answered.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);
/// The longest error message in a bare outcome, in characters.
const BARE_MESSAGE_CHARS: usize = 200;

/// Performs a job and reports its outcome. Returns when the handler has ended, its leavings are cleaned up, and the
/// outcome is answered or nobody wants it any more.
pub(super) async fn perform(
    handler: Arc<dyn JobHandler>,
    job: ClaimedJob,
    assignment: Arc<Assignment>,
    usage: mpsc::Sender<UsageReport>,
) {
    tokio::select! {
        () = assignment.pump_events() => {}
        () = run_and_report(handler, job, &assignment, usage) => {}
    }
}

async fn run_and_report(
    handler: Arc<dyn JobHandler>,
    job: ClaimedJob,
    assignment: &Arc<Assignment>,
    usage: mpsc::Sender<UsageReport>,
) {
    let context = JobContext::new(Arc::clone(assignment), usage);
    let mut tasks = JoinSet::new();
    let performer = Arc::clone(&handler);
    tasks.spawn(async move { performer.run(job, context).await });
    let result = tokio::select! {
        biased;
        _ = assignment.ended() => None,
        Some(joined) = tasks.join_next() => Some(joined),
    };
    tasks.shutdown().await;
    let (result, by_itself) = match result {
        Some(Ok(result)) => (Some(result), true),
        Some(Err(_)) => {
            let failure = Failure::new("internal_error", "the job's handler panicked").retryable();
            (Some(Err(failure)), false)
        }
        None => (None, false),
    };
    if !by_itself {
        let limit = assignment.session.config.limits.clean_up;
        if tokio::time::timeout(limit, handler.clean_up(assignment.job_id)).await.is_err() {
            tracing::warn!(job_id = %assignment.job_id, "cleaning up took too long");
        }
    }
    match result {
        Some(result) if assignment.begin_offering() => offer_until_told(assignment, result.into()).await,
        _ => end_early(assignment).await,
    }
}

/// Offers an outcome until it is answered, or until nobody wants it any more.
async fn offer_until_told(assignment: &Assignment, outcome: Outcome) {
    tokio::select! {
        biased;
        _ = assignment.ended() => {}
        () = offer(assignment, outcome) => {}
    }
}

/// What is left to say about a job that the runtime ended.
async fn end_early(assignment: &Assignment) {
    match assignment.end_reason() {
        Some(JobEnd::OverBudget) => {
            // Where the server stopped the job itself, it answers that the attempt is over.
            let failure = Failure::new("budget_exceeded", "The job may not spend more");
            tokio::select! {
                () = assignment.fence.over() => {}
                () = offer(assignment, Outcome::Failed(failure)) => {}
            }
        }
        Some(JobEnd::Stopping) => {
            let farewell = assignment.session.config.limits.farewell;
            if tokio::time::timeout(farewell, release(assignment)).await.is_err() {
                tracing::warn!(job_id = %assignment.job_id, "the job could not be given back");
            }
        }
        Some(JobEnd::Cancelled | JobEnd::LeaseLost | JobEnd::SessionOver | JobEnd::Unauthorized | JobEnd::Silent)
        | None => {}
    }
}

async fn release(assignment: &Assignment) {
    let mut backoff = assignment.backoff();
    let _ = tokio::time::timeout(FLUSH_PATIENCE, assignment.events.flushed()).await;
    let reason = &assignment.session.config.stop_reason;
    loop {
        let released = assignment.link.release(assignment.job_id, assignment.attempt, reason.clone());
        let Err(refusal) = released.await else {
            return;
        };
        let Next::Repeat(retry_after) = assignment.heed(&refusal) else {
            return;
        };
        assignment.back_off(&mut backoff, retry_after).await;
    }
}

/// How an attempt ended.
#[derive(Debug)]
enum Outcome {
    Completed(Completion),
    Failed(Failure),
}

impl From<Result<Completion, Failure>> for Outcome {
    fn from(result: Result<Completion, Failure>) -> Self {
        match result {
            Ok(completion) => Self::Completed(completion),
            Err(failure) => Self::Failed(failure),
        }
    }
}

/// Offers an outcome until it is answered.
async fn offer(assignment: &Assignment, outcome: Outcome) {
    let mut backoff = assignment.backoff();
    let mut bare = false;
    loop {
        let _ = tokio::time::timeout(FLUSH_PATIENCE, assignment.events.flushed()).await;
        let resumes = assignment.resumes();
        let Err(refusal) = send(assignment, &outcome, bare).await else {
            return;
        };
        if matches!(refusal, Refusal::Rejected { .. }) {
            count_dropped(&refusal);
            if bare {
                return;
            }
            bare = true;
            continue;
        }
        match assignment.heed(&refusal) {
            Next::Repeat(retry_after) => assignment.back_off(&mut backoff, retry_after).await,
            Next::AwaitResume => assignment.resumed_after(resumes).await,
            Next::Drop | Next::Over => return,
        }
    }
}

/// Sends an outcome; in its bare form it carries only what makes it one, so that nothing in it can be objected to.
async fn send(assignment: &Assignment, outcome: &Outcome, bare: bool) -> Result<(), Refusal> {
    let (link, job_id, attempt) = (&assignment.link, assignment.job_id, assignment.attempt);
    match outcome {
        Outcome::Completed(completion) => {
            let body = if bare {
                CompleteRequest::default()
            } else {
                CompleteRequest {
                    result_data: completion.result_data.clone(),
                    result_summary: completion.result_summary.clone(),
                    action_count: completion.action_count,
                    llm_calls: completion.llm_calls,
                    calls_in_flight: assignment.calls_in_flight(),
                }
            };
            link.complete(job_id, attempt, &body).await
        }
        Outcome::Failed(failure) => {
            let body = if bare {
                FailRequest {
                    error_code: bare_code(&failure.error_code).to_owned(),
                    error_message: failure
                        .error_message
                        .chars()
                        .filter(|character| !character.is_control())
                        .take(BARE_MESSAGE_CHARS)
                        .collect(),
                    retryable: failure.retryable,
                    action_count: None,
                    llm_calls: None,
                    calls_in_flight: Vec::new(),
                }
            } else {
                FailRequest {
                    error_code: failure.error_code.clone(),
                    error_message: failure.error_message.clone(),
                    retryable: failure.retryable,
                    action_count: failure.action_count,
                    llm_calls: failure.llm_calls,
                    calls_in_flight: assignment.calls_in_flight(),
                }
            };
            link.fail(job_id, attempt, &body).await
        }
    }
}

/// A code as the server takes it: the handler's own when it has the right form.
fn bare_code(code: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if (1..=64).contains(&code.len()) && code.bytes().all(plain) { code } else { "internal_error" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_outcome_has_a_code_that_the_server_takes() {
        assert_eq!(bare_code("login_required"), "login_required");
        for odd in ["", "two words", "über", &"x".repeat(65)] {
            assert_eq!(bare_code(odd), "internal_error");
        }
    }
}
