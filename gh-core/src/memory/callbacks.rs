//! The callbacks of each job, and which queues are due.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::domain::callback::{Delivery, JobCallbacks, LeasedDelivery, NewCallback};
use crate::domain::ids::{JobId, SendLeaseId};
use crate::domain::job::Job;
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;
use crate::ports::outbox::Settlement;

#[derive(Debug)]
struct QueueRow {
    callbacks: JobCallbacks,
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
        self.rows.entry(id).or_insert_with(|| QueueRow { callbacks: JobCallbacks::new(id), due: None });
        self.change(id, |callbacks| callbacks.enqueue(callback, now, policy));
    }

    /// Lets a terminal callback go that was held.
    pub(super) fn release(&mut self, id: JobId, now: Timestamp) {
        self.change(id, |callbacks| callbacks.queue.release_held(now));
    }

    /// Takes the head of a job's queue for sending, if it is due and nobody else has it.
    pub(super) fn lease(
        &mut self,
        job: &Job,
        lease_id: SendLeaseId,
        now: Timestamp,
        policy: &Policy,
    ) -> Option<LeasedDelivery> {
        self.change(job.id, |callbacks| callbacks.queue.lease(job, lease_id, now, policy)).flatten()
    }

    /// Records what came of an attempt; gives back the deliveries that were given up.
    pub(super) fn settle(&mut self, settlement: &Settlement, now: Timestamp) -> Vec<Delivery> {
        let dead = self.change(settlement.job_id, |callbacks| callbacks.settle(settlement, now));
        dead.flatten().unwrap_or_default()
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
    pub(super) fn deliveries(&self, id: JobId, before: Option<u64>, limit: usize) -> Vec<Arc<Delivery>> {
        self.rows.get(&id).map(|row| row.callbacks.newest_first(before, limit)).unwrap_or_default()
    }

    /// Changes one row and puts what is derived from it right.
    fn change<R>(&mut self, id: JobId, change: impl FnOnce(&mut JobCallbacks) -> R) -> Option<R> {
        let row = self.rows.get_mut(&id)?;
        let callbacks = &mut row.callbacks;
        self.open -= callbacks.queue.open.len() as u64;
        let result = change(callbacks);
        self.open += callbacks.queue.open.len() as u64;
        if callbacks.queue.open.is_empty() {
            callbacks.queue.open.shrink_to_fit();
            callbacks.closed.shrink_to_fit();
        }
        let due = callbacks.queue.due_at();
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
