//! A worker: one process that drives one browser, and what is known of it.

mod deregistration;
mod directive;
mod view;
mod vitals;

pub use deregistration::{Deregistration, NameRecord};
pub use directive::{Directive, DirectiveType};
pub use view::{Ineligible, Occupation, WorkerView};
pub use vitals::{Beat, Connection, ConnectionChange, ConnectionKind, ConnectionUpdate, Vitals, VitalsChange};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ids::{Attempt, DeregistrationId, Generation, JobId, Name, TargetName, Version, WorkerId};
use super::time::Timestamp;

/// What a worker says of itself when it registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerIdentity {
    /// Where it is deployed, for people.
    pub environment: Option<Box<str>>,
    /// The client's routing key.
    pub target_worker_id: Option<TargetName>,
    /// The machine it runs on.
    pub ec2_instance_id: Option<Name>,
    /// The machine's address.
    pub ec2_ip: Option<Box<str>>,
    /// Where a person can watch.
    pub live_view_url: Option<Box<str>>,
    /// The worker's own version.
    pub version: Option<Box<str>>,
}

/// The status of a worker, as everybody outside knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerStatus {
    /// Heard from, without a job.
    Idle,
    /// Heard from, with a job.
    Busy,
    /// Told to stop taking jobs.
    Draining,
    /// Not heard from, or deregistered.
    Offline,
}

impl WorkerStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Busy, Self::Draining, Self::Offline];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Offline => "offline",
        }
    }
}

/// Who told a worker to take no more jobs; only the same, or a stronger one, takes it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainCause {
    /// The worker itself.
    Worker,
    /// A client.
    Client,
    /// A deregistration: when the worker is free it is gone for good.
    Deregistration(DeregistrationId),
}

/// A worker that takes no more jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Who told it.
    pub cause: DrainCause,
    /// Why.
    pub reason: Box<str>,
    /// When its job is taken from it; without one it may finish.
    pub deadline: Option<Timestamp>,
    /// Since when the deadline counts.
    pub since: Timestamp,
}

/// What is decided of a worker; `idle` and `busy` follow from whether a job occupies it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerState {
    /// Takes jobs.
    Active,
    /// Takes no more.
    Draining(Drain),
    /// Fell silent, or said goodbye; may register again.
    Offline {
        /// Since when.
        since: Timestamp,
    },
    /// Gone for good: this process never comes back.
    Deregistered {
        /// Since when.
        since: Timestamp,
        /// Why.
        reason: Box<str>,
    },
}

/// The job that somebody else ended while the worker had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// The job.
    pub job_id: JobId,
    /// Its attempt.
    pub attempt: Attempt,
    /// When the worker is taken for free without having said so.
    pub until: Timestamp,
}

/// A worker, as it was decided. What its calls leave behind is in [`Vitals`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// Its name.
    pub id: WorkerId,
    /// How often it was written.
    pub version: Version,
    /// The living process.
    pub boot_id: Name,
    /// Counts the processes of this name, and their returns.
    pub generation: Generation,
    /// What it said of itself.
    pub identity: WorkerIdentity,
    /// Opaque JSON it said of itself.
    pub metadata: Option<Box<RawValue>>,
    /// When this generation registered.
    pub registered_at: Timestamp,
    /// What is decided of it.
    pub state: WorkerState,
    /// The job that somebody else ended while it had it.
    pub closing: Option<Closing>,
    /// Whether it let a reservation lapse and has not claimed since.
    pub lapsed: bool,
    /// Since when it is without a job.
    pub idle_since: Timestamp,
    /// Jobs that this generation completed.
    pub jobs_completed: u64,
    /// Jobs that this generation failed.
    pub jobs_failed: u64,
    /// What it has not acknowledged yet.
    pub directives: Vec<Directive>,
    /// Processes of this name that were deregistered: none ever comes back.
    pub retired_boots: Vec<Name>,
    /// When living processes of this name replaced each other, the latest last.
    pub replacements: Vec<Timestamp>,
    /// Until when a newcomer under this name is refused, since living processes fight for it.
    pub contested_until: Option<Timestamp>,
    /// The generation whose refused calls were told of.
    pub refusal_told: Option<Generation>,
    /// The number of its last event.
    pub event_seq: u64,
}

impl Worker {
    /// Whether it takes part: neither offline nor deregistered.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        matches!(self.state, WorkerState::Active | WorkerState::Draining(_))
    }

    /// The drain, while there is one.
    #[must_use]
    pub const fn drain(&self) -> Option<&Drain> {
        match &self.state {
            WorkerState::Draining(drain) => Some(drain),
            _ => None,
        }
    }

    /// The deregistration that waits for it to be free.
    #[must_use]
    pub const fn deregistration(&self) -> Option<DeregistrationId> {
        match &self.state {
            WorkerState::Draining(Drain { cause: DrainCause::Deregistration(id), .. }) => Some(*id),
            _ => None,
        }
    }

    /// What stays of a worker that is gone when a store forgets it, as the next version: how far its generations are
    /// counted and its events numbered, and which of its processes may never come back. All that was said of it goes.
    #[must_use]
    pub fn tombstone(&self) -> Self {
        Self {
            id: self.id.clone(),
            version: self.version.next(),
            boot_id: self.boot_id.clone(),
            generation: self.generation,
            identity: WorkerIdentity::default(),
            metadata: None,
            registered_at: self.registered_at,
            state: self.state.clone(),
            closing: None,
            lapsed: false,
            idle_since: self.idle_since,
            jobs_completed: self.jobs_completed,
            jobs_failed: self.jobs_failed,
            directives: Vec::new(),
            retired_boots: self.retired_boots.clone(),
            replacements: Vec::new(),
            contested_until: None,
            refusal_told: self.refusal_told,
            event_seq: self.event_seq,
        }
    }

    /// Whether somebody else ended its job and it may still be at it.
    #[must_use]
    pub fn is_closing(&self, now: Timestamp) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.until > now)
    }
}
