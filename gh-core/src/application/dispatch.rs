//! Dispatches: new claims and waiting jobs, decided and stored together.

use std::collections::{HashMap, HashSet, VecDeque};
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tokio::sync::{oneshot, watch};

use super::{ControlPlane, UseCaseError};
use crate::domain::changeset::Changeset;
use crate::domain::commands::{Claim, ClaimAnswer, Credential, Granted};
use crate::domain::ids::{ConnectionId, Generation, WorkerId};
use crate::domain::rejection::Rejection;
use crate::domain::worker::ConnectionKind;
use crate::ports::signals::{Signals, Wake};
use crate::ports::store::{ClaimRequest, Conflict, Dispatched, StoreError};

/// So many claims are new at most; those that come beyond are asked to come again.
const MAX_NEW: usize = 4_096;

/// So many of them one dispatch takes with it.
const MAX_TAKEN: usize = 256;

/// Workers whose claims wait on this server; a newer claim of a worker ends its older one.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    waiting: Mutex<HashMap<WorkerId, Waiter>>,
    /// How many have entered.
    entered: AtomicU64,
}

/// What is known between two dispatches.
#[derive(Debug, Default)]
pub(super) struct Dispatching {
    /// Of those who entered, so many were there when the last dispatch began that came through.
    served: u64,
    /// Who waited when the last dispatch began, until it comes through.
    asking: Vec<WorkerId>,
    /// Who may have been given a job in a call whose answer was lost.
    unsure: HashSet<WorkerId>,
}

impl Dispatching {
    /// Whether a dispatch came through since this one entered.
    pub(super) const fn has_served(&self, entered: u64) -> bool {
        self.served >= entered
    }
}

#[derive(Debug)]
struct Waiter {
    generation: Generation,
    connection: ConnectionId,
    hand_over: oneshot::Sender<Granted>,
}

impl WaitingRoom {
    fn lock(&self) -> MutexGuard<'_, HashMap<WorkerId, Waiter>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits from now on; gives back where a grant arrives, and how many have entered with this one.
    pub(super) fn enter(&self, who: &Credential, connection: ConnectionId) -> (oneshot::Receiver<Granted>, u64) {
        let (hand_over, granted) = oneshot::channel();
        self.lock().insert(who.worker_id.clone(), Waiter { generation: who.generation, connection, hand_over });
        (granted, self.entered.fetch_add(1, Ordering::SeqCst) + 1)
    }

    pub(super) fn leave(&self, worker_id: &WorkerId, connection: ConnectionId) {
        let mut waiting = self.lock();
        if waiting.get(worker_id).is_some_and(|waiter| waiter.connection == connection) {
            waiting.remove(worker_id);
        }
    }

    /// Ends the claim of this worker, if one waits: a newer one was answered.
    fn end(&self, worker_id: &WorkerId) {
        self.lock().remove(worker_id);
    }

    fn workers(&self) -> Vec<WorkerId> {
        self.lock().keys().cloned().collect()
    }

    pub(super) fn processes(&self) -> Vec<Credential> {
        let credential = |(worker_id, waiter): (&WorkerId, &Waiter)| Credential {
            worker_id: worker_id.clone(),
            generation: waiter.generation,
        };
        self.lock().iter().map(credential).collect()
    }

    /// Hands a grant to the claim that waits for it. One that has left finds it at the worker's next claim.
    fn hand_over(&self, worker_id: &WorkerId, granted: Granted) {
        if let Some(waiter) = self.lock().remove(worker_id) {
            // A claim that left in this very moment is answered again at the worker's next one.
            let _left = waiter.hand_over.send(granted);
        }
    }
}

/// Claims that have just come and are not written down yet: the next dispatch takes them with it.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    new: Mutex<VecDeque<Arrival>>,
    /// How many loops dispatch.
    loops: watch::Sender<usize>,
}

#[derive(Debug)]
struct Arrival {
    claim: Claim,
    told: oneshot::Sender<Option<Told>>,
}

/// What a claim is told that looked.
#[derive(Debug)]
pub(super) enum Told {
    /// It is over.
    Answered(Result<Granted, UseCaseError>),
    /// It waits from now on, and was served by a dispatch: a grant arrives here.
    Served(oneshot::Receiver<Granted>),
    /// It has to wait.
    Waiting,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arrival>> {
        self.new.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is told what became of it; `None` where there are too many.
    fn push(&self, claim: &Claim) -> Option<oneshot::Receiver<Option<Told>>> {
        let (told, hears) = oneshot::channel();
        let mut new = self.lock();
        if new.len() >= MAX_NEW {
            return None;
        }
        new.push_back(Arrival { claim: claim.clone(), told });
        Some(hears)
    }

    /// Takes the first of them, without those whose caller went away.
    fn take(&self) -> Vec<Arrival> {
        let mut new = self.lock();
        let mut taken = Vec::new();
        while taken.len() < MAX_TAKEN
            && let Some(arrival) = new.pop_front()
        {
            if !arrival.told.is_closed() {
                taken.push(arrival);
            }
        }
        taken
    }

    /// From now on, until what it gives back is dropped, a loop dispatches.
    pub(super) fn served_by_loop(&self) -> impl Drop {
        self.loops.send_modify(|loops| *loops += 1);
        Serving(self.loops.clone())
    }

    /// Resolves when no loop dispatches.
    async fn left_alone(&self) {
        let mut loops = self.loops.subscribe();
        // The sender lives as long as the arrivals, so waiting cannot fail.
        let _none = loops.wait_for(|loops| *loops == 0).await;
    }
}

struct Serving(watch::Sender<usize>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.send_modify(|loops| *loops = loops.saturating_sub(1));
    }
}

impl ControlPlane {
    /// Has the next dispatch decide a claim that has just come. `None` where that could not be done beside others:
    /// nothing of it is stored then, as far as is known.
    ///
    /// The loop dispatches, where one runs: a caller that goes away cuts nothing off then. Otherwise those who come do
    /// it, one for all.
    pub(super) async fn arrive(&self, claim: &Claim) -> Option<Told> {
        let Some(mut told) = self.arrivals.push(claim) else {
            return Some(Told::Answered(Err(UseCaseError::Unavailable(None))));
        };
        self.ports.wakeups.wake(Wake::Dispatch);
        tokio::select! {
            biased;
            told = &mut told => return told.ok().flatten(),
            () = self.arrivals.left_alone() => {}
        }
        loop {
            let turn = tokio::select! {
                biased;
                told = &mut told => return told.ok().flatten(),
                turn = self.dispatching.lock() => turn,
            };
            // Whoever it failed is told.
            let _told = Box::pin(self.dispatch(turn)).await;
        }
    }

    /// Decides the claims that have just come, and grants waiting jobs to the workers whose claims wait on this server;
    /// says how many.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn dispatch_once(&self) -> Result<usize, UseCaseError> {
        let turn = self.dispatching.lock().await;
        self.dispatch(turn).await
    }

    /// The same, one dispatch at a time.
    pub(super) async fn dispatch(
        &self,
        mut turn: tokio::sync::MutexGuard<'_, Dispatching>,
    ) -> Result<usize, UseCaseError> {
        let entered = self.claims.entered.load(Ordering::SeqCst);
        let arrivals = self.arrivals.take();
        if arrivals.len() == MAX_TAKEN {
            self.ports.wakeups.wake(Wake::Dispatch);
        }
        let workers = self.claims.workers();
        if workers.is_empty() && arrivals.is_empty() {
            return Ok(0);
        }
        // Known until it comes through, and so, too, if it is cut off.
        let cut_off = std::mem::replace(&mut turn.asking, workers.clone());
        turn.unsure.extend(cut_off);
        let claims = arrivals.iter().map(|arrival| arrival.claim.clone()).collect();
        let claiming = self.ports.store.claim(ClaimRequest { workers, claims }, &self.rules);
        // What was decided is stored or is not: nothing is left half done.
        let outcome = AssertUnwindSafe(claiming).catch_unwind().await;
        let Dispatched { committed, answers } = match outcome {
            Ok(Ok(dispatched)) => dispatched,
            Ok(Err(error)) => return Err(fail(arrivals, error)),
            Err(_) => return Err(fail(arrivals, StoreError::Internal("the dispatch panicked".into()))),
        };
        turn.served = entered;
        turn.asking.clear();
        // Their claims look again, and find what they were given.
        turn.unsure.drain().for_each(|worker_id| self.ports.signals.wake(Wake::Worker(worker_id)));
        let told: Vec<_> =
            arrivals.into_iter().zip(answers).map(|(arrival, answer)| self.settle(arrival, answer)).collect();
        for changes in &committed {
            self.hand_over(changes);
            self.announce(changes);
        }
        // Last: one that waits no longer finds its job there when it is told.
        told.into_iter().for_each(|(arrival, outcome)| self.tell(arrival, outcome));
        Ok(committed.iter().map(|changes| changes.jobs().len()).sum())
    }

    /// What a claim that came is told; from here on one that waits is handed what is granted to it, and a newer one has
    /// ended the older.
    fn settle(
        &self,
        arrival: Arrival,
        answer: Result<Result<ClaimAnswer, Rejection>, Conflict>,
    ) -> (Arrival, Option<Told>) {
        let Claim { who, connection, .. } = &arrival.claim;
        let outcome = match answer {
            Ok(Ok(ClaimAnswer::Granted(granted))) => {
                self.claims.end(&who.worker_id);
                Some(Told::Answered(Ok(granted)))
            }
            Ok(Ok(ClaimAnswer::Waiting)) => Some(Told::Served(self.claims.enter(who, *connection).0)),
            Ok(Err(rejection)) => Some(Told::Answered(Err(rejection.into()))),
            Err(Conflict) => None,
        };
        (arrival, outcome)
    }

    fn tell(&self, arrival: Arrival, outcome: Option<Told>) {
        let Arrival { claim: Claim { who, connection, .. }, told } = arrival;
        let waits = matches!(outcome, Some(Told::Served(_)));
        if told.send(outcome).is_err() && waits {
            // The caller went away, maybe before this claim was written down as waiting.
            self.claims.leave(&who.worker_id, connection);
            self.depart(&who, connection, ConnectionKind::Claim);
        }
    }

    fn hand_over(&self, changes: &Changeset) {
        for write in changes.jobs() {
            if let Some(lease) = write.job.live_lease() {
                let lease_expires_at = lease.granted_at + self.rules.policy.offline_after;
                let granted = Granted { job: write.job.clone(), lease_expires_at };
                self.claims.hand_over(&lease.worker_id, granted);
            }
        }
    }
}

/// Tells claims that the dispatch failed which took them with it. If one of them is at fault, it must not be all of them:
/// each then looks by itself.
fn fail(arrivals: Vec<Arrival>, error: StoreError) -> UseCaseError {
    let StoreError::Unavailable(_) = error else {
        return error.into();
    };
    let cause: Arc<dyn Error + Send + Sync> = Arc::new(error);
    let unavailable = || UseCaseError::from(StoreError::Unavailable(Some(Box::new(Arc::clone(&cause)))));
    for arrival in arrivals {
        // Who went away needs no answer.
        let _gone = arrival.told.send(Some(Told::Answered(Err(unavailable()))));
    }
    unavailable()
}
