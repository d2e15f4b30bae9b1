//! One registration: its signs of life, what they say, and how it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::answer::Refusal;
use super::assignment::{Assignment, JobEnd};
use super::backoff::Backoff;
use super::client::WorkerLink;
use super::config::WorkerConfig;
use super::directives::{Directives, Meaning};
use super::wire::{Directive, DrainNotice, HeartbeatAnswer, HeartbeatRequest, LeaseState, Registration, WorkerStatus};

/// Why a registration is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionEnd {
    /// Given up as offline, or replaced by a newer process: registering tells which.
    Stale,
    /// The control plane does not know the worker.
    Unknown,
    /// Deregistered: the token is dead.
    Deregistered,
    /// The `shutdown` directive: the token still takes an acknowledgement.
    ShutDown,
    /// The credentials were refused.
    Unauthorized,
}

/// What the worker is doing, as a heartbeat tells it.
#[derive(Debug, Clone)]
pub(super) enum Presence {
    /// Nothing: the heartbeat says that there is no job.
    Free,
    /// Asking for a job, which may have been granted already: the heartbeat says nothing about it.
    Claiming,
    /// A job of this registration.
    Working(Arc<Assignment>),
    /// A job of an earlier registration, which tells its outcome: the heartbeat says nothing about it.
    Finishing(Arc<Assignment>),
}

/// One registration.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: Arc<WorkerLink>,
    pub(super) config: Arc<WorkerConfig>,
    pub(super) self_fence_after: Duration,
    heartbeat_interval: Duration,
    ending: watch::Sender<Option<SessionEnd>>,
    draining: watch::Sender<bool>,
    stopping: Mutex<bool>,
    presence: Mutex<Presence>,
    directives: Mutex<Directives>,
    beat_now: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    pub(super) fn new(link: WorkerLink, config: Arc<WorkerConfig>, registration: &Registration) -> Self {
        Self {
            link: Arc::new(link),
            config,
            self_fence_after: registration.self_fence_after,
            heartbeat_interval: registration.heartbeat_interval,
            ending: watch::Sender::new(None),
            draining: watch::Sender::new(false),
            stopping: Mutex::new(false),
            presence: Mutex::new(Presence::Free),
            directives: Mutex::new(Directives::new(registration.generation)),
            beat_now: Notify::new(),
        }
    }

    /// Ends this registration; the first reason stays.
    pub(super) fn end(&self, why: SessionEnd) {
        let first = self.ending.send_if_modified(|ending| {
            let first = ending.is_none();
            ending.get_or_insert(why);
            first
        });
        if first {
            tracing::info!(worker_id = %self.link.worker_id(), generation = %self.link.generation(), ?why, "the registration is over");
        }
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) -> SessionEnd {
        let mut ending = self.ending.subscribe();
        match ending.wait_for(Option::is_some).await.map(|why| *why) {
            Ok(Some(why)) => why,
            // The sender lives as long as `self`, and only a reason ends the wait.
            _ => std::future::pending().await,
        }
    }

    /// Obeys a refusal as far as it concerns the registration. Gives back the least wait before the call may be
    /// repeated.
    pub(super) fn heed(&self, refusal: &Refusal) -> Option<Duration> {
        match refusal {
            Refusal::GenerationStale => self.end(SessionEnd::Stale),
            Refusal::WorkerUnknown => self.end(SessionEnd::Unknown),
            Refusal::Deregistered => self.end(SessionEnd::Deregistered),
            Refusal::Unauthorized => self.end(SessionEnd::Unauthorized),
            Refusal::Draining => {
                self.draining.send_replace(true);
            }
            Refusal::Unanswered { retry_after } | Refusal::Contested { retry_after } => return *retry_after,
            Refusal::Rejected { .. } => count_dropped(refusal),
            Refusal::LeaseLost | Refusal::LeaseHeld { .. } | Refusal::Paused | Refusal::SpendingStopped => {}
        }
        None
    }

    /// Waits until the worker may claim.
    pub(super) async fn may_claim(&self) {
        // The sender lives as long as `self`.
        let _ = self.draining.subscribe().wait_for(|draining| !draining).await;
    }

    /// Waits until the worker must not claim any more.
    pub(super) async fn must_not_claim(&self) {
        // The sender lives as long as `self`.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// The process was asked to stop: the server hears of it at once.
    pub(super) fn begin_stopping(&self) {
        *locked(&self.stopping) = true;
        self.draining.send_replace(true);
        self.beat_now.notify_one();
    }

    pub(super) fn set_presence(&self, presence: Presence) {
        let tell = matches!(presence, Presence::Working(_));
        *locked(&self.presence) = presence;
        if tell {
            self.beat_now.notify_one();
        }
    }

    fn presence(&self) -> Presence {
        locked(&self.presence).clone()
    }

    /// A job is over and its handler has ended. Directives about it are acknowledged, and the server hears at once
    /// that the worker is free, unless the outcome told it.
    pub(super) fn job_over(&self, assignment: &Assignment) {
        *locked(&self.presence) = Presence::Free;
        locked(&self.directives).ended(assignment.job_id, assignment.attempt);
        if assignment.end_reason().is_some() {
            self.beat_now.notify_one();
        }
    }

    /// Sends heartbeats until the registration is over. Call it once.
    pub(super) async fn keep_alive(&self) {
        let limits = &self.config.limits;
        let mut backoff = Backoff::new(
            limits.backoff_base.min(self.heartbeat_interval),
            limits.backoff_cap.min(self.heartbeat_interval),
        );
        let patience = self.heartbeat_interval.max(Duration::from_secs(2)).min(limits.request_timeout);
        let mut wait = Duration::ZERO;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.beat_now.notified() => {}
            }
            wait = match self.beat(patience).await {
                Ok(took) => {
                    backoff.reset();
                    self.heartbeat_interval.saturating_sub(took)
                }
                Err(refusal) => {
                    let retry_after = self.heed(&refusal);
                    backoff.next(&*self.config.host, retry_after)
                }
            };
        }
    }

    /// Sends one heartbeat and obeys its answer; says how long that took.
    pub(super) async fn beat(&self, patience: Duration) -> Result<Duration, Refusal> {
        let presence = self.presence();
        let (current_job_id, about) = match &presence {
            Presence::Free => (Some(None), None),
            Presence::Claiming => (None, None),
            Presence::Working(job) => (Some(Some(job.job_id)), Some(job)),
            Presence::Finishing(job) => (None, Some(job)),
        };
        let acknowledged = locked(&self.directives).to_acknowledge();
        let body = HeartbeatRequest {
            memory_usage: self.config.host.memory_usage(),
            current_job_id,
            current_task_url: about.and_then(|job| job.current_task_url()),
            browser_session_id: about.and_then(|job| job.browser_session_id()),
            draining: locked(&self.stopping).then(|| DrainNotice { reason: self.config.stop_reason.clone() }),
            acknowledged,
        };
        let sent_at = self.config.host.continuous_clock();
        let answer = self.link.heartbeat(&body, patience).await?;
        locked(&self.directives).acknowledged(&body.acknowledged);
        self.hear(&answer, &presence, sent_at);
        Ok(self.config.host.continuous_clock().saturating_sub(sent_at))
    }

    fn hear(&self, answer: &HeartbeatAnswer, asked_as: &Presence, sent_at: Duration) {
        // Directives first: a cancellation is a better reason than a lost lease.
        for raw in &answer.directives {
            match serde_json::from_str(raw.get()) {
                Ok(directive) => self.obey(&directive),
                Err(error) => tracing::warn!(%error, "a directive cannot be read"),
            }
        }
        if let Presence::Working(job) = asked_as {
            let other_attempt = answer.attempt.is_some_and(|attempt| attempt != job.attempt);
            match answer.lease {
                LeaseState::Held if !other_attempt => job.held(sent_at),
                LeaseState::Held | LeaseState::Lost => job.lose_lease(),
                LeaseState::None | LeaseState::Other(_) => {}
            }
        }
        let draining = *locked(&self.stopping)
            || match answer.status {
                WorkerStatus::Draining => true,
                WorkerStatus::Idle | WorkerStatus::Busy => false,
                WorkerStatus::Offline | WorkerStatus::Other(_) => return,
            };
        self.draining.send_if_modified(|known| {
            let changed = *known != draining;
            *known = draining;
            changed
        });
    }

    /// Obeys a directive, from the stream or from a heartbeat's answer.
    pub(super) fn obey(&self, directive: &Directive) {
        let job = match self.presence() {
            Presence::Working(job) | Presence::Finishing(job) => Some(job),
            Presence::Free | Presence::Claiming => None,
        };
        let holds = job.as_ref().map(|job| (job.job_id, job.attempt));
        let meaning = locked(&self.directives).receive(directive, holds);
        match (meaning, job) {
            (Meaning::Cancel, Some(job)) => job.end(JobEnd::Cancelled),
            (Meaning::Resume, Some(job)) => job.resume(),
            (Meaning::Drain, _) => {
                self.draining.send_replace(true);
            }
            (Meaning::Shutdown, _) => self.end(SessionEnd::ShutDown),
            (Meaning::Nothing, _) | (Meaning::Cancel | Meaning::Resume, None) => {}
        }
        if meaning == Meaning::Shutdown || meaning == Meaning::Drain {
            tracing::info!(kind = ?directive.kind, reason = directive.reason.as_deref(), "directive");
        }
    }
}

/// Counts a report that was given up.
pub(super) fn count_dropped(refusal: &Refusal) {
    tracing::warn!(%refusal, "a report was dropped");
    metrics::counter!("gh_worker_reports_dropped_total").increment(1);
}
