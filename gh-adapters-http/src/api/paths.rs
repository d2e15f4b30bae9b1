//! What the path of a request names.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use gh_core::domain::commands::Credential;
use gh_core::domain::ids::{Attempt, JobId, Name, WorkerId};

use super::auth::Caller;
use super::codes;
use super::problem::Problem;

/// A parameter of the matched path, percent-decoded; none when it is no UTF-8.
async fn param(parts: &mut Parts, name: &str) -> Option<String> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let value = params.iter().find(|(known, _)| *known == name);
    value.map(|(_, value)| value.to_owned())
}

/// `{job_id}`. What is no UUID names no job.
#[derive(Debug)]
pub(super) struct JobPath(pub(super) JobId);

impl<S: Sync> FromRequestParts<S> for JobPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let job_id = param(parts, "job_id").await.and_then(|text| text.parse().ok());
        let not_found = || Problem::new(&codes::JOB_NOT_FOUND, "There is no job with this id.");
        job_id.map(Self).ok_or_else(not_found)
    }
}

/// `{job_id}` and `{attempt}`, and who reports on it.
#[derive(Debug)]
pub(super) struct AttemptPath {
    pub(super) who: Credential,
    pub(super) job_id: JobId,
    pub(super) attempt: Attempt,
}

impl<S: Sync> FromRequestParts<S> for AttemptPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Caller(who) = Caller::from_request_parts(parts, state).await?;
        let JobPath(job_id) = JobPath::from_request_parts(parts, state).await?;
        let attempt = param(parts, "attempt").await.and_then(|text| text.parse().ok());
        let not_found = || Problem::new(&codes::NOT_FOUND, "An attempt is a whole number, 1 or more.");
        Ok(Self { who, job_id, attempt: attempt.map(Attempt).ok_or_else(not_found)? })
    }
}

/// `{worker_id}`. What is no name names no worker.
#[derive(Debug)]
pub(super) struct WorkerPath(pub(super) WorkerId);

impl<S: Sync> FromRequestParts<S> for WorkerPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let worker_id = param(parts, "worker_id").await;
        let worker_id = worker_id.and_then(|text| Name::parse(&text).ok());
        let not_found = || Problem::new(&codes::WORKER_NOT_FOUND, "No worker has, or ever had, this name.");
        worker_id.map(Self).ok_or_else(not_found)
    }
}

/// `{worker_id}`, which must be the caller's own.
#[derive(Debug)]
pub(super) struct OwnWorker(pub(super) Credential);

impl<S: Sync> FromRequestParts<S> for OwnWorker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Caller(who) = Caller::from_request_parts(parts, state).await?;
        if param(parts, "worker_id").await.as_deref() == Some(who.worker_id.as_str()) {
            Ok(Self(who))
        } else {
            Err(Problem::new(&codes::NOT_YOUR_WORKER, "The token belongs to another worker."))
        }
    }
}

/// `{name}` of a target.
#[derive(Debug)]
pub(super) struct TargetPath(pub(super) Name);

impl<S: Sync> FromRequestParts<S> for TargetPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let name = param(parts, "name").await.and_then(|text| Name::parse(&text).ok());
        let not_found = || Problem::new(&codes::NOT_FOUND, "No worker ever registered under this name.");
        name.map(Self).ok_or_else(not_found)
    }
}
