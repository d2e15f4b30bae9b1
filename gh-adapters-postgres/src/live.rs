//! What this process read or wrote last of what lives.
//!
//! It serves twice. Commands are decided on it without asking the database ([`Live::snapshot`]); and what was decided
//! is written straight away, without locking and reading first, by a statement that refuses to write if anything is no
//! longer as it is remembered ([`Live::recall`]). So what is remembered may be out of date: that costs a second try,
//! which locks and reads, and never makes a wrong answer.
//!
//! Jobs that ended are remembered by their versions alone: with their results they may be large, and little happens to
//! them any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gh_core::domain::callback::CallbackQueue;
use gh_core::domain::changeset::{AggregateId, Changeset};
use gh_core::domain::ids::{JobId, Version, WorkerId};
use gh_core::domain::job::Job;
use gh_core::domain::snapshot::{Keys, Snapshot};
use gh_core::domain::time::Timestamp;
use gh_core::domain::worker::{Occupation, Worker, WorkerView};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::footprint::Footprint;
use crate::held::Held;
use crate::rows::worker::StoredVitals;
use crate::specs::spec_bytes;

/// So many jobs and so many workers are remembered at most.
const REMEMBERED: usize = 16_384;

/// The jobs that are remembered take so many bytes at most.
const JOB_BYTES: u64 = 64 * 1024 * 1024;

/// A queue with more open callbacks than this is not remembered: what is remembered stays small.
const LONGEST_QUEUE: usize = 8;

/// What is remembered.
#[derive(Debug)]
pub(crate) struct Live {
    jobs: Cache<JobId, LiveJob, BySize>,
    workers: Cache<WorkerId, LiveWorker>,
    vitals: Cache<WorkerId, StoredVitals>,
    /// What connections were good for when it was remembered.
    era: AtomicU64,
}

/// A job: its version, and the worker that it occupies.
#[derive(Clone, Debug)]
struct LiveJob {
    version: Version,
    occupies: Option<(WorkerId, bool)>,
    /// The job itself, unless it has ended.
    job: Option<Arc<Job>>,
    /// Its callbacks with the revision of their row (0 where there is none), if they were read.
    queue: Option<(u64, Arc<CallbackQueue>)>,
}

/// A worker: its version, and the job that occupies it.
#[derive(Clone, Debug)]
struct LiveWorker {
    version: Version,
    occupant: Option<Occupation>,
    /// The worker itself, if it was read or written with this version.
    worker: Option<Arc<Worker>>,
    /// As it was when it was read.
    id_is_a_target: bool,
    /// As it was when it was read.
    instance_load: u32,
}

#[derive(Clone, Debug)]
struct BySize;

impl Weighter<JobId, LiveJob> for BySize {
    fn weight(&self, _: &JobId, live: &LiveJob) -> u64 {
        /// A place, a job without what was asked for, and an open callback, roughly.
        const PLACE: usize = 256;
        const JOB: usize = 2048;
        const CALLBACK: usize = 512;
        let job = live.job.as_ref().map_or(0, |job| JOB + spec_bytes(&job.spec));
        let queue = live.queue.as_ref().map_or(0, |(_, queue)| queue.open.len() * CALLBACK);
        (PLACE + job + queue) as u64
    }
}

impl Default for Live {
    fn default() -> Self {
        Self {
            jobs: Cache::with_weighter(REMEMBERED, JOB_BYTES, BySize),
            workers: Cache::new(REMEMBERED),
            vitals: Cache::new(REMEMBERED),
            era: AtomicU64::new(0),
        }
    }
}

impl Live {
    /// Remembers nothing any more of what was remembered in another era: after a connection was lost, the database that
    /// answers next need not have all that the one before it had.
    pub(crate) fn enter_era(&self, era: u64) {
        if self.era.swap(era, Ordering::AcqRel) != era {
            self.jobs.clear();
            self.workers.clear();
            self.vitals.clear();
        }
    }

    /// Remembers a job that lives, with its callbacks and the revision of their row (0 where there is none), if they
    /// are known.
    pub(crate) fn keep_job(&self, job: &Arc<Job>, queue: Option<(u64, Arc<CallbackQueue>)>) {
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
        let version = job.version;
        let kept = job.ending().is_none().then(|| Arc::clone(job));
        self.jobs.insert(job.id, LiveJob { version, occupies, job: kept, queue });
    }

    /// Remembers the callbacks of a job that is remembered, as they were stored.
    fn keep_queue(&self, revision: u64, queue: &CallbackQueue) {
        let id = queue.job_id;
        if let Some(known) = self.jobs.get(&id)
            && known.queue.as_ref().is_none_or(|(before, _)| *before < revision)
        {
            let fits = queue.open.len() <= LONGEST_QUEUE;
            let queue = fits.then(|| (revision, Arc::new(queue.clone())));
            self.jobs.insert(id, LiveJob { queue, ..known });
        }
    }

    /// Remembers a worker as it was read.
    pub(crate) fn keep_view(&self, view: &WorkerView) {
        let WorkerView { worker, vitals: _, occupied_by, id_is_a_target, instance_load } = view;
        self.keep_worker(
            LiveWorker {
                version: worker.version,
                occupant: *occupied_by,
                worker: Some(Arc::clone(worker)),
                id_is_a_target: *id_is_a_target,
                instance_load: *instance_load,
            },
            &worker.id,
        );
    }

    fn keep_worker(&self, live: LiveWorker, id: &WorkerId) {
        if self.workers.get(id).is_none_or(|known| known.version <= live.version) {
            self.workers.insert(id.clone(), live);
        }
    }

    /// Remembers what the calls of a worker left behind.
    pub(crate) fn keep_vitals(&self, id: &WorkerId, vitals: StoredVitals) {
        if self.vitals.get(id).is_none_or(|known| known.revision <= vitals.revision) {
            self.vitals.insert(id.clone(), vitals);
        }
    }

    /// What these keys of jobs and workers ask for, at this time; `None` where not all of it is remembered, or where it
    /// contradicts itself.
    pub(crate) fn snapshot(&self, keys: &Keys, now: Timestamp) -> Option<Snapshot> {
        let mut snapshot = Snapshot::new(now);
        for id in &keys.workers {
            self.show_worker(&mut snapshot, id)?;
        }
        for id in &keys.jobs {
            let job = self.jobs.get(id)?.job?;
            for worker in job.occupies().into_iter().chain(job.last_holder()) {
                self.show_worker(&mut snapshot, worker)?;
            }
            if let Some((worker, occupation)) = job.occupation()
                && snapshot.workers.get(worker)?.occupied_by != Some(occupation)
            {
                return None;
            }
            snapshot.jobs.insert(*id, job);
        }
        Some(snapshot)
    }

    /// Adds a worker with the job that occupies it.
    fn show_worker(&self, snapshot: &mut Snapshot, id: &WorkerId) -> Option<()> {
        if snapshot.workers.contains_key(id) {
            return Some(());
        }
        let LiveWorker { version: _, occupant, worker, id_is_a_target, instance_load } = self.workers.get(id)?;
        let worker = worker?;
        // It would bring along the deregistration, which is not remembered.
        if worker.deregistration().is_some() {
            return None;
        }
        if let Some(occupation) = occupant {
            let job = self.jobs.get(&occupation.job_id)?.job?;
            if job.occupation() != Some((id, occupation)) {
                return None;
            }
            snapshot.jobs.insert(job.id, job);
        }
        let vitals = self.vitals.get(id)?.vitals;
        let view = WorkerView { worker, vitals, occupied_by: occupant, id_is_a_target, instance_load };
        snapshot.workers.insert(id.clone(), view);
        Some(())
    }

    /// What these changesets rely on or write, as it is remembered. `None` where not all of it is, or where writing
    /// cannot find out whether it is still so.
    pub(crate) fn recall(&self, changes: &[Changeset], rows: &Footprint) -> Option<Held> {
        let checked_by_locks_alone =
            !rows.absent.is_empty() || !rows.names.is_empty() || !rows.deregistrations.is_empty();
        if checked_by_locks_alone || !changes.iter().all(writes_vitals_of_the_silent) {
            return None;
        }
        let mut held = Held::default();
        for id in &rows.workers {
            let LiveWorker { version, occupant, .. } = self.workers.get(id)?;
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
            let LiveJob { version, occupies, .. } = self.jobs.get(&id)?;
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
        for queue in held.changed_queues().filter(|queue| !held.jobs.contains_key(&queue.queue.job_id)) {
            self.keep_queue(queue.revision + 1, &queue.queue);
        }
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
            let known = self.workers.get(id);
            let (id_is_a_target, instance_load) =
                known.as_ref().map_or((false, 0), |known| (known.id_is_a_target, known.instance_load));
            let before = known.and_then(|known| known.worker).filter(|worker| worker.version == version);
            let worker = held.workers.get(id).cloned().or(before);
            self.keep_worker(LiveWorker { version, occupant, worker, id_is_a_target, instance_load }, id);
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

/// Whether the last sign of life of every worker that must be silent is looked at when it is written.
fn writes_vitals_of_the_silent(changes: &Changeset) -> bool {
    changes.silent().iter().all(|(id, _)| {
        changes.workers().iter().any(|worker| worker.id == *id)
            || changes.vitals().iter().any(|change| change.worker_id == *id)
    })
}
