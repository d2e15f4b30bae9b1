//! Workers, what their calls leave behind, names and deregistrations.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gh_core::domain::ids::{DeregistrationId, JobId, Name, WorkerId};
use gh_core::domain::time::Timestamp;
use gh_core::domain::worker::{
    Deregistration, NameRecord, Occupation, Vitals, Worker, WorkerIdentity, WorkerState, WorkerView,
};
use gh_core::ports::store::StoreError;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{from_json, instant, to_json, unsigned, version};
use crate::errors::{corrupt, store_error};

const WORKERS: &str = "gh_workers";
const VITALS: &str = "gh_worker_vitals";

/// A name as it was read.
pub(crate) fn name(table: &str, text: &str) -> Result<Name, StoreError> {
    Name::parse(text).map_err(|_| corrupt(table, "a row", "its key is no name"))
}

/// A worker as it is written.
#[derive(Debug)]
pub(crate) struct WorkerColumns {
    pub(crate) worker: Arc<Worker>,
    pub(crate) present: bool,
    pub(crate) deadline: Option<DateTime<Utc>>,
    pub(crate) gone_since: Option<DateTime<Utc>>,
    pub(crate) deregistered: bool,
    pub(crate) body: String,
}

impl WorkerColumns {
    pub(crate) fn of(worker: &Arc<Worker>) -> Result<Self, StoreError> {
        // The whole worker is its body: its own fields are named there, and here those that statements pick by.
        let drain = worker.drain().and_then(|drain| drain.deadline);
        let closing = worker.deregistration().and(worker.closing.as_ref()).map(|closing| closing.until);
        let (gone_since, deregistered) = match &worker.state {
            WorkerState::Active | WorkerState::Draining(_) => (None, false),
            WorkerState::Offline { since } => (Some(*since), false),
            WorkerState::Deregistered { since, reason: _ } => (Some(*since), true),
        };
        Ok(Self {
            worker: Arc::clone(worker),
            present: worker.is_present(),
            deadline: [drain, closing].into_iter().flatten().min().map(instant),
            gone_since: gone_since.map(instant),
            deregistered,
            body: to_json(worker)?,
        })
    }

    pub(crate) fn identity(&self) -> &WorkerIdentity {
        &self.worker.identity
    }
}

/// A worker as it was read, from the columns `name` (its id), `number` (its version), `body`, `body2` (its vitals),
/// `id` and `flag` (the job that occupies it, and whether it is only reserved), `flag2` (whether its id is a target),
/// `count` (how many workers on its machine are occupied) and `at` (since when one that was forgotten is gone: its vitals
/// went with it).
pub(crate) fn view(row: &PgRow) -> Result<WorkerView, StoreError> {
    let id: String = row.try_get("name").map_err(store_error)?;
    let number: i64 = row.try_get("number").map_err(store_error)?;
    let body: String = row.try_get("body").map_err(store_error)?;
    let vitals: Option<String> = row.try_get("body2").map_err(store_error)?;
    let occupant: Option<Uuid> = row.try_get("id").map_err(store_error)?;
    let reserved: Option<bool> = row.try_get("flag").map_err(store_error)?;
    let id_is_a_target: bool = row.try_get("flag2").map_err(store_error)?;
    let load: i64 = row.try_get("count").map_err(store_error)?;
    let forgotten: Option<DateTime<Utc>> = row.try_get("at").map_err(store_error)?;
    let worker: Worker = from_json(WORKERS, &id, &body)?;
    if worker.id.as_str() != id || worker.version != version(WORKERS, &id, number)? {
        return Err(corrupt(WORKERS, &id, "its columns contradict its body"));
    }
    let vitals = match (vitals, forgotten) {
        (Some(body), _) => from_json(VITALS, &id, &body)?,
        (None, Some(gone_since)) => Vitals::new(Timestamp::from(gone_since)),
        (None, None) => return Err(corrupt(VITALS, &id, "is missing")),
    };
    let occupied_by = match (occupant, reserved) {
        (Some(job_id), Some(reserved)) => Some(Occupation { job_id: JobId::new(job_id), reserved }),
        _ => None,
    };
    Ok(WorkerView {
        vitals,
        worker: Arc::new(worker),
        occupied_by,
        id_is_a_target,
        instance_load: u32::try_from(load).unwrap_or(u32::MAX),
    })
}

/// The same with what is stored of its vitals, from the columns `at` (its `silent_since`) and `revision`.
pub(crate) fn view_and_vitals(row: &PgRow) -> Result<(WorkerView, StoredVitals), StoreError> {
    let view = view(row)?;
    let revision: i64 = row.try_get("revision").map_err(store_error)?;
    let silent_since: Option<DateTime<Utc>> = row.try_get("at").map_err(store_error)?;
    let vitals = StoredVitals {
        vitals: view.vitals.clone(),
        silent_since: silent_since.map(Timestamp::from),
        revision: unsigned(VITALS, &view.worker.id, revision)?,
    };
    Ok((view, vitals))
}

/// What the calls of a worker left behind, and since when the sweep counts it as silent at the earliest.
#[derive(Clone, Debug)]
pub(crate) struct StoredVitals {
    pub(crate) vitals: Vitals,
    pub(crate) silent_since: Option<Timestamp>,
    /// How often its row was written; 0 where there is none.
    pub(crate) revision: u64,
}

impl StoredVitals {
    /// From the columns `body`, `number` (its revision) and `at` (its `silent_since`).
    pub(crate) fn of(worker_id: &WorkerId, row: &PgRow) -> Result<Self, StoreError> {
        let body: &str = row.try_get("body").map_err(store_error)?;
        let revision: i64 = row.try_get("number").map_err(store_error)?;
        let silent_since: Option<DateTime<Utc>> = row.try_get("at").map_err(store_error)?;
        Ok(Self {
            vitals: from_json(VITALS, worker_id, body)?,
            silent_since: silent_since.map(Timestamp::from),
            revision: unsigned(VITALS, worker_id, revision)?,
        })
    }
}

/// The record of a name, from its columns.
pub(crate) fn name_record(name: Name, number: i64, held_by: Option<Uuid>) -> Result<NameRecord, StoreError> {
    let version = version("gh_names", &name, number)?;
    Ok(NameRecord { name, version, held_by: held_by.map(DeregistrationId::new) })
}

/// A deregistration, from the columns `id`, `number` (its version) and `body`.
pub(crate) fn deregistration(row: &PgRow) -> Result<Arc<Deregistration>, StoreError> {
    const TABLE: &str = "gh_deregistrations";
    let id: Uuid = row.try_get("id").map_err(store_error)?;
    let number: i64 = row.try_get("number").map_err(store_error)?;
    let body: String = row.try_get("body").map_err(store_error)?;
    let deregistration: Deregistration = from_json(TABLE, id, &body)?;
    if deregistration.id.as_uuid() != id || deregistration.version != version(TABLE, id, number)? {
        return Err(corrupt(TABLE, id, "its columns contradict its body"));
    }
    Ok(Arc::new(deregistration))
}
