//! The store in memory: what `gh-server dev` runs on, and a default for embedders.
//!
//! # How it works
//!
//! All tables and indexes are one `State` behind one mutex. Every call of a port takes the lock once, does all its work
//! under it without waiting for anything, and lets go: that alone makes each changeset atomic, each answer one of a
//! single moment, and the order of calls the order of commits. The work under the lock is logarithmic in what is
//! stored, but for figures and for lists with a filter that few jobs match.
//!
//! Decisions are the core's. Where this store has to pick the rows itself (claim, sweep, callbacks), it hands the core
//! a [`Snapshot`](crate::domain::snapshot::Snapshot) of what it picked and stores the changesets that come back, all
//! under the same lock. Nothing here knows what a status means beyond what an index needs:
//!
//! - `jobs`: jobs with their events and LLM calls, the order of lists, and deadlines;
//! - `waiting`: the jobs that wait, each in the one lane from which it can be taken now;
//! - `workers`: workers by every name they carry, who occupies them, and when the sweeper has to look at them;
//! - `callbacks`: the queue of each job, and which queues are due;
//! - `load`: snapshots; `claim`: the candidates of a claim.
//!
//! A changeset is checked as a whole before the first write, so a refused one leaves no trace. Writes themselves
//! cannot fail. Should one panic all the same, the state is half written: from then on every call answers
//! [`StoreError::Corrupt`], while a panic of a decision, which only reads, harms nobody but its caller.
//!
//! # What it is not
//!
//! Nothing survives the process, and nothing is ever forgotten: it holds every job with its history until it is
//! dropped. It wakes nobody: [`Wakeups`](crate::application::Wakeups) are the signals of a single process.

mod callbacks;
mod claim;
mod jobs;
mod load;
mod outbox;
mod reader;
mod state;
mod store;
mod waiting;
mod workers;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::state::State;
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::store::StoreError;

/// [`Store`](crate::ports::store::Store), [`Reader`](crate::ports::reader::Reader) and
/// [`Outbox`](crate::ports::outbox::Outbox) in memory.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    token_key: [u8; 32],
    state: Mutex<State>,
}

impl MemoryStore {
    /// An empty store whose time is the clock's. Worker tokens are derived from `token_key`: 32 random bytes.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, token_key: [u8; 32]) -> Self {
        Self { clock, token_key, state: Mutex::new(State::default()) }
    }

    /// Locks the state, with the store's time: the clock's, but never before the time of an earlier call.
    fn lock(&self) -> Result<(MutexGuard<'_, State>, Timestamp), StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_half_written() {
            return Err(StoreError::Corrupt("a write was cut off by a panic".into()));
        }
        let now = state.advance(self.clock.now());
        Ok((state, now))
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither what clients handed in nor the secret belongs into a log.
        formatter.debug_struct("MemoryStore").field("clock", &self.clock).finish_non_exhaustive()
    }
}
