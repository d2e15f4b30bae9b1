//! The in-memory store behind a door: counts what goes through, holds it up, or refuses it; and remembers what it is
//! told to, for as long as the test lasts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gh_core::domain::changeset::Changeset;
use gh_core::domain::commands::Watched;
use gh_core::domain::ids::{JobId, WorkerId};
use gh_core::domain::job::Job;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::{Keys, Snapshot};
use gh_core::domain::watch::Lookout;
use gh_core::domain::worker::WorkerView;
use gh_core::memory::MemoryStore;
use gh_core::ports::clock::Clock;
use gh_core::ports::store::{ClaimRequest, Conflict, Dispatched, Store, StoreError, SweepRequest, Swept};
use gh_core::testing::ManualClock;
use tokio::sync::{Semaphore, watch};

type Fault<T> = Mutex<Option<Box<dyn Fn(&T) -> Option<StoreError> + Send>>>;

const WIDE_OPEN: usize = 1 << 20;

/// A store with a door before its commits.
pub(crate) struct Door {
    inner: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    loads: Mutex<Vec<Keys>>,
    commits: watch::Sender<usize>,
    largest_commit: Mutex<usize>,
    door: Semaphore,
    load_fault: Fault<Keys>,
    commit_fault: Fault<[Changeset]>,
    overtaken: Mutex<Option<JobId>>,
    memory: Mutex<Memory>,
}

/// What a store remembers: jobs and workers as they were at some time.
#[derive(Default)]
struct Memory {
    /// Without it nothing is ever recalled.
    is_kept: bool,
    jobs: HashMap<JobId, Arc<Job>>,
    workers: HashMap<WorkerId, WorkerView>,
    recalled: usize,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Door").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Door {
    pub(crate) fn new(inner: Arc<MemoryStore>, clock: Arc<ManualClock>) -> Self {
        Self {
            inner,
            clock,
            loads: Mutex::default(),
            commits: watch::Sender::new(0),
            largest_commit: Mutex::default(),
            door: Semaphore::new(WIDE_OPEN),
            load_fault: Mutex::default(),
            commit_fault: Mutex::default(),
            overtaken: Mutex::default(),
            memory: Mutex::default(),
        }
    }

    /// Remembers these jobs and workers as they are now, with all that keys for them bring along; and from now on recalls.
    pub(crate) async fn remember(&self, jobs: &[JobId], workers: &[&WorkerId]) {
        let keys = Keys { jobs: jobs.to_vec(), workers: workers.iter().copied().cloned().collect(), ..Keys::default() };
        let snapshot = self.inner.load(&keys).await.unwrap();
        let mut memory = self.memory.lock().unwrap();
        memory.is_kept = true;
        memory.jobs.extend(snapshot.jobs);
        memory.workers.extend(snapshot.workers);
    }

    /// How often something was recalled since the last [`Self::forget`].
    pub(crate) fn recalled(&self) -> usize {
        self.memory.lock().unwrap().recalled
    }

    /// From now on commits wait.
    pub(crate) fn close(&self) {
        self.door.forget_permits(usize::MAX);
    }

    /// Lets this many commits through, now or when they come.
    pub(crate) fn let_through(&self, commits: usize) {
        self.door.add_permits(commits);
    }

    /// Lets all through.
    pub(crate) fn open(&self) {
        self.close();
        self.door.add_permits(WIDE_OPEN);
    }

    /// Waits until this many commits have come to the door since the last [`Self::forget`].
    pub(crate) async fn came(&self, commits: usize) {
        self.commits.subscribe().wait_for(|count| *count >= commits).await.unwrap();
    }

    /// How many commits came.
    pub(crate) fn commits(&self) -> usize {
        *self.commits.borrow()
    }

    /// How many changesets the largest commit had.
    pub(crate) fn largest_commit(&self) -> usize {
        *self.largest_commit.lock().unwrap()
    }

    /// What was asked for, load by load.
    pub(crate) fn loads(&self) -> Vec<Keys> {
        self.loads.lock().unwrap().clone()
    }

    /// Counts from zero.
    pub(crate) fn forget(&self) {
        self.loads.lock().unwrap().clear();
        self.commits.send_replace(0);
        *self.largest_commit.lock().unwrap() = 0;
        self.memory.lock().unwrap().recalled = 0;
    }

    pub(crate) fn fail_loads(&self, fault: impl Fn(&Keys) -> Option<StoreError> + Send + 'static) {
        *self.load_fault.lock().unwrap() = Some(Box::new(fault));
    }

    pub(crate) fn fail_commits(&self, fault: impl Fn(&[Changeset]) -> Option<StoreError> + Send + 'static) {
        *self.commit_fault.lock().unwrap() = Some(Box::new(fault));
    }

    /// From now on somebody else is faster with every write of this job.
    pub(crate) fn refuse_every_write_of(&self, job: JobId) {
        *self.overtaken.lock().unwrap() = Some(job);
    }
}

fn fault_of<T: ?Sized>(fault: &Fault<T>, input: &T) -> Result<(), StoreError> {
    fault.lock().unwrap().as_ref().and_then(|fault| fault(input)).map_or(Ok(()), Err)
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Store for Door {
    async fn load(&self, keys: &Keys) -> Result<Snapshot, StoreError> {
        self.loads.lock().unwrap().push(keys.clone());
        fault_of(&self.load_fault, keys)?;
        self.inner.load(keys).await
    }

    fn recall(&self, keys: &Keys) -> Option<Snapshot> {
        let mut memory = self.memory.lock().unwrap();
        if !memory.is_kept || !keys.of_jobs_and_workers() {
            return None;
        }
        let mut snapshot = Snapshot::new(self.clock.now());
        let mut workers = keys.workers.clone();
        for id in &keys.jobs {
            let job = memory.jobs.get(id)?;
            workers.extend(job.occupies().into_iter().chain(job.last_holder()).cloned());
            snapshot.jobs.insert(*id, Arc::clone(job));
        }
        for id in workers {
            let view = memory.workers.get(&id)?.clone();
            if view.worker.deregistration().is_some() {
                return None;
            }
            if let Some(occupation) = view.occupied_by {
                snapshot.jobs.insert(occupation.job_id, Arc::clone(memory.jobs.get(&occupation.job_id)?));
            }
            snapshot.workers.insert(id, view);
        }
        memory.recalled += 1;
        Some(snapshot)
    }

    async fn commit(&self, changes: Vec<Changeset>, rules: &Rules) -> Result<Vec<Result<(), Conflict>>, StoreError> {
        self.commits.send_modify(|count| *count += 1);
        let permit = self.door.acquire().await.unwrap();
        permit.forget();
        fault_of(&self.commit_fault, &changes)?;
        {
            let mut largest = self.largest_commit.lock().unwrap();
            *largest = changes.len().max(*largest);
        }
        let overtaken = *self.overtaken.lock().unwrap();
        let is_overtaken = |changes: &Changeset| changes.jobs().iter().any(|write| Some(write.job.id) == overtaken);
        let mut outcomes = vec![Err(Conflict); changes.len()];
        let (places, changes): (Vec<usize>, Vec<Changeset>) =
            changes.into_iter().enumerate().filter(|(_, changes)| !is_overtaken(changes)).unzip();
        for (place, outcome) in places.into_iter().zip(self.inner.commit(changes, rules).await?) {
            outcomes[place] = outcome;
        }
        Ok(outcomes)
    }

    async fn claim(&self, request: ClaimRequest, rules: &Rules) -> Result<Dispatched, StoreError> {
        self.inner.claim(request, rules).await
    }

    async fn watch(&self, lookout: Lookout, rules: &Rules) -> Result<Watched, StoreError> {
        self.inner.watch(lookout, rules).await
    }

    async fn sweep(&self, request: SweepRequest, rules: &Rules) -> Result<Swept, StoreError> {
        self.inner.sweep(request, rules).await
    }

    async fn token_key(&self) -> Result<[u8; 32], StoreError> {
        self.inner.token_key().await
    }
}
