//! A control plane that groups commands, over a store behind a [`Door`]; and another that does not, beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use gh_core::application::{BackgroundLoops, ControlPlane, GroupCommit, Ports, UseCaseError, Wakeups};
use gh_core::domain::code::{Actor, ClientName};
use gh_core::domain::commands::{
    Cancel, Claim, Command, Credential, Draft, DrainWish, EventReport, Heartbeat, JobClaim, ReportEvents, Submitted,
    Traffic,
};
use gh_core::domain::ids::{Attempt, ConnectionId, JobId};
use gh_core::domain::job::Job;
use gh_core::domain::rejection::Rejection;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::Keys;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::worker::Beat;
use gh_core::memory::MemoryStore;
use gh_core::ports::callback_sender::MockCallbackSender;
use gh_core::ports::reader::{JobEventQuery, JobQuery, Reader};
use gh_core::ports::store::{ClaimRequest, Store};
use gh_core::testing::{ManualClock, name, registration, rules, submission};
use uuid::Uuid;

use crate::store::Door;

pub(crate) struct Stage {
    /// Groups commands, while the loops run.
    pub(crate) grouping: ControlPlane,
    /// Another writer on the same store.
    pub(crate) direct: ControlPlane,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) door: Arc<Door>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) rules: Rules,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(&GroupCommit::default())
    }

    pub(crate) fn with(settings: &GroupCommit) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = Arc::new(MemoryStore::new(clock.clone(), [7; 32]));
        let door = Arc::new(Door::new(store.clone(), clock.clone()));
        let rules = rules();
        let control_plane = |writes: Arc<dyn Store>| {
            let wakeups = Arc::new(Wakeups::new());
            let ports = Ports {
                store: writes,
                reader: store.clone(),
                outbox: store.clone(),
                // Callbacks are made, and nobody sends them within the time of a test.
                sender: Arc::new(MockCallbackSender::new()),
                signals: wakeups.clone(),
                wakeups,
            };
            ControlPlane::new(ports, rules.clone())
        };
        let grouping = control_plane(door.clone()).with_group_commit(settings);
        let direct = control_plane(store.clone());
        Self { grouping, direct, store, door, clock, rules }
    }

    /// Runs the committers while something happens; closes them afterwards.
    pub(crate) async fn while_committing<T>(&self, happening: impl Future<Output = T>) -> T {
        let happening = async {
            let outcome = happening.await;
            self.door.open();
            self.grouping.close();
            outcome
        };
        tokio::join!(biased; BackgroundLoops::COMMIT.run(&self.grouping), happening).1
    }

    /// Has `calls` decided in one batch: they come while another command is being stored. Counting begins with them.
    pub(crate) async fn in_one_batch<T>(&self, calls: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
        let calls = self.held_in_one_batch(calls).await;
        self.door.open();
        calls.await
    }

    /// The same, but the commit of that batch waits until the door is opened.
    pub(crate) async fn held_in_one_batch<T>(
        &self,
        calls: impl IntoIterator<Item = impl Future<Output = T>>,
    ) -> impl Future<Output = Vec<T>> {
        let mut calls = Box::pin(join_all(calls));
        let first = self.begin_a_batch().await;
        assert!((&mut calls).now_or_never().is_none(), "all of them wait");
        self.door.forget();
        self.door.let_through(1);
        first.await.unwrap();
        calls
    }

    /// Closes the door with an ordinary command before it.
    pub(crate) async fn begin_a_batch(&self) -> impl Future<Output = Result<Submitted, UseCaseError>> + '_ {
        self.door.close();
        self.door.forget();
        let mut first = Box::pin(self.submit(submission()));
        assert!((&mut first).now_or_never().is_none());
        self.door.came(1).await;
        first
    }

    pub(crate) async fn submit(&self, request: SubmissionRequest) -> Result<Submitted, UseCaseError> {
        self.grouping.submit(&client(), request).await
    }

    /// A worker that listens.
    pub(crate) async fn worker(&self, id: &str, target: Option<&str>) -> Credential {
        let mut register = registration(id);
        register.identity.target_worker_id = target.map(name);
        register.identity.ec2_instance_id = Some(name("machine-1"));
        let who = self.direct.register(&register).await.unwrap().credential;
        self.direct.execute(&claim(&who, 1)).await.unwrap();
        who
    }

    /// A job that this worker has.
    pub(crate) async fn running_job(&self, who: &Credential) -> JobId {
        let id = self.direct.submit(&client(), submission()).await.unwrap().job.id;
        let request = ClaimRequest::waiting(vec![who.worker_id.clone()]);
        let granted = self.store.claim(request, &self.rules).await.unwrap().committed;
        assert_eq!(granted[0].jobs()[0].job.id, id);
        id
    }

    pub(crate) async fn jobs(&self) -> Vec<Arc<Job>> {
        let query = JobQuery { limit: usize::MAX, ..JobQuery::default() };
        let mut jobs = self.store.jobs(&query).await.unwrap();
        jobs.sort_unstable_by_key(|job| job.id);
        jobs
    }

    /// The events of a job by number and type.
    pub(crate) async fn events(&self, job_id: JobId) -> Vec<(u64, String)> {
        let query = JobEventQuery { job_id, after_seq: 0, event_types: Vec::new(), limit: usize::MAX };
        let events = self.store.job_events(&query).await.unwrap();
        events.iter().map(|event| (event.seq, event.event_type.as_str().to_owned())).collect()
    }
}

pub(crate) fn client() -> ClientName {
    ClientName::new("valet")
}

pub(crate) fn actor() -> Actor {
    Actor::Client(client())
}

pub(crate) fn with_key(key: &str, task: &str) -> SubmissionRequest {
    SubmissionRequest { idempotency_key: Some(key.into()), task_description: Some(task.into()), ..submission() }
}

pub(crate) fn cancel(job_id: JobId) -> Cancel {
    Cancel { job_id, actor: actor(), reason: None }
}

pub(crate) fn claim(who: &Credential, connection: u128) -> Claim {
    let connection = ConnectionId::new(Uuid::from_u128(connection));
    Claim { who: who.clone(), connection, wait: Duration::from_secs(30), waited: false }
}

pub(crate) fn heartbeat(who: &Credential) -> Heartbeat {
    Heartbeat {
        who: who.clone(),
        beat: Beat::default(),
        job: JobClaim::Silent,
        drain: DrainWish::Silent,
        acknowledged: Vec::new(),
    }
}

/// A report of one event.
pub(crate) fn report(who: &Credential, job_id: JobId, event_type: &str) -> ReportEvents {
    let event = EventReport {
        event_type: event_type.into(),
        message: None,
        metadata: None,
        occurred_at: None,
        worker_seq: None,
    };
    ReportEvents { who: who.clone(), job_id, attempt: Attempt::FIRST, events: vec![event] }
}

/// A command that counts how often it is decided.
#[derive(Clone)]
pub(crate) struct Counted<C> {
    command: C,
    decided: Arc<AtomicUsize>,
}

impl<C> Counted<C> {
    pub(crate) fn new(command: C) -> Self {
        Self { command, decided: Arc::default() }
    }

    pub(crate) fn times(&self) -> usize {
        self.decided.load(Ordering::SeqCst)
    }
}

impl<C: Command> Command for Counted<C> {
    type Answer = C::Answer;

    fn traffic(&self) -> Traffic {
        self.command.traffic()
    }

    fn keys(&self) -> Keys {
        self.command.keys()
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<C::Answer, Rejection> {
        self.decided.fetch_add(1, Ordering::SeqCst);
        self.command.decide(draft)
    }
}

/// A command that is a defect.
#[derive(Clone)]
pub(crate) struct Panics;

impl Command for Panics {
    type Answer = ();

    fn keys(&self) -> Keys {
        Keys::default()
    }

    fn decide(&self, _: &mut Draft<'_>) -> Result<(), Rejection> {
        panic!("a defect")
    }
}
