//! Whoever waits is served although every wake is lost: it takes longer, and nothing else.
#![expect(clippy::unwrap_used, reason = "a test stops where its world is not as it made it")]

use std::sync::Arc;
use std::time::Duration;

use gh_core::application::{BackgroundLoops, Claimed, ControlPlane, Ports, StreamItem, UseCaseError};
use gh_core::domain::code::{Actor, ClientName};
use gh_core::domain::commands::{Credential, Drain, Register};
use gh_core::domain::rejection::Rejection;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::worker::DirectiveType;
use gh_core::memory::MemoryStore;
use gh_core::ports::callback_sender::{MockCallbackSender, SendOutcome};
use gh_core::ports::signals::{Signals, Wake};
use gh_core::testing::{ManualClock, name, registration, rules, submission, submission_to};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Loses every wake.
#[derive(Debug)]
struct Deaf;

impl Signals for Deaf {
    fn wake(&self, _lost: Wake) {}
}

struct Stage {
    control_plane: Arc<ControlPlane>,
    clock: Arc<ManualClock>,
    /// A permit for each callback that was sent.
    sent: Arc<Semaphore>,
}

impl Stage {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = Arc::new(MemoryStore::new(clock.clone(), [7; 32]));
        let sent = Arc::new(Semaphore::new(0));
        let mut sender = MockCallbackSender::new();
        let taken = Arc::clone(&sent);
        sender.expect_send().returning(move |_| {
            taken.add_permits(1);
            SendOutcome::Answered { status: 204, retry_after: None, excerpt: String::new(), took: Duration::ZERO }
        });
        let ports = Ports { signals: Arc::new(Deaf), ..Ports::alone(store, Arc::new(sender)) };
        Self { control_plane: Arc::new(ControlPlane::new(ports, rules())), clock, sent }
    }

    async fn worker(&self) -> Credential {
        self.process("boot-1").await
    }

    async fn process(&self, boot: &str) -> Credential {
        let mut registration = Register { boot_id: name(boot), ..registration("worker-a") };
        registration.identity.target_worker_id = Some(name("sandbox-a"));
        self.control_plane.register(&registration).await.unwrap().credential
    }

    async fn submit(&self, request: SubmissionRequest) {
        self.control_plane.submit(&ClientName::new("valet"), request).await.unwrap();
    }

    /// A claim that waits while `happening` happens, with all loops.
    async fn claim_during(
        &self,
        who: &Credential,
        happening: impl Future<Output = ()>,
    ) -> Result<Option<Claimed>, UseCaseError> {
        let story = async {
            let claim = timeout(LOOKED_AT, self.control_plane.claim(who, Duration::from_secs(25)));
            let (claimed, ()) = tokio::join!(claim, async {
                while self.control_plane.worker(&who.worker_id).await.unwrap().1.vitals.claim.is_none() {
                    tokio::task::yield_now().await;
                }
                happening.await;
            });
            self.control_plane.close();
            claimed.unwrap()
        };
        tokio::join!(Box::pin(BackgroundLoops::ALL.run(&self.control_plane)), Box::pin(story)).1
    }

    async fn drain(&self) {
        let drain = Drain { worker_id: name("worker-a"), actor: Actor::System, reason: "deploy".into(), timeout: None };
        self.control_plane.drain(&drain).await.unwrap();
    }
}

/// Each second somebody looks; a little more than two of them, and far less than any wait.
const LOOKED_AT: Duration = Duration::from_millis(2100);

#[tokio::test(start_paused = true)]
async fn a_claim_gets_the_job_that_is_reserved_for_its_worker() {
    let stage = Stage::new();
    let who = stage.worker().await;
    let claimed = stage.claim_during(&who, stage.submit(submission_to("sandbox-a", "strict"))).await;
    assert_eq!(claimed.unwrap().unwrap().job.worker_id().unwrap().as_str(), "worker-a");
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_a_job_that_anyone_may_take() {
    let stage = Stage::new();
    let who = stage.worker().await;
    let claimed = stage.claim_during(&who, stage.submit(submission())).await;
    assert!(claimed.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_told_that_its_worker_takes_no_more_jobs() {
    let stage = Stage::new();
    let who = stage.worker().await;
    let refused = stage.claim_during(&who, stage.drain()).await;
    assert!(matches!(refused, Err(UseCaseError::Rejected(Rejection::WorkerDraining))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_told_that_another_process_has_taken_its_workers_name() {
    let stage = Stage::new();
    let who = stage.worker().await;
    let refused = stage.claim_during(&who, async { drop(stage.process("boot-2").await) }).await;
    assert!(matches!(refused, Err(UseCaseError::Rejected(Rejection::StaleGeneration))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_worker_missed_a_reservation_gets_the_next() {
    let stage = Stage::new();
    let who = stage.worker().await;
    let missed = async {
        // Longer than a reservation lasts, before anybody looks.
        stage.submit(submission_to("sandbox-a", "preferred")).await;
        stage.clock.advance(stage.control_plane.policy().pickup_timeout);
        while stage.control_plane.sweep_once().await.unwrap() {}
        let (_, view) = stage.control_plane.worker(&who.worker_id).await.unwrap();
        assert!(view.worker.lapsed && view.occupied_by.is_none());
        stage.clock.advance(Duration::from_secs(1));
        stage.submit(submission_to("sandbox-a", "preferred")).await;
    };
    assert!(stage.claim_during(&who, missed).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_a_directive() {
    let stage = Stage::new();
    let who = stage.worker().await;
    let mut stream = stage.control_plane.directives(who).await.unwrap();
    let told = async {
        loop {
            match stream.next().await {
                Some(StreamItem::Quiet) => {}
                item => break item,
            }
        }
    };
    let (told, ()) = tokio::join!(timeout(Duration::from_secs(8), told), async {
        tokio::task::yield_now().await;
        stage.drain().await;
    });
    let Some(StreamItem::Directive(directive)) = told.unwrap() else { panic!("the stream ended") };
    assert_eq!(directive.directive_type, DirectiveType::Drain);
}

#[tokio::test(start_paused = true)]
async fn a_callback_is_sent() {
    let stage = Stage::new();
    let who = stage.worker().await;
    let story = async {
        stage.submit(submission()).await;
        stage.control_plane.claim(&who, Duration::ZERO).await.unwrap().unwrap();
        timeout(LOOKED_AT, stage.sent.acquire()).await.unwrap().unwrap().forget();
        stage.control_plane.close();
    };
    tokio::join!(BackgroundLoops::DELIVER.run(&stage.control_plane), story);
}

#[tokio::test(start_paused = true)]
async fn a_claim_for_which_nothing_is_there_is_left_to_wait_and_shows_no_life() {
    let stage = Stage::new();
    let who = stage.worker().await;
    let seen = async || stage.control_plane.worker(&who.worker_id).await.unwrap().1.vitals;
    let claim = stage.control_plane.claim(&who, Duration::from_secs(25));
    let (claimed, ()) = tokio::join!(claim, async {
        tokio::task::yield_now().await;
        let before = seen().await;
        stage.clock.advance(Duration::from_secs(5));
        assert_eq!(stage.control_plane.wake_forgotten_claims().await.unwrap(), 0);
        assert_eq!(seen().await, before);
        stage.control_plane.close();
    });
    assert!(claimed.unwrap().is_none());
}
