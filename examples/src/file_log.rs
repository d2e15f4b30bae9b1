//! A store in one file: a log of changesets. An example of how little a store has to know.
//!
//! Each entry is one commit as JSON. Reading it puts its rows in their places, so what another handle appended and what
//! was there before a crash are read alike. A last entry without its end was never answered `Ok` and is cut off.
//! Any number of handles in any number of processes of one machine share a file: each call locks it, reads what was
//! appended, does all its work, and lets go. The rules are the core's: a [`Snapshot`] goes in, what comes out is kept.
//!
//! **What it is not**: fast (each call looks at everything there is, and its thread waits for the disk), small (nothing
//! is compacted, and all is in memory, too), or for file systems without locks. Only its owner may read it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use gh_core::domain::callback::{Delivery, JobCallbacks, LeasedDelivery};
use gh_core::domain::event::{JobEvent, WorkerEvent};
use gh_core::domain::ids::{DeregistrationId, JobId, SendLeaseId, WorkerId};
use gh_core::domain::snapshot::{Keys, Snapshot};
use gh_core::domain::watch::{FleetWatch, Headcount, Lookout};
use gh_core::domain::worker::{Deregistration, WorkerView};
use gh_core::domain::{changeset::*, commands, job::Job, rules::Rules, time::Timestamp};
use gh_core::ports::{clock::Clock, outbox::*, reader::*, store::*};

type Outcome<T> = Result<T, StoreError>;

/// One commit: when, what was decided, and the callbacks of its jobs as they are from then on.
type Entry = (Timestamp, Recorded, BTreeMap<JobId, JobCallbacks>);

/// What the log says, as far as it was read; `all` is what decisions see.
struct World {
    read_to: u64,
    all: Snapshot,
    job_events: Vec<JobEvent>,
    worker_events: Vec<WorkerEvent>,
    callbacks: BTreeMap<JobId, JobCallbacks>,
}

/// A handle on the store in a file.
pub struct FileLogStore {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    token_key: [u8; 32],
    world: Mutex<World>,
}

impl std::fmt::Debug for FileLogStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FileLogStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl FileLogStore {
    /// A handle on the log at `path`, which begins with the first commit. Its time is the clock's, but never before the
    /// last commit's. Worker tokens are derived from `token_key`: 32 random bytes, the same for every handle.
    pub fn new(path: impl Into<PathBuf>, clock: Arc<dyn Clock>, token_key: [u8; 32]) -> Self {
        let (job_events, worker_events, callbacks) = Default::default();
        let world = World { read_to: 0, all: Snapshot::new(clock.now()), job_events, worker_events, callbacks };
        Self { path: path.into(), clock, token_key, world: Mutex::new(world) }
    }

    /// Has the log alone, with everything that others appended, until it is dropped.
    fn lock(&self) -> Outcome<Log<'_>> {
        let world = self.world.lock().map_err(|_| StoreError::Corrupt("a call was cut off by a panic".into()))?;
        let file = File::options().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        file.lock()?;
        let mut log = Log { file, world };
        log.catch_up()?;
        log.world.all.now = log.world.all.now.max(self.clock.now());
        Ok(log)
    }
}

/// The log, locked: closing the file lets go, however a call ends.
struct Log<'s> {
    file: File,
    world: MutexGuard<'s, World>,
}

impl Log<'_> {
    /// Reads what was appended since the last time.
    fn catch_up(&mut self) -> Outcome<()> {
        let (world, mut appended) = (&mut *self.world, Vec::new());
        self.file.seek(SeekFrom::Start(world.read_to))?;
        self.file.read_to_end(&mut appended)?;
        let begin = world.read_to;
        let mut entries = serde_json::Deserializer::from_slice(&appended).into_iter::<Entry>();
        while let Some(entry) = entries.next() {
            if entry.as_ref().is_err_and(serde_json::Error::is_eof) {
                break;
            }
            let corrupt = |_| StoreError::Corrupt(format!("at byte {}", world.read_to));
            let (at, changes, callbacks) = entry.map_err(corrupt)?;
            world.all.now = world.all.now.max(at);
            world.all.replay(&changes);
            world.job_events.extend_from_slice(changes.job_events());
            world.worker_events.extend_from_slice(changes.worker_events());
            world.callbacks.extend(callbacks);
            world.read_to = begin + entries.byte_offset() as u64;
        }
        self.file.set_len(world.read_to)?;
        world.all.link();
        Ok(())
    }

    /// Writes an entry to the disk. What it says counts once it is read back, here as everywhere.
    fn append(&mut self, changes: &Changeset, callbacks: &BTreeMap<JobId, JobCallbacks>) -> Outcome<()> {
        let entry = serde_json::to_string(&(self.world.all.now, changes, callbacks));
        write!(self.file, "\n{}", entry.map_err(|error| StoreError::Internal(Box::new(error)))?)?;
        self.file.sync_data()?;
        self.catch_up()
    }

    /// Stores each that fits, but for what builds on one that does not.
    fn commit(&mut self, decided: Vec<Changeset>, rules: &Rules) -> Outcome<Vec<Result<Changeset, Conflict>>> {
        let mut refused: Vec<Changeset> = Vec::new();
        let store = |changes: Changeset| {
            let World { all, callbacks: known, .. } = &*self.world;
            if !changes.fits(all) || refused.iter().any(|earlier| changes.builds_on(earlier)) {
                refused.push(changes);
                return Ok(Err(Conflict));
            }
            let callbacks = JobCallbacks::after(&changes, |id| known.get(&id), all.now, &rules.policy);
            self.append(&changes, &callbacks).map(|()| Ok(changes))
        };
        decided.into_iter().map(store).collect()
    }
}

#[async_trait]
impl Store for FileLogStore {
    async fn load(&self, _everything_is_more_than_enough: &Keys) -> Outcome<Snapshot> {
        Ok(self.lock()?.world.all.clone())
    }

    async fn commit(&self, changes: Vec<Changeset>, rules: &Rules) -> Outcome<Vec<Result<(), Conflict>>> {
        let stored = self.lock()?.commit(changes, rules)?;
        Ok(stored.into_iter().map(|stored| stored.map(drop)).collect())
    }

    async fn claim(&self, request: ClaimRequest, rules: &Rules) -> Outcome<Dispatched> {
        let mut log = self.lock()?;
        let decided = commands::dispatch(log.world.all.clone(), &request.workers, &request.claims, rules);
        let stored = log.commit(decided.changesets.clone(), rules)?.into_iter().map(|stored| stored.map(drop));
        Ok(Dispatched::of(decided, &stored.collect::<Vec<_>>()))
    }

    async fn watch(&self, lookout: Lookout, rules: &Rules) -> Outcome<commands::Watched> {
        let mut log = self.lock()?;
        let all = &log.world.all;
        let count = Headcount::of(all.workers.values(), all.now, &rules.policy);
        let watched = commands::watch(&all.watch, all.now, &lookout, count, rules);
        log.append(&watched.changes, &BTreeMap::new())?;
        Ok(watched)
    }

    async fn sweep(&self, request: SweepRequest, rules: &Rules) -> Outcome<Swept> {
        let mut log = self.lock()?;
        let mut due = commands::sweep(&log.world.all, &request.sight, rules);
        let all = due.len();
        due.truncate(request.limit);
        let committed: Vec<_> = log.commit(due, rules)?.into_iter().flatten().collect();
        Ok(Swept { more: committed.len() < all, committed })
    }

    async fn token_key(&self) -> Outcome<[u8; 32]> {
        Ok(self.token_key)
    }
}

#[async_trait]
impl Outbox for FileLogStore {
    async fn lease_due(&self, limit: usize, rules: &Rules) -> Outcome<Vec<LeasedDelivery>> {
        let mut log = self.lock()?;
        let now = log.world.all.now;
        let due = log.world.callbacks.iter().filter_map(|(id, known)| Some((known.queue.due_at()?, *id)));
        let due: BTreeSet<_> = due.filter(|(due, _)| *due <= now).collect();
        let (mut callbacks, mut leased) = (BTreeMap::new(), Vec::new());
        for (_, id) in due.into_iter().take(limit) {
            let mut of_job = log.world.callbacks[&id].clone();
            let lease_id = SendLeaseId::new(rules.ids.uuid());
            leased.extend(of_job.queue.lease(&log.world.all.jobs[&id], lease_id, now, &rules.policy));
            callbacks.insert(id, of_job);
        }
        if !leased.is_empty() {
            log.append(&Changeset::default(), &callbacks)?;
        }
        Ok(leased)
    }

    async fn settle(&self, settlements: Vec<Settlement>, rules: &Rules) -> Outcome<()> {
        let mut log = self.lock()?;
        for settlement in settlements {
            let (id, all) = (settlement.job_id, &log.world.all);
            let Some(mut of_job) = log.world.callbacks.get(&id).cloned() else { continue };
            let Some(dead) = of_job.settle(&settlement, all.now) else { continue };
            let told = (!dead.is_empty()).then(|| commands::dead_letter(&all.jobs[&id], &dead, all.now, rules));
            log.append(&told.unwrap_or_default(), &BTreeMap::from([(id, of_job)]))?;
        }
        Ok(())
    }

    async fn next_due(&self) -> Outcome<Option<Timestamp>> {
        Ok(self.lock()?.world.callbacks.values().filter_map(|known| known.queue.due_at()).min())
    }
}

#[async_trait]
impl Reader for FileLogStore {
    async fn now(&self) -> Outcome<Timestamp> {
        Ok(self.lock()?.world.all.now)
    }

    async fn job(&self, id: JobId) -> Outcome<Option<Arc<Job>>> {
        Ok(self.lock()?.world.all.jobs.get(&id).cloned())
    }

    async fn jobs(&self, query: &JobQuery) -> Outcome<Vec<Arc<Job>>> {
        Ok(query.select(self.lock()?.world.all.jobs.values()))
    }

    async fn job_events(&self, query: &JobEventQuery) -> Outcome<Vec<JobEvent>> {
        let log = self.lock()?;
        Ok(log.world.job_events.iter().filter(|event| query.accepts(event)).take(query.limit).cloned().collect())
    }

    async fn deliveries(&self, id: JobId, before: Option<u64>, limit: usize) -> Outcome<Vec<Arc<Delivery>>> {
        let log = self.lock()?;
        Ok(log.world.callbacks.get(&id).map(|known| known.newest_first(before, limit)).unwrap_or_default())
    }

    async fn workers(&self, query: &WorkerQuery) -> Outcome<(Timestamp, Vec<WorkerView>)> {
        let log = self.lock()?;
        Ok((log.world.all.now, query.select(log.world.all.workers.values())))
    }

    async fn worker(&self, id: &WorkerId) -> Outcome<(Timestamp, Option<WorkerView>)> {
        let log = self.lock()?;
        Ok((log.world.all.now, log.world.all.workers.get(id).cloned()))
    }

    async fn worker_events(&self, id: &WorkerId, before: Option<u64>, limit: usize) -> Outcome<Vec<WorkerEvent>> {
        let log = self.lock()?;
        let of_worker = log.world.worker_events.iter().rev().filter(|event| event.worker_id.as_ref() == Some(id));
        Ok(of_worker.filter(|event| before.is_none_or(|before| event.seq < before)).take(limit).cloned().collect())
    }

    async fn deregistration(&self, id: DeregistrationId) -> Outcome<Option<Arc<Deregistration>>> {
        Ok(self.lock()?.world.all.deregistrations.get(&id).cloned())
    }

    async fn fleet_watch(&self) -> Outcome<Arc<FleetWatch>> {
        Ok(Arc::clone(&self.lock()?.world.all.watch))
    }

    async fn figures(&self) -> Outcome<Figures> {
        let World { all, callbacks, .. } = &*self.lock()?.world;
        Ok(Figures::of(all.jobs.values(), callbacks.values().map(|callbacks| &callbacks.queue), all.now))
    }
}
