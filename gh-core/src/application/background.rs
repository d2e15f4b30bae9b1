//! The loops that make time pass: dispatch, sweep, deliver.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tracing::{error, warn};
use url::Url;

use super::{ControlPlane, UseCaseError};
use crate::domain::callback::LeasedDelivery;
use crate::ports::callback_sender::{OutgoingCallback, SendError, SendOutcome};
use crate::ports::outbox::Settlement;
use crate::ports::store::SweepRequest;

/// How often deadlines are looked at: nothing is noticed later than this after it is due.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// How long a wake may be lost before somebody looks all the same.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many jobs and how many workers one sweep takes.
const SWEEP_LIMIT: usize = 500;

/// How many callbacks are on their way at once.
const MAX_IN_FLIGHT: usize = 512;

impl ControlPlane {
    /// Runs the three loops until [`Self::close`]. Every process needs this once; any number of processes may.
    pub async fn run(&self) {
        tokio::join!(self.run_dispatch(), self.run_sweep(), self.run_delivery());
    }

    async fn run_dispatch(&self) {
        loop {
            tokio::select! {
                () = self.closed() => return,
                () = self.ports.wakeups.dispatch_requested() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            log_failure("dispatch", self.dispatch_once().await.map(drop));
        }
    }

    async fn run_sweep(&self) {
        loop {
            tokio::select! {
                () = self.closed() => return,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            loop {
                match self.sweep_once().await {
                    Ok(true) => {}
                    outcome => break log_failure("sweep", outcome.map(drop)),
                }
            }
        }
    }

    /// Applies deadlines that are over; says whether more are due.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn sweep_once(&self) -> Result<bool, UseCaseError> {
        self.note_departures().await?;
        let request = SweepRequest { limit: SWEEP_LIMIT, offline_after: self.rules.policy.offline_after };
        let swept = self.ports.store.sweep(request, &self.rules).await?;
        swept.committed.iter().for_each(|changes| self.announce(changes));
        // Without progress it is no use to look again at once: what was refused is due at the next round.
        Ok(swept.more && !swept.committed.is_empty())
    }

    /// Sends every callback that is due, one attempt each, and records what came of it; says how many.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn deliver_once(&self) -> Result<usize, UseCaseError> {
        let leased = self.ports.outbox.lease_due(MAX_IN_FLIGHT, &self.rules).await?;
        let mut sending: FuturesUnordered<_> = leased.into_iter().map(|delivery| self.send(delivery)).collect();
        let mut sent = 0;
        while let Some(settlement) = sending.next().await {
            self.ports.outbox.settle(vec![settlement], &self.rules).await?;
            sent += 1;
        }
        Ok(sent)
    }

    async fn run_delivery(&self) {
        let mut sending = FuturesUnordered::new();
        loop {
            let free = MAX_IN_FLIGHT - sending.len();
            if free > 0 {
                match self.ports.outbox.lease_due(free, &self.rules).await {
                    Ok(leased) => sending.extend(leased.into_iter().map(|delivery| self.send(delivery))),
                    Err(error) => log_failure("deliver", Err(error.into())),
                }
            }
            tokio::select! {
                biased;
                Some(settlement) = sending.next() => {
                    let outcome = self.ports.outbox.settle(vec![settlement], &self.rules).await;
                    log_failure("deliver", outcome.map_err(Into::into));
                }
                () = self.closed() => break,
                () = self.ports.wakeups.deliver_requested() => {}
                () = self.due() => {}
            }
        }
        // What is on its way may end. Whatever is cut off is sent again after its lease: at least once, never lost.
        while let Some(settlement) = sending.next().await {
            let outcome = self.ports.outbox.settle(vec![settlement], &self.rules).await;
            log_failure("deliver", outcome.map_err(Into::into));
        }
    }

    /// Resolves when the next callback is due, and after a moment in any case.
    async fn due(&self) {
        let now = self.ports.reader.now().await.ok();
        let next = self.ports.outbox.next_due().await.ok().flatten();
        let wait = match (now, next) {
            (Some(now), Some(next)) => next.since(now).min(LOOK_EVERY),
            _ => LOOK_EVERY,
        };
        // Never a busy loop, even if what is due cannot be leased.
        tokio::time::sleep(wait.max(Duration::from_millis(5))).await;
    }

    async fn send(&self, leased: LeasedDelivery) -> Settlement {
        let LeasedDelivery { job_id, lease_id, delivery_id, url, body, attempt } = leased;
        let outcome = match Url::parse(&url) {
            Ok(url) => {
                let callback = OutgoingCallback { webhook_id: delivery_id, url, body, attempt };
                self.ports.sender.send(callback).await
            }
            Err(_) => SendOutcome::Unanswered { error: SendError::BlockedAddress, took: Duration::ZERO },
        };
        Settlement { job_id, lease_id, delivery_id, outcome, jitter: self.rules.ids.jitter() }
    }
}

/// The store being away is expected and passes; a defect is not.
fn log_failure(loop_name: &'static str, outcome: Result<(), UseCaseError>) {
    match outcome {
        Ok(()) => {}
        Err(UseCaseError::Rejected(rejection)) => {
            warn!(loop_name, code = rejection.code(), "a step was refused")
        }
        Err(UseCaseError::Unavailable(source)) => {
            warn!(loop_name, error = source.as_ref().map(tracing::field::display), "the store is away; trying again");
        }
        Err(UseCaseError::Internal(source)) => {
            error!(loop_name, error = &source as &dyn std::error::Error, "a step failed");
        }
    }
}
