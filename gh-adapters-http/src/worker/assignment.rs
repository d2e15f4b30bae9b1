//! One attempt in the worker's hands: its lease, its events, its end.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gh_core::domain::ids::{Attempt, JobId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::answer::Refusal;
use super::backoff::Backoff;
use super::client::WorkerLink;
use super::events::{Event, EventBuffer};
use super::lease::{Fence, FenceLimits};
use super::session::{Session, SessionEnd, count_dropped};
use super::wire::ReportResult;

/// Why the runtime ended a job that had not ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobEnd {
    /// The client cancelled it.
    Cancelled,
    /// The attempt is not this worker's any more.
    LeaseLost,
    /// The registration that held it is over.
    SessionOver,
    /// The credentials were refused.
    Unauthorized,
    /// Nobody confirmed the lease for too long.
    Silent,
    /// No further LLM call is allowed.
    OverBudget,
    /// The process stops.
    Stopping,
}

impl JobEnd {
    /// Whether it ends even the offering of an outcome. The others do not: the outcome's own answer tells more.
    const fn ends_offering(self) -> bool {
        matches!(self, Self::Unauthorized | Self::Silent | Self::Stopping)
    }
}

/// What to do after a refused report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Make the call again, after at least this wait.
    Repeat(Option<Duration>),
    /// Make it again after `resume_job`.
    AwaitResume,
    /// Give this report up.
    Drop,
    /// Nothing more can be reported by this route.
    Over,
}

/// One attempt. It keeps the token of the registration that claimed it, whatever becomes of that registration.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) job_id: JobId,
    pub(super) attempt: Attempt,
    pub(super) link: Arc<WorkerLink>,
    pub(super) session: Arc<Session>,
    pub(super) fence: Fence,
    pub(super) events: EventBuffer,
    pub(super) cancelled: CancellationToken,
    ending: watch::Sender<Option<JobEnd>>,
    offering: AtomicBool,
    spending_stopped: AtomicBool,
    resumed: watch::Sender<u64>,
    calls_in_flight: Mutex<BTreeSet<String>>,
    current_task_url: Mutex<Option<String>>,
    browser_session_id: Mutex<Option<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Assignment {
    /// An attempt that was granted to a claim sent at `claimed_as_of`.
    pub(super) fn new(session: Arc<Session>, job_id: JobId, attempt: Attempt, claimed_as_of: Duration) -> Self {
        let limits = FenceLimits {
            freeze_after: session.self_fence_after,
            give_up_after: session.config.limits.give_up_after,
            outcome_grace: session.config.limits.outcome_grace,
        };
        Self {
            job_id,
            attempt,
            link: Arc::clone(&session.link),
            fence: Fence::new(Arc::clone(&session.config.host), limits, claimed_as_of),
            session,
            events: EventBuffer::new(),
            cancelled: CancellationToken::new(),
            ending: watch::Sender::new(None),
            offering: AtomicBool::new(false),
            spending_stopped: AtomicBool::new(false),
            resumed: watch::Sender::new(0),
            calls_in_flight: Mutex::default(),
            current_task_url: Mutex::default(),
            browser_session_id: Mutex::default(),
        }
    }

    /// Ends the job; the first reason stays. Once the outcome is being offered, few reasons count.
    pub(super) fn end(&self, why: JobEnd) {
        let ended = self.ending.send_if_modified(|ending| {
            if ending.is_some() || (self.offering.load(Ordering::SeqCst) && !why.ends_offering()) {
                return false;
            }
            *ending = Some(why);
            true
        });
        if ended {
            tracing::info!(job_id = %self.job_id, attempt = %self.attempt, ?why, "the job is ended");
            self.cancelled.cancel();
        }
    }

    pub(super) fn end_reason(&self) -> Option<JobEnd> {
        *self.ending.borrow()
    }

    /// Waits until the runtime ends the job, by its own judgement or by the fence's.
    pub(super) async fn ended(&self) -> JobEnd {
        let mut ending = self.ending.subscribe();
        let told = async {
            match ending.wait_for(Option::is_some).await.map(|why| *why) {
                Ok(Some(why)) => why,
                // The sender lives as long as `self`, and only a reason ends the wait.
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            why = told => why,
            () = self.fence.over() => {
                self.end(JobEnd::Silent);
                self.end_reason().unwrap_or(JobEnd::Silent)
            }
        }
    }

    /// The handler has an outcome. Says whether it still counts: not when the job was ended before.
    pub(super) fn begin_offering(&self) -> bool {
        let mut before_any_end = false;
        self.ending.send_if_modified(|ending| {
            before_any_end = ending.is_none();
            if before_any_end {
                self.offering.store(true, Ordering::SeqCst);
            }
            false
        });
        before_any_end
    }

    /// A heartbeat sent at `as_of` was answered with `held`.
    pub(super) fn held(&self, as_of: Duration) {
        self.fence.held(as_of);
    }

    /// The server said that the lease is gone. Past the point of no return only this worker knows what happened, so
    /// the job goes on to tell it; before, it ends.
    pub(super) fn lose_lease(&self) {
        if self.fence.past_no_return() {
            self.go_on_without_lease();
        } else {
            self.end(JobEnd::LeaseLost);
        }
    }

    /// The registration that holds the job is over.
    pub(super) fn lose_session(&self, why: SessionEnd) {
        match why {
            SessionEnd::Unauthorized => self.end(JobEnd::Unauthorized),
            SessionEnd::Stale | SessionEnd::Unknown | SessionEnd::Deregistered | SessionEnd::ShutDown => {
                if self.fence.past_no_return() {
                    self.go_on_without_lease();
                } else {
                    self.end(JobEnd::SessionOver);
                }
            }
        }
    }

    fn go_on_without_lease(&self) {
        self.fence.begin_grace();
        self.events.close();
    }

    /// No further LLM call; before the point of no return the job ends.
    pub(super) fn stop_spending(&self) {
        self.spending_stopped.store(true, Ordering::SeqCst);
        if !self.fence.past_no_return() {
            self.end(JobEnd::OverBudget);
        }
    }

    pub(super) fn spending_stopped(&self) -> bool {
        self.spending_stopped.load(Ordering::SeqCst)
    }

    /// `resume_job` came.
    pub(super) fn resume(&self) {
        self.resumed.send_modify(|count| *count += 1);
    }

    /// How often `resume_job` came.
    pub(super) fn resumes(&self) -> u64 {
        *self.resumed.borrow()
    }

    /// Waits for a `resume_job` beyond those already counted.
    pub(super) async fn resumed_after(&self, counted: u64) {
        // The sender lives as long as `self`.
        let _ = self.resumed.subscribe().wait_for(|count| *count > counted).await;
    }

    /// Obeys a refused report of this attempt.
    pub(super) fn heed(&self, refusal: &Refusal) -> Next {
        match refusal {
            Refusal::Unanswered { retry_after } => Next::Repeat(*retry_after),
            Refusal::LeaseLost => {
                self.lose_lease();
                Next::Over
            }
            Refusal::GenerationStale | Refusal::Deregistered | Refusal::Unauthorized | Refusal::WorkerUnknown => {
                self.session.heed(refusal);
                Next::Over
            }
            Refusal::Paused => Next::AwaitResume,
            Refusal::SpendingStopped => {
                self.stop_spending();
                Next::Drop
            }
            Refusal::Rejected { .. } | Refusal::Draining | Refusal::LeaseHeld { .. } | Refusal::Contested { .. } => {
                count_dropped(refusal);
                Next::Drop
            }
        }
    }

    pub(super) fn backoff(&self) -> Backoff {
        let limits = &self.session.config.limits;
        Backoff::new(limits.backoff_base, limits.backoff_cap)
    }

    /// The next wait before a repeated report.
    pub(super) async fn back_off(&self, backoff: &mut Backoff, retry_after: Option<Duration>) {
        tokio::time::sleep(backoff.next(&*self.session.config.host, retry_after)).await;
    }

    /// Takes an event in; one that cannot be sent is dropped and counted.
    pub(super) fn record(&self, event: Event) {
        if !self.events.push(event, self.session.config.host.wall_clock()) {
            metrics::counter!("gh_worker_events_dropped_total").increment(1);
        }
    }

    /// Sends events as they come. Never returns.
    pub(super) async fn pump_events(&self) {
        let mut backoff = self.backoff();
        loop {
            let batch = self.events.next_batch(self.session.config.limits.event_linger).await;
            let resumes = self.resumes();
            match self.link.events(self.job_id, self.attempt, &batch.events).await {
                Ok(answer) => {
                    self.events.settle(&batch);
                    backoff.reset();
                    log_refused(&answer.results);
                }
                Err(refusal) => match self.heed(&refusal) {
                    Next::Repeat(retry_after) => self.back_off(&mut backoff, retry_after).await,
                    Next::AwaitResume => self.resumed_after(resumes).await,
                    Next::Drop => self.events.settle(&batch),
                    Next::Over => self.events.close(),
                },
            }
        }
    }

    pub(super) fn announce_calls(&self, call_ids: &[String]) {
        locked(&self.calls_in_flight).extend(call_ids.iter().cloned());
    }

    pub(super) fn settle_calls(&self, call_ids: &[String]) {
        let mut calls = locked(&self.calls_in_flight);
        for call_id in call_ids {
            calls.remove(call_id);
        }
    }

    /// Calls whose usage was not answered yet.
    pub(super) fn calls_in_flight(&self) -> Vec<String> {
        locked(&self.calls_in_flight).iter().cloned().collect()
    }

    pub(super) fn set_current_task_url(&self, url: String) {
        *locked(&self.current_task_url) = Some(url);
    }

    pub(super) fn current_task_url(&self) -> Option<String> {
        locked(&self.current_task_url).clone()
    }

    pub(super) fn set_browser_session_id(&self, id: String) {
        *locked(&self.browser_session_id) = Some(id);
    }

    pub(super) fn browser_session_id(&self) -> Option<String> {
        locked(&self.browser_session_id).clone()
    }
}

/// Tells of items that the server did not take.
pub(super) fn log_refused(results: &[ReportResult]) {
    for result in results.iter().filter(|result| result.outcome == "refused") {
        tracing::warn!(
            call_id = result.call_id.as_deref(),
            code = result.code.as_deref(),
            "an item of a report was refused"
        );
        metrics::counter!("gh_worker_items_refused_total").increment(1);
    }
}
