//! Locks what a batch relies on and reads what it can be refused for, always in the same order: what must not be there
//! (advisory locks), workers, their vitals, jobs, names, deregistrations, callbacks; each table by key.
//!
//! One strength for all: two transactions that lock the same rows in the same order cannot wait for each other in a
//! circle, and with two strengths there would be two orders. A row that is locked is read as it is then. What is not
//! locked (keys against double submission) is read as it was when the statement began: if that has changed since,
//! writing finds out.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use gh_core::domain::changeset::AggregateId;
use gh_core::domain::code::ClientName;
use gh_core::domain::ids::{DeregistrationId, JobId, Name};
use gh_core::domain::time::Timestamp;
use gh_core::domain::worker::Occupation;
use gh_core::ports::store::StoreError;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::errors::{Failure, store_error};
use crate::footprint::{Footprint, lock_number};
use crate::held::Held;
use crate::rows::worker::StoredVitals;
use crate::rows::{callback, column, unsigned, version, worker};
use crate::store::Surroundings;
use crate::time::moment;

/// What to do about a row that somebody else has locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Wait for it, up to the lock timeout.
    Wait,
    /// Leave it: what relies on it is taken for moved.
    Skip,
}

/// Keys come sorted, and each is locked as it is looked up: that is the order within a table. Parts run one after the
/// other: that is the order of tables.
///
/// Workers ($1), vitals ($2), jobs ($3), names ($4), deregistrations ($5), callback queues ($6); keys against double
/// submission ($7, $8).
macro_rules! lock_sql {
    ($skip:literal, $more:literal) => {
        concat!(
            "select 'worker' as kind, r.occupied_by as id, r.worker_id as name, null::text as name2,
                r.version as number, r.reserved as flag, null::text as body, null::timestamptz as at
            from (select unnest($1::text[]) as worker_id) a
            cross join lateral (select worker_id, version, occupied_by, reserved from gh_workers t where t.worker_id = a.worker_id for no key update",
            $skip,
            ") r
            union all
            select 'vitals', null, r.worker_id, null, r.revision, null, r.body, r.silent_since
            from (select unnest($2::text[]) as worker_id) a
            cross join lateral (select worker_id, revision, body, silent_since from gh_worker_vitals t where t.worker_id = a.worker_id for no key update",
            $skip,
            ") r
            union all
            select 'job', r.job_id, r.occupies, null, r.version, r.status = 'queued', null, null
            from (select unnest($3::uuid[]) as job_id) a
            cross join lateral (select job_id, occupies, version, status from gh_jobs t where t.job_id = a.job_id for no key update",
            $skip,
            ") r
            union all
            select 'name', null, r.name, null, r.version, null, null, null
            from (select unnest($4::text[]) as name) a
            cross join lateral (select name, version from gh_names t where t.name = a.name for no key update",
            $skip,
            ") r
            union all
            select 'deregistration', r.deregistration_id, null, null, r.version, null, null, null
            from (select unnest($5::uuid[]) as deregistration_id) a
            cross join lateral (select deregistration_id, version from gh_deregistrations t where t.deregistration_id = a.deregistration_id for no key update",
            $skip,
            ") r
            union all
            select 'queue', r.job_id, null, null, r.revision, null, r.body, null
            from (select unnest($6::uuid[]) as job_id) a
            cross join lateral (select job_id, revision, body from gh_callback_queues t where t.job_id = a.job_id for no key update",
            $skip,
            ") r
            union all
            select 'key', null, k.client, k.key, 0, null, null, null
            from (select unnest($7::text[]) as client, unnest($8::text[]) as key) a
            cross join lateral (select k.client, k.key from gh_idempotency_keys k
                where k.client = a.client and k.key = a.key offset 0) k
            union all
            select 'now', null, null, null, 0, null, null, ",
            moment!(),
            $more
        )
    };
}

pub(crate) const LOCK: &str = lock_sql!("", "");
/// The same without waiting; vitals and queues that are there are named, whether they could be had or not.
pub(crate) const LOCK_SKIPPING: &str = lock_sql!(
    " skip locked",
    "
            union all
            select 'known vitals', null, v.worker_id, null, 0, null, null, null
            from gh_worker_vitals v where v.worker_id = any($2::text[])
            union all
            select 'known queue', q.job_id, null, null, 0, null, null, null
            from gh_callback_queues q where q.job_id = any($6::uuid[])"
);

pub(crate) const LOCK_ABSENT: &str = "select a.number, pg_advisory_xact_lock(a.number)::text is not null as had from (select unnest($1::bigint[]) as number) a";
pub(crate) const LOCK_ABSENT_SKIPPING: &str =
    "select a.number, pg_try_advisory_xact_lock(a.number) as had from (select unnest($1::bigint[]) as number) a";

/// Locks these rows and reads them.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    rows: &Footprint,
    waiting: Waiting,
    surroundings: &Surroundings,
) -> Result<Held, Failure> {
    let locked_by_others = lock_absent(&mut *connection, rows, waiting).await?;
    let sql = match waiting {
        Waiting::Wait => LOCK,
        Waiting::Skip => LOCK_SKIPPING,
    };
    let names = |names: &BTreeSet<Name>| column(names, |name| name.as_str().to_owned());
    let ids = |ids: &BTreeSet<Uuid>| ids.iter().copied().collect::<Vec<_>>();
    let answer = sqlx::query(sql)
        .bind(names(&rows.workers))
        .bind(names(&rows.vitals))
        .bind(ids(&rows.jobs))
        .bind(names(&rows.names))
        .bind(ids(&rows.deregistrations))
        .bind(ids(&rows.queues))
        .bind(column(&rows.keys, |(client, _)| client.as_str().to_owned()))
        .bind(column(&rows.keys, |(_, key)| key.to_string()))
        .fetch_all(&mut *connection)
        .await?;
    let mut held = Held::default();
    for row in &answer {
        read(&mut held, row, surroundings)?;
    }
    lock_left_workers(connection, &mut held, rows, waiting).await?;
    let unknown = rows.workers.iter().cloned().map(AggregateId::Worker);
    let unknown = unknown.chain(rows.names.iter().cloned().map(AggregateId::Name));
    let absent = unknown.filter(|id| lock_number(id).is_some_and(|number| locked_by_others.contains(&number)));
    held.elsewhere.extend(absent);
    Ok(held)
}

/// Locks what must not be there; gives back what others have locked.
async fn lock_absent(
    connection: &mut PgConnection,
    rows: &Footprint,
    waiting: Waiting,
) -> Result<BTreeSet<i64>, Failure> {
    if rows.absent.is_empty() {
        return Ok(BTreeSet::new());
    }
    let sql = match waiting {
        Waiting::Wait => LOCK_ABSENT,
        Waiting::Skip => LOCK_ABSENT_SKIPPING,
    };
    let numbers: Vec<i64> = rows.absent.iter().copied().collect();
    let answer: Vec<(i64, bool)> = sqlx::query_as(sql).bind(numbers).fetch_all(connection).await?;
    Ok(answer.into_iter().filter(|(_, had)| !had).map(|(number, _)| number).collect())
}

/// Workers ($1) that were found out of their turn: whoever has one of them is not waited for.
pub(crate) const LOCK_LATE: &str = "
    select 'worker' as kind, r.occupied_by as id, r.worker_id as name, null::text as name2, r.version as number,
        r.reserved as flag, null::text as body, null::timestamptz as at
    from (select unnest($1::text[]) as worker_id) a
    cross join lateral (select worker_id, version, occupied_by, reserved from gh_workers t
        where t.worker_id = a.worker_id for no key update skip locked) r";

/// Locks the workers that locked jobs occupy, where no changeset named them. A job that leaves its worker changes the
/// worker's row too; the core relies on that worker then, so there hardly ever is one.
async fn lock_left_workers(
    connection: &mut PgConnection,
    held: &mut Held,
    rows: &Footprint,
    waiting: Waiting,
) -> Result<(), Failure> {
    // A job that has moved since is not written, so its worker is not needed: who decided on memory names another.
    let written = rows.written_jobs.iter().copied();
    let written: BTreeSet<Uuid> = written
        .filter(|id| {
            let id = JobId::new(*id);
            rows.may_write(id, held.job_before(id))
        })
        .collect();
    let unlocked = held.unlocked_workers(&written);
    if unlocked.is_empty() {
        return Ok(());
    }
    let names = column(&unlocked, |id| id.as_str().to_owned());
    for row in &sqlx::query(LOCK_LATE).bind(names).fetch_all(connection).await? {
        let (text, number): (&str, i64) = (row.try_get("name")?, row.try_get("number")?);
        let (id, flag): (Option<Uuid>, Option<bool>) = (row.try_get("id")?, row.try_get("flag")?);
        let occupant = id.zip(flag).map(|(id, reserved)| Occupation { job_id: JobId::new(id), reserved });
        held.keep_worker(worker::name("gh_workers", text)?, version("gh_workers", text, number)?, occupant);
    }
    let unlocked = held.unlocked_workers(&written);
    if unlocked.is_empty() {
        return Ok(());
    }
    match waiting {
        Waiting::Wait => Err(Failure::overtaken()),
        Waiting::Skip => {
            held.leave_jobs_of(&unlocked);
            Ok(())
        }
    }
}

/// Takes in one row of the answer.
fn read(held: &mut Held, row: &PgRow, surroundings: &Surroundings) -> Result<(), StoreError> {
    let columns = || -> Result<_, sqlx::Error> {
        let kind: &str = row.try_get("kind")?;
        let id: Option<Uuid> = row.try_get("id")?;
        let name: Option<&str> = row.try_get("name")?;
        let number: i64 = row.try_get("number")?;
        let flag: Option<bool> = row.try_get("flag")?;
        let body: Option<&str> = row.try_get("body")?;
        let occupant = id.zip(flag).map(|(id, reserved)| Occupation { job_id: JobId::new(id), reserved });
        Ok((kind, id.unwrap_or_default(), name, number, occupant, body.unwrap_or_default()))
    };
    let (kind, id, name, number, occupant, body) = columns().map_err(store_error)?;
    let text = name.unwrap_or_default();
    match kind {
        "worker" => {
            held.keep_worker(worker::name("gh_workers", text)?, version("gh_workers", text, number)?, occupant);
        }
        "vitals" => {
            let id = worker::name("gh_worker_vitals", text)?;
            let vitals = StoredVitals::of(&id, row)?;
            held.vitals.insert(id, vitals);
        }
        "job" => {
            let occupied = name.map(|name| worker::name("gh_jobs", name)).transpose()?;
            let reserved = occupant.is_some_and(|occupation| occupation.reserved);
            let version = version("gh_jobs", id, number)?;
            held.keep_job(JobId::new(id), version, occupied.map(|worker| (worker, reserved)));
        }
        "name" => {
            let version = version("gh_names", text, number)?;
            held.versions.insert(AggregateId::Name(worker::name("gh_names", text)?), version);
        }
        "deregistration" => {
            let key = AggregateId::Deregistration(DeregistrationId::new(id));
            held.versions.insert(key, version("gh_deregistrations", id, number)?);
        }
        "queue" => {
            let revision = unsigned("gh_callback_queues", id, number)?;
            held.keep_queue(callback::queue(JobId::new(id), body)?, revision);
        }
        "known vitals" => {
            let id = worker::name("gh_worker_vitals", text)?;
            if !held.vitals.contains_key(&id) {
                held.vitals_elsewhere.insert(id);
            }
        }
        "known queue" => {
            if held.queue_mut(JobId::new(id)).is_none() {
                held.queues_elsewhere.insert(JobId::new(id));
            }
        }
        "key" => {
            let key: &str = row.try_get("name2").map_err(store_error)?;
            held.keys.insert((ClientName::new(text), key.into()));
        }
        _ => {
            let now: DateTime<Utc> = row.try_get("at").map_err(store_error)?;
            held.now = surroundings.now(Timestamp::from(now));
        }
    }
    Ok(())
}
