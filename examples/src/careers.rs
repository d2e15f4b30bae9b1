//! A product that embeds the control plane: it applies to job postings for people.
//!
//! Its customers know nothing of jobs and workers. [`Careers`] is all that the product adds: it says what a job is for
//! an application, and what a job's status means to a customer. That is ordinary code around a
//! [`ControlPlane`], and is tested as such, in memory, by `examples/tests/careers.rs`.

use std::sync::Arc;

use gh_core::application::{ControlPlane, UseCaseError};
use gh_core::domain::code::ClientName;
use gh_core::domain::field::FieldError;
use gh_core::domain::ids::JobId;
use gh_core::domain::job::{Job, JobStatus, Outcome};
use gh_core::domain::rejection::Rejection;
use gh_core::domain::submission::SubmissionRequest;
use serde::Serialize;
use sha2::{Digest, Sha256};
use url::Url;
use uuid::Uuid;

/// How long an application may wait for a worker: a posting that is a day older may be gone.
const WAITS_FOR_SECONDS: i64 = 24 * 3600;

/// A posting to apply to.
#[derive(Clone, Debug)]
pub struct Posting {
    /// Where it is.
    pub url: Url,
    /// Where the customer wants to hear what became of it.
    pub tell: Option<Url>,
}

/// An application, as customers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Application {
    /// Its id.
    pub id: JobId,
    /// The posting.
    pub posting: Box<str>,
    /// What became of it so far.
    pub state: ApplicationState,
    /// What to tell a person of its end.
    pub note: Option<Box<str>>,
}

/// What became of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplicationState {
    /// Nobody is at it yet.
    Waiting,
    /// A browser fills in the form.
    Applying,
    /// A person is needed, as for a captcha.
    NeedsYou,
    /// It was sent.
    Sent,
    /// It was not sent.
    NotSent,
}

/// Why the product could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CareersError {
    /// The customer has no such application.
    #[error("there is no such application")]
    Unknown,
    /// What was handed in cannot be used.
    #[error("the posting cannot be used")]
    Invalid(Vec<FieldError>),
    /// Not now; it is worth trying again.
    #[error("not possible now")]
    Later(#[source] UseCaseError),
}

impl From<UseCaseError> for CareersError {
    fn from(error: UseCaseError) -> Self {
        match error {
            UseCaseError::Rejected(Rejection::JobNotFound) => Self::Unknown,
            UseCaseError::Rejected(Rejection::Invalid(errors)) => Self::Invalid(errors),
            other => Self::Later(other),
        }
    }
}

/// The product.
#[derive(Clone, Debug)]
pub struct Careers {
    control_plane: Arc<ControlPlane>,
}

impl Careers {
    /// The product over this control plane.
    #[must_use]
    pub const fn new(control_plane: Arc<ControlPlane>) -> Self {
        Self { control_plane }
    }

    /// Applies to a posting for a customer; twice to the same one is once.
    ///
    /// # Errors
    ///
    /// The posting cannot be used, or it is not possible now.
    pub async fn apply_to(&self, customer: Uuid, posting: &Posting) -> Result<Application, CareersError> {
        let request = SubmissionRequest {
            valet_task_id: Some(format!("{customer}/application")),
            valet_user_id: Some(customer.to_string()),
            job_type: Some("apply".into()),
            target_url: Some(posting.url.to_string()),
            task_description: Some("Fill in the application form with the customer's profile and submit it".into()),
            callback_url: posting.tell.as_ref().map(Url::to_string),
            expires_in_seconds: Some(WAITS_FOR_SECONDS),
            idempotency_key: Some(id_of(&format!("{customer} {}", posting.url)).to_string()),
            ..SubmissionRequest::default()
        };
        let submitted = self.control_plane.submit(&ClientName::new("careers"), request).await?;
        Ok(Application::of(&submitted.job))
    }

    /// What became of a customer's application.
    ///
    /// # Errors
    ///
    /// The customer has no such application, or it is not possible now.
    pub async fn application(&self, customer: Uuid, id: JobId) -> Result<Application, CareersError> {
        let job = self.control_plane.job(id).await?;
        if job.spec.valet_user_id != customer {
            return Err(CareersError::Unknown);
        }
        Ok(Application::of(&job))
    }
}

/// The id that always comes out for the same words, and never for others.
#[must_use]
pub fn id_of(words: &str) -> Uuid {
    let digest: [u8; 32] = Sha256::digest(words).into();
    Uuid::from_u128(u128::from_be_bytes(std::array::from_fn(|place| digest[place])))
}

impl Application {
    fn of(job: &Job) -> Self {
        let state = match job.status() {
            JobStatus::Pending | JobStatus::Queued => ApplicationState::Waiting,
            JobStatus::Running => ApplicationState::Applying,
            JobStatus::NeedsHuman => ApplicationState::NeedsYou,
            JobStatus::Completed => ApplicationState::Sent,
            JobStatus::Failed | JobStatus::Cancelled | JobStatus::Expired => ApplicationState::NotSent,
        };
        let note = job.ending().and_then(|ending| match &ending.outcome {
            Outcome::Completed(completion) => completion.result_summary.clone(),
            other => other.error().map(|(_, message)| message.into()),
        });
        Self { id: job.id, posting: job.spec.target_url.clone(), state, note }
    }
}
