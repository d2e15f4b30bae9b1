//! The port [`Outbox`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gh_core::domain::callback::LeasedDelivery;
use gh_core::domain::changeset::Changeset;
use gh_core::domain::commands::dead_letter;
use gh_core::domain::ids::{JobId, SendLeaseId};
use gh_core::domain::rules::Rules;
use gh_core::domain::time::Timestamp;
use gh_core::ports::outbox::{Outbox, Settlement};
use gh_core::ports::store::StoreError;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::errors::{Failure, internal, store_error};
use crate::footprint::Footprint;
use crate::held::Held;
use crate::load;
use crate::lock::{Waiting, lock};
use crate::rows::{callback, instant, unsigned};
use crate::store::{End, PgStore, finish, until_done};
use crate::write::write;

/// Locks queues that are due at this time ($1), longest due first.
pub(crate) const PICK_QUEUES: &str = "
    select job_id, revision, body from gh_callback_queues
    where due_at <= $1::timestamptz
    order by due_at, job_id limit $2::bigint
    for no key update skip locked";

pub(crate) const NEXT_DUE: &str =
    "select due_at from gh_callback_queues where due_at is not null order by due_at limit 1";

#[async_trait]
impl Outbox for PgStore {
    async fn lease_due(&self, limit: usize, rules: &Rules) -> Result<Vec<LeasedDelivery>, StoreError> {
        self.trust.in_time(async { until_done!(lease_due(self, limit, rules)) }).await
    }

    async fn settle(&self, settlements: Vec<Settlement>, rules: &Rules) -> Result<(), StoreError> {
        if settlements.is_empty() {
            return Ok(());
        }
        self.trust.in_time(async { until_done!(settle(self, &settlements, rules)) }).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let due = async { sqlx::query_scalar(NEXT_DUE).fetch_optional(&self.pool).await.map_err(store_error) };
        let due: Option<DateTime<Utc>> = self.trust.in_time(due).await?;
        Ok(due.map(Timestamp::from))
    }
}

async fn lease_due(store: &PgStore, limit: usize, rules: &Rules) -> Result<Vec<LeasedDelivery>, Failure> {
    let mut transaction = store.begin().await?;
    let outcome = lease_due_in(store, &mut transaction, limit, rules).await;
    let (leased, held) = finish(transaction, outcome).await?;
    if !leased.is_empty() {
        store.surroundings.stored(&held);
    }
    Ok(leased)
}

async fn lease_due_in(
    store: &PgStore,
    connection: &mut PgConnection,
    limit: usize,
    rules: &Rules,
) -> Result<((Vec<LeasedDelivery>, Held), End), Failure> {
    let now = store.time_on(connection).await?;
    let rows = sqlx::query(PICK_QUEUES)
        .bind(instant(now))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await?;
    let mut held = Held::default();
    held.now = now;
    let mut due: Vec<JobId> = Vec::with_capacity(rows.len());
    for row in &rows {
        let (id, revision): (Uuid, i64) = (row.try_get("job_id")?, row.try_get("revision")?);
        let revision = unsigned("gh_callback_queues", id, revision)?;
        held.keep_queue(callback::queue(JobId::new(id), row.try_get("body")?)?, revision);
        due.push(JobId::new(id));
    }
    let mut leased = Vec::with_capacity(due.len());
    if due.is_empty() {
        return Ok(((leased, held), End::Leave));
    }
    let ids = due.iter().map(|id| id.as_uuid()).collect();
    let jobs = load::jobs(connection, ids, &store.surroundings).await?;
    for id in due {
        let Some((job, queue)) = jobs.get(&id).zip(held.queue_mut(id)) else {
            continue;
        };
        let lease_id = SendLeaseId::new(rules.ids.uuid());
        if let Some(delivery) = queue.queue.lease(job, lease_id, now, &rules.policy) {
            queue.changed = true;
            leased.push(delivery);
        }
    }
    if leased.is_empty() {
        return Ok(((leased, held), End::Leave));
    }
    write(connection, &held).await?;
    Ok(((leased, held), End::Store))
}

/// Records outcomes. Most need the callbacks of their jobs only. A dead letter also changes its job, which is locked
/// before its callbacks: so then all of it is done again with the jobs locked first.
async fn settle(store: &PgStore, settlements: &[Settlement], rules: &Rules) -> Result<(), Failure> {
    let mut with_jobs: BTreeSet<JobId> = BTreeSet::new();
    loop {
        let mut transaction = store.begin().await?;
        let outcome = settle_in(store, &mut transaction, settlements, &with_jobs, rules).await;
        let (mut needed, held) = finish(transaction, outcome).await?;
        if needed.is_empty() {
            store.surroundings.stored(&held);
            return Ok(());
        }
        with_jobs.append(&mut needed);
    }
}

/// Gives back the jobs that have to be locked too; then nothing was stored.
async fn settle_in(
    store: &PgStore,
    connection: &mut PgConnection,
    settlements: &[Settlement],
    with_jobs: &BTreeSet<JobId>,
    rules: &Rules,
) -> Result<((BTreeSet<JobId>, Held), End), Failure> {
    let mut rows = Footprint::of_queues(settlements.iter().map(|settlement| settlement.job_id));
    with_jobs.iter().for_each(|id| rows.job(*id));
    let mut held = lock(connection, &rows, Waiting::Wait, &store.surroundings).await?;
    let mut jobs = match with_jobs.is_empty() {
        true => HashMap::new(),
        false => {
            let ids = with_jobs.iter().map(|id| id.as_uuid()).collect();
            load::jobs(connection, ids, &store.surroundings).await?
        }
    };
    let mut needed: BTreeSet<JobId> = BTreeSet::new();
    for settlement in settlements {
        let dead = held.settle(settlement);
        let id = settlement.job_id;
        if dead.is_empty() {
            continue;
        }
        if !with_jobs.contains(&id) {
            needed.insert(id);
        } else if let Some(job) = jobs.get_mut(&id) {
            let told: Changeset = dead_letter(job, &dead, held.now, rules);
            // Nothing moved since the job was read: it is locked.
            held.take(&told, rules).map_err(internal)?;
            if let Some(written) = held.jobs.get(&id) {
                *job = Arc::clone(&written.job);
            }
        }
    }
    if !needed.is_empty() || held.changed_queues().next().is_none() {
        return Ok(((needed, held), End::Leave));
    }
    write(connection, &held).await?;
    Ok(((needed, held), End::Store))
}
