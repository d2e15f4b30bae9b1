//! What clients and workers do with workers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{ControlPlane, UseCaseError, WorkerWakes};
use crate::domain::commands::{
    ConnectionNews, Credential, Deregister, DeregistrationAnswer, Drain, Goodbye, GoodbyeAnswer, Heartbeat,
    HeartbeatAnswer, HoldAnswer, LiftHold, Register, Registered, Undrain,
};
use crate::domain::ids::{ConnectionId, DirectiveId, Name, WorkerId};
use crate::domain::rejection::Rejection;
use crate::domain::time::Timestamp;
use crate::domain::worker::{ConnectionKind, Deregistration, Directive, WorkerView};

/// How long a stream is believed open without a further word from the server that holds it.
const STREAM_BELIEVED_FOR: Duration = Duration::from_secs(20);

/// How often the server that holds a stream says that it is open.
const STREAM_CONFIRMED_EVERY: Duration = Duration::from_secs(7);

impl ControlPlane {
    /// A worker's process comes.
    ///
    /// # Errors
    ///
    /// The process or its name is retired, two processes fight for the name, or the store is away.
    pub async fn register(&self, registration: &Register) -> Result<Registered, UseCaseError> {
        self.execute(registration).await
    }

    /// A name for a worker that chose none: the same for the same boot, so that a registration whose answer was lost
    /// may be repeated.
    #[must_use]
    pub fn mint_worker_id(boot_id: &Name) -> WorkerId {
        let digest = Sha256::digest(boot_id.as_str().as_bytes());
        let digits: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Name::parse(&format!("worker-{digits}")).unwrap_or_else(|_| unreachable!("a word and digits are a name"))
    }

    /// A worker says that it lives.
    ///
    /// # Errors
    ///
    /// It is retired, or the store is away.
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatAnswer, UseCaseError> {
        self.execute(heartbeat).await
    }

    /// A worker says goodbye.
    ///
    /// # Errors
    ///
    /// It is retired, or the store is away.
    pub async fn goodbye(&self, goodbye: &Goodbye) -> Result<GoodbyeAnswer, UseCaseError> {
        self.execute(goodbye).await
    }

    /// A client retires workers. With `wait` the answer comes when nothing drains any more, or that time is over.
    ///
    /// # Errors
    ///
    /// Nobody ever had the name, or the store is away.
    pub async fn deregister(
        &self,
        deregistration: &Deregister,
        wait: Duration,
    ) -> Result<DeregistrationAnswer, UseCaseError> {
        let answer = self.execute(deregistration).await?;
        if wait.is_zero() || answer.dry_run || answer.deregistration.finished_at.is_some() {
            return Ok(answer);
        }
        let deregistration = self.drained(answer.deregistration, wait).await?;
        Ok(DeregistrationAnswer { deregistration, dry_run: false })
    }

    /// Waits until a deregistration is through, but not longer than `wait`; gives back where it is then.
    async fn drained(&self, known: Deregistration, wait: Duration) -> Result<Deregistration, UseCaseError> {
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        let subscriptions: Vec<WorkerWakes> =
            known.draining.iter().map(|id| self.ports.wakeups.subscribe(id)).collect();
        let mut present = known;
        loop {
            // Looks again at the latest after a moment: the wake of another server may be lost.
            let moment = tokio::time::sleep(Duration::from_millis(250));
            let woken = futures_util::future::select_all(
                subscriptions.iter().map(|wakes| Box::pin(async move { wakes.after(async {}).await.1.await })),
            );
            let over = tokio::select! {
                biased;
                () = &mut deadline => true,
                () = self.closed() => true,
                _ = woken => false,
                () = moment => false,
            };
            if let Some(latest) = self.ports.reader.deregistration(present.id).await? {
                present = latest.as_ref().clone();
            }
            if over || present.finished_at.is_some() {
                return Ok(present);
            }
        }
    }

    /// A client tells a worker to take no more jobs; answers with the worker.
    ///
    /// # Errors
    ///
    /// There is no such worker, or the store is away.
    pub async fn drain(&self, drain: &Drain) -> Result<(Timestamp, WorkerView), UseCaseError> {
        self.execute(drain).await?;
        self.worker(&drain.worker_id).await
    }

    /// A client lets a worker take jobs again; answers with the worker.
    ///
    /// # Errors
    ///
    /// There is no such worker, it is not draining, or the store is away.
    pub async fn undrain(&self, worker_id: &WorkerId) -> Result<(Timestamp, WorkerView), UseCaseError> {
        self.execute(&Undrain { worker_id: worker_id.clone() }).await?;
        self.ports.signals.wake(crate::ports::signals::Wake::Dispatch);
        self.worker(worker_id).await
    }

    /// A client lets workers of a name come back.
    ///
    /// # Errors
    ///
    /// The name was never heard of, or the store is away.
    pub async fn lift_hold(&self, name: &Name) -> Result<HoldAnswer, UseCaseError> {
        self.execute(&LiftHold { name: name.clone() }).await
    }

    /// One worker, and the time at which it was looked at.
    ///
    /// # Errors
    ///
    /// There is no such worker, or the store is away.
    pub async fn worker(&self, worker_id: &WorkerId) -> Result<(Timestamp, WorkerView), UseCaseError> {
        let (now, view) = self.ports.reader.worker(worker_id).await?;
        Ok((now, view.ok_or(Rejection::WorkerNotFound)?))
    }

    /// Opens a worker's stream of directives.
    ///
    /// # Errors
    ///
    /// The worker is retired, or the store is away.
    pub async fn directives(self: &Arc<Self>, who: Credential) -> Result<DirectiveStream, UseCaseError> {
        let connection = ConnectionId::new(self.rules.ids.uuid());
        let wakes = self.ports.wakeups.subscribe(&who.worker_id);
        let stream = DirectiveStream {
            control_plane: Arc::clone(self),
            who,
            connection,
            wakes,
            sent: HashSet::new(),
            ready: Vec::new(),
            ended: false,
        };
        stream.confirm().await?;
        Ok(stream)
    }
}

/// What comes out of a [`DirectiveStream`].
#[derive(Clone, Debug, PartialEq)]
pub enum StreamItem {
    /// Something to do.
    Directive(Directive),
    /// Nothing for a while; a comment keeps the connection alive.
    Quiet,
}

/// A worker's open stream of directives: each comes out once, in order. Dropping it tells that the stream broke,
/// unless it ended by itself.
#[derive(Debug)]
pub struct DirectiveStream {
    control_plane: Arc<ControlPlane>,
    who: Credential,
    connection: ConnectionId,
    wakes: WorkerWakes,
    sent: HashSet<DirectiveId>,
    ready: Vec<Directive>,
    ended: bool,
}

impl DirectiveStream {
    /// The next item; `None` when the server closes, or the worker is retired and was told all.
    pub async fn next(&mut self) -> Option<StreamItem> {
        loop {
            if !self.ready.is_empty() {
                return Some(StreamItem::Directive(self.ready.remove(0)));
            }
            if self.ended {
                return None;
            }
            let (seen, woken) = self.wakes.after(self.look()).await;
            match seen {
                Ok((fresh, retired)) if !fresh.is_empty() || retired => {
                    drop(woken);
                    self.sent.extend(fresh.iter().map(|directive| directive.id));
                    self.ready = fresh;
                    self.ended = retired;
                    continue;
                }
                // While the store is away the stream stays open: it says so at the next look.
                Ok(_) | Err(_) => {}
            }
            tokio::select! {
                () = woken => continue,
                () = self.control_plane.closed() => {}
                () = tokio::time::sleep(STREAM_CONFIRMED_EVERY) => {
                    match self.confirm().await {
                        Err(UseCaseError::Rejected(_)) => {}
                        Ok(()) | Err(UseCaseError::Unavailable(_) | UseCaseError::Internal(_)) => {
                            return Some(StreamItem::Quiet);
                        }
                    }
                }
            }
            self.ended = true;
        }
    }

    /// What the worker was not sent yet, and whether its generation is over.
    async fn look(&self) -> Result<(Vec<Directive>, bool), UseCaseError> {
        let (_, view) = self.control_plane.worker(&self.who.worker_id).await?;
        let replaced = view.worker.generation != self.who.generation;
        let fresh = |directive: &&Directive| !replaced && !self.sent.contains(&directive.id);
        let directives = view.worker.directives.iter().filter(fresh).cloned().collect();
        Ok((directives, replaced || !view.worker.is_present()))
    }

    async fn confirm(&self) -> Result<(), UseCaseError> {
        let news = ConnectionNews {
            who: self.who.clone(),
            connection: self.connection,
            kind: ConnectionKind::Stream,
            open_for: Some(STREAM_BELIEVED_FOR),
            broken: false,
        };
        self.control_plane.execute(&news).await
    }
}

impl Drop for DirectiveStream {
    fn drop(&mut self) {
        if !self.ended {
            self.control_plane.depart(&self.who, self.connection, ConnectionKind::Stream);
        }
    }
}
