//! Jobs.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gh_core::domain::changeset::JobWrite;
use gh_core::domain::code::ClientName;
use gh_core::domain::cost::CostSummary;
use gh_core::domain::ids::{Attempt, JobId};
use gh_core::domain::job::{AnnouncedCall, Holding, Job, JobState, JobStatus, Json, Outcome, Postponement, Progress};
use gh_core::domain::submission::JobSpec;
use gh_core::domain::time::Timestamp;
use gh_core::ports::store::StoreError;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{from_json, instant, to_json, version};
use crate::errors::{corrupt, store_error};

const TABLE: &str = "gh_jobs";

/// The part of a job that lies in no column: everything but its id, its version, its spec and its result.
#[derive(Debug, Serialize, Deserialize)]
struct JobBody {
    client: ClientName,
    run: u32,
    attempt: Attempt,
    attempts_spent: u32,
    failures: u32,
    releases: u32,
    requeues: u32,
    /// Without the result of a completed run.
    state: JobState,
    /// Whether that result lies in `gh_job_results`.
    has_result: bool,
    side_effects_started_at: Option<Timestamp>,
    progress: Progress,
    cost: CostSummary,
    announced_calls: Vec<AnnouncedCall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    postponed: Option<Postponement>,
    budget_told: u8,
    holdings: Vec<Holding>,
    created_at: Timestamp,
    queued_at: Timestamp,
    started_at: Option<Timestamp>,
    event_seq: u64,
    callback_sequence: u64,
}

impl JobBody {
    /// The body of a job, and its result.
    fn of(job: &Job) -> (Self, Option<Json>) {
        let Job {
            id: _,
            version: _,
            spec: _,
            client,
            run,
            attempt,
            attempts_spent,
            failures,
            releases,
            requeues,
            state,
            side_effects_started_at,
            progress,
            cost,
            announced_calls,
            postponed,
            budget_told,
            holdings,
            created_at,
            queued_at,
            started_at,
            event_seq,
            callback_sequence,
        } = job;
        let mut state = state.clone();
        let result = result_of(&mut state).and_then(Option::take);
        let body = Self {
            client: client.clone(),
            run: *run,
            attempt: *attempt,
            attempts_spent: *attempts_spent,
            failures: *failures,
            releases: *releases,
            requeues: *requeues,
            state,
            has_result: result.is_some(),
            side_effects_started_at: *side_effects_started_at,
            progress: *progress,
            cost: cost.clone(),
            announced_calls: announced_calls.clone(),
            postponed: *postponed,
            budget_told: *budget_told,
            holdings: holdings.clone(),
            created_at: *created_at,
            queued_at: *queued_at,
            started_at: *started_at,
            event_seq: *event_seq,
            callback_sequence: *callback_sequence,
        };
        (body, result)
    }

    /// The job again; `None` when there is a result that should not be there, or none where there should be one.
    fn into_job(
        self,
        id: JobId,
        version: gh_core::domain::ids::Version,
        spec: Arc<JobSpec>,
        result: Option<Json>,
    ) -> Option<Job> {
        let Self {
            client,
            run,
            attempt,
            attempts_spent,
            failures,
            releases,
            requeues,
            mut state,
            has_result,
            side_effects_started_at,
            progress,
            cost,
            announced_calls,
            postponed,
            budget_told,
            holdings,
            created_at,
            queued_at,
            started_at,
            event_seq,
            callback_sequence,
        } = self;
        match (result_of(&mut state), has_result, result) {
            (Some(place), true, Some(result)) => *place = Some(result),
            (_, false, None) => {}
            _ => return None,
        }
        Some(Job {
            id,
            version,
            spec,
            client,
            run,
            attempt,
            attempts_spent,
            failures,
            releases,
            requeues,
            state,
            side_effects_started_at,
            progress,
            cost,
            announced_calls,
            postponed,
            budget_told,
            holdings,
            created_at,
            queued_at,
            started_at,
            event_seq,
            callback_sequence,
        })
    }
}

/// Where a state keeps the result of its run, if it has a place for one.
fn result_of(state: &mut JobState) -> Option<&mut Option<Json>> {
    match state {
        JobState::Ended(ending) => match &mut ending.outcome {
            Outcome::Completed(completion) => Some(&mut completion.result_data),
            Outcome::Failed { .. } | Outcome::Cancelled { .. } | Outcome::Expired => None,
        },
        JobState::Pending(_) | JobState::Queued(..) | JobState::Running(_) | JobState::NeedsHuman(..) => None,
    }
}

/// A job as it is written.
#[derive(Debug)]
pub(crate) struct JobColumns {
    pub(crate) job: Arc<Job>,
    pub(crate) next_deadline: Option<DateTime<Utc>>,
    pub(crate) not_before: Option<DateTime<Utc>>,
    pub(crate) fence: Option<(Box<str>, DateTime<Utc>)>,
    pub(crate) body: String,
    /// Its result, as its worker wrote it.
    pub(crate) result: Option<Json>,
}

impl JobColumns {
    pub(crate) fn of(write: &JobWrite) -> Result<Self, StoreError> {
        let job = &write.job;
        let (body, result) = JobBody::of(job);
        let wait = job.wait();
        let fence = wait.and_then(|wait| wait.fence.as_ref());
        Ok(Self {
            job: Arc::clone(job),
            next_deadline: write.next_deadline.map(instant),
            not_before: wait.and_then(|wait| wait.not_before).map(instant),
            fence: fence.map(|fence| (fence.worker_id.as_str().into(), instant(fence.until))),
            body: to_json(&body)?,
            result,
        })
    }
}

/// A job as it was read, but for its spec.
#[derive(Debug)]
pub(crate) struct StoredJob {
    pub(crate) id: JobId,
    version: gh_core::domain::ids::Version,
    status: String,
    body: JobBody,
    result: Option<Json>,
}

impl StoredJob {
    /// From the columns `id`, `number` (its version), `name` (its status), `body` and `body2` (its result).
    pub(crate) fn of(row: &PgRow) -> Result<Self, StoreError> {
        let id: Uuid = row.try_get("id").map_err(store_error)?;
        let number: i64 = row.try_get("number").map_err(store_error)?;
        let status: String = row.try_get("name").map_err(store_error)?;
        let body: String = row.try_get("body").map_err(store_error)?;
        let result: Option<String> = row.try_get("body2").map_err(store_error)?;
        let result = result.map(RawValue::from_string).transpose();
        let result = result.map_err(|_| corrupt("gh_job_results", id, "is no JSON"))?;
        Ok(Self {
            id: JobId::new(id),
            version: version(TABLE, id, number)?,
            status,
            body: from_json(TABLE, id, &body)?,
            result: result.map(Json::from),
        })
    }

    /// The job, with what was asked for.
    pub(crate) fn with_spec(self, spec: Arc<JobSpec>) -> Result<Arc<Job>, StoreError> {
        let Self { id, version, status, body, result } = self;
        let job = body.into_job(id, version, spec, result);
        let job = job.ok_or_else(|| corrupt(TABLE, id, "its result is missing, or one too many"))?;
        if job.status().as_str() != status {
            return Err(corrupt(TABLE, id, "its status contradicts its body"));
        }
        Ok(Arc::new(job))
    }
}

/// A status from its word.
pub(crate) fn status(table: &str, key: impl std::fmt::Display, word: &str) -> Result<JobStatus, StoreError> {
    let known = JobStatus::ALL.into_iter().find(|status| status.as_str() == word);
    known.ok_or_else(|| corrupt(table, key, "an unknown status"))
}
