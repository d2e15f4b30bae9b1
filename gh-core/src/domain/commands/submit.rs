//! Submitting a job.

use std::sync::Arc;

use serde_json::json;

use super::Command;
use super::job_lifecycle::{self, Placement};
use crate::domain::affinity::Routing;
use crate::domain::code::{Actor, ClientName, ErrorCode};
use crate::domain::cost::CostSummary;
use crate::domain::draft::{Draft, EventDraft};
use crate::domain::event::EventType;
use crate::domain::ids::{Attempt, JobId, Version};
use crate::domain::job::{IdempotencyRecord, Job, JobState, JobStatus, Progress, Wait};
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;
use crate::domain::submission::{JobSpec, Submission};

/// A client hands over a job.
#[derive(Clone, Debug)]
pub struct Submit {
    /// The client.
    pub client: ClientName,
    /// What it asks for, shared so that a retry of the decision does not copy it.
    pub spec: Arc<JobSpec>,
    /// See [`Submission`].
    pub idempotency_key: Option<Box<str>>,
    /// See [`Submission`].
    pub fingerprint: crate::domain::code::Fingerprint,
}

/// What became of a submission.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// The job; of a duplicate the first one.
    pub job: Arc<Job>,
    /// Whether the same key had made it before.
    pub duplicate: bool,
    /// For a strict job that was recorded as failed: what the workers of the target do instead.
    pub worker_status: Option<Box<str>>,
}

impl Submit {
    /// The command for a submission that passed every check.
    #[must_use]
    pub fn new(client: ClientName, submission: Submission) -> Self {
        let Submission { spec, idempotency_key, fingerprint } = submission;
        Self { client, spec: Arc::new(spec), idempotency_key, fingerprint }
    }
}

impl Command for Submit {
    type Answer = Submitted;

    fn keys(&self) -> Keys {
        let names = match &self.spec.routing {
            Routing::Strict { target, .. } | Routing::Preferred { target, .. } => vec![target.clone()],
            Routing::Any { .. } => Vec::new(),
        };
        let key = self.idempotency_key.clone().map(|key| (self.client.clone(), key));
        Keys { names, idempotency_keys: key.into_iter().collect(), ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<Submitted, Rejection> {
        if let Some(key) = &self.idempotency_key
            && let Some(first) = draft.snapshot().idempotency_keys.get(&(self.client.clone(), key.clone()))
        {
            if first.fingerprint != self.fingerprint {
                return Err(Rejection::IdempotencyKeyReused);
            }
            let job = draft.job(first.job_id)?;
            let worker_status = refused_at_submission(&job);
            return Ok(Submitted { job, duplicate: true, worker_status });
        }
        let mut job = self.new_job(draft.new_job_id(), draft);
        let message = match &self.spec.routing {
            Routing::Any { .. } => "Submitted: waiting for a worker".to_owned(),
            Routing::Strict { target, .. } => format!("Submitted: for workers of {target} only"),
            Routing::Preferred { target, .. } => format!("Submitted: for workers of {target} first"),
        };
        let event = EventDraft { to: Some(JobStatus::Pending), ..EventDraft::new(EventType::JOB_QUEUED, message) };
        let facts = json!({ "worker_affinity": self.spec.routing.affinity(), "run": 1 });
        draft.job_event(&mut job, event.by(Actor::Client(self.client.clone())).with(&facts));
        let placement = job_lifecycle::place(draft, &mut job);
        let mut worker_status = None;
        if let Placement::Unavailable(status) = placement {
            let message = unavailable_message(status);
            job_lifecycle::fail(draft, &mut job, ErrorCode::WORKER_UNAVAILABLE, &message, None);
            worker_status = Some(status.into());
        }
        let job_id = job.id;
        draft.save_job(job);
        if let Some(key) = &self.idempotency_key {
            let record = IdempotencyRecord { fingerprint: self.fingerprint, job_id };
            draft.keep_idempotency_key(self.client.clone(), key.clone(), record);
        }
        Ok(Submitted { job: draft.job(job_id)?, duplicate: false, worker_status })
    }
}

const UNAVAILABLE: &str = "No worker of the target can take the job: ";

pub(super) fn unavailable_message(worker_status: &str) -> String {
    format!("{UNAVAILABLE}{worker_status}")
}

/// What the first answer to a refused strict submission said, for its duplicate.
fn refused_at_submission(job: &Job) -> Option<Box<str>> {
    use crate::domain::job::Outcome;
    let ending = job.ending().filter(|ending| job.run == 1 && ending.at == job.created_at)?;
    match &ending.outcome {
        Outcome::Failed { code, message } if *code == ErrorCode::WORKER_UNAVAILABLE => {
            message.strip_prefix(UNAVAILABLE).map(Into::into)
        }
        _ => None,
    }
}

impl Submit {
    fn new_job(&self, id: JobId, draft: &Draft<'_>) -> Job {
        let now = draft.now();
        Job {
            id,
            version: Version::ABSENT,
            spec: Arc::clone(&self.spec),
            client: self.client.clone(),
            run: 1,
            attempt: Attempt::FIRST,
            attempts_spent: 0,
            failures: 0,
            releases: 0,
            requeues: 0,
            state: JobState::Pending(Wait::for_anyone(now)),
            side_effects_started_at: None,
            progress: Progress::default(),
            cost: CostSummary::default(),
            announced_calls: Vec::new(),
            postponed: None,
            budget_told: 0,
            holdings: Vec::new(),
            created_at: now,
            queued_at: now,
            started_at: None,
            event_seq: 0,
            callback_sequence: 0,
        }
    }
}
