//! Looks at the whole fleet, and sees to it that the store's time goes on where the database's clock was set.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use gh_core::domain::changeset::Changeset;
use gh_core::domain::commands::{self, Watched};
use gh_core::domain::rules::Rules;
use gh_core::domain::time::Timestamp;
use gh_core::domain::watch::{FleetWatch, Headcount, Lookout, Trouble};
use gh_core::ports::store::StoreError;
use sqlx::{PgConnection, Row};

use crate::errors::{Failure, store_error};
use crate::rows::{from_json, instant, to_json, unsigned};
use crate::store::{End, PgStore, finish};
use crate::time::{self, Agreement, moment};
use crate::write::write_worker_events;

/// The record, locked unless another server looks just now; the time; how many workers take part, and how many of them
/// were not heard from since a time ($1).
pub(crate) const LOOK: &str = concat!(
    "with locked as materialized (select body from gh_fleet_watch for no key update skip locked)
    select (select body from locked) as locked, (select body from gh_fleet_watch) as body, ",
    moment!(),
    " as at,
        (select count(*) from gh_worker_vitals
            where silent_since <= $1::timestamptz and last_seen <= $1::timestamptz) as silent,
        (select count(*) from gh_worker_vitals where silent_since is not null) as workers"
);

pub(crate) const RECORD: &str = "select body from gh_fleet_watch";

/// Servers look at least so often: see [`BackgroundLoops::SWEEP`](gh_core::application::BackgroundLoops::SWEEP).
const LOOKS_APART: Duration = Duration::from_millis(500);

const WRITE: &str = "update gh_fleet_watch set body = $1";
const SHIFT: &str = "update gh_clock set shift_micros = shift_micros + $1::bigint";

fn record(body: &str) -> Result<FleetWatch, StoreError> {
    from_json("gh_fleet_watch", "the record", body)
}

/// Looks, has the core decide what that means, and stores what it decided.
pub(crate) async fn watch(store: &PgStore, lookout: &Lookout, rules: &Rules) -> Result<Watched, Failure> {
    let about = store.time().await?;
    let time = &store.surroundings.time;
    let mut transaction = store.begin().await?;
    let outcome = watch_in(store, &mut transaction, lookout, about, rules).await;
    let Looked { watched, believed, silent_from } = finish(transaction, outcome).await?;
    if let Some(believed) = believed {
        time.believe(believed);
    }
    // Where another server looked at the same time there is no record, and what befell this one is told by its next look.
    if let Some(record) = watched.changes.watch() {
        time.compared();
        time.forget_silence(silent_from);
        store.surroundings.keep_watch(Arc::clone(record));
    }
    Ok(watched)
}

/// What a look came to, once it is stored.
struct Looked {
    watched: Watched,
    /// The time that is to be believed from then on, whatever was known before.
    believed: Option<Timestamp>,
    /// Since when this process had heard nothing of the store for long.
    silent_from: Option<Timestamp>,
}

async fn watch_in(
    store: &PgStore,
    connection: &mut PgConnection,
    lookout: &Lookout,
    about: Timestamp,
    rules: &Rules,
) -> Result<(Looked, End), Failure> {
    let time = &store.surroundings.time;
    let asked = time::now();
    let row = sqlx::query(LOOK).bind(instant(about - rules.policy.suspect_after)).fetch_one(&mut *connection).await?;
    let locked: Option<&str> = row.try_get("locked")?;
    let known = record(match locked {
        Some(body) => body,
        None => row.try_get("body")?,
    })?;
    let at: DateTime<Utc> = row.try_get("at")?;
    let count = |name: &str| -> Result<u64, Failure> {
        let number: i64 = row.try_get(name)?;
        Ok(unsigned("gh_worker_vitals", "a count", number)?)
    };
    let count = Headcount { silent: count("silent")?, workers: count("workers")? };
    let stored = locked.is_some();

    let reading = Timestamp::from(at);
    let agreement = time.compare(reading, asked);
    // Whoever cannot store anything goes on with the time that is known.
    let right = if stored { right_time(reading, agreement, known.latest_look()) } else { None };
    let now = right.unwrap_or_else(|| time.sample(reading));
    if let Some(right) = right
        && right != reading
    {
        let shift = right.as_micros().saturating_sub(reading.as_micros());
        tracing::warn!(shift_micros = shift, "the database's clock was set; time goes on without it");
        sqlx::query(SHIFT).bind(shift).execute(&mut *connection).await?;
    }
    let silent_from = time.silence();
    let set = matches!(agreement, Agreement::Ahead { .. } | Agreement::Behind { .. });
    let lookout = Lookout {
        trouble: lookout.trouble.or((set && lookout.last_heard.is_some()).then_some(Trouble::Stalled)),
        last_heard: lookout.last_heard.map(|_| silent_from.unwrap_or(now)),
        ..lookout.clone()
    };
    let mut watched = commands::watch(&known, now, &lookout, count, rules);
    if !stored {
        watched.changes = Changeset::default();
        return Ok((Looked { watched, believed: None, silent_from }, End::Leave));
    }
    if let Some(record) = watched.changes.watch() {
        sqlx::query(WRITE).bind(to_json(record.as_ref())?).execute(&mut *connection).await?;
    }
    if !watched.changes.worker_events().is_empty() {
        write_worker_events(connection, watched.changes.worker_events()).await?;
    }
    Ok((Looked { watched, believed: right, silent_from }, End::Store))
}

/// The time that it is where the database's does not agree with what was known; none where it does.
fn right_time(reading: Timestamp, agreement: Agreement, latest_look: Option<Timestamp>) -> Option<Timestamp> {
    match agreement {
        Agreement::Agrees => None,
        // Before this process came, time had gone further than the clock says now.
        Agreement::First => latest_look.filter(|latest| *latest > reading),
        // Others have looked since this process heard of the time: it stood still, and they are right.
        Agreement::Ahead { expected } if latest_look.is_some_and(|latest| latest >= expected + LOOKS_APART) => {
            Some(reading)
        }
        Agreement::Ahead { expected } | Agreement::Behind { expected } => Some(expected),
    }
}

/// The record as it is stored, a moment old at most.
pub(crate) async fn read(store: &PgStore) -> Result<Arc<FleetWatch>, StoreError> {
    if let Some(known) = store.surroundings.kept_watch() {
        return Ok(known);
    }
    let body: String = sqlx::query_scalar(RECORD).fetch_one(&store.pool).await.map_err(store_error)?;
    let read = Arc::new(record(&body)?);
    store.surroundings.keep_watch(Arc::clone(&read));
    Ok(read)
}
