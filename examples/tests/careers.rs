//! How a service around the core is tested: in memory, with mocks of what is outside, and without waiting.
//!
//! The store is the real one in memory, for logic on a mocked store would test the mock. Receivers of callbacks are a
//! [`MockCallbackSender`]. Time is a [`ManualClock`] that only the test turns, and the loops are called step by step.
#![expect(clippy::unwrap_used, reason = "a test may stop where its world is not as it made it")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gh_core::application::{ControlPlane, Ports};
use gh_core::domain::commands::{Credential, Report, ReportOutcome, UsageClosing};
use gh_core::domain::ids::JobId;
use gh_core::domain::job::Completion;
use gh_core::memory::MemoryStore;
use gh_core::ports::callback_sender::{MockCallbackSender, SendError, SendOutcome};
use gh_core::testing::{ManualClock, registration, rules};
use gh_examples::careers::{ApplicationState, Careers, CareersError, Posting, id_of};
use serde_json::Value;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);
const TAKEN: SendOutcome =
    SendOutcome::Answered { status: 204, retry_after: None, excerpt: String::new(), took: Duration::ZERO };
const NOBODY_THERE: SendOutcome = SendOutcome::Unanswered { error: SendError::Connect, took: Duration::ZERO };

/// The service with a control plane in memory.
struct Stage {
    careers: Careers,
    control_plane: Arc<ControlPlane>,
    clock: Arc<ManualClock>,
}

impl Stage {
    fn new(sender: MockCallbackSender) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = Arc::new(MemoryStore::new(clock.clone(), [7; 32]));
        let ports = Ports::alone(store, Arc::new(sender));
        let control_plane = Arc::new(ControlPlane::new(ports, rules()));
        Self { careers: Careers::new(Arc::clone(&control_plane)), control_plane, clock }
    }

    async fn apply(&self, posting: &Posting) -> JobId {
        self.careers.apply_to(customer(), posting).await.unwrap().id
    }

    async fn state(&self, id: JobId) -> ApplicationState {
        self.careers.application(customer(), id).await.unwrap().state
    }

    /// A worker comes and takes the job that waits.
    async fn worker_begins(&self) -> Credential {
        let who = self.control_plane.register(&registration("worker-a")).await.unwrap().credential;
        assert!(self.control_plane.claim(&who, Duration::ZERO).await.unwrap().is_some(), "a job waits");
        who
    }

    async fn worker_completes(&self, who: Credential, job_id: JobId, summary: &str) {
        let attempt = self.control_plane.job(job_id).await.unwrap().attempt;
        let completion = Completion { result_summary: Some(summary.into()), ..Completion::default() };
        let report = Report::Complete(completion, UsageClosing::default());
        self.control_plane.report_outcome(&ReportOutcome { who, job_id, attempt, report }).await.unwrap();
    }

    /// Does what the delivery loop would do now; says how many callbacks went out.
    async fn deliver(&self) -> usize {
        self.control_plane.deliver_once().await.unwrap()
    }
}

fn customer() -> Uuid {
    id_of("ada")
}

fn posting(tell: Option<&str>) -> Posting {
    let url = "https://jobs.example.com/1".parse().unwrap();
    Posting { url, tell: tell.map(|url| url.parse().unwrap()) }
}

const ADA: Option<&str> = Some("https://ada.example.org/inbox");

#[tokio::test]
async fn the_customer_is_told_that_the_application_is_under_way_and_that_it_was_sent() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut sender = MockCallbackSender::new();
    let inbox = Arc::clone(&told);
    sender.expect_send().times(2).returning(move |callback| {
        assert_eq!(callback.url.as_str(), "https://ada.example.org/inbox");
        let body: Value = serde_json::from_slice(&callback.body).unwrap();
        inbox.lock().unwrap().push((body["status"].clone(), body["result_summary"].clone()));
        TAKEN
    });
    let stage = Stage::new(sender);
    let id = stage.apply(&posting(ADA)).await;
    assert_eq!(stage.state(id).await, ApplicationState::Waiting);
    let who = stage.worker_begins().await;
    assert_eq!((stage.state(id).await, stage.deliver().await), (ApplicationState::Applying, 1));
    stage.worker_completes(who, id, "Submitted with 12 fields").await;
    assert_eq!((stage.state(id).await, stage.deliver().await), (ApplicationState::Sent, 1));
    let told = told.lock().unwrap();
    assert_eq!(*told, [("running".into(), Value::Null), ("completed".into(), "Submitted with 12 fields".into())]);
}

#[tokio::test]
async fn nothing_is_sent_to_a_customer_who_gave_no_address() {
    let mut sender = MockCallbackSender::new();
    sender.expect_send().never();
    let stage = Stage::new(sender);
    let id = stage.apply(&posting(None)).await;
    let who = stage.worker_begins().await;
    stage.worker_completes(who, id, "Submitted").await;
    assert_eq!(stage.deliver().await, 0);
    let application = stage.careers.application(customer(), id).await.unwrap();
    assert_eq!(application.note.as_deref(), Some("Submitted"));
}

#[tokio::test]
async fn a_customer_who_is_away_is_told_again_when_it_is_time() {
    let mut sender = MockCallbackSender::new();
    sender.expect_send().times(1).returning(|_| NOBODY_THERE);
    sender.expect_send().times(1).withf(|callback| callback.attempt == 2).returning(|_| TAKEN);
    let stage = Stage::new(sender);
    stage.apply(&posting(ADA)).await;
    stage.worker_begins().await;
    assert_eq!(stage.deliver().await, 1);
    assert_eq!(stage.deliver().await, 0, "not before its time");
    stage.clock.advance(Duration::from_secs(6));
    assert_eq!(stage.deliver().await, 1);
}

#[tokio::test]
async fn an_application_that_nobody_takes_in_a_day_is_given_up() {
    let stage = Stage::new(MockCallbackSender::new());
    let id = stage.apply(&posting(None)).await;
    stage.clock.advance(23 * HOUR);
    stage.control_plane.sweep_once().await.unwrap();
    assert_eq!(stage.state(id).await, ApplicationState::Waiting);
    stage.clock.advance(HOUR);
    stage.control_plane.sweep_once().await.unwrap();
    assert_eq!(stage.state(id).await, ApplicationState::NotSent);
}

#[tokio::test]
async fn applying_twice_is_once_and_nobody_sees_the_applications_of_others() {
    let stage = Stage::new(MockCallbackSender::new());
    let id = stage.apply(&posting(None)).await;
    assert_eq!(stage.apply(&posting(None)).await, id);
    let other = stage.careers.application(id_of("grace"), id).await;
    assert!(matches!(other, Err(CareersError::Unknown)), "{other:?}");
    assert_ne!(stage.careers.apply_to(id_of("grace"), &posting(None)).await.unwrap().id, id);
}
