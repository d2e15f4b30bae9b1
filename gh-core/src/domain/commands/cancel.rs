//! A client ends a job.

use std::sync::Arc;

use super::{Command, job_lifecycle};
use crate::domain::code::Actor;
use crate::domain::draft::Draft;
use crate::domain::ids::JobId;
use crate::domain::job::{Job, JobStatus, Outcome};
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;

/// Ends a job, final at once, whatever its worker does.
#[derive(Clone, Debug)]
pub struct Cancel {
    /// The job.
    pub job_id: JobId,
    /// Who wants it.
    pub actor: Actor,
    /// Why; at most 500 characters.
    pub reason: Option<Box<str>>,
}

impl Command for Cancel {
    /// The job; also when it was cancelled before.
    type Answer = Arc<Job>;

    fn keys(&self) -> Keys {
        Keys { jobs: vec![self.job_id], ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<Arc<Job>, Rejection> {
        let job = draft.job(self.job_id)?;
        match job.status() {
            JobStatus::Cancelled => return Ok(job),
            status if status.is_terminal() => return Err(Rejection::JobNotCancellable { status }),
            _ => {}
        }
        cancel(draft, job.as_ref().clone(), &self.actor, self.reason.clone());
        draft.job(self.job_id)
    }
}

/// Ends a job that is not ended yet; the job is saved.
pub(super) fn cancel(draft: &mut Draft<'_>, mut job: Job, actor: &Actor, reason: Option<Box<str>>) {
    let fence = job_lifecycle::take_from_worker(draft, &job, reason.as_deref().unwrap_or("cancelled"));
    job_lifecycle::end(draft, &mut job, Outcome::Cancelled { reason }, actor.clone(), fence);
    draft.save_job(job);
}
