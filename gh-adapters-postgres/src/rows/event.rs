//! Events of jobs and of workers: each field is a column, which clients may read.

use chrono::{DateTime, Utc};
use gh_core::domain::code::Actor;
use gh_core::domain::event::{EventType, Extra, JobEvent, WorkerEvent};
use gh_core::domain::ids::{Attempt, EventId, Generation, JobId};
use gh_core::domain::time::Timestamp;
use gh_core::ports::store::StoreError;
use serde_json::value::RawValue;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{column, from_json, job, to_json, unsigned, worker};
use crate::errors::{corrupt, store_error};

/// The metadata of an event of a worker as text.
pub(crate) fn extra_text(extra: &Extra) -> &str {
    extra.as_deref().map_or("{}", RawValue::get)
}

/// The metadata of events of jobs as texts.
pub(crate) fn metadata_texts(events: &[JobEvent]) -> Result<Vec<String>, StoreError> {
    column(events, |event| to_json(&event.metadata)).into_iter().collect()
}

fn actor(table: &str, key: Uuid, text: &str) -> Result<Actor, StoreError> {
    text.parse().map_err(|_| corrupt(table, key, "an unknown actor"))
}

fn event_type(table: &str, key: Uuid, text: &str) -> Result<EventType, StoreError> {
    EventType::parse(text).ok_or_else(|| corrupt(table, key, "an unknown type"))
}

fn count(table: &str, key: Uuid, number: i32) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| corrupt(table, key, "a number is negative"))
}

/// An event of a job as it was read.
pub(crate) fn job_event(row: &PgRow) -> Result<JobEvent, StoreError> {
    const TABLE: &str = "gh_job_events";
    let read = |row: &PgRow| -> Result<_, sqlx::Error> {
        let id: Uuid = row.try_get("id")?;
        let job_id: Uuid = row.try_get("job_id")?;
        let seq: i64 = row.try_get("seq")?;
        let (kind, message): (String, String) = (row.try_get("event_type")?, row.try_get("message")?);
        let (from, to): (Option<String>, Option<String>) = (row.try_get("from_status")?, row.try_get("to_status")?);
        let (metadata, actor): (String, String) = (row.try_get("metadata")?, row.try_get("actor")?);
        let (run, attempt): (i32, i32) = (row.try_get("run")?, row.try_get("attempt")?);
        let occurred_at: DateTime<Utc> = row.try_get("occurred_at")?;
        let created_at: DateTime<Utc> = row.try_get("created_at")?;
        Ok((id, job_id, seq, kind, message, from, to, metadata, actor, run, attempt, occurred_at, created_at))
    };
    let (id, job_id, seq, kind, message, from, to, metadata, by, run, attempt, occurred_at, created_at) =
        read(row).map_err(store_error)?;
    Ok(JobEvent {
        id: EventId::new(id),
        job_id: JobId::new(job_id),
        seq: unsigned(TABLE, id, seq)?,
        event_type: event_type(TABLE, id, &kind)?,
        from_status: from.map(|word| job::status(TABLE, id, &word)).transpose()?,
        to_status: to.map(|word| job::status(TABLE, id, &word)).transpose()?,
        message: message.into(),
        metadata: from_json(TABLE, id, &metadata)?,
        actor: actor(TABLE, id, &by)?,
        run: count(TABLE, id, run)?,
        attempt: Attempt(count(TABLE, id, attempt)?),
        occurred_at: Timestamp::from(occurred_at),
        created_at: Timestamp::from(created_at),
    })
}

/// An event of a worker, or of the fleet, as it was read.
pub(crate) fn worker_event(row: &PgRow) -> Result<WorkerEvent, StoreError> {
    const TABLE: &str = "gh_worker_events";
    let read = |row: &PgRow| -> Result<_, sqlx::Error> {
        let id: Uuid = row.try_get("id")?;
        let worker_id: Option<String> = row.try_get("worker_id")?;
        let generation: Option<i32> = row.try_get("generation")?;
        let seq: i64 = row.try_get("seq")?;
        let (kind, message): (String, String) = (row.try_get("event_type")?, row.try_get("message")?);
        let (metadata, actor): (String, String) = (row.try_get("metadata")?, row.try_get("actor")?);
        let created_at: DateTime<Utc> = row.try_get("created_at")?;
        Ok((id, worker_id, generation, seq, kind, message, metadata, actor, created_at))
    };
    let (id, worker_id, generation, seq, kind, message, metadata, by, created_at) = read(row).map_err(store_error)?;
    let generation = generation.map(|number| count(TABLE, id, number)).transpose()?;
    let metadata = RawValue::from_string(metadata).map_err(|_| corrupt(TABLE, id, "its metadata are no JSON"))?;
    Ok(WorkerEvent {
        id: EventId::new(id),
        worker_id: worker_id.map(|text| worker::name(TABLE, &text)).transpose()?,
        generation: generation.map(Generation),
        seq: unsigned(TABLE, id, seq)?,
        event_type: event_type(TABLE, id, &kind)?,
        message: message.into(),
        metadata: (metadata.get() != "{}").then_some(metadata),
        actor: actor(TABLE, id, &by)?,
        created_at: Timestamp::from(created_at),
    })
}
