//! The steps of the [loops](super::BackgroundLoops) that sweep and deliver.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use url::Url;

use super::{ControlPlane, UseCaseError};
use crate::domain::callback::LeasedDelivery;
use crate::domain::commands::Watched;
use crate::domain::time::Timestamp;
use crate::domain::watch::{Lookout, Trouble};
use crate::ports::callback_sender::{OutgoingCallback, SendError, SendOutcome};
use crate::ports::outbox::Settlement;
use crate::ports::store::SweepRequest;

/// How many jobs and how many workers one sweep takes.
const SWEEP_LIMIT: usize = 500;

/// How many callbacks are on their way at once.
pub(super) const MAX_IN_FLIGHT: usize = 512;

/// What a process that sweeps knows of itself.
#[derive(Debug)]
pub(super) struct Vigil {
    /// What befell it since its last look that was stored.
    trouble: Option<Trouble>,
    /// When it looked last.
    last_heard: Option<Timestamp>,
    /// Until when it gives nobody up by itself.
    held_until: Option<Timestamp>,
}

impl Vigil {
    /// Of a process that has just started.
    pub(super) const fn started() -> Self {
        Self { trouble: Some(Trouble::Started), last_heard: None, held_until: None }
    }
}

impl ControlPlane {
    /// Looks at the whole fleet and applies deadlines that are over; says whether more are due.
    ///
    /// This is the step for whoever makes time pass by hand: it takes time as the store tells it, however long nobody
    /// looked. The [loop](super::BackgroundLoops::SWEEP) also notices when this process was away.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn sweep_once(&self) -> Result<bool, UseCaseError> {
        let watched = self.ports.store.watch(Lookout::by_hand(self.server), &self.rules).await?;
        self.sweep_by(watched).await
    }

    /// The same for a process that looks all the time.
    pub(super) async fn sweep_watchfully(&self, vigil: &mut Vigil) -> Result<bool, UseCaseError> {
        let lookout = Lookout {
            server: self.server,
            trouble: vigil.trouble,
            last_heard: vigil.last_heard,
            held_until: vigil.held_until,
        };
        let watched = match self.ports.store.watch(lookout, &self.rules).await {
            Ok(watched) => watched,
            Err(error) => {
                vigil.trouble.get_or_insert(Trouble::Lost);
                return Err(error.into());
            }
        };
        vigil.last_heard = Some(watched.now);
        vigil.held_until = watched.sight.held_until();
        if watched.changes.watch().is_some() {
            vigil.trouble = None;
        }
        self.sweep_by(watched).await
    }

    async fn sweep_by(&self, watched: Watched) -> Result<bool, UseCaseError> {
        self.announce(&watched.changes);
        let request = SweepRequest { limit: SWEEP_LIMIT, sight: watched.sight };
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
