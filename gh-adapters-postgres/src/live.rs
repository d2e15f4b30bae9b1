//! What this process read or wrote last of what lives.
//!
//! Whoever decides has just read what its decision relies on. That is remembered here, so that storing the decision
//! need not lock and read it again: it is written straight away, by a statement that refuses to write if anything is
//! no longer as it is remembered. So what is remembered may be out of date: that costs a second try, which locks and
//! reads, and never makes a wrong answer.

use std::collections::HashSet;
use std::sync::Arc;

use gh_core::domain::callback::CallbackQueue;
use gh_core::domain::changeset::{AggregateId, Changeset};
use gh_core::domain::ids::{JobId, Version, WorkerId};
use gh_core::domain::job::Job;
use gh_core::domain::worker::Occupation;
use quick_cache::sync::Cache;

use crate::footprint::Footprint;
use crate::held::Held;
use crate::rows::worker::StoredVitals;

/// So many jobs and so many workers are remembered.
const REMEMBERED: usize = 16_384;

/// A queue with more open callbacks than this is not remembered: what is remembered stays small.
const LONGEST_QUEUE: usize = 8;

/// What is remembered.
#[derive(Debug)]
pub(crate) struct Live {
    jobs: Cache<JobId, LiveJob>,
    workers: Cache<WorkerId, LiveWorker>,
    vitals: Cache<WorkerId, StoredVitals>,
}

/// A job: its version, and the worker that it occupies.
#[derive(Clone, Debug)]
struct LiveJob {
    version: Version,
    occupies: Option<(WorkerId, bool)>,
    /// Its callbacks with the revision of their row (0 where there is none), if they were read.
    queue: Option<(u64, Arc<CallbackQueue>)>,
}

/// A worker: its version, and the job that occupies it.
#[derive(Clone, Copy, Debug)]
struct LiveWorker {
    version: Version,
    occupant: Option<Occupation>,
}

impl Default for Live {
    fn default() -> Self {
        Self { jobs: Cache::new(REMEMBERED), workers: Cache::new(REMEMBERED), vitals: Cache::new(REMEMBERED) }
    }
}

impl Live {
    /// Remembers a job that lives, with its callbacks and the revision of their row (0 where there is none), if they
    /// are known.
    pub(crate) fn keep_job(&self, job: &Job, queue: Option<(u64, Arc<CallbackQueue>)>) {
        let known = self.jobs.get(&job.id);
        if known.as_ref().is_some_and(|known| known.version > job.version) {
            return;
        }
        let before = known.and_then(|known| known.queue);
        let queue = match (before, queue) {
            (Some(before), Some(queue)) if before.0 > queue.0 => Some(before),
            (before, queue) => queue.or(before),
        };
        let queue = queue.filter(|(_, queue)| queue.open.len() <= LONGEST_QUEUE);
        let occupies = job.occupation().map(|(worker, occupation)| (worker.clone(), occupation.reserved));
        self.jobs.insert(job.id, LiveJob { version: job.version, occupies, queue });
    }

    /// Remembers a worker and the job that occupies it.
    pub(crate) fn keep_worker(&self, id: &WorkerId, version: Version, occupant: Option<Occupation>) {
        self.workers.insert(id.clone(), LiveWorker { version, occupant });
    }

    /// Remembers what the calls of a worker left behind.
    pub(crate) fn keep_vitals(&self, id: &WorkerId, vitals: StoredVitals) {
        if self.vitals.get(id).is_none_or(|known| known.revision <= vitals.revision) {
            self.vitals.insert(id.clone(), vitals);
        }
    }

    /// What these changesets rely on or write, as it is remembered. `None` where not all of it is, or where writing
    /// cannot find out whether it is still so.
    pub(crate) fn recall(&self, changes: &[Changeset], rows: &Footprint) -> Option<Held> {
        let checked_by_locks_alone = !rows.absent.is_empty()
            || !rows.names.is_empty()
            || !rows.deregistrations.is_empty()
            || changes.iter().any(|changeset| !changeset.silent().is_empty());
        if checked_by_locks_alone {
            return None;
        }
        let mut held = Held::default();
        for id in &rows.workers {
            let LiveWorker { version, occupant } = self.workers.get(id)?;
            held.keep_worker(id.clone(), version, occupant);
        }
        for id in &rows.vitals {
            held.vitals.insert(id.clone(), self.vitals.get(id)?);
        }
        let new = changes.iter().flat_map(Changeset::relied_on);
        let new = new.filter_map(|(id, version)| match id {
            AggregateId::Job(id) if *version == Version::ABSENT => Some(*id),
            _ => None,
        });
        let new: HashSet<JobId> = new.collect();
        for id in &rows.jobs {
            let id = JobId::new(*id);
            if new.contains(&id) {
                continue;
            }
            let LiveJob { version, occupies, queue: _ } = self.jobs.get(&id)?;
            held.keep_job(id, version, occupies);
        }
        for id in &rows.queues {
            let id = JobId::new(*id);
            if new.contains(&id) {
                continue;
            }
            let (revision, queue) = self.jobs.get(&id)?.queue?;
            if revision > 0 {
                held.keep_queue(CallbackQueue::clone(&queue), revision);
            }
        }
        let all_jobs_are_known = new.iter().all(|id| rows.written_jobs.contains(&id.as_uuid()));
        if !all_jobs_are_known || !held.unlocked_workers(&rows.written_jobs).is_empty() {
            return None;
        }
        Some(held)
    }

    /// Remembers what was stored.
    pub(crate) fn remember(&self, held: &Held) {
        for (id, write) in &held.jobs {
            if write.job.ending().is_some() {
                self.jobs.remove(id);
                continue;
            }
            let queue = match held.queue_after(*id) {
                Some((revision, queue)) => Some((revision, Arc::new(queue.clone()))),
                None if held.is_new(*id) => Some((0, Arc::new(CallbackQueue::new(*id)))),
                None => None,
            };
            self.keep_job(&write.job, queue);
        }
        for (id, version, occupant) in held.workers_after() {
            self.keep_worker(id, version, occupant);
        }
        for id in &held.called {
            if let Some(vitals) = held.vitals.get(id) {
                self.keep_vitals(id, StoredVitals { revision: vitals.revision + 1, ..vitals.clone() });
            }
        }
    }

    /// Remembers nothing any more of what these rows hold.
    pub(crate) fn forget(&self, rows: &Footprint) {
        for id in &rows.workers {
            self.workers.remove(id);
        }
        for id in &rows.vitals {
            self.vitals.remove(id);
        }
        for id in rows.jobs.iter().chain(&rows.queues) {
            self.jobs.remove(&JobId::new(*id));
        }
    }
}
