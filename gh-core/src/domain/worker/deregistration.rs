//! Names under which workers come, and the record of their retirement.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::code::Actor;
use crate::domain::ids::{DeregistrationId, JobId, Name, Version, WorkerId};
use crate::domain::time::Timestamp;

/// A name that was told to the control plane: held while its workers are being retired, and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRecord {
    /// The name.
    pub name: Name,
    /// How often it was written: by each registration under it, and by each deregistration.
    pub version: Version,
    /// The latest deregistration that holds it, or held it.
    pub held_by: Option<DeregistrationId>,
}

/// A deregistration: a record with a state of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deregistration {
    /// Its id.
    pub id: DeregistrationId,
    /// How often it was written.
    pub version: Version,
    /// The name that the client gave.
    pub name: Name,
    /// Every name under which nobody registers meanwhile.
    pub held_names: Vec<Name>,
    /// Why.
    pub reason: Box<str>,
    /// Who asked for it.
    pub actor: Actor,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When jobs that are left are taken from their workers.
    pub drain_deadline: Timestamp,
    /// Whether running jobs were cancelled.
    pub cancel_active_jobs: bool,
    /// How long names stay held after it is through.
    pub hold: Duration,
    /// Workers that still have something to finish.
    pub draining: Vec<WorkerId>,
    /// Workers that are gone.
    pub deregistered: Vec<WorkerId>,
    /// Jobs that it cancelled.
    pub cancelled_jobs: Vec<JobId>,
    /// Jobs that may still finish.
    pub draining_jobs: Vec<JobId>,
    /// When the last worker was gone.
    pub finished_at: Option<Timestamp>,
    /// Whether a client lifted the hold.
    pub hold_lifted: bool,
}

impl Deregistration {
    /// It waits for this worker no longer; without any left it is through.
    pub(in crate::domain) fn wait_no_longer_for(&mut self, worker_id: &WorkerId, now: Timestamp) {
        self.draining.retain(|id| id != worker_id);
        if self.draining.is_empty() {
            self.finished_at.get_or_insert(now);
        }
    }

    /// Until when its names are held: `None` while it runs, the past when they are free.
    #[must_use]
    pub fn held_until(&self) -> Option<Timestamp> {
        self.finished_at.map(|finished| if self.hold_lifted { finished } else { finished + self.hold })
    }

    /// Whether its names are held now.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.held_until().is_none_or(|until| until > now)
    }

    /// When its names are free at the latest, for `Retry-After`.
    #[must_use]
    pub fn free_at(&self) -> Timestamp {
        self.held_until().unwrap_or(self.drain_deadline + self.hold)
    }
}
