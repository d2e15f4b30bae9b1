//! What a handler can do while it performs a job.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gh_core::domain::ids::{Attempt, JobId, WorkerId};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::WaitForCancellationFuture;

use super::answer::Refusal;
use super::assignment::{Assignment, Next};
use super::events::Event;
use super::host::Host;
use super::lease::Standing;
use super::usage::{MOST_CALLS, UsageReport};
use super::wire::UsageCall;

/// How long the point of no return waits for earlier events to be answered.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// Why a call of the context gave up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// The job was cancelled, lost, or is over for another reason: do nothing more.
    #[error("the job has ended")]
    JobEnded,
    /// The control plane refused the call for good.
    #[error("the control plane refused the call")]
    Refused(#[source] Refusal),
}

/// The time in which a job may act past its point of no return.
#[derive(Debug, Clone)]
pub struct ActWindow {
    host: Arc<dyn Host>,
    closes_at: Duration,
}

impl ActWindow {
    /// Whether there is still time. When not, call [`JobContext::side_effects_started`] again before acting.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.host.continuous_clock() < self.closes_at
    }
}

#[derive(Debug, Default)]
struct Plan {
    step_index: Option<u64>,
    total_steps: Option<u64>,
}

/// One job's line to the control plane. Clones share it.
#[derive(Debug, Clone)]
pub struct JobContext {
    assignment: Arc<Assignment>,
    usage: mpsc::Sender<UsageReport>,
    plan: Arc<Mutex<Plan>>,
}

impl JobContext {
    pub(super) fn new(assignment: Arc<Assignment>, usage: mpsc::Sender<UsageReport>) -> Self {
        Self { assignment, usage, plan: Arc::default() }
    }

    /// The job.
    #[must_use]
    pub fn job_id(&self) -> JobId {
        self.assignment.job_id
    }

    /// The attempt.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        self.assignment.attempt
    }

    /// The worker.
    #[must_use]
    pub fn worker_id(&self) -> &WorkerId {
        self.assignment.link.worker_id()
    }

    /// Call it before every act on the page and before every LLM call: it waits while the job is frozen, which is when
    /// the control plane has not confirmed the lease for too long.
    ///
    /// # Errors
    ///
    /// [`Interrupted::JobEnded`].
    pub async fn checkpoint(&self) -> Result<(), Interrupted> {
        tokio::select! {
            biased;
            () = self.assignment.cancelled.cancelled() => Err(Interrupted::JobEnded),
            () = self.assignment.fence.live() => Ok(()),
        }
    }

    /// Whether a [`checkpoint`](Self::checkpoint) would wait now.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.assignment.fence.standing() != Standing::Live
    }

    /// Waits until the job is ended from outside. The handler's own future is dropped then; this is for tasks and
    /// processes that it started.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.assignment.cancelled.cancelled()
    }

    /// Whether no further LLM call is allowed. It stays so.
    #[must_use]
    pub fn spending_stopped(&self) -> bool {
        self.assignment.spending_stopped()
    }

    /// Reports an event. It is sent in order with the others within a fraction of a second; the present step and the
    /// number of steps are added to its details.
    pub fn event(&self, mut event: Event) {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = plan.step_index {
            event.default_detail("step_index", index);
        }
        if let Some(total) = plan.total_steps {
            event.default_detail("total_steps", total);
        }
        drop(plan);
        self.assignment.record(event);
    }

    /// Says how many steps and recipes the job will probably have.
    pub fn plan(&self, total_steps: u64) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).total_steps = Some(total_steps);
    }

    fn next_step(&self) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.step_index = Some(plan.step_index.map_or(1, |index| index + 1));
    }

    /// Begins the next step: `step_started`.
    pub fn step(&self, message: impl Into<String>) -> Step {
        self.next_step();
        self.event(Event::new("step_started").message(message));
        Step { context: self.clone() }
    }

    /// Begins the next step as a cookbook recipe: `cookbook_step_started`.
    pub fn recipe(&self, name: impl Into<String>) -> Recipe {
        let name = name.into();
        self.next_step();
        self.event(
            Event::new("cookbook_step_started").message(format!("Running recipe: {name}")).detail("recipe", &name),
        );
        Recipe { context: self.clone(), name }
    }

    /// Begins to look at the page: `observation_started`.
    pub fn observation(&self, message: impl Into<String>) -> Observation {
        self.event(Event::new("observation_started").message(message));
        Observation { context: self.clone() }
    }

    /// Tells what the model thinks: `thought`.
    pub fn thought(&self, message: impl Into<String>) {
        self.event(Event::new("thought").message(message));
    }

    /// The job changes between cookbook and AI: `mode_switched`.
    pub fn mode_switched(&self, from_mode: &str, to_mode: &str, reason: &str) {
        self.event(
            Event::new("mode_switched")
                .message(format!("Switched from {from_mode} to {to_mode}: {reason}"))
                .detail("fromMode", from_mode)
                .detail("toMode", to_mode)
                .detail("reason", reason),
        );
    }

    /// How far the job is, 0–100: `progress_update`. More counts as 100.
    pub fn progress(&self, percent: u8) {
        let percent = percent.min(100);
        self.event(Event::new("progress_update").message(format!("{percent} % done")).detail("progress_pct", percent));
    }

    /// The page that the browser shows, for the registry.
    pub fn current_task_url(&self, url: impl Into<String>) {
        self.assignment.set_current_task_url(url.into());
    }

    /// The browser's session, for the registry.
    pub fn browser_session_id(&self, id: impl Into<String>) {
        self.assignment.set_browser_session_id(id.into());
    }

    /// Reports LLM calls and gives back whether no further one is allowed. When the control plane does not answer for
    /// a while it returns, and the delivery goes on by itself, beyond the end of the job too.
    ///
    /// # Errors
    ///
    /// [`Interrupted::JobEnded`] when the process stops.
    pub async fn usage(&self, calls: impl IntoIterator<Item = UsageCall>) -> Result<bool, Interrupted> {
        let encoded = calls.into_iter().filter_map(|call| {
            let raw = serde_json::value::to_raw_value(&call).ok()?;
            Some((call.call_id, raw))
        });
        self.report_usage(encoded.collect()).await
    }

    /// Reports calls that are encoded already, each with its `call_id`.
    pub(super) async fn report_usage(&self, calls: Vec<(String, Box<RawValue>)>) -> Result<bool, Interrupted> {
        let ids =
            |calls: &[(String, Box<RawValue>)]| -> Vec<String> { calls.iter().map(|(id, _)| id.clone()).collect() };
        self.assignment.announce_calls(&ids(&calls));
        self.flush_events().await;
        let mut last = None;
        for chunk in calls.chunks(MOST_CALLS) {
            let (answered, answer) = oneshot::channel();
            let report = UsageReport {
                assignment: Arc::clone(&self.assignment),
                call_ids: ids(chunk),
                calls: chunk.iter().map(|(_, raw)| raw.clone()).collect(),
                answered,
            };
            self.usage.send(report).await.map_err(|_| Interrupted::JobEnded)?;
            last = Some(answer);
        }
        // Reports are delivered in order, so the last answer stands for all.
        if let Some(answer) = last {
            let patience = self.assignment.session.config.limits.usage_patience;
            let _ = tokio::time::timeout(patience, answer).await;
        }
        Ok(self.spending_stopped())
    }

    /// Passes the point of no return: call it right before what must not happen twice, and act while the window that
    /// it gives back is open. It returns only when the control plane has recorded it.
    ///
    /// # Errors
    ///
    /// [`Interrupted`]: do not act.
    pub async fn side_effects_started(&self, what: Option<&str>) -> Result<ActWindow, Interrupted> {
        let ask = async {
            self.flush_events().await;
            self.ask_to_act(what).await
        };
        tokio::select! {
            biased;
            () = self.assignment.cancelled.cancelled() => Err(Interrupted::JobEnded),
            window = ask => window,
        }
    }

    /// Lets events that wait go first, so that the feed tells things in their order. Events that are late are no reason
    /// to hold anything back for long.
    async fn flush_events(&self) {
        let _ = tokio::time::timeout(FLUSH_PATIENCE, self.assignment.events.flushed()).await;
    }

    async fn ask_to_act(&self, what: Option<&str>) -> Result<ActWindow, Interrupted> {
        let job = &*self.assignment;
        let config = &job.session.config;
        let mut backoff = job.backoff();
        loop {
            job.fence.live().await;
            let resumes = job.resumes();
            let sent_at = config.host.continuous_clock();
            match job.link.side_effects_started(job.job_id, job.attempt, what).await {
                Ok(()) => {
                    job.fence.pass_no_return();
                    let window =
                        ActWindow { host: Arc::clone(&config.host), closes_at: sent_at + config.limits.act_within };
                    if window.is_open() {
                        return Ok(window);
                    }
                    job.back_off(&mut backoff, None).await;
                }
                Err(refusal) => match job.heed(&refusal) {
                    Next::Repeat(retry_after) => job.back_off(&mut backoff, retry_after).await,
                    Next::AwaitResume => job.resumed_after(resumes).await,
                    Next::Drop => return Err(Interrupted::Refused(refusal)),
                    Next::Over => return Err(Interrupted::JobEnded),
                },
            }
        }
    }
}

/// A step that has begun.
#[derive(Debug)]
#[must_use = "a step ends with `completed`"]
pub struct Step {
    context: JobContext,
}

impl Step {
    /// It is done: `step_completed`.
    pub fn completed(self, message: impl Into<String>) {
        self.context.event(Event::new("step_completed").message(message));
    }
}

/// A recipe that has begun.
#[derive(Debug)]
#[must_use = "a recipe ends with `completed` or `failed`"]
pub struct Recipe {
    context: JobContext,
    name: String,
}

impl Recipe {
    /// It is done: `cookbook_step_completed`.
    pub fn completed(self, message: impl Into<String>) {
        let event = Event::new("cookbook_step_completed").message(message);
        self.context.event(event.detail("recipe", &self.name));
    }

    /// It did not work: `cookbook_step_failed`.
    pub fn failed(self, reason: &str) {
        let event = Event::new("cookbook_step_failed").message(format!("Recipe failed: {reason}"));
        self.context.event(event.detail("recipe", &self.name).detail("reason", reason));
    }
}

/// A look at the page that has begun.
#[derive(Debug)]
#[must_use = "an observation ends with `completed`"]
pub struct Observation {
    context: JobContext,
}

impl Observation {
    /// It is done: `observation_completed`.
    pub fn completed(self, message: impl Into<String>) {
        self.context.event(Event::new("observation_completed").message(message));
    }
}
