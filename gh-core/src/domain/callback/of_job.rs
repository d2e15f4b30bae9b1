//! All callbacks of one job.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{CallbackQueue, Delivery, DeliveryState, NewCallback, Settled};
use crate::domain::changeset::Changeset;
use crate::domain::ids::JobId;
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;
use crate::ports::outbox::Settlement;

/// All callbacks of one job: those that are on their way, and those that are through. For stores that keep both
/// together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobCallbacks {
    /// On their way.
    pub queue: CallbackQueue,
    /// Through, by sequence.
    pub closed: Vec<Arc<Delivery>>,
}

impl JobCallbacks {
    /// None yet.
    #[must_use]
    pub const fn new(job_id: JobId) -> Self {
        Self { queue: CallbackQueue::new(job_id), closed: Vec::new() }
    }

    /// The callbacks of all jobs of a changeset as they are after it; `known` are those of a job before it.
    #[must_use]
    pub fn after<'k>(
        changes: &Changeset,
        known: impl Fn(JobId) -> Option<&'k Self>,
        now: Timestamp,
        policy: &Policy,
    ) -> BTreeMap<JobId, Self> {
        let known = |id: &JobId| known(*id).cloned().unwrap_or_else(|| Self::new(*id));
        let mut after = BTreeMap::new();
        for callback in changes.callbacks() {
            let of_job: &mut Self = after.entry(callback.job_id).or_insert_with_key(known);
            of_job.enqueue(callback.clone(), now, policy);
        }
        for id in changes.released_callbacks() {
            after.entry(*id).or_insert_with_key(known).queue.release_held(now);
        }
        after
    }

    /// Puts a callback at the end of the queue; those that it replaces stay listed.
    pub fn enqueue(&mut self, callback: NewCallback, now: Timestamp, policy: &Policy) {
        for replaced in self.queue.enqueue(callback, now, policy) {
            self.close(replaced);
        }
    }

    /// Records what came of an attempt; gives back those that were given up, for
    /// [`dead_letter`](crate::domain::commands::dead_letter). `None` when the sender's hold is over, or on another
    /// delivery: nothing changes.
    pub fn settle(&mut self, settlement: &Settlement, now: Timestamp) -> Option<Vec<Delivery>> {
        self.queue.open.front().filter(|head| head.id == settlement.delivery_id)?;
        let Settled { closed, overtaken } =
            self.queue.settle(settlement.lease_id, &settlement.outcome, now, settlement.jitter)?;
        let mut dead = Vec::new();
        for delivery in closed.into_iter().chain(overtaken) {
            if delivery.state == DeliveryState::Dead {
                dead.push(delivery.clone());
            }
            self.close(delivery);
        }
        Some(dead)
    }

    /// At most `limit` of them with a sequence below `before`, newest first.
    #[must_use]
    pub fn newest_first(&self, before: Option<u64>, limit: usize) -> Vec<Arc<Delivery>> {
        let later = |sequence: u64| before.is_some_and(|before| sequence >= before);
        let mut closed = self.closed.iter().rev().skip_while(|known| later(known.sequence)).peekable();
        let mut open = self.queue.open.iter().rev().skip_while(|known| later(known.sequence)).peekable();
        std::iter::from_fn(|| {
            let newest_open = open.peek().map(|delivery| delivery.sequence);
            let newest_closed = closed.peek().map(|delivery| delivery.sequence);
            if newest_open > newest_closed { open.next().cloned().map(Arc::new) } else { closed.next().cloned() }
        })
        .take(limit)
        .collect()
    }

    /// Keeps a delivery that is through, without the spare room of what it was built in.
    fn close(&mut self, mut delivery: Delivery) {
        delivery.attempts.shrink_to_fit();
        delivery.body = delivery.body.map(|body| Bytes::copy_from_slice(&body));
        let place = self.closed.partition_point(|known| known.sequence < delivery.sequence);
        self.closed.insert(place, Arc::new(delivery));
    }
}
