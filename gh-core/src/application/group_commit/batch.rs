//! Runs commands together: one load, decisions in order, one commit.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;

use super::call::Entry;
use crate::application::execute::wakes;
use crate::application::{ControlPlane, UseCaseError};
use crate::domain::decisions::{Decisions, Plan};
use crate::domain::snapshot::Keys;
use crate::ports::signals::Wake;
use crate::ports::store::StoreError;

/// How often a command is decided anew because others changed the same. Beyond it the caller is asked to come again.
const MAX_TRIES: u32 = 64;

impl ControlPlane {
    /// Runs commands together and answers them, but for those that others were faster than: these are given back, to
    /// be run again.
    pub(in crate::application) async fn run_together<'c>(&self, batch: Vec<Entry<'c>>) -> Vec<Entry<'c>> {
        let mut again = Vec::new();
        // The last part is the first in order.
        let mut parts = vec![batch];
        while let Some(part) = parts.pop() {
            let Err((error, mut failed)) = self.run_at_once(part, &mut again).await else {
                continue;
            };
            let at_fault = matches!(error, StoreError::Corrupt(_) | StoreError::Internal(_));
            if at_fault && failed.len() > 1 {
                let second_half = failed.split_off(failed.len() / 2);
                parts.extend([second_half, failed]);
            } else {
                answer_all(failed, error);
            }
        }
        again
    }

    /// The same with one load and one commit. An error comes with the commands that have no answer yet.
    async fn run_at_once<'c>(
        &self,
        mut entries: Vec<Entry<'c>>,
        again: &mut Vec<Entry<'c>>,
    ) -> Result<(), (StoreError, Vec<Entry<'c>>)> {
        let loaded = match entries.as_slice() {
            [alone] => self.ports.store.load(alone.keys()).await,
            _ => self.ports.store.load(&Keys::merged(entries.iter().map(Entry::keys))).await,
        };
        let mut snapshot = match loaded {
            Ok(snapshot) => snapshot,
            Err(error) => return Err((error, entries)),
        };
        let mut decisions = Decisions::default();
        for entry in &mut entries {
            let changes = entry.decide(&snapshot, &self.rules);
            decisions.add(entry.keys(), changes, &mut snapshot);
        }
        drop(snapshot);
        let Plan { changesets, conditions } = decisions.finish();
        let mut waiting = Vec::with_capacity(entries.len());
        for (entry, condition) in entries.into_iter().zip(conditions) {
            if condition.is_empty() {
                entry.answer(Ok(()));
            } else {
                waiting.push((entry, condition));
            }
        }
        if changesets.is_empty() {
            return Ok(());
        }
        let announced: Vec<_> = changesets.iter().map(wakes).collect();
        let outcomes = match self.ports.store.commit(changesets, &self.rules).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                // It may have happened all the same: who waits for it looks for nothing at worst.
                self.wake(announced.into_iter().flatten());
                return Err((error, waiting.into_iter().map(|(entry, _)| entry).collect()));
            }
        };
        let stored = |place: &usize| outcomes.get(*place).is_some_and(Result::is_ok);
        self.wake(announced.into_iter().enumerate().filter(|(place, _)| stored(place)).flat_map(|(_, wakes)| wakes));
        for (entry, condition) in waiting {
            if condition.iter().all(stored) {
                entry.answer(Ok(()));
            } else if entry.tries() < MAX_TRIES {
                again.push(entry);
            } else {
                entry.answer(Err(UseCaseError::Unavailable(None)));
            }
        }
        Ok(())
    }

    /// Wakes each who waits once.
    fn wake(&self, wakes: impl Iterator<Item = Wake>) {
        let mut woken = HashSet::new();
        for wake in wakes {
            if woken.insert(wake.clone()) {
                self.ports.signals.wake(wake);
            }
        }
    }
}

/// Tells all of them the same: each error has the one cause.
fn answer_all(mut entries: Vec<Entry<'_>>, error: StoreError) {
    let Some(last) = entries.pop() else {
        return;
    };
    if entries.is_empty() {
        return last.answer(Err(error.into()));
    }
    let cause: Arc<dyn Error + Send + Sync> = Arc::new(error);
    for entry in entries.into_iter().chain([last]) {
        let error = StoreError::Unavailable(Some(Box::new(Arc::clone(&cause))));
        entry.answer(Err(error.into()));
    }
}
