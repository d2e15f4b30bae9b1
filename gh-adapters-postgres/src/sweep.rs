//! Applies deadlines that are over. Servers that sweep at once divide the rows by locks.

use chrono::{DateTime, Utc};
use gh_core::domain::commands;
use gh_core::domain::ids::{JobId, Name};
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::Keys;
use gh_core::ports::store::{SweepRequest, Swept};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::batch;
use crate::errors::{Failure, corrupt};
use crate::held::Held;
use crate::load;
use crate::lock::Waiting;
use crate::rows::instant;
use crate::store::{End, PgStore, finish};

/// Brings up to date since when workers are silent that were heard of again after a time ($1), at most so many ($2).
pub(crate) const HEARD_OF: &str = "
    with heard as (
        select worker_id from gh_worker_vitals
        where silent_since <= $1::timestamptz and last_seen > $1::timestamptz
        order by silent_since, worker_id limit $2::bigint
        for no key update skip locked
    )
    update gh_worker_vitals v set silent_since = v.last_seen
    where v.worker_id = any(array(select worker_id from heard))";

/// Locks workers that were not heard of since a time ($1; nobody where it is null), and those with another deadline
/// that is over at this time ($2), at most so many of each ($3).
pub(crate) const PICK_WORKERS: &str = "
    select w.worker_id from gh_workers w
    where w.worker_id = any(array(
        select s.worker_id from (select worker_id from gh_worker_vitals
            where silent_since <= $1::timestamptz and last_seen <= $1::timestamptz
            order by silent_since, worker_id limit $3::bigint) s
        union
        select d.worker_id from (select worker_id from gh_workers
            where deadline <= $2::timestamptz
            order by deadline, worker_id limit $3::bigint) d))
    for no key update of w skip locked";

/// Locks jobs whose deadline is over at this time ($1), longest over first, at most so many ($2).
pub(crate) const PICK_JOBS: &str = "
    select job_id from gh_jobs
    where next_deadline <= $1::timestamptz
    order by next_deadline, job_id limit $2::bigint
    for no key update skip locked";

/// Picks what is due, has the core decide, and stores what it decided.
pub(crate) async fn sweep(store: &PgStore, request: &SweepRequest, rules: &Rules) -> Result<Swept, Failure> {
    // One more than the limit is looked for, to know whether there is more.
    let look = i64::try_from(request.limit).unwrap_or(i64::MAX).saturating_add(1);
    let now = store.time().await?;
    let silent_since = request.sight.silent_since(now, rules.policy.offline_after).map(instant);
    if silent_since.is_some() {
        sqlx::query(HEARD_OF).bind(silent_since).bind(look).execute(store.pool()).await?;
    }
    let picking = Picking { now: instant(now), silent_since, look };
    let mut transaction = store.begin().await?;
    let outcome = sweep_in(store, &mut transaction, &picking, request, rules).await;
    let (swept, held) = finish(transaction, outcome).await?;
    if let Some(held) = held {
        store.surroundings.stored(&held);
    }
    Ok(swept)
}

/// What is looked for.
struct Picking {
    now: DateTime<Utc>,
    /// Since when workers were not heard of that are to be given up.
    silent_since: Option<DateTime<Utc>>,
    /// At most so many jobs and so many workers of each kind.
    look: i64,
}

async fn sweep_in(
    store: &PgStore,
    connection: &mut PgConnection,
    picking: &Picking,
    request: &SweepRequest,
    rules: &Rules,
) -> Result<((Swept, Option<Held>), End), Failure> {
    let Picking { now, silent_since, look } = *picking;
    let limit = request.limit;
    let mut workers: Vec<String> =
        sqlx::query_scalar(PICK_WORKERS).bind(silent_since).bind(now).bind(look).fetch_all(&mut *connection).await?;
    let mut jobs: Vec<Uuid> = sqlx::query_scalar(PICK_JOBS).bind(now).bind(look).fetch_all(&mut *connection).await?;
    if jobs.is_empty() && workers.is_empty() {
        return Ok(((Swept::default(), None), End::Leave));
    }
    let beyond_limit = jobs.len().max(workers.len()) > limit;
    jobs.truncate(limit);
    workers.truncate(limit);
    let name = |text: &String| Name::parse(text).map_err(|_| corrupt("gh_workers", "a row", "its key is no name"));
    let keys = Keys {
        jobs: jobs.into_iter().map(JobId::new).collect(),
        workers: workers.iter().map(name).collect::<Result<_, _>>()?,
        ..Keys::default()
    };
    let snapshot = load::load(connection, &keys, &store.surroundings).await?;
    let decided = commands::sweep(&snapshot, &request.sight, rules);
    if decided.is_empty() {
        return Ok(((Swept { committed: Vec::new(), more: beyond_limit }, None), End::Leave));
    }
    let (answers, held) = batch::store(connection, &decided, rules, Waiting::Skip, &store.surroundings).await?;
    let count = decided.len();
    let stored = decided.into_iter().zip(answers).filter(|(_, answer)| answer.is_ok());
    let committed: Vec<_> = stored.map(|(changes, _)| changes).collect();
    // What was refused is still due: where a job and its worker were due at once, or somebody else had a row.
    let refused = committed.len() < count && !committed.is_empty();
    Ok(((Swept { more: beyond_limit || refused, committed }, Some(held)), End::Store))
}
