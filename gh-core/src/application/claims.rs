//! Workers that ask this server for a job and wait for it.

use std::time::Duration;

use super::dispatch::Told;
use super::{ControlPlane, Departure, UseCaseError};
use crate::domain::commands::{Claim, ClaimAnswer, Credential, Granted};
use crate::domain::ids::ConnectionId;
use crate::domain::snapshot::Keys;
use crate::domain::worker::ConnectionKind;
use crate::ports::signals::{Signals, Wake};

/// A job that a worker was given.
pub type Claimed = Granted;

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
        let mut waiting = None;
        let outcome = loop {
            let command = Claim { who: who.clone(), connection, wait, waited: waiting.is_some() };
            let (told, woken) = wakes.after(self.look(&command)).await;
            match told {
                Told::Answered(outcome) => break outcome.map(Some),
                Told::Served(granted) => waiting = Some((granted, None)),
                Told::Waiting => {}
            }
            let (granted, place) = waiting.get_or_insert_with(|| {
                let (granted, place) = self.claims.enter(who, connection);
                (granted, Some(place))
            });
            if let Some(entered) = place.take() {
                // Whoever dispatches serves all who wait: only one who was not served yet has to do it.
                let turn = tokio::select! {
                    biased;
                    handed_over = &mut *granted => break Ok(handed_over.ok()),
                    turn = self.dispatching.lock() => turn,
                };
                if !turn.has_served(entered) {
                    Box::pin(self.dispatch(turn)).await?;
                }
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

    /// Looks for a job: one that has just come by the next dispatch, which writes it down together with its job. One that
    /// waited before, or could not be decided beside others, by itself.
    async fn look(&self, claim: &Claim) -> Told {
        if !claim.waited
            && let Some(told) = self.arrive(claim).await
        {
            return told;
        }
        match self.execute(claim).await {
            Ok(ClaimAnswer::Granted(granted)) => Told::Answered(Ok(granted)),
            Ok(ClaimAnswer::Waiting) => Told::Waiting,
            Err(error) => Told::Answered(Err(error)),
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
