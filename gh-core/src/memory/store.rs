//! The port [`Store`].

use async_trait::async_trait;

use super::MemoryStore;
use super::claim::candidates;
use super::load::Loading;
use crate::domain::changeset::Changeset;
use crate::domain::commands::{self, Watched};
use crate::domain::rules::Rules;
use crate::domain::snapshot::{Keys, Snapshot};
use crate::domain::watch::Lookout;
use crate::ports::store::{ClaimRequest, Conflict, Dispatched, Store, StoreError, SweepRequest, Swept};

#[async_trait]
impl Store for MemoryStore {
    async fn load(&self, keys: &Keys) -> Result<Snapshot, StoreError> {
        let (state, now) = self.lock()?;
        Ok(Loading::new(&state, now).keys(keys).finish())
    }

    async fn commit(&self, changes: Vec<Changeset>, rules: &Rules) -> Result<Vec<Result<(), Conflict>>, StoreError> {
        let (mut state, now) = self.lock()?;
        let mut refused: Vec<&Changeset> = Vec::new();
        let commit = |changes| {
            let builds_on_refused = refused.iter().any(|earlier| Changeset::builds_on(changes, earlier));
            let outcome = if builds_on_refused { Err(Conflict) } else { state.commit(changes, now, rules) };
            if outcome.is_err() {
                refused.push(changes);
            }
            outcome
        };
        Ok(changes.iter().map(commit).collect())
    }

    async fn claim(&self, request: ClaimRequest, rules: &Rules) -> Result<Dispatched, StoreError> {
        let (mut state, now) = self.lock()?;
        state.change(|state| state.jobs.take_turns(now));
        let Some(snapshot) = candidates(&state, &request, now, &rules.policy) else {
            return Ok(Dispatched::default());
        };
        let decided = commands::dispatch(snapshot, &request.workers, &request.claims, rules);
        let stored: Vec<_> = decided.changesets.iter().map(|changes| state.commit(changes, now, rules)).collect();
        Ok(Dispatched::of(decided, &stored))
    }

    async fn watch(&self, lookout: Lookout, rules: &Rules) -> Result<Watched, StoreError> {
        let (mut state, now) = self.lock()?;
        // Whoever calls has just been heard of: what counts is the silence before.
        let silent_from = state.take_silence();
        let last_heard = lookout.last_heard.map(|_| silent_from.unwrap_or(now));
        let count = state.workers.count(now, rules.policy.suspect_after);
        let watched = commands::watch(&state.watch, now, &Lookout { last_heard, ..lookout }, count, rules);
        state.change(|state| state.write(&watched.changes, now, rules));
        Ok(watched)
    }

    async fn sweep(&self, request: SweepRequest, rules: &Rules) -> Result<Swept, StoreError> {
        let (mut state, now) = self.lock()?;
        // One more than the limit is looked for, to know whether there is more.
        let look = request.limit.saturating_add(1);
        let mut jobs: Vec<_> = state.jobs.due(now).take(look).collect();
        let silent_since = request.sight.silent_since(now, rules.policy.offline_after);
        let mut workers = state.change(|state| state.workers.due(now, silent_since, look));
        let beyond_limit = jobs.len().max(workers.len()) > request.limit;
        jobs.truncate(request.limit);
        workers.truncate(request.limit);
        if jobs.is_empty() && workers.is_empty() {
            return Ok(Swept::default());
        }
        let mut loading = Loading::new(&state, now);
        for id in jobs {
            loading.job_with_workers(id);
        }
        for id in &workers {
            loading.worker(id);
        }
        let snapshot = loading.finish();
        let mut committed = commands::sweep(&snapshot, &request.sight, rules);
        let decided = committed.len();
        committed.retain(|changes| state.commit(changes, now, rules).is_ok());
        // Where a job and its worker were due at once, what was decided of one may have refused the other: it is
        // still due.
        let refused = committed.len() < decided && !committed.is_empty();
        Ok(Swept { more: beyond_limit || refused, committed })
    }

    async fn token_key(&self) -> Result<[u8; 32], StoreError> {
        Ok(self.token_key)
    }
}
