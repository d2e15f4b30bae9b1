//! Use cases: load, decide, store, tell those who wait. And the loops that make time pass.
//!
//! [`ControlPlane`] is what every way in calls: HTTP handlers, an embedder's own code, tests. Three loops stand beside
//! it, [`dispatch`](ControlPlane::dispatch_once), [`sweep`](ControlPlane::sweep_once) and
//! [`deliver`](ControlPlane::deliver_once); each is a step that tests call directly, and [`BackgroundLoops`] are the
//! thin loops around them and say which process runs which.

mod background;
mod claims;
mod dispatch;
mod execute;
mod figures;
mod fleet;
mod group_commit;
mod jobs;
mod loops;
mod reports;
mod wakeups;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

pub use claims::Claimed;
pub use figures::{FleetFigures, WaitingJobs};
pub use fleet::{DirectiveStream, StreamItem};
pub use group_commit::{GroupCommit, LaneSettings};
pub use jobs::{BatchItem, JobAnswer};
pub use loops::BackgroundLoops;
pub use wakeups::{Wakeups, WorkerWakes};

use crate::domain::commands::Credential;
use crate::domain::ids::{ConnectionId, ServerId};
use crate::domain::policy::Policy;
use crate::domain::rejection::Rejection;
use crate::domain::rules::Rules;
use crate::domain::worker::ConnectionKind;
use crate::ports::callback_sender::CallbackSender;
use crate::ports::outbox::Outbox;
use crate::ports::reader::Reader;
use crate::ports::signals::Signals;
use crate::ports::store::{Store, StoreError};

/// Why a use case did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum UseCaseError {
    /// The rules refuse it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The store could not, or too many others changed the same at once; it is worth trying again.
    #[error("the control plane cannot answer now")]
    Unavailable(#[source] Option<StoreError>),
    /// A defect, or stored data that makes no sense.
    #[error("the control plane failed")]
    Internal(#[source] StoreError),
}

impl From<StoreError> for UseCaseError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Unavailable(Some(error)),
            StoreError::Corrupt(_) | StoreError::Internal(_) => Self::Internal(error),
        }
    }
}

/// What a control plane is put together from.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Stores changesets.
    pub store: Arc<dyn Store>,
    /// Answers questions.
    pub reader: Arc<dyn Reader>,
    /// Hands out callbacks.
    pub outbox: Arc<dyn Outbox>,
    /// Sends callbacks.
    pub sender: Arc<dyn CallbackSender>,
    /// Wakes those who wait, on every server; for one server alone the [`Wakeups`] themselves.
    pub signals: Arc<dyn Signals>,
    /// Where those wait who wait on this server.
    pub wakeups: Arc<Wakeups>,
}

impl Ports {
    /// For one process alone: one store that has all three ports of storage, and wakes that stay in this process.
    ///
    /// Many processes over one store need [`signals`](Self::signals) that reach all of them; a decorator of one port
    /// takes its place: `Ports { store: measured, ..Ports::alone(store, sender) }`.
    #[must_use]
    pub fn alone<S>(store: Arc<S>, sender: Arc<dyn CallbackSender>) -> Self
    where
        S: Store + Reader + Outbox + 'static,
    {
        let wakeups = Arc::new(Wakeups::new());
        Self { store: store.clone(), reader: store.clone(), outbox: store, sender, signals: wakeups.clone(), wakeups }
    }
}

/// The control plane: every use case there is.
#[derive(Debug)]
pub struct ControlPlane {
    ports: Ports,
    rules: Rules,
    server: ServerId,
    lanes: Option<group_commit::Lanes>,
    claims: dispatch::WaitingRoom,
    arrivals: dispatch::Arrivals,
    dispatching: tokio::sync::Mutex<dispatch::Dispatching>,
    departures: mpsc::UnboundedSender<Departure>,
    departed: tokio::sync::Mutex<mpsc::UnboundedReceiver<Departure>>,
    closing: watch::Sender<bool>,
}

/// A connection whose other end went away without a word.
#[derive(Clone, Debug)]
struct Departure {
    who: Credential,
    connection: ConnectionId,
    kind: ConnectionKind,
}

impl ControlPlane {
    /// Puts a control plane together. Nothing runs yet: see [`BackgroundLoops`].
    #[must_use]
    pub fn new(ports: Ports, rules: Rules) -> Self {
        let (departures, departed) = mpsc::unbounded_channel();
        let server = ServerId::new(rules.ids.uuid());
        Self {
            ports,
            rules,
            server,
            lanes: None,
            claims: dispatch::WaitingRoom::default(),
            arrivals: dispatch::Arrivals::default(),
            dispatching: tokio::sync::Mutex::default(),
            departures,
            departed: tokio::sync::Mutex::new(departed),
            closing: watch::Sender::new(false),
        }
    }

    /// Has commands that come while others are being stored decided and stored together: many times the speed on a
    /// store that keeps what it acknowledged, and nothing to wait for while there is little to do. It takes place while
    /// [`BackgroundLoops::COMMIT`] runs; otherwise each command goes its own way, as without it.
    #[must_use]
    pub fn with_group_commit(self, settings: &GroupCommit) -> Self {
        Self { lanes: Some(group_commit::Lanes::new(settings)), ..self }
    }

    /// The times and limits in force.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.rules.policy
    }

    /// Looks, without changing anything.
    #[must_use]
    pub fn reader(&self) -> &dyn Reader {
        self.ports.reader.as_ref()
    }

    /// Stores.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        self.ports.store.as_ref()
    }

    /// Ends everything that waits: claims come back empty, streams close, the loops stop. Nothing opens it again.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Resolves when [`Self::close`] was called.
    pub async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // The sender lives as long as this control plane, so waiting cannot fail.
        let _closed = closing.wait_for(|closing| *closing).await;
    }
}
