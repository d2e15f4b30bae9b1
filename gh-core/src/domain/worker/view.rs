//! A worker as it is at one moment: whether it lives, listens and can take a job.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Vitals, Worker, WorkerState, WorkerStatus};
use crate::domain::ids::{JobId, TargetName};
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;

/// A worker together with what its calls left behind and the job that occupies it.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// What was decided of it.
    pub worker: Arc<Worker>,
    /// What its calls left behind.
    pub vitals: Vitals,
    /// The job that occupies it, reserved or live.
    pub occupied_by: Option<Occupation>,
    /// Whether some worker carries this worker's id as its target: then that name does not mean this worker.
    pub id_is_a_target: bool,
    /// How many workers on its machine are occupied.
    pub instance_load: u32,
}

/// How a job occupies a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occupation {
    /// The job.
    pub job_id: JobId,
    /// Whether it is only reserved.
    pub reserved: bool,
}

/// Why a worker gets no job, from the hardest reason to the softest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ineligible {
    /// Given up, or deregistered.
    Offline,
    /// No sign of life for a while, or its stream broke.
    Suspect,
    /// It listens to nothing, and has for a while.
    Deaf,
    /// It let a reservation lapse and has not claimed since.
    Lapsed,
    /// It listens to nothing at this moment.
    NotWaiting,
    /// It takes no more jobs.
    Draining,
    /// It has a job.
    Busy,
    /// Its job was ended by somebody else, and it may still be at it.
    Closing,
    /// A job is reserved for it.
    Reserved,
}

impl WorkerView {
    /// The status that everybody outside knows.
    #[must_use]
    pub fn status(&self) -> WorkerStatus {
        match self.worker.state {
            WorkerState::Offline { .. } | WorkerState::Deregistered { .. } => WorkerStatus::Offline,
            WorkerState::Draining(_) => WorkerStatus::Draining,
            WorkerState::Active if self.live_job().is_some() => WorkerStatus::Busy,
            WorkerState::Active => WorkerStatus::Idle,
        }
    }

    /// The job it runs; a reserved one does not count.
    #[must_use]
    pub fn live_job(&self) -> Option<JobId> {
        self.occupied_by.filter(|occupation| !occupation.reserved).map(|occupation| occupation.job_id)
    }

    /// Whether it was heard from lately and its stream did not break.
    #[must_use]
    pub fn is_responsive(&self, now: Timestamp, policy: &Policy) -> bool {
        let stream_lost =
            self.vitals.stream_broken_at.is_some_and(|broken| now.since(broken) >= policy.reconnect_grace);
        self.worker.is_present() && !stream_lost && now.since(self.vitals.last_seen) < policy.suspect_after
    }

    /// Whether it listens now, or did within the grace for reconnecting.
    #[must_use]
    pub fn is_listening(&self, now: Timestamp, policy: &Policy) -> bool {
        self.vitals.listened_until().is_some_and(|until| now.since(until) < policy.reconnect_grace)
    }

    /// Whether it is free and has listened to nothing for a while.
    #[must_use]
    pub fn is_deaf(&self, now: Timestamp, policy: &Policy) -> bool {
        let quiet_since = self.vitals.listened_until().unwrap_or(self.worker.registered_at);
        let quiet_since = quiet_since.max(self.worker.idle_since);
        self.worker.is_present()
            && self.occupied_by.is_none()
            && !self.is_listening(now, policy)
            && now.since(quiet_since) >= policy.deaf_after
    }

    /// Whether a job can be placed on it now, and if not, the first reason why not.
    ///
    /// # Errors
    ///
    /// The reason that would have to go first.
    pub fn eligible(&self, now: Timestamp, policy: &Policy) -> Result<(), Ineligible> {
        match (&self.worker.state, self.occupied_by) {
            (WorkerState::Offline { .. } | WorkerState::Deregistered { .. }, _) => Err(Ineligible::Offline),
            _ if !self.is_responsive(now, policy) => Err(Ineligible::Suspect),
            (WorkerState::Draining(_), _) => Err(Ineligible::Draining),
            (WorkerState::Active, Some(Occupation { reserved: true, .. })) => Err(Ineligible::Reserved),
            (WorkerState::Active, Some(Occupation { reserved: false, .. })) => Err(Ineligible::Busy),
            (WorkerState::Active, None) if self.worker.is_closing(now) => Err(Ineligible::Closing),
            (WorkerState::Active, None) if self.worker.lapsed => Err(Ineligible::Lapsed),
            (WorkerState::Active, None) if self.is_deaf(now, policy) => Err(Ineligible::Deaf),
            (WorkerState::Active, None) if !self.is_listening(now, policy) => Err(Ineligible::NotWaiting),
            (WorkerState::Active, None) => Ok(()),
        }
    }

    /// The condition that the registry shows beside the status.
    #[must_use]
    pub fn condition(&self, now: Timestamp, policy: &Policy) -> Option<&'static str> {
        if !self.worker.is_present() {
            None
        } else if !self.is_responsive(now, policy) {
            Some("suspect")
        } else if self.worker.is_closing(now) {
            Some("closing")
        } else if self.worker.lapsed {
            Some("lapsed")
        } else if self.is_deaf(now, policy) {
            Some("deaf")
        } else {
            None
        }
    }

    /// Whether a client who names `name` means this worker.
    #[must_use]
    pub fn answers_to(&self, name: &TargetName) -> bool {
        self.worker.identity.target_worker_id.as_ref() == Some(name)
            || (self.worker.id == *name && !self.id_is_a_target)
    }

    /// When it is given up unless it is heard from.
    #[must_use]
    pub fn offline_at(&self, policy: &Policy) -> Timestamp {
        self.vitals.last_seen + policy.offline_after
    }

    /// When the self-fence of its process has certainly passed.
    #[must_use]
    pub fn self_fenced_at(&self, policy: &Policy) -> Timestamp {
        self.vitals.last_seen + policy.self_fence_after
    }

    /// How long its present generation has been registered; until it went, for one that is gone.
    #[must_use]
    pub fn uptime(&self, now: Timestamp) -> Duration {
        let until = match self.worker.state {
            WorkerState::Offline { since } | WorkerState::Deregistered { since, .. } => since,
            WorkerState::Active | WorkerState::Draining(_) => now,
        };
        until.since(self.worker.registered_at)
    }

    /// The next time at which something may happen to the worker by itself, for the sweeper.
    #[must_use]
    pub fn next_deadline(&self, policy: &Policy) -> Option<Timestamp> {
        let drain = self.worker.drain().and_then(|drain| drain.deadline);
        let closing = self.worker.deregistration().and(self.worker.closing.as_ref()).map(|closing| closing.until);
        let offline = self.worker.is_present().then(|| self.offline_at(policy));
        [drain, closing, offline].into_iter().flatten().min()
    }
}
