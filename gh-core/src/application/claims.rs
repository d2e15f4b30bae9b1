//! Workers that wait for a job on this server, and jobs for them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{ControlPlane, Departure, UseCaseError};
use crate::domain::changeset::Changeset;
use crate::domain::commands::{Claim, ClaimAnswer, Credential, Granted};
use crate::domain::ids::{ConnectionId, Generation, WorkerId};
use crate::domain::snapshot::Keys;
use crate::domain::worker::ConnectionKind;
use crate::ports::signals::{Signals, Wake};
use crate::ports::store::ClaimRequest;

/// A job that a worker was given.
pub type Claimed = Granted;

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
    /// Who may have been given a job in a call whose answer was lost.
    unsure: HashSet<WorkerId>,
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
    fn enter(&self, who: &Credential, connection: ConnectionId) -> (oneshot::Receiver<Granted>, u64) {
        let (hand_over, granted) = oneshot::channel();
        self.lock().insert(who.worker_id.clone(), Waiter { generation: who.generation, connection, hand_over });
        (granted, self.entered.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn leave(&self, worker_id: &WorkerId, connection: ConnectionId) {
        let mut waiting = self.lock();
        if waiting.get(worker_id).is_some_and(|waiter| waiter.connection == connection) {
            waiting.remove(worker_id);
        }
    }

    fn workers(&self) -> Vec<WorkerId> {
        self.lock().keys().cloned().collect()
    }

    fn processes(&self) -> Vec<Credential> {
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

/// Leaves the waiting room when the claim ends, however it ends.
struct Seat<'c> {
    control_plane: &'c ControlPlane,
    who: &'c Credential,
    connection: ConnectionId,
    answered: bool,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.control_plane.claims.leave(&self.who.worker_id, self.connection);
        if !self.answered {
            // The caller went away: nobody may place a job on the strength of this claim.
            self.control_plane.depart(self.who, self.connection, ConnectionKind::Claim);
        }
    }
}

impl ControlPlane {
    /// A worker asks for a job and waits up to `wait` for one.
    ///
    /// `None` when there was none in that time, a newer claim of the worker took its place, or the server closes.
    ///
    /// # Errors
    ///
    /// The rules refuse it (draining, a started lease held, retired), or the store is away.
    pub async fn claim(&self, who: &Credential, wait: Duration) -> Result<Option<Claimed>, UseCaseError> {
        let connection = ConnectionId::new(self.rules.ids.uuid());
        let wakes = self.ports.wakeups.subscribe(&who.worker_id);
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        let mut seat = Seat { control_plane: self, who, connection, answered: false };
        let mut granted = None;
        let outcome = loop {
            let command = Claim { who: who.clone(), connection, wait, waited: granted.is_some() };
            let (answer, woken) = wakes.after(self.execute(&command)).await;
            match answer {
                Ok(ClaimAnswer::Granted(granted)) => break Ok(Some(granted)),
                Ok(ClaimAnswer::Waiting) => {}
                Err(error) => break Err(error),
            }
            let (granted, place) = granted.get_or_insert_with(|| self.claims.enter(who, connection));
            // Whoever dispatches serves all who wait: only one who was not served yet has to do it.
            let turn = tokio::select! {
                biased;
                handed_over = &mut *granted => break Ok(handed_over.ok()),
                turn = self.dispatching.lock() => turn,
            };
            if turn.served < *place {
                self.dispatch(turn).await?;
            } else {
                drop(turn);
            }
            tokio::select! {
                biased;
                handed_over = &mut *granted => break Ok(handed_over.ok()),
                () = &mut deadline => break Ok(None),
                () = self.closed() => break Ok(None),
                () = woken => {}
            }
        };
        seat.answered = true;
        outcome
    }

    /// Grants waiting jobs to the workers whose claims wait on this server; says how many.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn dispatch_once(&self) -> Result<usize, UseCaseError> {
        let turn = self.dispatching.lock().await;
        self.dispatch(turn).await
    }

    /// Grants waiting jobs, one dispatch at a time.
    async fn dispatch(&self, mut turn: tokio::sync::MutexGuard<'_, Dispatching>) -> Result<usize, UseCaseError> {
        let entered = self.claims.entered.load(Ordering::SeqCst);
        let workers = self.claims.workers();
        if workers.is_empty() {
            return Ok(0);
        }
        let committed = match self.ports.store.claim(ClaimRequest { workers: workers.clone() }, &self.rules).await {
            Ok(committed) => committed,
            Err(error) => {
                turn.unsure.extend(workers);
                return Err(error.into());
            }
        };
        turn.served = entered;
        // Their claims look again, and find what they were given.
        turn.unsure.drain().for_each(|worker_id| self.ports.signals.wake(Wake::Worker(worker_id)));
        for changes in &committed {
            self.hand_over(changes);
            self.announce(changes);
        }
        Ok(committed.len())
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

    /// Looks on behalf of all claims that wait on this server, by one read: those for whose workers something is there
    /// are woken, and find it; says how many. Only what was missed is found so, for a wake that was lost.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn wake_forgotten_claims(&self) -> Result<usize, UseCaseError> {
        let waiting = self.claims.processes();
        if waiting.is_empty() {
            return Ok(0);
        }
        let workers = waiting.iter().map(|who| who.worker_id.clone()).collect();
        let known = self.ports.store.load(&Keys { workers, ..Keys::default() }).await?;
        let forgotten = waiting.iter().filter(|who| Claim::need_not_wait(who, known.workers.get(&who.worker_id)));
        let wake = |who: &Credential| self.ports.wakeups.wake(Wake::Worker(who.worker_id.clone()));
        Ok(forgotten.map(wake).count())
    }

    /// Notes that a connection's other end went away; the dispatch loop writes it down at once.
    pub(super) fn depart(&self, who: &Credential, connection: ConnectionId, kind: ConnectionKind) {
        // The receiver lives as long as this control plane.
        let _noted = self.departures.send(Departure { who: who.clone(), connection, kind });
        self.ports.wakeups.wake(Wake::Dispatch);
    }

    /// Writes down which waiting claims and streams of this process ended without a word, so that nobody counts on
    /// them any more.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn note_departures(&self) -> Result<(), UseCaseError> {
        use crate::domain::commands::ConnectionNews;
        let mut departed = self.departed.lock().await;
        while let Ok(Departure { who, connection, kind }) = departed.try_recv() {
            let broken = kind == ConnectionKind::Stream;
            let news = ConnectionNews { who, connection, kind, open_for: None, broken };
            match self.execute(&news).await {
                Ok(()) | Err(UseCaseError::Rejected(_)) => {}
                Err(error @ UseCaseError::Unavailable(_)) => {
                    // The next round tries again; nobody is woken for it, or this would spin while the store is away.
                    let _noted = self.departures.send(Departure { who: news.who, connection, kind });
                    return Err(error);
                }
                Err(error @ UseCaseError::Internal(_)) => return Err(error),
            }
        }
        Ok(())
    }
}
