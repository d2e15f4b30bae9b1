//! The callbacks of each job, and which queues are due.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::domain::callback::{CallbackQueue, Delivery, DeliveryState, LeasedDelivery, NewCallback, Settled};
use crate::domain::ids::{JobId, SendLeaseId};
use crate::domain::job::Job;
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;
use crate::ports::outbox::Settlement;

#[derive(Debug)]
struct QueueRow {
    queue: CallbackQueue,
    /// Deliveries that are through, by sequence.
    closed: Vec<Arc<Delivery>>,
    /// Its entry in `due`.
    due: Option<Timestamp>,
}

/// The callbacks of all jobs.
#[derive(Debug, Default)]
pub(super) struct CallbackTable {
    rows: HashMap<JobId, QueueRow>,
    due: BTreeSet<(Timestamp, JobId)>,
    open: u64,
}

impl CallbackTable {
    /// Puts a callback at the end of its job's queue; those that it replaces stay listed.
    pub(super) fn enqueue(&mut self, callback: NewCallback, now: Timestamp, policy: &Policy) {
        let id = callback.job_id;
        self.rows.entry(id).or_insert_with(|| QueueRow {
            queue: CallbackQueue::new(id),
            closed: Vec::new(),
            due: None,
        });
        self.change(id, |row| {
            for replaced in row.queue.enqueue(callback, now, policy) {
                row.close(replaced);
            }
        });
    }

    /// Lets a terminal callback go that was held.
    pub(super) fn release(&mut self, id: JobId, now: Timestamp) {
        self.change(id, |row| row.queue.release_held(now));
    }

    /// Takes the head of a job's queue for sending, if it is due and nobody else has it.
    pub(super) fn lease(
        &mut self,
        job: &Job,
        lease_id: SendLeaseId,
        now: Timestamp,
        policy: &Policy,
    ) -> Option<LeasedDelivery> {
        self.change(job.id, |row| row.queue.lease(job, lease_id, now, policy)).flatten()
    }

    /// Records what came of an attempt; gives back the deliveries that were given up.
    pub(super) fn settle(&mut self, settlement: &Settlement, now: Timestamp) -> Vec<Delivery> {
        self.change(settlement.job_id, |row| {
            let head = row.queue.open.front()?;
            if head.id != settlement.delivery_id {
                return None;
            }
            let Settled { closed, overtaken } =
                row.queue.settle(settlement.lease_id, &settlement.outcome, now, settlement.jitter)?;
            let through = closed.into_iter().chain(overtaken);
            let mut dead = Vec::new();
            for delivery in through {
                if delivery.state == DeliveryState::Dead {
                    dead.push(delivery.clone());
                }
                row.close(delivery);
            }
            Some(dead)
        })
        .flatten()
        .unwrap_or_default()
    }

    /// Jobs whose queue is due, longest due first.
    pub(super) fn due(&self, now: Timestamp) -> impl Iterator<Item = JobId> {
        self.due.iter().take_while(move |(due, _)| *due <= now).map(|(_, id)| *id)
    }

    /// When the next queue is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// How many callbacks are open.
    pub(super) const fn open(&self) -> u64 {
        self.open
    }

    /// At most `limit` deliveries of a job with a sequence below `before`, newest first.
    pub(super) fn deliveries(&self, id: JobId, before: u64, limit: usize) -> Vec<Arc<Delivery>> {
        let Some(row) = self.rows.get(&id) else {
            return Vec::new();
        };
        let mut closed = row.closed.iter().rev().skip_while(|known| known.sequence >= before).peekable();
        let mut open = row.queue.open.iter().rev().skip_while(|known| known.sequence >= before).peekable();
        std::iter::from_fn(|| {
            let newest_open = open.peek().map(|delivery| delivery.sequence);
            let newest_closed = closed.peek().map(|delivery| delivery.sequence);
            if newest_open > newest_closed { open.next().cloned().map(Arc::new) } else { closed.next().cloned() }
        })
        .take(limit)
        .collect()
    }

    /// Changes one row and puts what is derived from it right.
    fn change<R>(&mut self, id: JobId, change: impl FnOnce(&mut QueueRow) -> R) -> Option<R> {
        let row = self.rows.get_mut(&id)?;
        self.open -= row.queue.open.len() as u64;
        let result = change(row);
        self.open += row.queue.open.len() as u64;
        if row.queue.open.is_empty() {
            row.queue.open.shrink_to_fit();
            row.closed.shrink_to_fit();
        }
        let due = row.queue.due_at();
        if row.due != due {
            if let Some(before) = row.due {
                self.due.remove(&(before, id));
            }
            if let Some(due) = due {
                self.due.insert((due, id));
            }
            row.due = due;
        }
        Some(result)
    }
}

impl QueueRow {
    /// Keeps a delivery that is through, without the spare room of what it was built in.
    fn close(&mut self, mut delivery: Delivery) {
        delivery.attempts.shrink_to_fit();
        delivery.body = delivery.body.map(|body| Bytes::copy_from_slice(&body));
        let place = self.closed.partition_point(|known| known.sequence < delivery.sequence);
        self.closed.insert(place, Arc::new(delivery));
    }
}
