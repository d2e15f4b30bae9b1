//! Running one command: in its lane where commands are grouped, else by itself.

use super::group_commit::Entry;
use super::{ControlPlane, UseCaseError};
use crate::domain::changeset::Changeset;
use crate::domain::commands::Command;
use crate::domain::job::JobState;
use crate::ports::signals::Wake;

impl ControlPlane {
    /// Loads what a command needs, decides, stores; again, if somebody else was faster. Together with others, where
    /// that is [switched on](Self::with_group_commit).
    ///
    /// # Errors
    ///
    /// The rules refuse it, the store is away, too many commands wait already, or others were faster too often.
    pub async fn execute<C: Command + Clone>(&self, command: &C) -> Result<C::Answer, UseCaseError> {
        if let Some(answer) = self.execute_in_lane(command).await {
            return answer;
        }
        let (entry, answer) = Entry::borrowed(command);
        let mut again = vec![entry];
        while !again.is_empty() {
            again = self.run_together(again).await;
        }
        answer.await.unwrap_or(Err(UseCaseError::Unavailable(None)))
    }

    /// Wakes those who wait for what these changes brought.
    pub(super) fn announce(&self, changes: &Changeset) {
        wakes(changes).into_iter().for_each(|wake| self.ports.signals.wake(wake));
    }
}

/// Whom a changeset concerns, beside the one who asked for it.
pub(super) fn wakes(changes: &Changeset) -> Vec<Wake> {
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
