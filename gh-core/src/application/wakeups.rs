//! Waking those who wait on this server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::ids::WorkerId;
use crate::ports::signals::{Signals, Wake};

/// Where everybody waits who waits on this server. Wakes are coalesced, and never lost between looking and waiting.
#[derive(Debug, Default)]
pub struct Wakeups {
    dispatch: Notify,
    deliver: Notify,
    workers: Mutex<HashMap<WorkerId, Arc<Subscribers>>>,
}

#[derive(Debug, Default)]
struct Subscribers {
    woken: Notify,
}

impl Wakeups {
    /// Nobody waits yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Resolves when a job waits for a worker; at once if one came since the last time.
    pub async fn dispatch_requested(&self) {
        self.dispatch.notified().await;
    }

    /// Resolves when a callback is to be sent; at once if one came since the last time.
    pub async fn deliver_requested(&self) {
        self.deliver.notified().await;
    }

    /// From now on hears what wakes this worker.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, worker_id: &WorkerId) -> WorkerWakes {
        let subscribers = Arc::clone(self.workers().entry(worker_id.clone()).or_default());
        WorkerWakes { wakeups: Arc::clone(self), worker_id: worker_id.clone(), subscribers }
    }

    /// Wakes all who wait here, for whatever it is: for when wakes from elsewhere may have been lost.
    pub fn wake_everybody(&self) {
        self.dispatch.notify_one();
        self.deliver.notify_one();
        for subscribers in self.workers().values() {
            subscribers.woken.notify_waiters();
        }
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<WorkerId, Arc<Subscribers>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signals for Wakeups {
    fn wake(&self, wake: Wake) {
        match wake {
            Wake::Dispatch => self.dispatch.notify_one(),
            Wake::Deliver => self.deliver.notify_one(),
            Wake::Worker(worker_id) => {
                if let Some(subscribers) = self.workers().get(&worker_id) {
                    subscribers.woken.notify_waiters();
                }
            }
        }
    }
}

/// Hears what wakes one worker, from the moment it was made until it is dropped.
#[derive(Debug)]
pub struct WorkerWakes {
    wakeups: Arc<Wakeups>,
    worker_id: WorkerId,
    subscribers: Arc<Subscribers>,
}

impl WorkerWakes {
    /// Runs `look`, then waits until the worker is woken; a wake while `look` runs counts.
    pub async fn after<T>(&self, look: impl Future<Output = T>) -> (T, impl Future<Output = ()> + '_) {
        let mut woken = Box::pin(self.subscribers.woken.notified());
        // From here on a wake is not missed.
        woken.as_mut().enable();
        (look.await, woken)
    }
}

impl Drop for WorkerWakes {
    fn drop(&mut self) {
        let mut workers = self.wakeups.workers();
        // Let go under the lock, so that of two that are dropped at once the second sees that nobody is left.
        drop(std::mem::take(&mut self.subscribers));
        if workers.get(&self.worker_id).is_some_and(|known| Arc::strong_count(known) == 1) {
            workers.remove(&self.worker_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures_util::FutureExt;

    use super::*;

    fn worker() -> WorkerId {
        WorkerId::parse("worker-a").unwrap()
    }

    #[tokio::test]
    async fn a_wake_between_looking_and_waiting_is_not_missed() {
        let wakeups = Arc::new(Wakeups::new());
        let wakes = wakeups.subscribe(&worker());
        let looking = async { wakeups.wake(Wake::Worker(worker())) };
        let ((), woken) = wakes.after(looking).await;
        woken.await;
    }

    #[tokio::test]
    async fn a_wake_before_looking_wakes_nobody() {
        let wakeups = Arc::new(Wakeups::new());
        let wakes = wakeups.subscribe(&worker());
        wakeups.wake(Wake::Worker(worker()));
        let ((), woken) = wakes.after(ready(())).await;
        assert!(woken.now_or_never().is_none());
    }

    #[tokio::test]
    async fn everybody_can_be_woken_at_once() {
        let wakeups = Arc::new(Wakeups::new());
        let wakes = wakeups.subscribe(&worker());
        let ((), woken) = wakes.after(async { wakeups.wake_everybody() }).await;
        woken.await;
        wakeups.dispatch_requested().await;
        wakeups.deliver_requested().await;
    }

    #[test]
    fn nothing_is_left_of_those_who_went() {
        let wakeups = Arc::new(Wakeups::new());
        let (first, second) = (wakeups.subscribe(&worker()), wakeups.subscribe(&worker()));
        drop(first);
        assert_eq!(wakeups.workers().len(), 1);
        drop(second);
        assert!(wakeups.workers().is_empty());
    }
}
