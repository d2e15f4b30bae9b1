//! A job, wherever it is answered.

use gh_core::application::JobAnswer;
use gh_core::domain::cost::CostBlock;
use gh_core::domain::ids::{Attempt, InteractionId, JobId, Name};
use gh_core::domain::job::{Job, JobState, JobStatus, Outcome};
use gh_core::domain::placement::Waiting;
use gh_core::domain::time::Timestamp;
use gh_core::domain::usd::Usd;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

/// A job. Fields that have no value are left out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(crate) struct JobView<'j> {
    #[schema(value_type = Uuid)]
    job_id: JobId,
    valet_task_id: &'j str,
    valet_user_id: Uuid,
    job_type: &'j str,
    #[schema(value_type = String)]
    status: JobStatus,
    /// Counts submissions and retries by the client; from 1.
    run: u32,
    /// The present or next try; from 1.
    #[schema(value_type = u32)]
    attempt: Attempt,
    target_url: &'j str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    target_worker_id: Option<&'j Name>,
    worker_affinity: &'static str,
    /// The reserved worker while queued, else the present or last holder.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    worker_id: Option<&'j Name>,
    priority: u8,
    max_attempts: u32,
    /// 0 to 100, by the worker's own word.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<u8>,
    /// Why it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    waiting: Option<&'j Waiting>,
    side_effects_started: bool,
    /// From the first call or action on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    cost: Option<CostBlock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interaction: Option<InteractionView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<ResultView<'j>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView<'j>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'j RawValue>,
    timestamps: Timestamps,
    /// In the answer to a submission: the same key had made the job before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

/// The person that a paused job waits for.
#[derive(Debug, Serialize, ToSchema)]
struct InteractionView {
    #[schema(value_type = Uuid)]
    interaction_id: InteractionId,
    #[schema(value_type = String, format = DateTime)]
    paused_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// What the worker handed in.
#[derive(Debug, Serialize, ToSchema)]
struct ResultView<'j> {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    data: Option<&'j RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    screenshot_artifact_id: Option<&'j str>,
}

/// Why it ended without success.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorView<'j> {
    code: &'j str,
    message: &'j str,
}

/// When what happened.
#[derive(Debug, Serialize, ToSchema)]
struct Timestamps {
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    queued_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    completed_at: Option<Timestamp>,
}

impl<'j> JobView<'j> {
    /// A job together with why it waits.
    pub(crate) fn of(answer: &'j JobAnswer) -> Self {
        Self::new(&answer.job, answer.waiting.as_ref())
    }

    /// Says that an earlier submission with the same key had made the job.
    pub(crate) const fn duplicate(mut self, duplicate: bool) -> Self {
        self.duplicate = duplicate;
        self
    }

    pub(crate) fn new(job: &'j Job, waiting: Option<&'j Waiting>) -> Self {
        let spec = &job.spec;
        let (result, error) = outcome(job);
        Self {
            job_id: job.id,
            valet_task_id: &spec.valet_task_id,
            valet_user_id: spec.valet_user_id,
            job_type: &spec.job_type,
            status: job.status(),
            run: job.run,
            attempt: job.attempt,
            target_url: &spec.target_url,
            target_worker_id: spec.routing.target(),
            worker_affinity: spec.routing.affinity(),
            worker_id: job.worker_id(),
            priority: spec.priority,
            max_attempts: spec.max_attempts,
            progress: job.progress.percent,
            waiting,
            side_effects_started: job.side_effects_started(),
            cost: job.cost_block(),
            interaction: interaction(job),
            result,
            error,
            metadata: spec.metadata.as_deref(),
            timestamps: Timestamps {
                created_at: job.created_at,
                queued_at: job.queued_at,
                started_at: job.started_at,
                completed_at: job.ending().map(|ending| ending.at),
            },
            duplicate: false,
        }
    }
}

const fn interaction(job: &Job) -> Option<InteractionView> {
    match &job.state {
        JobState::NeedsHuman(_, pause) => Some(InteractionView {
            interaction_id: pause.interaction_id,
            paused_at: pause.since,
            expires_at: pause.expires_at,
        }),
        _ => None,
    }
}

fn outcome(job: &Job) -> (Option<ResultView<'_>>, Option<ErrorView<'_>>) {
    let Some(ending) = job.ending() else {
        return (None, None);
    };
    let result = match &ending.outcome {
        Outcome::Completed(completion) => Some(ResultView {
            data: completion.result_data.as_deref(),
            summary: completion.result_summary.as_deref(),
            screenshot_artifact_id: completion.screenshot_artifact_id.as_deref(),
        }),
        _ => None,
    };
    let error = ending.outcome.error();
    (result, error.map(|(code, message)| ErrorView { code: code.as_str(), message }))
}

/// The job in the answer to a claim: what the worker needs to do it, too.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClaimedJob)]
pub(crate) struct ClaimedJobView<'j> {
    #[serde(flatten)]
    job: JobView<'j>,
    task_description: &'j str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    profile: Option<&'j RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    input_data: Option<&'j RawValue>,
    timeout_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    budget_usd: Option<Usd>,
}

impl<'j> ClaimedJobView<'j> {
    pub(crate) fn new(job: &'j Job) -> Self {
        Self {
            task_description: &job.spec.task_description,
            profile: job.spec.profile.as_deref(),
            input_data: job.spec.input_data.as_deref(),
            timeout_seconds: job.spec.timeout.as_secs(),
            budget_usd: job.spec.budget_usd,
            job: JobView::new(job, None),
        }
    }
}
