//! LLM usage on its way. Usage is a fact about the past: it is delivered even when the job that caused it is over, with
//! the token that held the job.

use std::sync::Arc;

use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use super::assignment::{Assignment, Next, log_refused};

/// How many reports may wait; beyond, whoever reports waits.
pub(super) const MOST_WAITING: usize = 256;
/// How many calls go into one report; the server takes 500.
pub(super) const MOST_CALLS: usize = 200;

/// One report.
#[derive(Debug)]
pub(super) struct UsageReport {
    pub(super) assignment: Arc<Assignment>,
    pub(super) call_ids: Vec<String>,
    pub(super) calls: Vec<Box<RawValue>>,
    /// Told when the report is answered.
    pub(super) answered: oneshot::Sender<()>,
}

/// Delivers reports, one at a time, until nobody can send any more and all are delivered.
pub(super) async fn deliver(mut reports: mpsc::Receiver<UsageReport>) {
    while let Some(report) = reports.recv().await {
        let job = &report.assignment;
        let mut backoff = job.backoff();
        loop {
            match job.link.usage(job.job_id, job.attempt, &report.calls).await {
                Ok(answer) => {
                    log_refused(&answer.results);
                    if answer.stop {
                        job.stop_spending();
                    }
                    break;
                }
                Err(refusal) => match job.heed(&refusal) {
                    Next::Repeat(retry_after) => job.back_off(&mut backoff, retry_after).await,
                    // Usage is taken from paused jobs too; a server that says otherwise is asked again.
                    Next::AwaitResume => job.back_off(&mut backoff, None).await,
                    Next::Drop | Next::Over => break,
                },
            }
        }
        job.settle_calls(&report.call_ids);
        // Nobody listens when the handler has ended.
        let _ = report.answered.send(());
    }
}
