//! The steps of the [loops](super::BackgroundLoops) that sweep and deliver.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use url::Url;

use super::{ControlPlane, UseCaseError};
use crate::domain::callback::LeasedDelivery;
use crate::ports::callback_sender::{OutgoingCallback, SendError, SendOutcome};
use crate::ports::outbox::Settlement;
use crate::ports::store::SweepRequest;

/// How many jobs and how many workers one sweep takes.
const SWEEP_LIMIT: usize = 500;

/// How many callbacks are on their way at once.
pub(super) const MAX_IN_FLIGHT: usize = 512;

impl ControlPlane {
    /// Applies deadlines that are over; says whether more are due.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn sweep_once(&self) -> Result<bool, UseCaseError> {
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

    /// Makes one attempt at a callback.
    pub(super) async fn send(&self, leased: LeasedDelivery) -> Settlement {
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
