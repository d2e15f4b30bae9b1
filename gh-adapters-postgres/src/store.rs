//! The port [`Store`], and what all ports share.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gh_core::domain::changeset::Changeset;
use gh_core::domain::commands::Watched;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::{Keys, Snapshot};
use gh_core::domain::time::Timestamp;
use gh_core::domain::watch::{FleetWatch, Lookout};
use gh_core::domain::worker::WorkerView;
use gh_core::ports::clock::Clock;
use gh_core::ports::store::{ClaimRequest, Conflict, Dispatched, Store, StoreError, SweepRequest, Swept};
use sqlx::{PgConnection, PgExecutor, PgPool, Postgres, Transaction};
use tokio::time::Instant;

use crate::batch;
use crate::connect::PgOptions;
use crate::errors::{Failure, corrupt, store_error};
use crate::footprint::Footprint;
use crate::held::Held;
use crate::live::Live;
use crate::lock::Waiting;
use crate::spare::{Origin, Spare, Spares};
use crate::specs::{SpecCache, spec_bytes};
use crate::time::{self, StoreTime, moment};
use crate::trust::Trust;
use crate::{claim, load, sweep, watch};

/// How often a transaction is done again because others came in between.
const TRIES: u32 = 8;

/// How much of what was asked for with jobs is kept in the process, in bytes.
const SPEC_CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// [`Store`], [`Reader`](gh_core::ports::reader::Reader) and [`Outbox`](gh_core::ports::outbox::Outbox) on PostgreSQL.
///
/// Cheap to clone: clones share the pool and all that is kept in the process.
#[derive(Clone)]
pub struct PgStore {
    pub(crate) pool: PgPool,
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) trust: Trust,
}

/// What statements need beside a connection.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) time: StoreTime,
    pub(crate) specs: SpecCache,
    pub(crate) live: Live,
    spares: Spares,
    /// When another server was last seen to claim at once.
    disturbed_at: Mutex<Option<Instant>>,
    /// The last glance at all workers, and when it was taken.
    glance: tokio::sync::Mutex<Option<(Instant, Glance)>>,
    /// The record of the watch as it was last seen, and when that was.
    watch: Mutex<Option<(Instant, Arc<FleetWatch>)>>,
}

/// All workers, and the time at which they were so.
type Glance = (Timestamp, Arc<Vec<WorkerView>>);

/// How long a glance at all workers serves those who ask after it.
const GLANCE_SERVES: Duration = Duration::from_millis(500);

impl Surroundings {
    fn new(clock: Option<Arc<dyn Clock>>, origin: Origin) -> Self {
        Self {
            time: StoreTime::new(clock),
            specs: SpecCache::new(SPEC_CACHE_BYTES),
            live: Live::default(),
            spares: Spares::new(origin),
            disturbed_at: Mutex::default(),
            glance: tokio::sync::Mutex::default(),
            watch: Mutex::default(),
        }
    }

    /// The last glance at all workers if it still serves, else what `look` sees; whoever asks meanwhile waits for it.
    #[expect(clippy::disallowed_methods, reason = "how old a glance is has nothing to do with the store's time")]
    pub(crate) async fn glance(
        &self,
        look: impl Future<Output = Result<(Timestamp, Vec<WorkerView>), StoreError>>,
    ) -> Result<Glance, StoreError> {
        let mut last = self.glance.lock().await;
        if let Some((taken, glance)) = last.as_ref()
            && !self.time.is_a_clocks()
            && taken.elapsed() < GLANCE_SERVES
        {
            return Ok(glance.clone());
        }
        let (now, workers) = look.await?;
        let glance = (now, Arc::new(workers));
        *last = Some((Instant::now(), glance.clone()));
        Ok(glance)
    }

    /// The store's time, now that the database says `reading`: never before what was told earlier in this process.
    pub(crate) fn now(&self, reading: Timestamp) -> Timestamp {
        self.time.sample(reading)
    }

    /// Keeps the record of the watch for those who ask for it.
    pub(crate) fn keep_watch(&self, record: Arc<FleetWatch>) {
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some((time::now(), record));
    }

    /// The record of the watch, if it was seen a moment ago.
    pub(crate) fn kept_watch(&self) -> Option<Arc<FleetWatch>> {
        let kept = self.watch.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (_, record) = kept.filter(|(at, _)| !self.time.is_a_clocks() && at.elapsed() < GLANCE_SERVES)?;
        Some(record)
    }

    /// Notes that another server claims at once.
    #[expect(clippy::disallowed_methods, reason = "how long ago that was has nothing to do with the store's time")]
    pub(crate) fn disturbed(&self) {
        *self.disturbed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether that was a moment ago.
    pub(crate) fn is_disturbed(&self) -> bool {
        let at = *self.disturbed_at.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < claim::DISTURBED_FOR)
    }

    /// Remembers what was stored.
    pub(crate) fn stored(&self, held: &Held) {
        self.live.remember(held);
        for write in held.jobs.values() {
            let job = &write.job;
            self.specs.keep(job.id, Arc::clone(&job.spec), spec_bytes(&job.spec));
        }
    }

    /// The store's time without asking, where the database told it a moment ago.
    pub(crate) fn now_unasked(&self) -> Option<Timestamp> {
        self.time.unasked()
    }
}

impl PgStore {
    /// A store on this pool; its time is the database's. The database must be [migrated](Self::migrate).
    ///
    /// Prefer [`PgStore::connect`]: it makes a [`pool`](Self::pool) whose connections are set up for this store, and
    /// replaced where they turn out to be of no use.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::on_pool(pool, Origin::Pool, Trust::new(PgOptions::default().statement_timeout), None)
    }

    /// The same with what pool and store both know of its connections.
    pub(crate) fn on_pool(pool: PgPool, origin: Origin, trust: Trust, clock: Option<Arc<dyn Clock>>) -> Self {
        Self { pool, surroundings: Arc::new(Surroundings::new(clock, origin)), trust }
    }

    /// A store on this pool whose time is this clock's, for tests.
    #[must_use]
    pub fn with_clock(pool: PgPool, clock: Arc<dyn Clock>) -> Self {
        Self::on_pool(pool, Origin::Pool, Trust::new(PgOptions::default().statement_timeout), Some(clock))
    }

    /// The pool.
    #[must_use]
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Stores changesets in a transaction of the caller's: together with whatever else the caller does in it, or not
    /// at all. Otherwise as [`Store::commit`]; [`Changeset`]s are decided on a snapshot of [`Store::load`], which sees
    /// nothing that the transaction has not committed.
    ///
    /// It is tried once: where another transaction came in between, the error is [`StoreError::Unavailable`] and the
    /// whole transaction is worth doing again.
    ///
    /// # Errors
    ///
    /// As [`Store::commit`]. The transaction is then to be rolled back. So it is when an answer is [`Conflict`], if
    /// what the caller did belongs to the changeset that was refused.
    pub async fn commit_in(
        &self,
        transaction: &mut PgConnection,
        changes: &[Changeset],
        rules: &Rules,
    ) -> Result<Vec<Result<(), Conflict>>, StoreError> {
        let stored = batch::store(transaction, changes, rules, Waiting::Wait, &self.surroundings).await;
        // Only the caller will know whether it was stored.
        self.surroundings.live.forget(&Footprint::of(changes));
        stored.map(|(answers, _)| answers).map_err(Failure::into_error)
    }

    /// A connection for one statement after the other.
    pub(crate) async fn spare(&self) -> Result<Spare, sqlx::Error> {
        self.surroundings.spares.take(&self.pool, &self.trust).await
    }

    /// Keeps a connection whose last statement was answered to its end.
    pub(crate) fn keep_spare(&self, spare: Spare) {
        self.surroundings.spares.keep(spare);
    }

    /// Stores changesets as their rows are remembered, by as few statements as can be. `None` where not all is
    /// remembered or something is no longer as it is remembered: nothing is stored then.
    pub(crate) async fn commit_remembered(
        &self,
        changes: &[Changeset],
        rules: &Rules,
    ) -> Result<Option<Vec<Result<(), Conflict>>>, StoreError> {
        let rows = Footprint::of(changes);
        let surroundings = &self.surroundings;
        surroundings.live.enter_era(self.trust.era());
        let Some((mut held, now)) = surroundings.live.recall(changes, &rows).zip(surroundings.now_unasked()) else {
            return Ok(None);
        };
        held.now = now;
        // What does not fit may fit what is stored.
        if !changes.iter().all(|changeset| held.take(changeset, rules).is_ok()) {
            surroundings.live.forget(&rows);
            return Ok(None);
        }
        held.verify(&rows);
        let mut spare = self.spare().await.map_err(store_error)?;
        match batch::write_alone(&mut spare.connection, &held).await {
            Ok(()) => {
                self.keep_spare(spare);
                surroundings.stored(&held);
                Ok(Some(vec![Ok(()); changes.len()]))
            }
            Err(failure) => {
                surroundings.live.forget(&rows);
                match failure {
                    Failure::Again(error) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "what was remembered is out of date");
                        Ok(None)
                    }
                    Failure::Final(error) => Err(error),
                }
            }
        }
    }

    /// The store's time, for statements that pick by it: no statement compares anything with the database's own clock.
    pub(crate) async fn time(&self) -> Result<Timestamp, StoreError> {
        match self.surroundings.now_unasked() {
            Some(now) => Ok(now),
            None => self.ask_the_time(&self.pool).await,
        }
    }

    /// The same by way of this connection, if it has to be asked for.
    pub(crate) async fn time_on(&self, connection: &mut PgConnection) -> Result<Timestamp, StoreError> {
        match self.surroundings.now_unasked() {
            Some(now) => Ok(now),
            None => self.ask_the_time(connection).await,
        }
    }

    /// The store's time, asked for.
    pub(crate) async fn ask_the_time(&self, by: impl PgExecutor<'_>) -> Result<Timestamp, StoreError> {
        const NOW: &str = concat!("select ", moment!());
        let now: DateTime<Utc> = sqlx::query_scalar(NOW).fetch_one(by).await.map_err(store_error)?;
        Ok(self.surroundings.now(Timestamp::from(now)))
    }

    /// Begins a transaction.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, Failure> {
        Ok(self.pool.begin().await?)
    }
}

/// Tells whether a failed piece of work is to be done again, for the `tried`th time.
pub(crate) fn try_again(failure: Failure, tried: u32) -> Result<(), StoreError> {
    match failure {
        Failure::Again(error) if tried < TRIES => {
            tracing::debug!(error = &error as &dyn std::error::Error, tried, "another transaction came in between");
            Ok(())
        }
        Failure::Again(error) | Failure::Final(error) => Err(error),
    }
}

/// Does a piece of work until nobody comes in between, with a bound.
macro_rules! until_done {
    ($work:expr) => {{
        let mut tried = 0;
        loop {
            match $work.await {
                Ok(done) => break Ok(done),
                Err(failure) => {
                    tried += 1;
                    if let Err(error) = crate::store::try_again(failure, tried) {
                        break Err(error);
                    }
                }
            }
        }
    }};
}
pub(crate) use until_done;

#[async_trait]
impl Store for PgStore {
    async fn load(&self, keys: &Keys) -> Result<Snapshot, StoreError> {
        let load = async {
            let mut spare = self.spare().await.map_err(store_error)?;
            let snapshot = load::load(&mut spare.connection, keys, &self.surroundings).await;
            if snapshot.is_ok() {
                self.keep_spare(spare);
            }
            snapshot
        };
        self.trust.in_time(load).await
    }

    fn recall(&self, keys: &Keys) -> Option<Snapshot> {
        if !keys.of_jobs_and_workers() {
            return None;
        }
        let Surroundings { live, .. } = &*self.surroundings;
        live.enter_era(self.trust.era());
        live.snapshot(keys, self.surroundings.now_unasked()?)
    }

    async fn commit(&self, changes: Vec<Changeset>, rules: &Rules) -> Result<Vec<Result<(), Conflict>>, StoreError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let commit = async {
            match self.commit_remembered(&changes, rules).await? {
                Some(answers) => Ok(answers),
                None => until_done!(self.commit_once(&changes, rules)),
            }
        };
        self.trust.in_time(commit).await
    }

    async fn claim(&self, request: ClaimRequest, rules: &Rules) -> Result<Dispatched, StoreError> {
        self.trust.in_time(claim::claim(self, &request, rules)).await
    }

    async fn watch(&self, lookout: Lookout, rules: &Rules) -> Result<Watched, StoreError> {
        self.trust.in_time(async { until_done!(watch::watch(self, &lookout, rules)) }).await
    }

    async fn sweep(&self, request: SweepRequest, rules: &Rules) -> Result<Swept, StoreError> {
        self.trust.in_time(async { until_done!(sweep::sweep(self, &request, rules)) }).await
    }

    async fn token_key(&self) -> Result<[u8; 32], StoreError> {
        // Three random UUIDs hold more than 256 random bits, from the database's strong source.
        const MAKE: &str = "
            insert into gh_settings (name, value)
            select 'token_key', sha256(convert_to(concat(gen_random_uuid(), gen_random_uuid(), gen_random_uuid()), 'UTF8'))
            where not exists (select from gh_settings where name = 'token_key')
            on conflict (name) do nothing";
        const READ: &str = "select value from gh_settings where name = 'token_key'";
        let make_or_read = async {
            sqlx::query(MAKE).execute(&self.pool).await.map_err(store_error)?;
            sqlx::query_scalar(READ).fetch_one(&self.pool).await.map_err(store_error)
        };
        let key: Vec<u8> = self.trust.in_time(make_or_read).await?;
        key.try_into().map_err(|_| corrupt("gh_settings", "token_key", "has not 32 bytes"))
    }
}

impl PgStore {
    /// Stores changesets under locks.
    pub(crate) async fn commit_once(
        &self,
        changes: &[Changeset],
        rules: &Rules,
    ) -> Result<Vec<Result<(), Conflict>>, Failure> {
        let mut transaction = self.begin().await?;
        let stored = batch::store(&mut transaction, changes, rules, Waiting::Wait, &self.surroundings).await;
        let outcome = stored.map(|(answers, held)| {
            let end = if answers.iter().any(Result::is_ok) { End::Store } else { End::Leave };
            ((answers, held), end)
        });
        let (answers, held) = finish(transaction, outcome).await?;
        self.surroundings.stored(&held);
        for (changeset, _) in changes.iter().zip(&answers).filter(|(_, answer)| answer.is_err()) {
            self.surroundings.live.forget(&Footprint::of(std::slice::from_ref(changeset)));
        }
        Ok(answers)
    }
}

/// How a transaction ends that met no failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// What it wrote is stored.
    Store,
    /// It wrote nothing; its locks are let go.
    Leave,
}

/// Ends a transaction, and comes back when its locks are free: whoever asks next must not meet them.
///
/// Whether it was stored is not known if the connection breaks while it ends, so then it is never done again.
pub(crate) async fn finish<T>(
    transaction: Transaction<'static, Postgres>,
    outcome: Result<(T, End), Failure>,
) -> Result<T, Failure> {
    if let Ok((done, End::Store)) = outcome {
        return match transaction.commit().await {
            Ok(()) => Ok(done),
            Err(error) => Err(Failure::Final(store_error(error))),
        };
    }
    if let Err(error) = transaction.rollback().await {
        // Nothing was to be stored, and a broken connection stores nothing.
        tracing::debug!(error = &error as &dyn std::error::Error, "a transaction ended by losing its connection");
    }
    outcome.map(|(done, _)| done)
}

impl fmt::Debug for PgStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The pool knows the address of the database with its password.
        formatter.debug_struct("PgStore").finish_non_exhaustive()
    }
}
