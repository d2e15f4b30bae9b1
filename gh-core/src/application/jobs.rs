//! What clients do with jobs.

use std::sync::Arc;

use super::{ControlPlane, UseCaseError};
use crate::domain::code::{Actor, ClientName};
use crate::domain::commands::{Cancel, Retry, Submit, Submitted};
use crate::domain::field::FieldError;
use crate::domain::ids::JobId;
use crate::domain::job::Job;
use crate::domain::placement::{self, FleetView, PlacementExplanation, Waiting};
use crate::domain::rejection::Rejection;
use crate::domain::submission::SubmissionRequest;
use crate::ports::reader::WorkerQuery;

/// One item of a batch: a submission, or what is wrong with its form.
pub type BatchItem = Result<SubmissionRequest, Vec<FieldError>>;

/// A job, and why it waits if it does.
#[derive(Clone, Debug)]
pub struct JobAnswer {
    /// The job.
    pub job: Arc<Job>,
    /// Why it waits.
    pub waiting: Option<Waiting>,
}

impl ControlPlane {
    /// A client hands over a job.
    ///
    /// A strict job that nobody can take is no error here: it is recorded, failed, and says why.
    ///
    /// # Errors
    ///
    /// Fields out of range, an idempotency key of another submission, or the store is away.
    pub async fn submit(&self, client: &ClientName, request: SubmissionRequest) -> Result<Submitted, UseCaseError> {
        let submission = request.validate().map_err(Rejection::Invalid)?;
        self.execute(&Submit::new(client.clone(), submission)).await
    }

    /// Submits many; one bad item fails alone. Answers in the order of the items.
    pub async fn submit_batch(
        &self,
        client: &ClientName,
        items: Vec<BatchItem>,
    ) -> Vec<Result<Submitted, UseCaseError>> {
        let mut answers = Vec::with_capacity(items.len());
        for item in items {
            answers.push(match item {
                Ok(request) => self.submit(client, request).await,
                Err(errors) => Err(Rejection::Invalid(errors).into()),
            });
        }
        answers
    }

    /// A client ends a job.
    ///
    /// # Errors
    ///
    /// There is no such job, it has ended otherwise, or the store is away.
    pub async fn cancel(
        &self,
        client: &ClientName,
        job_id: JobId,
        reason: Option<Box<str>>,
    ) -> Result<Arc<Job>, UseCaseError> {
        self.execute(&Cancel { job_id, actor: Actor::Client(client.clone()), reason }).await
    }

    /// A client runs a failed or cancelled job again.
    ///
    /// # Errors
    ///
    /// There is no such job, its state does not allow it, or the store is away.
    pub async fn retry(
        &self,
        client: &ClientName,
        job_id: JobId,
        run: Option<u32>,
        side_effects_checked: bool,
    ) -> Result<Arc<Job>, UseCaseError> {
        let job = self.job(job_id).await?;
        let routing = job.spec.routing.clone();
        let actor = Actor::Client(client.clone());
        self.execute(&Retry { job_id, routing, actor, run, side_effects_checked }).await
    }

    /// One job.
    ///
    /// # Errors
    ///
    /// There is no such job, or the store is away.
    pub async fn job(&self, job_id: JobId) -> Result<Arc<Job>, UseCaseError> {
        let job = self.ports.reader.job(job_id).await?;
        job.ok_or_else(|| Rejection::JobNotFound.into())
    }

    /// Adds to each job why it waits, if it does. All jobs are judged at one moment.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn with_waiting(&self, jobs: Vec<Arc<Job>>) -> Result<Vec<JobAnswer>, UseCaseError> {
        if jobs.iter().all(|job| job.wait().is_none()) {
            return Ok(jobs.into_iter().map(|job| JobAnswer { job, waiting: None }).collect());
        }
        let (now, workers) = self.ports.reader.glance().await?;
        let brake = self.ports.reader.fleet_watch().await?.episode(now).is_some();
        let fleet = FleetView { now, workers: &workers, brake, policy: &self.rules.policy };
        let answer = |job: Arc<Job>| JobAnswer { waiting: placement::waiting(&job, &fleet), job };
        Ok(jobs.into_iter().map(answer).collect())
    }

    /// Why a job is where it is, or why it still waits.
    ///
    /// # Errors
    ///
    /// There is no such job, or the store is away.
    pub async fn placement(&self, job_id: JobId) -> Result<PlacementExplanation, UseCaseError> {
        let job = self.job(job_id).await?;
        let (now, workers) = self.ports.reader.workers(&WorkerQuery::default()).await?;
        let brake = self.ports.reader.fleet_watch().await?.episode(now).is_some();
        let fleet = FleetView { now, workers: &workers, brake, policy: &self.rules.policy };
        Ok(placement::explain(&job, &fleet))
    }
}
