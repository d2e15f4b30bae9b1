//! Snapshots: everything that a decision asks for, by one statement and so of one moment.
//!
//! The statement answers rows of several kinds in one shape; [`Kind`] says which columns each of them fills. Most
//! commands name jobs and workers only: for them there is a short form of the statement. What was asked for with a job
//! never changes, so it is not part of the statement but comes from the cache, or is read afterwards.
//!
//! Keys are joined to tables by lateral subqueries that stay as they are (`offset 0`): each key is looked up in its
//! index, whatever the planner believes of the table's size. A plan made while a table was young would read all of it.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use gh_core::domain::callback::CallbackQueue;
use gh_core::domain::code::ClientName;
use gh_core::domain::ids::{JobId, Name, WorkerId};
use gh_core::domain::job::WaitObstacle;
use gh_core::domain::snapshot::{Keys, NameView, Snapshot};
use gh_core::domain::time::Timestamp;
use gh_core::ports::store::StoreError;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::errors::store_error;
use crate::live::Live;
use crate::rows::job::StoredJob;
use crate::rows::{callback, column, ledger, unsigned, worker};
use crate::store::Surroundings;

/// Workers with all that belongs to a view of them, and the deregistrations that wait for them. Takes `asked_jobs`,
/// `asked_workers` and `named_deregistrations`.
macro_rules! views {
    () => {
        "views as materialized (
            select w.worker_id, w.version, w.body, w.target_worker_id, w.ec2_instance_id, w.deregistration_id,
                v.body as vitals, v.revision, v.silent_since, w.occupied_by as job_id, w.reserved,
                case when w.forgotten then w.gone_since end as forgotten_since,
                coalesce((select true from gh_workers t where t.target_worker_id = w.worker_id limit 1), false)
                    as id_is_a_target
            from asked_workers a
            cross join lateral (select * from gh_workers w where w.worker_id = a.worker_id offset 0) w
            left join lateral (select * from gh_worker_vitals v where v.worker_id = a.worker_id offset 0) v on true
        ),
        loads as materialized (
            select i.ec2_instance_id, c.occupied
            from (select distinct ec2_instance_id from views where ec2_instance_id is not null) i
            cross join lateral (select count(w.occupied_by) as occupied
                from gh_workers w where w.ec2_instance_id = i.ec2_instance_id) c
        ),
        all_jobs as (
            select job_id from asked_jobs union select job_id from views where job_id is not null
        ),
        all_deregistrations as (
            select deregistration_id from views where deregistration_id is not null
            union select deregistration_id from named_deregistrations
        )"
    };
}
pub(crate) use views;

/// These as rows; jobs with their results.
macro_rules! rows {
    () => {
        concat!("
        select 'now' as kind, null::uuid as id, null::text as name, null::text as name2, 0::bigint as number,
            null::boolean as flag, false as flag2, null::text as body, null::text as body2, null::bytea as bytes,
            ", $crate::time::moment!(), " as at, 0::bigint as count, 0::bigint as revision
        union all
        select 'worker', v.job_id, v.worker_id, null, v.version, v.reserved, v.id_is_a_target, v.body, v.vitals, null,
            coalesce(v.silent_since, v.forgotten_since), coalesce(o.occupied, 0), coalesce(v.revision, 0)
        from views v left join loads o on o.ec2_instance_id = v.ec2_instance_id
        union all
        select 'job', j.job_id, j.status, null, j.version, null, false, j.body, r.result_data, null, null, 0, 0
        from all_jobs a
        cross join lateral (select * from gh_jobs j where j.job_id = a.job_id offset 0) j
        left join lateral (select r.result_data from gh_job_results r
            where j.status = 'completed' and r.job_id = j.job_id and r.run = j.run offset 0) r on true
        union all
        select 'queue', q.job_id, null, null, q.revision, null, false, q.body, null, null, null, 0, 0
        from asked_jobs a
        cross join lateral (select * from gh_callback_queues q where q.job_id = a.job_id offset 0) q
        union all
        select 'deregistration', d.deregistration_id, null, null, d.version, null, false, d.body, null, null, null, 0, 0
        from all_deregistrations a cross join lateral (select * from gh_deregistrations d
            where d.deregistration_id = a.deregistration_id offset 0) d")
    };
}
pub(crate) use rows;

/// Jobs ($1) and workers ($2).
pub(crate) const LOAD_JOBS_AND_WORKERS: &str = concat!(
    "with asked_jobs as materialized (select unnest($1::uuid[]) as job_id),
    asked_workers as (
        select unnest($2::text[]) as worker_id
        union
        select u.worker_id from asked_jobs a
        cross join lateral (select occupies, last_holder from gh_jobs j where j.job_id = a.job_id offset 0) j
        cross join lateral (values (j.occupies), (j.last_holder)) u (worker_id) where u.worker_id is not null
    ),
    named_deregistrations as (select null::uuid as deregistration_id where false),",
    views!(),
    rows!()
);

/// Everything that there are keys for: jobs ($1), workers ($2), names ($3), names for which jobs wait ($4), keys
/// against double submission ($5, $6), LLM calls ($7, $8).
///
/// Workers that carry a name as target or machine bring along their own id and target as names, and so those who carry
/// these; it ends there.
pub(crate) const LOAD: &str = concat!(
    "with keyed as materialized (
        select k.client, k.key, k.fingerprint, k.job_id
        from (select unnest($5::text[]) as client, unnest($6::text[]) as key) a
        cross join lateral (select * from gh_idempotency_keys k
            where k.client = a.client and k.key = a.key offset 0) k
    ),
    waiting as materialized (
        select n.name, j.job_id
        from (select unnest($4::text[]) as name) n
        cross join lateral (select j.job_id from gh_jobs j where j.waits_for = n.name offset 0) j
    ),
    jobs_with_workers as materialized (
        select unnest($1::uuid[]) as job_id union select job_id from keyed
    ),
    asked_jobs as materialized (
        select job_id from jobs_with_workers union select job_id from waiting
    ),
    asked_names as materialized (select distinct unnest($3::text[] || $4::text[]) as name),
    carriers as materialized (
        select w.worker_id, w.target_worker_id
        from asked_names n
        cross join lateral (select * from gh_workers w where w.target_worker_id = n.name offset 0) w
        union
        select w.worker_id, w.target_worker_id
        from asked_names n
        cross join lateral (select * from gh_workers w where w.ec2_instance_id = n.name offset 0) w
    ),
    names as materialized (
        select name from asked_names union select worker_id from carriers
        union select target_worker_id from carriers where target_worker_id is not null
    ),
    carried as materialized (
        select n.name, w.worker_id, true as by_target
        from names n
        cross join lateral (select w.worker_id from gh_workers w where w.target_worker_id = n.name offset 0) w
        union all
        select n.name, w.worker_id, false
        from names n
        cross join lateral (select w.worker_id from gh_workers w where w.ec2_instance_id = n.name offset 0) w
    ),
    records as materialized (
        select n.name, r.version, r.held_by from names n
        left join lateral (select * from gh_names r where r.name = n.name offset 0) r on true
    ),
    named_deregistrations as (select held_by as deregistration_id from records where held_by is not null),
    asked_workers as (
        select unnest($2::text[]) as worker_id
        union
        select u.worker_id from jobs_with_workers a
        cross join lateral (select occupies, last_holder from gh_jobs j where j.job_id = a.job_id offset 0) j
        cross join lateral (values (j.occupies), (j.last_holder)) u (worker_id) where u.worker_id is not null
        union
        select worker_id from carried
        union
        select name from names
    ),",
    views!(),
    rows!(),
    "
        union all
        select 'name', r.held_by, r.name, null, coalesce(r.version, 0), null, false, null, null, null, null, 0, 0
        from records r
        union all
        select 'carrier', null, c.name, c.worker_id, 0, c.by_target, false, null, null, null, null, 0, 0 from carried c
        union all
        select 'waiting', w.job_id, w.name, null, 0, null, false, null, null, null, null, 0, 0 from waiting w
        union all
        select 'key', k.job_id, k.client, k.key, 0, null, false, null, null, k.fingerprint, null, 0, 0 from keyed k
        union all
        select 'call', c.job_id, c.call_id, null, 0, null, false, c.body, null, null, null, 0, 0
        from (select unnest($7::uuid[]) as job_id, unnest($8::text[]) as call_id) a
        cross join lateral (select * from gh_llm_calls c
            where c.job_id = a.job_id and c.call_id = a.call_id offset 0) c"
);

/// Reads what a decision asks for.
pub(crate) async fn load(
    connection: &mut PgConnection,
    keys: &Keys,
    surroundings: &Surroundings,
) -> Result<Snapshot, StoreError> {
    let Keys { jobs, workers, names, waiting_for, idempotency_keys, calls } = keys;
    let short = names.is_empty() && waiting_for.is_empty() && idempotency_keys.is_empty() && calls.is_empty();
    let texts = |names: &[Name]| column(names, |name| name.as_str().to_owned());
    let job_ids = column(jobs, |id| id.as_uuid());
    let mut reading = Reading::default();
    let rows = if short {
        sqlx::query(LOAD_JOBS_AND_WORKERS).bind(job_ids).bind(texts(workers)).fetch_all(connection.as_mut()).await
    } else {
        sqlx::query(LOAD)
            .bind(job_ids)
            .bind(texts(workers))
            .bind(texts(names))
            .bind(texts(waiting_for))
            .bind(column(idempotency_keys, |(client, _)| client.as_str().to_owned()))
            .bind(column(idempotency_keys, |(_, key)| key.to_string()))
            .bind(column(calls, |(id, _)| id.as_uuid()))
            .bind(column(calls, |(_, call_id)| call_id.to_string()))
            .fetch_all(connection.as_mut())
            .await
    };
    for row in &rows.map_err(store_error)? {
        reading.row(row, &surroundings.live).map_err(store_error)??;
    }
    reading.asked.extend(jobs);
    reading.finish(connection, surroundings).await
}

/// A snapshot in the making.
pub(crate) struct Reading {
    snapshot: Snapshot,
    jobs: Vec<StoredJob>,
    /// Jobs whose callbacks are among the rows, if they have any.
    asked: Vec<JobId>,
    /// Callbacks with the revision of their row.
    queues: HashMap<JobId, (u64, Arc<CallbackQueue>)>,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            snapshot: Snapshot::new(Timestamp::from_micros(i64::MIN)),
            jobs: Vec::new(),
            asked: Vec::new(),
            queues: HashMap::new(),
        }
    }
}

impl Reading {
    /// Takes in one row. The outer error is that of a column that is not as the statement says.
    pub(crate) fn row(&mut self, row: &PgRow, live: &Live) -> Result<Result<(), StoreError>, sqlx::Error> {
        let kind: &str = row.try_get("kind")?;
        let snapshot = &mut self.snapshot;
        Ok(match kind {
            "now" => {
                let now: DateTime<Utc> = row.try_get("at")?;
                snapshot.now = Timestamp::from(now);
                Ok(())
            }
            "worker" => worker::view_and_vitals(row).map(|(view, vitals)| {
                live.keep_view(&view);
                // A worker that is forgotten has none.
                if vitals.revision > 0 {
                    live.keep_vitals(&view.worker.id, vitals);
                }
                snapshot.workers.insert(view.worker.id.clone(), view);
            }),
            "job" => StoredJob::of(row).map(|job| self.jobs.push(job)),
            "picked" => StoredJob::of(row).map(|job| {
                self.asked.push(job.id);
                self.jobs.push(job);
            }),
            "queue" => {
                let (id, revision): (Uuid, i64) = (row.try_get("id")?, row.try_get("number")?);
                let body: &str = row.try_get("body")?;
                let read = || -> Result<_, StoreError> {
                    let revision = unsigned("gh_callback_queues", id, revision)?;
                    Ok((revision, Arc::new(callback::queue(JobId::new(id), body)?)))
                };
                read().map(|queue| {
                    self.queues.insert(JobId::new(id), queue);
                })
            }
            "deregistration" => worker::deregistration(row).map(|deregistration| {
                snapshot.deregistrations.insert(deregistration.id, deregistration);
            }),
            "name" => self.name(row)?,
            "carrier" => self.carrier(row)?,
            "waiting" => {
                let (name, id): (&str, Uuid) = (row.try_get("name")?, row.try_get("id")?);
                worker::name("gh_jobs", name)
                    .map(|name| snapshot.names.entry(name).or_default().waiting_jobs.push(JobId::new(id)))
            }
            "key" => {
                let (client, key): (&str, &str) = (row.try_get("name")?, row.try_get("name2")?);
                let (job_id, fingerprint): (Uuid, &[u8]) = (row.try_get("id")?, row.try_get("bytes")?);
                ledger::idempotency_record(job_id, fingerprint).map(|record| {
                    snapshot.idempotency_keys.insert((ClientName::new(client), key.into()), record);
                })
            }
            "call" => {
                let (job_id, call_id): (Uuid, &str) = (row.try_get("id")?, row.try_get("name")?);
                ledger::entry(job_id, call_id, row.try_get("body")?).map(|entry| {
                    snapshot.calls.insert((JobId::new(job_id), call_id.into()), entry);
                })
            }
            _ => return Err(sqlx::Error::RowNotFound),
        })
    }

    /// The snapshot, once all rows are taken in.
    pub(crate) async fn finish(
        self,
        connection: &mut PgConnection,
        surroundings: &Surroundings,
    ) -> Result<Snapshot, StoreError> {
        let Self { mut snapshot, jobs, asked, mut queues } = self;
        for id in asked {
            queues.entry(id).or_insert_with(|| (0, Arc::new(CallbackQueue::new(id))));
        }
        snapshot.now = surroundings.now(snapshot.now);
        for job in surroundings.specs.complete(connection, jobs).await? {
            surroundings.live.keep_job(&job, queues.remove(&job.id));
            snapshot.jobs.insert(job.id, job);
        }
        list_waiting(&mut snapshot);
        Ok(snapshot)
    }

    fn name(&mut self, row: &PgRow) -> Result<Result<(), StoreError>, sqlx::Error> {
        let (text, number): (&str, i64) = (row.try_get("name")?, row.try_get("number")?);
        let held_by: Option<Uuid> = row.try_get("id")?;
        // A worker's id may be asked for as a name by what clients wrote: every row here is a name all the same.
        Ok(worker::name("gh_names", text).and_then(|name| {
            let record = (number > 0).then(|| worker::name_record(name.clone(), number, held_by)).transpose()?;
            self.snapshot.names.entry(name).or_default().record = record;
            Ok(())
        }))
    }

    fn carrier(&mut self, row: &PgRow) -> Result<Result<(), StoreError>, sqlx::Error> {
        let (name, id): (&str, &str) = (row.try_get("name")?, row.try_get("name2")?);
        let by_target: Option<bool> = row.try_get("flag")?;
        let read = || -> Result<(Name, WorkerId), StoreError> {
            Ok((worker::name("gh_workers", name)?, worker::name("gh_workers", id)?))
        };
        Ok(read().map(|(name, id)| {
            let view = self.snapshot.names.entry(name).or_default();
            let carriers = if by_target == Some(true) { &mut view.by_target } else { &mut view.by_instance };
            carriers.push(id);
        }))
    }
}

/// Puts the lists of names in order: workers by id; waiting jobs by what keeps them, the longest waiting first.
fn list_waiting(snapshot: &mut Snapshot) {
    const OBSTACLES: [WaitObstacle; 4] =
        [WaitObstacle::None, WaitObstacle::Backoff, WaitObstacle::Fencing, WaitObstacle::Reserved];
    let (now, jobs) = (snapshot.now, &snapshot.jobs);
    let places: HashMap<JobId, _> = jobs
        .values()
        .filter_map(|job| {
            let obstacle = job.obstacle(now)?;
            let place = OBSTACLES.iter().position(|known| *known == obstacle);
            Some((job.id, (place, job.wait()?.since, job.id)))
        })
        .collect();
    for NameView { record: _, by_target, by_instance, waiting_jobs } in snapshot.names.values_mut() {
        by_target.sort_unstable();
        by_instance.sort_unstable();
        waiting_jobs.retain(|id| places.contains_key(id));
        waiting_jobs.sort_unstable_by_key(|id| places.get(id));
    }
}

/// Reads jobs alone: what a sender needs.
pub(crate) const LOAD_JOBS: &str = "
    select j.job_id as id, j.version as number, j.status as name, j.body, r.result_data as body2
    from (select unnest($1::uuid[]) as job_id) a
    cross join lateral (select * from gh_jobs j where j.job_id = a.job_id offset 0) j
    left join lateral (select r.result_data from gh_job_results r
        where j.status = 'completed' and r.job_id = j.job_id and r.run = j.run offset 0) r on true";

/// Reads jobs alone, by id.
pub(crate) async fn jobs(
    connection: &mut PgConnection,
    ids: Vec<Uuid>,
    surroundings: &Surroundings,
) -> Result<HashMap<JobId, Arc<gh_core::domain::job::Job>>, StoreError> {
    let rows = sqlx::query(LOAD_JOBS).bind(ids).fetch_all(connection.as_mut()).await.map_err(store_error)?;
    let stored = rows.iter().map(StoredJob::of).collect::<Result<Vec<_>, _>>()?;
    let jobs = surroundings.specs.complete(connection, stored).await?;
    Ok(jobs.into_iter().map(|job| (job.id, job)).collect())
}
