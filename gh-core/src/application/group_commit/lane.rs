//! A bounded queue of commands, and those who take batches from it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::Notify;

use super::LaneSettings;
use super::call::Entry;

/// Why a lane does not take a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many wait as may.
    Full,
    /// Nobody takes commands from it.
    Closed,
}

#[derive(Debug)]
pub(super) struct Lane {
    settings: LaneSettings,
    batch: usize,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Entry<'static>>,
    seats: usize,
    open: bool,
}

impl Lane {
    pub(super) const fn new(settings: LaneSettings, batch: usize) -> Self {
        let state = State { queue: VecDeque::new(), seats: 0, open: false };
        Self { settings, batch, state: Mutex::new(state), arrived: Notify::const_new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn committers(&self) -> usize {
        self.settings.committers.max(1)
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().open
    }

    /// Puts a command at the end.
    pub(super) fn push(&self, entry: Entry<'static>) -> Result<(), Refused> {
        let mut state = self.lock();
        if !state.open {
            return Err(Refused::Closed);
        }
        if state.queue.len() >= self.settings.queue.max(1) {
            return Err(Refused::Full);
        }
        state.queue.push_back(entry);
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes a seat: from now on, and until the last seat is left, commands are taken.
    pub(super) fn open(&self) -> Seat<'_> {
        let mut state = self.lock();
        state.seats += 1;
        state.open = true;
        Seat { lane: self }
    }
}

/// The right, and the duty, to take commands from a lane.
#[derive(Debug)]
pub(super) struct Seat<'l> {
    lane: &'l Lane,
}

impl Seat<'_> {
    /// The next batch, as soon as there is one: what is to be decided again comes first. `None` when the lane is empty
    /// after `closed` has resolved; from then on the lane takes nothing more.
    pub(super) async fn next(
        &self,
        again: Vec<Entry<'static>>,
        closed: impl Future<Output = ()>,
    ) -> Option<Vec<Entry<'static>>> {
        let mut closed = std::pin::pin!(closed);
        let mut closing = false;
        let mut batch = again;
        // A store that never waits would keep everybody else of this task from running.
        let_others_run().await;
        loop {
            self.fill(&mut batch);
            if !batch.is_empty() {
                return Some(batch);
            }
            if closing {
                return None;
            }
            tokio::select! {
                biased;
                () = &mut closed => {
                    self.lane.lock().open = false;
                    closing = true;
                }
                () = self.lane.arrived.notified() => {}
            }
        }
    }

    /// Adds what waits, up to the size of a batch; passes over those whose callers went away.
    fn fill(&self, batch: &mut Vec<Entry<'static>>) {
        let mut state = self.lane.lock();
        while batch.len() < self.lane.batch.max(1)
            && let Some(entry) = state.queue.pop_front()
        {
            if !entry.is_abandoned() {
                batch.push(entry);
            }
        }
        if !state.queue.is_empty() {
            // What was left is for another seat, if one is free.
            self.lane.arrived.notify_one();
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut state = self.lane.lock();
        state.seats -= 1;
        if state.seats == 0 {
            state.open = false;
            // Left only by a committer that was cut off: whoever waits hears that no answer comes.
            let left = std::mem::take(&mut state.queue);
            drop(state);
            drop(left);
        }
    }
}

async fn let_others_run() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
