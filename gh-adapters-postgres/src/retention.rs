//! What is forgotten, and when.
//!
//! Events lie in partitions of a week each and are dropped with them; the partitions of the next weeks are made ahead.
//! All other rows are deleted in small batches, each in a transaction of its own, so that nobody waits for long. Rows
//! that somebody has locked are left for the next time. Of workers a small row stays (`tombstones`). Any number of
//! servers may do this at once.

use std::time::Duration;

use chrono::NaiveDate;
use gh_core::domain::time::Timestamp;
use gh_core::ports::store::StoreError;
use sqlx::PgConnection;

use crate::errors::store_error;
use crate::rows::instant;
use crate::store::PgStore;
use crate::{alone, tombstones};

/// How long what is over is kept. Nothing that is still going on is ever deleted, however old it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Jobs, with what was asked for, results, callbacks and keys against double submission: since they ended and
    /// their last callback was through. Default 90 days.
    pub jobs: Duration,
    /// Events of jobs, by whole weeks. Default 90 days.
    pub job_events: Duration,
    /// Events of workers, by whole weeks. Default 30 days.
    pub worker_events: Duration,
    /// Callbacks that are through: since they were enqueued. Default 30 days.
    pub deliveries: Duration,
    /// LLM calls: since they were first heard of. They are kept when their job goes. Default 400 days.
    pub llm_calls: Duration,
    /// Workers that went offline, with their names, until they register again; how far their generations are counted
    /// is never forgotten. Default 7 days.
    pub offline_workers: Duration,
    /// Workers that were deregistered, with their names; which of their processes may never come back is never
    /// forgotten. Default 90 days.
    pub deregistered_workers: Duration,
    /// How many rows one statement deletes at most; at least 1. Default 1,000.
    pub batch: u32,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            jobs: DAY * 90,
            job_events: DAY * 90,
            worker_events: DAY * 30,
            deliveries: DAY * 30,
            llm_calls: DAY * 400,
            offline_workers: DAY * 7,
            deregistered_workers: DAY * 90,
            batch: 1000,
        }
    }
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Jobs with all that belongs to them.
    pub jobs: u64,
    /// Partitions of events.
    pub partitions: u64,
    /// Events of the default partitions.
    pub events: u64,
    /// Callbacks.
    pub deliveries: u64,
    /// LLM calls.
    pub llm_calls: u64,
    /// Workers: of each a row stays that nobody is shown.
    pub workers: u64,
}

/// Deletes jobs that ended before a time ($1) and whose callbacks are through, at most so many ($2).
pub(crate) const FORGET_JOBS: &str = "
    with old as materialized (
        select j.job_id from gh_jobs j
        where j.completed_at < $1::timestamptz and j.next_deadline is null
            and not exists (select from gh_callback_queues q where q.job_id = j.job_id and q.due_at is not null)
        order by j.completed_at limit $2::bigint
        for update of j skip locked
    ),
    jobs as (delete from gh_jobs t using old where t.job_id = old.job_id returning 1),
    specs as (delete from gh_job_specs t using old where t.job_id = old.job_id),
    results as (delete from gh_job_results t using old where t.job_id = old.job_id),
    queues as (delete from gh_callback_queues t using old where t.job_id = old.job_id),
    deliveries as (delete from gh_deliveries t using old where t.job_id = old.job_id),
    keys as (delete from gh_idempotency_keys t using old where t.job_id = old.job_id)
    select count(*) as gone from jobs";

const FORGET_DELIVERIES: &str = "
    with old as materialized (select job_id, sequence from gh_deliveries where created_at < $1::timestamptz
        limit $2::bigint for update skip locked),
    gone as (delete from gh_deliveries t using old where t.job_id = old.job_id and t.sequence = old.sequence returning 1)
    select count(*) as gone from gone";

const FORGET_CALLS: &str = "
    with old as materialized (select job_id, call_id from gh_llm_calls where first_received_at < $1::timestamptz
        limit $2::bigint for update skip locked),
    gone as (delete from gh_llm_calls t using old where t.job_id = old.job_id and t.call_id = old.call_id returning 1)
    select count(*) as gone from gone";

const FORGET_JOB_EVENTS: &str = "
    with old as materialized (select id, job_id, seq from gh_job_events_default where created_at < $1::timestamptz
        limit $2::bigint),
    gone as (delete from gh_job_events_default t using old
        where t.job_id = old.job_id and t.seq = old.seq and t.id = old.id returning 1)
    select count(*) as gone from gone";

const FORGET_WORKER_EVENTS: &str = "
    with old as materialized (select id, worker_id, seq from gh_worker_events_default where created_at < $1::timestamptz
        limit $2::bigint),
    gone as (delete from gh_worker_events_default t using old where t.id = old.id
        and t.seq = old.seq and t.worker_id is not distinct from old.worker_id returning 1)
    select count(*) as gone from gone";

/// Keeps servers apart that would forget at the same time.
const RETENTION_LOCK: i64 = 0x6768_7265_7461_696e;

/// The tables that have partitions.
const PARTITIONED: [&str; 2] = ["gh_job_events", "gh_worker_events"];

/// Partitions are made for this week and so many after it.
const WEEKS_AHEAD: i32 = 4;

/// The weeks from this one on ($1: how many more) for which a table ($2) has no partition.
const MISSING_PARTITIONS: &str = "
    select w.week::date as week
    from (select date_trunc('week', statement_timestamp() at time zone 'UTC') + n * interval '7 days' as week
        from generate_series(0, $1::int) n) w
    where to_regclass($2::text || '_' || to_char(w.week, 'YYYYMMDD')) is null
    order by w.week";

/// The weeks of partitions of a table ($1) that were over before a time ($2). A partition's name says when its week
/// began.
const OLD_PARTITIONS: &str = "
    select to_date(right(c.relname, 8), 'YYYYMMDD') as week from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = to_regclass($1::text)::oid and c.relname ~ ('^' || $1::text || '_[0-9]{8}$')
        and (to_date(right(c.relname, 8), 'YYYYMMDD') + 7)::timestamp at time zone 'UTC' <= $2::timestamptz
    order by week";

/// Makes and drops partitions: functions that run as the owner of the tables.
const MAKE_PARTITION: &str = "select gh_make_partition($1, $2)";
const DROP_PARTITION: &str = "select gh_drop_partition($1, $2)";

/// Makes the partitions of the next weeks. One whose time the default partition already holds rows of is left out: its
/// events stay there.
pub(crate) async fn make_partitions(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    for table in PARTITIONED {
        let missing: Vec<NaiveDate> =
            sqlx::query_scalar(MISSING_PARTITIONS).bind(WEEKS_AHEAD).bind(table).fetch_all(&mut *connection).await?;
        for week in missing {
            sqlx::query(MAKE_PARTITION).bind(table).bind(week).execute(&mut *connection).await?;
        }
    }
    Ok(())
}

impl PgStore {
    /// Forgets what is old enough at this time, and makes the partitions of the next weeks. To be called every hour or
    /// so, by any number of servers. Each of its steps has an end, also where the database does not answer.
    ///
    /// # Errors
    ///
    /// What went wrong; what was forgotten before stays so.
    pub async fn retain(&self, retention: &Retention) -> Result<Forgotten, StoreError> {
        let Retention {
            jobs,
            job_events,
            worker_events,
            deliveries,
            llm_calls,
            offline_workers,
            deregistered_workers,
            batch,
        } = retention;
        let batch = i64::from((*batch).max(1));
        let now = gh_core::ports::reader::Reader::now(self).await?;
        let make = async {
            let mut connection = self.pool.acquire().await.map_err(store_error)?;
            make_partitions(&mut connection).await.map_err(store_error)
        };
        self.trust.in_time(make).await?;
        let mut forgotten = Forgotten::default();
        for (table, kept) in PARTITIONED.into_iter().zip([job_events, worker_events]) {
            forgotten.partitions += self.drop_partitions(table, now - *kept).await?;
        }
        let (of_jobs, of_workers) = (now - *job_events, now - *worker_events);
        forgotten.events = self.forget(FORGET_JOB_EVENTS, of_jobs, batch).await?
            + self.forget(FORGET_WORKER_EVENTS, of_workers, batch).await?;
        forgotten.jobs = self.forget(FORGET_JOBS, now - *jobs, batch).await?;
        forgotten.deliveries = self.forget(FORGET_DELIVERIES, now - *deliveries, batch).await?;
        forgotten.llm_calls = self.forget(FORGET_CALLS, now - *llm_calls, batch).await?;
        for (deregistered, kept) in [(false, offline_workers), (true, deregistered_workers)] {
            let before = instant(now - *kept);
            forgotten.workers +=
                self.in_batches(batch, || tombstones::forget_workers(self, before, batch, deregistered)).await?;
        }
        Ok(forgotten)
    }

    /// Runs a statement that deletes a batch, until it finds less than one.
    async fn forget(&self, sql: &'static str, before: Timestamp, batch: i64) -> Result<u64, StoreError> {
        let forget = || async { sqlx::query_scalar(sql).bind(instant(before)).bind(batch).fetch_one(&self.pool).await };
        self.in_batches(batch, || async { forget().await.map_err(store_error) }).await
    }

    /// Does something over and over until it finds less than a batch; says how much it found.
    async fn in_batches<F>(&self, batch: i64, forget: impl Fn() -> F) -> Result<u64, StoreError>
    where
        F: Future<Output = Result<i64, StoreError>>,
    {
        let mut all = 0;
        loop {
            let gone = self.trust.in_time(forget()).await?;
            all += u64::try_from(gone).unwrap_or_default();
            if gone < batch {
                return Ok(all);
            }
        }
    }

    /// Drops the partitions of a table whose time was over before this one. A partition that is in use stays until
    /// the next time.
    async fn drop_partitions(&self, table: &str, before: Timestamp) -> Result<u64, StoreError> {
        let old = sqlx::query_scalar(OLD_PARTITIONS).bind(table).bind(instant(before));
        let old = async { old.fetch_all(&self.pool).await.map_err(store_error) };
        let old: Vec<NaiveDate> = self.trust.in_time(old).await?;
        let mut dropped = 0;
        for week in old {
            let drop = sqlx::query(DROP_PARTITION).bind(table).bind(week);
            let drop = async { drop.execute(&self.pool).await.map_err(store_error) };
            match self.trust.in_time(drop).await {
                Ok(_) => dropped += 1,
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    table,
                    %week,
                    "a partition of old events is in use; it is dropped the next time"
                ),
            }
        }
        Ok(dropped)
    }

    /// As [`retain`](Self::retain), unless another server is at it: then nothing, and `None`.
    ///
    /// # Errors
    ///
    /// As [`retain`](Self::retain).
    pub async fn retain_unless_busy(&self, retention: &Retention) -> Result<Option<Forgotten>, StoreError> {
        const LOCK: &str = "select pg_try_advisory_lock($1)";
        const UNLOCK: &str = "select pg_advisory_unlock($1)";
        // A connection outside the pool: the lock ends with it, whatever happens to this future.
        let mut connection = alone::connect(&self.pool.connect_options()).await.map_err(store_error)?;
        let lock = sqlx::query_scalar(LOCK).bind(RETENTION_LOCK).fetch_one(&mut connection);
        let locked: bool = alone::answer(lock).await.map_err(store_error)?;
        let forgotten = if locked { Some(self.retain(retention).await?) } else { None };
        if locked {
            // The session ends a moment after its connection. If it does not answer any more, that will do.
            let _unlocked = alone::answer(sqlx::query(UNLOCK).bind(RETENTION_LOCK).execute(&mut connection)).await;
        }
        alone::close(connection).await;
        Ok(forgotten)
    }
}
