//! Writes down claims that have just come, and grants waiting jobs to workers that wait.
//!
//! A server that nobody disturbs reads who waits and what for, decides, and writes: two statements, in which a claim
//! and its job are stored together. Where somebody else was faster with a job, servers claim at once. Then rows are locked as they are picked for a while, and what another has locked
//! is left to it: so servers divide workers and jobs, and do not fight for the same.

use std::collections::BTreeSet;
use std::time::Duration;

use gh_core::domain::commands;
use gh_core::domain::ids::WorkerId;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::Snapshot;
use gh_core::ports::store::{ClaimRequest, Dispatched, StoreError};
use sqlx::PgConnection;

use crate::batch;
use crate::errors::{Failure, store_error};
use crate::held::Held;
use crate::load::{Reading, rows, views};
use crate::lock::Waiting;
use crate::rows::{column, instant};
use crate::store::{End, PgStore, finish, until_done};

/// How long rows are locked as they are picked after somebody else was faster.
pub(crate) const DISTURBED_FOR: Duration = Duration::from_secs(2);

/// Locks those of these workers ($1) that take part and have no job.
pub(crate) const PICK_WORKERS: &str = "
    select w.worker_id from gh_workers w
    where w.worker_id = any($1::text[]) and w.present and w.occupied_by is null
    for no key update of w skip locked";

/// The first jobs of a lane, in the order in which they are taken.
macro_rules! lane {
    ($where:literal, $limit:literal, $lock:literal) => {
        concat!(
            "select j.job_id, j.version, j.status, j.body from gh_jobs j where j.status = 'pending' and ",
            $where,
            " order by j.priority desc, j.created_at, j.job_id limit ",
            $limit,
            $lock
        )
    };
}

/// Views of these workers ($1), and the first jobs of every lane from which they can take at this time ($2): as
/// many as there are workers of the lane for anyone; for each of their names as many as carry it; and
/// the first that is fenced to each worker, if it waits for anyone or for one of the worker's names.
macro_rules! candidates {
    ($lock:literal) => {
        concat!(
            "with asked_jobs as materialized (select null::uuid as job_id where false),
    asked_workers as materialized (select unnest($1::text[]) as worker_id),
    named_deregistrations as (select null::uuid as deregistration_id where false),",
            views!(),
            ",
        moment as materialized (select $2::timestamptz as now),
        names as materialized (
            select name, count(*) as places from (
                select worker_id as name from views
                union all
                select target_worker_id from views where target_worker_id <> worker_id
            ) carried group by name
        ),
        picked as materialized (
            select r.* from (",
            lane!(
                "j.waits_for is null and j.not_before is null and j.fence_until is null",
                "(select count(*) from views)",
                $lock
            ),
            ") r
            union all
            select r.* from (",
            lane!(
                "j.waits_for is null and (j.not_before is not null or j.fence_until is not null)
                and coalesce(j.not_before <= (select now from moment), true)
                and coalesce(j.fence_until <= (select now from moment), true)",
                "(select count(*) from views)",
                $lock
            ),
            ") r
            union all
            select r.* from names n cross join lateral (",
            lane!("j.waits_for = n.name and j.not_before is null and j.fence_until is null", "n.places", $lock),
            ") r
            union all
            select r.* from names n cross join lateral (",
            lane!(
                "j.waits_for = n.name and (j.not_before is not null or j.fence_until is not null)
                and coalesce(j.not_before <= (select now from moment), true)
                and coalesce(j.fence_until <= (select now from moment), true)",
                "n.places",
                $lock
            ),
            ") r
            union all
            select r.* from views w cross join lateral (",
            lane!(
                "j.fence_worker = w.worker_id and j.fence_until > (select now from moment)
                and coalesce(j.not_before <= (select now from moment), true)
                and (j.waits_for is null or j.waits_for = w.worker_id or j.waits_for = w.target_worker_id)",
                "1",
                $lock
            ),
            ") r
        )",
            rows!(),
            "
        union all
        select 'picked', p.job_id, p.status, null, p.version, null, false, p.body, null, null, null, 0, 0
        from picked p
        union all
        select 'queue', q.job_id, null, null, q.revision, null, false, q.body, null, null, null, 0, 0
        from picked p
        cross join lateral (select * from gh_callback_queues q where q.job_id = p.job_id offset 0) q"
        )
    };
}

pub(crate) const CANDIDATES: &str = candidates!("");
pub(crate) const CANDIDATES_LOCKING: &str = candidates!(" for no key update skip locked");

/// Picks workers and jobs, has the core decide, and stores what it decided.
pub(crate) async fn claim(store: &PgStore, request: &ClaimRequest, rules: &Rules) -> Result<Dispatched, StoreError> {
    if request.workers.is_empty() && request.claims.is_empty() {
        return Ok(Dispatched::default());
    }
    if store.surroundings.is_disturbed() {
        return until_done!(claim_locking(store, request, rules));
    }
    let mut dispatched = claim_undisturbed(store, request, rules).await?;
    if store.surroundings.is_disturbed() && !request.workers.is_empty() {
        // Those who lost a job to somebody else get the next; claims that were refused are told so.
        let waiting = ClaimRequest::waiting(request.workers.clone());
        let Dispatched { committed, .. } = until_done!(claim_locking(store, &waiting, rules))?;
        dispatched.committed.extend(committed);
    }
    Ok(dispatched)
}

/// The same without locks while it is decided. Where somebody else was faster, that is noted: it may have been with a
/// sign of life of a worker, which refuses nothing, or with a job.
async fn claim_undisturbed(store: &PgStore, request: &ClaimRequest, rules: &Rules) -> Result<Dispatched, StoreError> {
    let asking: BTreeSet<&str> = request.workers.iter().chain(claiming(request)).map(|id| id.as_str()).collect();
    let mut spare = store.spare().await.map_err(store_error)?;
    let snapshot = candidates(store, &mut spare.connection, CANDIDATES, asking.into_iter().collect()).await?;
    store.keep_spare(spare);
    let decided = commands::dispatch(snapshot, &request.workers, &request.claims, rules);
    if decided.changesets.is_empty() {
        return Ok(Dispatched::of(decided, &[]));
    }
    let stored = match store.commit_remembered(&decided.changesets, rules).await? {
        Some(stored) => stored,
        None => until_done!(store.commit_once(&decided.changesets, rules))?,
    };
    if stored.iter().any(Result::is_err) {
        store.surroundings.disturbed();
    }
    Ok(Dispatched::of(decided, &stored))
}

/// The same under locks.
async fn claim_locking(store: &PgStore, request: &ClaimRequest, rules: &Rules) -> Result<Dispatched, Failure> {
    let mut transaction = store.begin().await?;
    let outcome = claim_in(store, &mut transaction, request, rules).await;
    let (dispatched, held) = finish(transaction, outcome).await?;
    if let Some(held) = held {
        store.surroundings.stored(&held);
    }
    Ok(dispatched)
}

async fn claim_in(
    store: &PgStore,
    connection: &mut PgConnection,
    request: &ClaimRequest,
    rules: &Rules,
) -> Result<((Dispatched, Option<Held>), End), Failure> {
    let waiting = column(&request.workers, |id| id.as_str());
    let picked: Vec<String> = sqlx::query_scalar(PICK_WORKERS).bind(waiting).fetch_all(&mut *connection).await?;
    // A new claim is decided, whoever has its worker: storing it finds that out.
    let asking = picked.iter().map(String::as_str).chain(claiming(request).map(|id| id.as_str()));
    let asking: BTreeSet<&str> = asking.collect();
    if asking.is_empty() {
        return Ok(((Dispatched::default(), None), End::Leave));
    }
    let snapshot = candidates(store, connection, CANDIDATES_LOCKING, asking.into_iter().collect()).await?;
    let decided = commands::dispatch(snapshot, &request.workers, &request.claims, rules);
    if decided.changesets.is_empty() {
        return Ok(((Dispatched::of(decided, &[]), None), End::Leave));
    }
    let changes = &decided.changesets;
    let (stored, held) = batch::store(connection, changes, rules, Waiting::Skip, &store.surroundings).await?;
    let end = if stored.iter().any(Result::is_ok) { End::Store } else { End::Leave };
    Ok(((Dispatched::of(decided, &stored), Some(held)), end))
}

/// The workers of new claims.
fn claiming(request: &ClaimRequest) -> impl Iterator<Item = &WorkerId> {
    request.claims.iter().map(|claim| &claim.who.worker_id)
}

/// These workers, and the first jobs that they can take.
async fn candidates(
    store: &PgStore,
    connection: &mut PgConnection,
    sql: &'static str,
    workers: Vec<&str>,
) -> Result<Snapshot, StoreError> {
    let now = instant(store.time_on(connection).await?);
    let mut reading = Reading::default();
    let answer = sqlx::query(sql).bind(workers).bind(now).fetch_all(&mut *connection).await.map_err(store_error)?;
    for row in &answer {
        reading.row(row, &store.surroundings.live).map_err(store_error)??;
    }
    reading.finish(connection, &store.surroundings).await
}
