//! Forgetting workers: of each a small row stays, which nobody is shown.
//!
//! By it a worker that comes again goes on counting its generations, and processes that were retired stay refused. Were
//! it forgotten wholly, its first generation would begin anew, and tokens of its old processes would be valid again. What
//! the row keeps is for the core to say ([`Worker::tombstone`]). Names go, unless somebody else carries them or a
//! deregistration may hold them.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use gh_core::domain::ids::Name;
use gh_core::domain::worker::Worker;
use gh_core::ports::store::StoreError;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::errors::{corrupt, store_error};
use crate::rows::{bigint, column, from_json, to_json, version};
use crate::store::PgStore;

const TABLE: &str = "gh_workers";

/// Workers of one kind ($3: deregistered or not) that are gone since before a time ($1), at most so many ($2), locked.
pub(crate) const PICK_GONE: &str = "
    select worker_id, version, body from gh_workers
    where gone_since < $1::timestamptz and deregistered = $3::boolean and not forgotten and occupied_by is null
    order by gone_since limit $2::bigint
    for no key update skip locked";

/// Leaves of workers ($1) what stays of them ($2, $3).
const BURY: &str = "
    with gone as materialized (
        select unnest($1::text[]) as worker_id, unnest($2::bigint[]) as version, unnest($3::text[]) as body
    ),
    vitals as (delete from gh_worker_vitals v using gone g where v.worker_id = g.worker_id)
    update gh_workers w set version = g.version, target_worker_id = null, ec2_instance_id = null, forgotten = true,
        body = g.body
    from gone g where w.worker_id = g.worker_id";

/// Deletes those of these names ($1) that no worker carries any more, unless a deregistration holds one that was not
/// through at a time ($2). Who takes a name meanwhile writes it: then its version is another, and it stays.
const FORGET_NAMES: &str = "
    with loose as materialized (
        select n.name, n.version from gh_names n
        where n.name = any($1::text[])
            and not exists (select from gh_workers w where w.worker_id = n.name and not w.forgotten)
            and not exists (select from gh_workers w where w.target_worker_id = n.name)
            and not exists (select from gh_workers w where w.ec2_instance_id = n.name)
            and not exists (select from gh_deregistrations d where d.deregistration_id = n.held_by
                and (d.finished_at is null or d.finished_at > $2::timestamptz))
        order by n.name for update of n
    )
    delete from gh_names t using loose l where t.name = l.name and t.version = l.version";

/// Forgets a batch of workers; says how many.
pub(crate) async fn forget_workers(
    store: &PgStore,
    before: DateTime<Utc>,
    batch: i64,
    deregistered: bool,
) -> Result<i64, StoreError> {
    let mut transaction = store.pool.begin().await.map_err(store_error)?;
    let picked = sqlx::query(PICK_GONE).bind(before).bind(batch).bind(deregistered);
    let rows = picked.fetch_all(&mut *transaction).await.map_err(store_error)?;
    let mut gone = rows.iter().map(worker).collect::<Result<Vec<_>, _>>()?;
    gone.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    if !gone.is_empty() {
        bury(&mut transaction, &gone, before).await?;
    }
    transaction.commit().await.map_err(store_error)?;
    Ok(bigint(gone.len() as u64))
}

fn worker(row: &PgRow) -> Result<Worker, StoreError> {
    let id: &str = row.try_get("worker_id").map_err(store_error)?;
    let number: i64 = row.try_get("version").map_err(store_error)?;
    let body: &str = row.try_get("body").map_err(store_error)?;
    let worker: Worker = from_json(TABLE, id, body)?;
    if worker.id.as_str() != id || worker.version != version(TABLE, id, number)? {
        return Err(corrupt(TABLE, id, "its columns contradict its body"));
    }
    Ok(worker)
}

async fn bury(connection: &mut PgConnection, gone: &[Worker], before: DateTime<Utc>) -> Result<(), StoreError> {
    let tombstones = column(gone, Worker::tombstone);
    let bodies = column(&tombstones, to_json).into_iter().collect::<Result<Vec<_>, _>>()?;
    sqlx::query(BURY)
        .bind(column(&tombstones, |worker| worker.id.as_str()))
        .bind(column(&tombstones, |worker| bigint(worker.version.0)))
        .bind(bodies)
        .execute(&mut *connection)
        .await
        .map_err(store_error)?;
    let mut names = BTreeSet::new();
    for Worker { id, identity, .. } in gone {
        let carried = identity.target_worker_id.iter().chain(&identity.ec2_instance_id);
        names.extend(carried.chain([id]).map(Name::as_str));
    }
    sqlx::query(FORGET_NAMES)
        .bind(names.into_iter().collect::<Vec<_>>())
        .bind(before)
        .execute(connection)
        .await
        .map_err(store_error)?;
    Ok(())
}
