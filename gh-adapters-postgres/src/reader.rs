//! The port [`Reader`].

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gh_core::domain::callback::Delivery;
use gh_core::domain::event::{JobEvent, WorkerEvent};
use gh_core::domain::ids::{DeregistrationId, JobId, WorkerId};
use gh_core::domain::job::{Job, JobStatus, WaitObstacle};
use gh_core::domain::placement::WaitingGroup;
use gh_core::domain::time::Timestamp;
use gh_core::domain::watch::FleetWatch;
use gh_core::domain::worker::{Deregistration, WorkerView};
use gh_core::ports::reader::{Figures, JobEventQuery, JobQuery, Reader, WorkerQuery};
use gh_core::ports::store::StoreError;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Postgres, QueryBuilder, Row};
use uuid::Uuid;

use crate::errors::store_error;
use crate::load;
use crate::rows::job::StoredJob;
use crate::rows::{bigint, callback, column, event, instant, job, unsigned, worker};
use crate::store::PgStore;
use crate::time::moment;
use crate::watch;

/// Events of a job ($1) after a number ($2), of these types ($3, all where it is null), at most so many ($4).
pub(crate) const JOB_EVENTS: &str = "
    select id, job_id, seq, event_type, from_status, to_status, message,
        coalesce(exact_metadata, metadata::text) as metadata, actor, run, attempt, occurred_at, created_at
    from gh_job_events
    where job_id = $1::uuid and seq > $2::bigint and ($3::text[] is null or event_type = any($3::text[]))
    order by seq limit $4::bigint";

/// Deliveries of a job ($1) with a sequence below one ($2): the latest so many ($3) that are through, and the queue.
pub(crate) const DELIVERIES: &str = "
    select body, true as through from (select body from gh_deliveries
        where job_id = $1::uuid and sequence < $2::bigint order by sequence desc limit $3::bigint) d
    union all
    select body, false from gh_callback_queues where job_id = $1::uuid";

/// Events of a worker ($1) with a number below one ($2), the latest so many ($3).
pub(crate) const WORKER_EVENTS: &str = "
    select id, worker_id, generation, seq, event_type, message,
        coalesce(exact_metadata, metadata::text) as metadata, actor, created_at
    from gh_worker_events where worker_id = $1::text and seq < $2::bigint order by seq desc limit $3::bigint";

const DEREGISTRATION: &str = "
    select deregistration_id as id, version as number, body from gh_deregistrations where deregistration_id = $1::uuid";

/// All workers, or those of a target ($1) and a machine ($2), with all that belongs to a view of them.
pub(crate) const WORKERS: &str = "
    select w.worker_id as name, w.version as number, w.body, v.body as body2, w.occupied_by as id, w.reserved as flag,
        exists (select from gh_workers t where t.target_worker_id = w.worker_id) as flag2,
        case when w.ec2_instance_id is null then 0 else w.occupied end as count, null::timestamptz as at
    from (select *, count(occupied_by) over (partition by ec2_instance_id) as occupied
        from gh_workers where not forgotten) w
    left join lateral (select v.body from gh_worker_vitals v where v.worker_id = w.worker_id offset 0) v on true
    where ($1::text is null or w.target_worker_id = $1::text) and ($2::text is null or w.ec2_instance_id = $2::text)
    order by w.worker_id";

/// One worker ($1), with all that belongs to a view of it; the time in any case.
pub(crate) const WORKER: &str = concat!(
    "
    select n.now, w.worker_id as name, w.version as number, w.body, v.body as body2, w.occupied_by as id,
        w.reserved as flag, exists (select from gh_workers t where t.target_worker_id = w.worker_id) as flag2,
        (select count(o.occupied_by) from gh_workers o where o.ec2_instance_id = w.ec2_instance_id) as count,
        null::timestamptz as at
    from (select ",
    moment!(),
    " as now) n
    left join gh_workers w on w.worker_id = $1::text and not w.forgotten
    left join gh_worker_vitals v on v.worker_id = w.worker_id"
);

/// Whether it takes no changes: a standby, or set so.
const READ_ONLY: &str = "select current_setting('transaction_read_only')::boolean";

/// Live jobs by status; what waits, by what it waits for; callbacks; at this time ($1). One statement, so all of one moment.
pub(crate) const FIGURES: &str = "
    with moment as materialized (select $1::timestamptz as now)
    select 'jobs' as kind, status as name, null::text as target, count(*) as count, null::timestamptz as oldest
    from gh_jobs where status in ('pending', 'queued', 'running', 'needs_human') group by status
    union all
    select 'waiting', w.obstacle, w.waits_for, count(*), min(w.waiting_since)
    from (
        select j.waits_for, j.waiting_since, case
            when j.status = 'queued' then 'reserved'
            when j.not_before > m.now then 'backoff'
            when j.fence_until > m.now then 'fencing'
            else 'none' end as obstacle
        from gh_jobs j cross join moment m where j.status in ('pending', 'queued')
    ) w
    group by w.obstacle, w.waits_for
    union all
    select 'open', null, null, coalesce(sum(open_deliveries), 0)::bigint, null
    from gh_callback_queues where due_at is not null
    union all
    select 'due', null, null, count(*), null
    from gh_callback_queues q where q.due_at <= (select now from moment)";

#[async_trait]
impl Reader for PgStore {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.trust.in_time(self.ask_the_time(&self.pool)).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let read = async {
            let read_only: bool = sqlx::query_scalar(READ_ONLY).fetch_one(&self.pool).await.map_err(store_error)?;
            if !read_only {
                return Ok(());
            }
            // It may be so for this connection only, where the database takes writes again or another one does.
            self.trust.renew();
            Err(StoreError::Unavailable(Some("the database is read-only".into())))
        };
        self.trust.in_time(read).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Arc<Job>>, StoreError> {
        let read = async {
            let mut connection = self.pool.acquire().await.map_err(store_error)?;
            let mut jobs = load::jobs(&mut connection, vec![id.as_uuid()], &self.surroundings).await?;
            Ok(jobs.remove(&id))
        };
        self.trust.in_time(read).await
    }

    async fn jobs(&self, query: &JobQuery) -> Result<Vec<Arc<Job>>, StoreError> {
        let read = async {
            let mut connection = self.pool.acquire().await.map_err(store_error)?;
            let rows = list(query).build().fetch_all(&mut *connection).await.map_err(store_error)?;
            let stored = rows.iter().map(StoredJob::of).collect::<Result<Vec<_>, _>>()?;
            self.surroundings.specs.complete(&mut connection, stored).await
        };
        self.trust.in_time(read).await
    }

    async fn job_events(&self, query: &JobEventQuery) -> Result<Vec<JobEvent>, StoreError> {
        let read = async {
            let types = column(&query.event_types, |event_type| event_type.as_str());
            let rows = sqlx::query(JOB_EVENTS)
                .bind(query.job_id.as_uuid())
                .bind(bigint(query.after_seq))
                .bind((!types.is_empty()).then_some(types))
                .bind(limit(query.limit))
                .fetch_all(&self.pool)
                .await
                .map_err(store_error)?;
            rows.iter().map(event::job_event).collect()
        };
        self.trust.in_time(read).await
    }

    async fn deliveries(
        &self,
        job_id: JobId,
        before: Option<u64>,
        most: usize,
    ) -> Result<Vec<Arc<Delivery>>, StoreError> {
        let read = async {
            let before = before.unwrap_or(u64::MAX);
            let rows = sqlx::query(DELIVERIES)
                .bind(job_id.as_uuid())
                .bind(bigint(before))
                .bind(limit(most))
                .fetch_all(&self.pool)
                .await
                .map_err(store_error)?;
            let mut deliveries: Vec<Arc<Delivery>> = Vec::new();
            for row in &rows {
                let body: &str = row.try_get("body").map_err(store_error)?;
                let through: bool = row.try_get("through").map_err(store_error)?;
                if through {
                    deliveries.push(Arc::new(callback::delivery(job_id, body)?));
                } else {
                    deliveries.extend(callback::queue(job_id, body)?.open.into_iter().map(Arc::new));
                }
            }
            deliveries.retain(|delivery| delivery.sequence < before);
            deliveries.sort_unstable_by_key(|delivery| std::cmp::Reverse(delivery.sequence));
            deliveries.truncate(most);
            Ok(deliveries)
        };
        self.trust.in_time(read).await
    }

    async fn workers(&self, query: &WorkerQuery) -> Result<(Timestamp, Vec<WorkerView>), StoreError> {
        let read = async {
            let mut connection = self.pool.acquire().await.map_err(store_error)?;
            let now = self.ask_the_time(&mut *connection).await?;
            let rows = sqlx::query(WORKERS)
                .bind(query.target_worker_id.as_ref().map(|name| name.as_str()))
                .bind(query.ec2_instance_id.as_ref().map(|name| name.as_str()))
                .fetch_all(&mut *connection)
                .await
                .map_err(store_error)?;
            let views = rows.iter().map(worker::view).collect::<Result<Vec<_>, _>>()?;
            Ok((now, views))
        };
        self.trust.in_time(read).await
    }

    async fn glance(&self) -> Result<(Timestamp, Arc<Vec<WorkerView>>), StoreError> {
        self.surroundings.glance(self.workers(&WorkerQuery::default())).await
    }

    async fn worker(&self, id: &WorkerId) -> Result<(Timestamp, Option<WorkerView>), StoreError> {
        let read = async {
            let row = sqlx::query(WORKER).bind(id.as_str()).fetch_one(&self.pool).await.map_err(store_error)?;
            let now: DateTime<Utc> = row.try_get("now").map_err(store_error)?;
            let found: Option<&str> = row.try_get("name").map_err(store_error)?;
            let view = found.map(|_| worker::view(&row)).transpose()?;
            Ok((self.surroundings.now(Timestamp::from(now)), view))
        };
        self.trust.in_time(read).await
    }

    async fn worker_events(
        &self,
        id: &WorkerId,
        before: Option<u64>,
        most: usize,
    ) -> Result<Vec<WorkerEvent>, StoreError> {
        let read = async {
            let rows = sqlx::query(WORKER_EVENTS)
                .bind(id.as_str())
                .bind(bigint(before.unwrap_or(u64::MAX)))
                .bind(limit(most))
                .fetch_all(&self.pool)
                .await
                .map_err(store_error)?;
            rows.iter().map(event::worker_event).collect()
        };
        self.trust.in_time(read).await
    }

    async fn deregistration(&self, id: DeregistrationId) -> Result<Option<Arc<Deregistration>>, StoreError> {
        let read = async {
            let row = sqlx::query(DEREGISTRATION).bind(id.as_uuid()).fetch_optional(&self.pool).await;
            row.map_err(store_error)?.as_ref().map(worker::deregistration).transpose()
        };
        self.trust.in_time(read).await
    }

    async fn fleet_watch(&self) -> Result<Arc<FleetWatch>, StoreError> {
        self.trust.in_time(watch::read(self)).await
    }

    async fn figures(&self) -> Result<Figures, StoreError> {
        let read = async {
            let mut connection = self.pool.acquire().await.map_err(store_error)?;
            let now = self.time_on(&mut connection).await?;
            figures(&mut connection, now).await
        };
        self.trust.in_time(read).await
    }
}

fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

/// The statement for a page of jobs: only the conditions that were asked for, so that each has its index.
fn list(query: &JobQuery) -> QueryBuilder<Postgres> {
    let JobQuery {
        status,
        worker_id,
        target_worker_id,
        valet_task_id,
        valet_user_id,
        error_code,
        created_after,
        created_before,
        after,
        limit: most,
    } = query;
    // What never changes is indexed beside what was asked for, what changes beside the state.
    let by_state = status.is_some() || worker_id.is_some() || error_code.is_some();
    let listed = if by_state { "j" } else { "s" };
    let mut sql = QueryBuilder::new(
        "select j.job_id as id, j.version as number, j.status as name, j.body, r.result_data as body2
        from gh_job_specs s join gh_jobs j on j.job_id = s.job_id
        left join gh_job_results r on r.job_id = j.job_id and r.run = j.run and j.status = 'completed' where true",
    );
    if let Some(status) = status {
        sql.push(" and j.status = ").push_bind(status.as_str());
    }
    if let Some(worker) = worker_id {
        sql.push(" and j.worker_id = ").push_bind(worker.as_str().to_owned());
    }
    if let Some(code) = error_code {
        sql.push(" and j.error_code = ").push_bind(code.clone());
    }
    if let Some(target) = target_worker_id {
        sql.push(" and s.target_worker_id = ").push_bind(target.as_str().to_owned());
    }
    if let Some(task) = valet_task_id {
        sql.push(" and s.valet_task_id = ").push_bind(task.clone());
    }
    if let Some(user) = valet_user_id {
        sql.push(" and s.valet_user_id = ").push_bind(*user);
    }
    for (time, comparison) in [(created_after, ">="), (created_before, "<")] {
        if let Some(time) = time {
            sql.push(format!(" and {listed}.created_at {comparison} ")).push_bind(instant(*time));
        }
    }
    if let Some(after) = after {
        sql.push(format!(" and ({listed}.created_at, {listed}.job_id) < (")).push_bind(instant(after.created_at));
        sql.push(", ").push_bind(after.id.as_uuid()).push(")");
    }
    sql.push(format!(" order by {listed}.created_at desc, {listed}.job_id desc limit ")).push_bind(limit(*most));
    sql
}

async fn figures(connection: &mut PgConnection, now: Timestamp) -> Result<Figures, StoreError> {
    let rows = sqlx::query(FIGURES).bind(instant(now)).fetch_all(connection).await.map_err(store_error)?;
    let mut figures = Figures { jobs: JobStatus::LIVE.map(|status| (status, 0)).to_vec(), ..Figures::default() };
    for row in &rows {
        figure(&mut figures, row)?;
    }
    figures.waiting.sort_by(|one, other| (&one.target, one.obstacle).cmp(&(&other.target, other.obstacle)));
    Ok(figures)
}

fn figure(figures: &mut Figures, row: &PgRow) -> Result<(), StoreError> {
    let read = || -> Result<_, sqlx::Error> {
        let (kind, name): (&str, Option<&str>) = (row.try_get("kind")?, row.try_get("name")?);
        let (target, count): (Option<&str>, i64) = (row.try_get("target")?, row.try_get("count")?);
        let oldest: Option<DateTime<Utc>> = row.try_get("oldest")?;
        Ok((kind, name.unwrap_or_default(), target, count, oldest.unwrap_or_default()))
    };
    let (kind, name, target, count, oldest) = read().map_err(store_error)?;
    let count = unsigned("figures", kind, count)?;
    match kind {
        "jobs" => {
            let status = job::status("gh_jobs", Uuid::nil(), name)?;
            figures.jobs.iter_mut().filter(|(known, _)| *known == status).for_each(|(_, jobs)| *jobs = count);
        }
        "waiting" => {
            let obstacle = match name {
                "reserved" => WaitObstacle::Reserved,
                "backoff" => WaitObstacle::Backoff,
                "fencing" => WaitObstacle::Fencing,
                _ => WaitObstacle::None,
            };
            let target = target.map(|target| worker::name("gh_jobs", target)).transpose()?;
            figures.waiting.push(WaitingGroup { target, obstacle, jobs: count, oldest: Timestamp::from(oldest) });
        }
        "open" => figures.callbacks_open = count,
        _ => figures.callbacks_due = count,
    }
    Ok(())
}
