//! Running one command: the only place where conflicts are tried again.

use super::{ControlPlane, UseCaseError};
use crate::domain::changeset::Changeset;
use crate::domain::commands::{Command, decide};
use crate::domain::job::JobState;
use crate::ports::signals::Wake;

/// How often a command is decided anew because others changed the same. Beyond it the caller is asked to come again.
const MAX_TRIES: u32 = 64;

impl ControlPlane {
    /// Loads what a command needs, decides, stores; again, if somebody else was faster.
    ///
    /// # Errors
    ///
    /// The rules refuse it, the store is away, or others were faster too often.
    pub async fn execute<C: Command>(&self, command: &C) -> Result<C::Answer, UseCaseError> {
        let keys = command.keys();
        for _ in 0..MAX_TRIES {
            let snapshot = self.ports.store.load(&keys).await?;
            let decision = decide(&snapshot, command, &self.rules);
            if decision.changes.is_empty() {
                return Ok(decision.answer?);
            }
            let changes = decision.changes;
            let wakes = wakes(&changes);
            let committed = self.ports.store.commit(vec![changes], &self.rules).await;
            // A commit that failed may have happened all the same: who waits for it looks for nothing at worst.
            if committed.as_ref().map_or(true, |outcomes| outcomes.iter().all(Result::is_ok)) {
                wakes.into_iter().for_each(|wake| self.ports.signals.wake(wake));
                committed?;
                return Ok(decision.answer?);
            }
        }
        Err(UseCaseError::Unavailable(None))
    }

    /// Wakes those who wait for what these changes brought.
    pub(super) fn announce(&self, changes: &Changeset) {
        wakes(changes).into_iter().for_each(|wake| self.ports.signals.wake(wake));
    }
}

/// Whom a changeset concerns, beside the one who asked for it.
fn wakes(changes: &Changeset) -> Vec<Wake> {
    let mut wakes = Vec::new();
    let mut add = |wake| {
        if !wakes.contains(&wake) {
            wakes.push(wake);
        }
    };
    for write in changes.jobs() {
        match &write.job.state {
            JobState::Pending(_) => add(Wake::Dispatch),
            JobState::Queued(_, reservation) => add(Wake::Worker(reservation.worker_id.clone())),
            JobState::Running(_) | JobState::NeedsHuman(..) | JobState::Ended(_) => {}
        }
    }
    for worker in changes.workers() {
        if !worker.directives.is_empty() || worker.drain().is_some() || !worker.is_present() {
            add(Wake::Worker(worker.id.clone()));
        }
    }
    if !changes.callbacks().is_empty() || !changes.released_callbacks().is_empty() {
        add(Wake::Deliver);
    }
    wakes
}
