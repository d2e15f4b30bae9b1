//! The life of a worker process: registering, claiming, performing, stopping.

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gh_core::domain::ids::{Attempt, JobId, WorkerId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::answer::Refusal;
use super::assignment::{Assignment, JobEnd};
use super::backoff::Backoff;
use super::client::ControlPlane;
use super::config::WorkerConfig;
use super::directives;
use super::handler::JobHandler;
use super::job;
use super::session::{Presence, Session, SessionEnd};
use super::usage::{self, UsageReport};
use super::wire::{ClaimedJob, RegisterRequest};

/// The wait before a contested name is asked for again, when the server names none.
const CONTESTED_WAIT: Duration = Duration::from_secs(60);
/// A claim that is answered "nothing" faster than this was not waited for, and is not repeated at once.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

/// A registration that lasted so long was a good one: the next follows it without delay.
const STEADY: Duration = Duration::from_secs(60);

/// Why a worker process is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerExit {
    /// It was asked to stop. Exit code 0.
    Stopped,
    /// It was deregistered, or its credentials are refused. Exit code 64: do not restart it.
    Retired,
    /// A newer process has its name. Exit code 65: do not restart it.
    Replaced,
    /// The control plane takes no registration of this form. Exit code 78: do not restart it unchanged.
    Misconfigured(Refusal),
}

impl WorkerExit {
    /// The code that the process should exit with. A supervisor should not restart after 64, 65 and 78 (systemd:
    /// `RestartPreventExitStatus=64 65 78`).
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Retired => 64,
            Self::Replaced => 65,
            Self::Misconfigured(_) => 78,
        }
    }
}

impl From<WorkerExit> for ExitCode {
    fn from(exit: WorkerExit) -> Self {
        Self::from(exit.code())
    }
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => formatter.write_str("stopped"),
            Self::Retired => formatter.write_str("retired: this worker must not come back"),
            Self::Replaced => formatter.write_str("replaced by a newer process of the same name"),
            Self::Misconfigured(refusal) => write!(formatter, "cannot register: {refusal}"),
        }
    }
}

/// A worker process.
pub struct Worker {
    config: Arc<WorkerConfig>,
    handler: Arc<dyn JobHandler>,
    plane: ControlPlane,
    boot_id: Uuid,
}

impl fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Worker")
            .field("config", &self.config)
            .field("boot_id", &self.boot_id)
            .finish_non_exhaustive()
    }
}

/// A job in the works. Dropping it ends it.
struct Running {
    assignment: Arc<Assignment>,
    task: JoinSet<()>,
}

impl Running {
    async fn over(&mut self) {
        // The task's own panics are its end too.
        let _ = self.task.join_next().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The session and the attempt know each other; this parts them.
        self.assignment.session.set_presence(Presence::Free);
    }
}

/// What a running worker carries from one registration to the next.
struct Life {
    worker: Worker,
    worker_id: Option<WorkerId>,
    running: Option<Running>,
    usage: mpsc::Sender<UsageReport>,
    shutdown: CancellationToken,
}

/// Why a registration is not served any more.
enum ServeEnd {
    Session(SessionEnd),
    Stop,
}

impl Worker {
    /// A worker that performs its jobs with `handler`. Each value is one boot, with a `boot_id` of its own.
    #[must_use]
    pub fn new(config: WorkerConfig, handler: Arc<dyn JobHandler>) -> Self {
        let plane = ControlPlane::new(
            config.client.clone(),
            config.base_url.clone(),
            Arc::clone(&config.host),
            config.limits.request_timeout,
        );
        let boot_id = uuid::Builder::from_random_bytes(config.host.random_bits().to_be_bytes()).into_uuid();
        Self { config: Arc::new(config), handler, plane, boot_id }
    }

    /// Lives until `shutdown` is cancelled or the control plane wants this worker no more. All its tasks end with it,
    /// also when the returned future is dropped.
    pub async fn run(self, shutdown: CancellationToken) -> WorkerExit {
        let farewell = self.config.limits.farewell;
        let (usage, reports) = mpsc::channel(usage::MOST_WAITING);
        let mut deliveries = JoinSet::new();
        deliveries.spawn(usage::deliver(reports));
        let life = Life { worker_id: self.config.worker_id.clone(), worker: self, running: None, usage, shutdown };
        let exit = Box::pin(life.live()).await;
        // `live` dropped the last sender: what was not reported yet gets a last chance.
        if tokio::time::timeout(farewell, deliveries.join_next()).await.is_err() {
            tracing::error!("usage of LLM calls could not be reported before the exit");
        }
        tracing::info!(%exit, "the worker exits");
        exit
    }
}

impl Life {
    async fn live(mut self) -> WorkerExit {
        let config = Arc::clone(&self.worker.config);
        let mut was_stale = false;
        let mut pace = Backoff::new(config.limits.backoff_base, config.limits.backoff_cap);
        loop {
            let session = match self.register(was_stale).await {
                Ok(session) => session,
                Err(exit) => {
                    self.finish_running(None).await;
                    return exit;
                }
            };
            let registered_at = config.host.continuous_clock();
            let mut voices = JoinSet::new();
            let heart = Arc::clone(&session);
            voices.spawn(async move { heart.keep_alive().await });
            let end = self.serve(&session, &mut voices).await;
            let end = match end {
                ServeEnd::Session(end) => end,
                ServeEnd::Stop => return self.stop(&session, voices).await,
            };
            if let Some(running) = &self.running {
                running.assignment.lose_session(end);
            }
            if end != SessionEnd::ShutDown {
                voices.shutdown().await;
                session.set_presence(Presence::Free);
            }
            match end {
                SessionEnd::Stale => was_stale = true,
                SessionEnd::Unknown => was_stale = false,
                SessionEnd::Deregistered | SessionEnd::Unauthorized => {
                    self.finish_running(None).await;
                    return WorkerExit::Retired;
                }
                SessionEnd::ShutDown => {
                    self.finish_running(Some(&session)).await;
                    voices.shutdown().await;
                    // The acknowledgement says that the worker is free; whether it is heard changes nothing here.
                    let _ = session.beat(config.limits.farewell).await;
                    return WorkerExit::Retired;
                }
            }
            // Registrations that end as soon as they begin must not make a storm.
            if config.host.continuous_clock().saturating_sub(registered_at) >= STEADY {
                pace.reset();
            }
            tokio::select! {
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep(pace.next(&*config.host, None)) => {}
            }
        }
    }

    /// Registers, for as long as it takes.
    async fn register(&mut self, was_stale: bool) -> Result<Arc<Session>, WorkerExit> {
        let config = Arc::clone(&self.worker.config);
        let body = RegisterRequest {
            worker_id: self.worker_id.clone(),
            boot_id: self.worker.boot_id,
            environment: config.environment.clone(),
            target_worker_id: config.target_worker_id.clone(),
            ec2_instance_id: config.ec2_instance_id.clone(),
            ec2_ip: config.ec2_ip.clone(),
            live_view_url: config.live_view_url.clone(),
            version: config.version.clone(),
        };
        let mut backoff = Backoff::new(config.limits.backoff_base, config.limits.backoff_cap);
        loop {
            let answer = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Err(WorkerExit::Stopped),
                answer = self.worker.plane.register(&config.worker_key, &body) => answer,
            };
            let refusal = match answer {
                Ok(registration) => {
                    tracing::info!(worker_id = %registration.worker_id, generation = %registration.generation, "registered");
                    self.worker_id = Some(registration.worker_id.clone());
                    let link = self.worker.plane.connect(&registration);
                    return Ok(Arc::new(Session::new(link, config, &registration)));
                }
                Err(refusal) => refusal,
            };
            let retry_after = match refusal {
                Refusal::Deregistered if was_stale => return Err(WorkerExit::Replaced),
                Refusal::Deregistered | Refusal::Unauthorized => return Err(WorkerExit::Retired),
                Refusal::Contested { retry_after } => Some(retry_after.unwrap_or(CONTESTED_WAIT)),
                // A 404 comes from something before a server that is being replaced; it is asked again.
                Refusal::Rejected { status, .. } if status != 404 => {
                    return Err(WorkerExit::Misconfigured(refusal));
                }
                Refusal::Unanswered { retry_after } => retry_after,
                Refusal::Rejected { .. }
                | Refusal::LeaseLost
                | Refusal::GenerationStale
                | Refusal::WorkerUnknown
                | Refusal::LeaseHeld { .. }
                | Refusal::Draining
                | Refusal::Paused
                | Refusal::SpendingStopped => None,
            };
            let wait = backoff.next(&*config.host, retry_after);
            tracing::warn!(%refusal, ?wait, "not registered yet");
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Err(WorkerExit::Stopped),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Claims and performs jobs, until the registration is over or the process should stop.
    async fn serve(&mut self, session: &Arc<Session>, voices: &mut JoinSet<()>) -> ServeEnd {
        if let Some(running) = &self.running {
            // A job of an earlier registration tells its outcome first. Without the stream this worker gets no other.
            session.set_presence(Presence::Finishing(Arc::clone(&running.assignment)));
            if let Some(end) = self.attend(session).await {
                return end;
            }
        }
        let ear = Arc::clone(session);
        voices.spawn(async move { directives::listen(&ear).await });
        loop {
            let claimed = tokio::select! {
                biased;
                end = session.ended() => return ServeEnd::Session(end),
                () = self.shutdown.cancelled() => return ServeEnd::Stop,
                claimed = claim(session) => claimed,
            };
            self.start(session, claimed);
            if let Some(end) = self.attend(session).await {
                return end;
            }
        }
    }

    fn start(&mut self, session: &Arc<Session>, claimed: Claimed) {
        let Claimed { job, sent_at } = claimed;
        let assignment = Arc::new(Assignment::new(Arc::clone(session), job.job.job_id, job.attempt, sent_at));
        tracing::info!(job_id = %assignment.job_id, attempt = %assignment.attempt, "claimed");
        session.set_presence(Presence::Working(Arc::clone(&assignment)));
        let mut task = JoinSet::new();
        task.spawn(job::perform(Arc::clone(&self.worker.handler), job, Arc::clone(&assignment), self.usage.clone()));
        self.running = Some(Running { assignment, task });
    }

    /// Waits for the end of the running job; gives back what came first instead.
    async fn attend(&mut self, session: &Session) -> Option<ServeEnd> {
        let running = self.running.as_mut()?;
        tokio::select! {
            biased;
            end = session.ended() => return Some(ServeEnd::Session(end)),
            () = self.shutdown.cancelled() => return Some(ServeEnd::Stop),
            () = running.over() => {}
        }
        session.job_over(&running.assignment);
        self.running = None;
        None
    }

    /// Waits for the end of a job that has been told to end, or that only tells its outcome; at most as long as
    /// anybody would listen.
    async fn finish_running(&mut self, session: Option<&Session>) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let limits = &self.worker.config.limits;
        let patience = limits.outcome_grace + limits.clean_up + limits.farewell;
        let over = tokio::select! {
            biased;
            over = tokio::time::timeout(patience, running.over()) => over.is_ok(),
            () = async {
                self.shutdown.cancelled().await;
                tokio::time::sleep(limits.stop_grace).await;
            } => false,
        };
        if !over {
            running.assignment.end(JobEnd::Stopping);
            let _ = tokio::time::timeout(limits.clean_up + limits.farewell, running.over()).await;
        }
        if let Some(session) = session {
            session.job_over(&running.assignment);
        }
    }

    /// Stops in good order: no further claim, the job finished or given back, goodbye.
    async fn stop(mut self, session: &Session, mut voices: JoinSet<()>) -> WorkerExit {
        session.begin_stopping();
        let limits = self.worker.config.limits;
        let ended = tokio::select! {
            biased;
            end = session.ended() => Some(end),
            () = async {
                if let Some(running) = &mut self.running {
                    if tokio::time::timeout(limits.stop_grace, running.over()).await.is_err() {
                        running.assignment.end(JobEnd::Stopping);
                        let last = limits.clean_up + limits.farewell;
                        let _ = tokio::time::timeout(last, running.over()).await;
                    }
                    session.job_over(&running.assignment);
                }
            } => None,
        };
        if let Some(end) = ended {
            if let Some(running) = &self.running {
                running.assignment.lose_session(end);
            }
            voices.shutdown().await;
            self.finish_running(Some(session)).await;
            return match end {
                SessionEnd::Stale | SessionEnd::Unknown => WorkerExit::Stopped,
                SessionEnd::Deregistered | SessionEnd::Unauthorized | SessionEnd::ShutDown => WorkerExit::Retired,
            };
        }
        voices.shutdown().await;
        if tokio::time::timeout(limits.farewell, say_goodbye(session)).await.is_err() {
            tracing::warn!("the goodbye was not answered");
        }
        WorkerExit::Stopped
    }
}

/// Says goodbye until it is answered.
async fn say_goodbye(session: &Session) {
    let config = &session.config;
    let mut backoff = Backoff::new(config.limits.backoff_base, config.limits.backoff_cap);
    while let Err(Refusal::Unanswered { retry_after }) = session.link.goodbye(config.stop_reason.clone()).await {
        tokio::time::sleep(backoff.next(&*config.host, retry_after)).await;
    }
}

/// A job that was granted to a claim sent at `sent_at`, by the continuous clock.
struct Claimed {
    job: ClaimedJob,
    sent_at: Duration,
}

/// Claims until there is a job.
async fn claim(session: &Session) -> Claimed {
    let config = &session.config;
    let mut backoff = Backoff::new(config.limits.backoff_base, config.limits.backoff_cap);
    loop {
        session.may_claim().await;
        session.set_presence(Presence::Claiming);
        let sent_at = config.host.continuous_clock();
        let answer = tokio::select! {
            biased;
            answer = session.link.claim(config.limits.claim_wait) => answer,
            () = session.must_not_claim() => {
                session.set_presence(Presence::Free);
                continue;
            }
        };
        let retry_after = match answer {
            Ok(Some(job)) => return Claimed { job, sent_at },
            Ok(None) => {
                let waited = config.host.continuous_clock().saturating_sub(sent_at);
                if waited >= SHORTEST_WAIT {
                    backoff.reset();
                    continue;
                }
                None
            }
            Err(Refusal::LeaseHeld { job_id, attempt }) => {
                give_back(session, job_id, attempt).await;
                None
            }
            Err(refusal) => session.heed(&refusal),
        };
        tokio::time::sleep(backoff.next(&*config.host, retry_after)).await;
    }
}

/// Gives back a job that the server believes to be here, and that is not.
async fn give_back(session: &Session, job_id: JobId, attempt: Attempt) {
    tracing::warn!(%job_id, %attempt, "the control plane believes that this worker has a job; it is given back");
    let reason = "the worker does not have this job any more".to_owned();
    if let Err(refusal) = session.link.release(job_id, attempt, reason).await {
        session.heed(&refusal);
    }
}
