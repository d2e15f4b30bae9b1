//! Runs commands together: one load or none, decisions in order, one commit.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;

use super::call::Entry;
use crate::application::execute::wakes;
use crate::application::{ControlPlane, UseCaseError};
use crate::domain::decisions::{Decisions, Plan};
use crate::domain::snapshot::{Keys, Snapshot};
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
        let Plan { changesets, conditions } = match self.decide_together(&mut entries).await {
            Ok(plan) => plan,
            Err(error) => return Err((error, entries)),
        };
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

    /// Decides commands in order, each on what the ones before it left: on what the store remembers as far as that can
    /// do, and else on what is loaded.
    async fn decide_together(&self, entries: &mut [Entry<'_>]) -> Result<Plan, StoreError> {
        let store = self.ports.store.as_ref();
        let recalled: Vec<Option<Snapshot>> = entries.iter_mut().map(|entry| entry.recall(store)).collect();
        if recalled.iter().any(Option::is_some)
            && let Some(plan) = self.decide_recalled(entries, recalled).await?
        {
            return Ok(plan);
        }
        let mut snapshot = match &*entries {
            [alone] => store.load(alone.keys()).await?,
            _ => store.load(&Keys::merged(entries.iter().map(Entry::keys))).await?,
        };
        let mut decisions = Decisions::default();
        for entry in entries {
            let changes = entry.decide(&snapshot, &self.rules);
            decisions.add(entry.keys(), changes, &mut snapshot);
        }
        Ok(decisions.finish())
    }

    /// Loads for those of whom not all is remembered, and decides. `None` where one has to be loaded for after all:
    /// then all are decided again, since each builds on the ones before it.
    async fn decide_recalled(
        &self,
        entries: &mut [Entry<'_>],
        recalled: Vec<Option<Snapshot>>,
    ) -> Result<Option<Plan>, StoreError> {
        let is_recalled: Vec<bool> = recalled.iter().map(Option::is_some).collect();
        let unknown = entries.iter().zip(&is_recalled).filter(|(_, is_recalled)| !**is_recalled);
        let unknown = Keys::merged(unknown.map(|(entry, _)| entry.keys()));
        let loaded = match is_recalled.iter().all(|is_recalled| *is_recalled) {
            true => None,
            false => Some(self.ports.store.load(&unknown).await?),
        };
        // What was loaded stands before what is remembered of the same.
        let mut known = loaded.into_iter().chain(recalled.into_iter().flatten());
        let Some(mut snapshot) = known.next() else {
            return Ok(None);
        };
        known.for_each(|other| snapshot.fill(other, &unknown));
        let mut decisions = Decisions::default();
        for (entry, is_recalled) in entries.iter_mut().zip(is_recalled) {
            let changes = if is_recalled {
                entry.decide_recalled(&snapshot, &self.rules)
            } else {
                Some(entry.decide(&snapshot, &self.rules))
            };
            let Some(changes) = changes else {
                return Ok(None);
            };
            decisions.add(entry.keys(), changes, &mut snapshot);
        }
        Ok(Some(decisions.finish()))
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
