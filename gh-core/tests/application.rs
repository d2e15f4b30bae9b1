//! Use cases and loops over the in-memory store: what waits, what is woken, what is sent.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test may stop where its world is not as it made it")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gh_core::application::{BackgroundLoops, ControlPlane, Ports, StreamItem, UseCaseError};
use gh_core::domain::code::{Actor, ClientName};
use gh_core::domain::commands::{Credential, Deregister, Report, ReportOutcome, Selector, UsageClosing};
use gh_core::domain::ids::{Attempt, JobId};
use gh_core::domain::job::{Completion, JobStatus};
use gh_core::domain::rejection::Rejection;
use gh_core::domain::worker::DirectiveType;
use gh_core::memory::MemoryStore;
use gh_core::ports::callback_sender::{MockCallbackSender, OutgoingCallback, SendError, SendOutcome};
use gh_core::testing::{ManualClock, name, registration, rules, submission, submission_to};

struct Stage {
    control_plane: Arc<ControlPlane>,
    clock: Arc<ManualClock>,
    sent: Arc<Mutex<Vec<OutgoingCallback>>>,
}

impl Stage {
    /// A control plane whose callbacks are answered as `answer` says.
    fn new(answer: impl Fn(&OutgoingCallback) -> SendOutcome + Send + 'static) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = Arc::new(MemoryStore::new(clock.clone(), [7; 32]));
        let sent: Arc<Mutex<Vec<OutgoingCallback>>> = Arc::default();
        let seen = Arc::clone(&sent);
        let mut sender = MockCallbackSender::new();
        sender.expect_send().returning(move |callback| {
            let outcome = answer(&callback);
            seen.lock().unwrap().push(callback);
            outcome
        });
        let ports = Ports::alone(store, Arc::new(sender));
        Self { control_plane: Arc::new(ControlPlane::new(ports, rules())), clock, sent }
    }

    fn delivering() -> Self {
        Self::new(|_| answered(200))
    }

    async fn worker(&self, id: &str, target: Option<&str>) -> Credential {
        let mut registration = registration(id);
        registration.identity.target_worker_id = target.map(name);
        self.control_plane.register(&registration).await.unwrap().credential
    }

    async fn submit(&self, request: gh_core::domain::submission::SubmissionRequest) -> JobId {
        self.control_plane.submit(&ClientName::new("valet"), request).await.unwrap().job.id
    }

    async fn complete(&self, who: &Credential, job_id: JobId) {
        let completion = Completion { result_summary: Some("Application submitted".into()), ..Completion::default() };
        let closing = UsageClosing { llm_calls: Some(0), action_count: Some(4), ..UsageClosing::default() };
        let report = Report::Complete(completion, closing);
        let report = ReportOutcome { who: who.clone(), job_id, attempt: Attempt::FIRST, report };
        self.control_plane.report_outcome(&report).await.unwrap();
    }

    async fn status(&self, job_id: JobId) -> JobStatus {
        self.control_plane.job(job_id).await.unwrap().status()
    }

    fn bodies(&self) -> Vec<String> {
        let sent = self.sent.lock().unwrap();
        sent.iter().map(|callback| String::from_utf8(callback.body.to_vec()).unwrap()).collect()
    }
}

fn answered(status: u16) -> SendOutcome {
    SendOutcome::Answered { status, retry_after: None, excerpt: String::new(), took: Duration::from_millis(3) }
}

const WAIT: Duration = Duration::from_secs(25);

#[tokio::test(start_paused = true)]
async fn a_waiting_claim_gets_a_job_the_moment_it_is_submitted() {
    let stage = Stage::delivering();
    let who = stage.worker("worker-a", None).await;
    let (claimed, job_id) = tokio::join!(stage.control_plane.claim(&who, WAIT), async {
        tokio::task::yield_now().await;
        let job_id = stage.submit(submission()).await;
        stage.control_plane.dispatch_once().await.unwrap();
        job_id
    });
    assert_eq!(claimed.unwrap().expect("a job").job.id, job_id);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_claim_gets_the_job_that_is_reserved_for_its_worker() {
    let stage = Stage::delivering();
    let who = stage.worker("worker-a", Some("sandbox-a")).await;
    let (claimed, job_id) = tokio::join!(stage.control_plane.claim(&who, WAIT), async {
        tokio::task::yield_now().await;
        stage.submit(submission_to("sandbox-a", "strict")).await
    });
    assert_eq!(claimed.unwrap().expect("a job").job.id, job_id);
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_a_job_ends_empty_when_its_time_is_over() {
    let stage = Stage::delivering();
    let who = stage.worker("worker-a", None).await;
    assert!(stage.control_plane.claim(&who, WAIT).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_newer_claim_of_a_worker_ends_its_older_one() {
    let stage = Stage::delivering();
    let who = stage.worker("worker-a", None).await;
    let older = stage.control_plane.claim(&who, WAIT);
    let newer = async {
        tokio::task::yield_now().await;
        let (claimed, job_id) = tokio::join!(stage.control_plane.claim(&who, WAIT), async {
            tokio::task::yield_now().await;
            let job_id = stage.submit(submission()).await;
            stage.control_plane.dispatch_once().await.unwrap();
            job_id
        });
        assert_eq!(claimed.unwrap().expect("a job").job.id, job_id);
    };
    let (older, ()) = tokio::join!(older, newer);
    assert!(older.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn closing_answers_every_waiting_claim_and_ends_every_stream() {
    let stage = Stage::delivering();
    let who = stage.worker("worker-a", None).await;
    let mut stream = stage.control_plane.directives(who.clone()).await.unwrap();
    let (claimed, item, ()) = tokio::join!(stage.control_plane.claim(&who, WAIT), stream.next(), async {
        tokio::task::yield_now().await;
        stage.control_plane.close();
    });
    assert!(claimed.unwrap().is_none());
    assert_eq!(item, None);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_caller_went_away_does_not_attract_strict_jobs() {
    let stage = Stage::delivering();
    let who = stage.worker("worker-a", Some("sandbox-a")).await;
    let gone = tokio::time::timeout(Duration::from_secs(1), stage.control_plane.claim(&who, WAIT)).await;
    assert!(gone.is_err(), "the caller gave up while it waited");
    stage.control_plane.note_departures().await.unwrap();
    stage.clock.advance(Duration::from_secs(4));
    let client = ClientName::new("valet");
    let submitted = stage.control_plane.submit(&client, submission_to("sandbox-a", "strict")).await.unwrap();
    assert_eq!(submitted.worker_status.as_deref(), Some("unresponsive"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_a_cancellation_once_and_ends_when_its_worker_is_retired() {
    let stage = Stage::delivering();
    let who = stage.worker("worker-a", Some("sandbox-a")).await;
    let mut stream = stage.control_plane.directives(who.clone()).await.unwrap();
    let job_id = stage.submit(submission()).await;
    let granted = stage.control_plane.claim(&who, WAIT).await.unwrap();
    assert!(granted.is_some());
    stage.control_plane.cancel(&ClientName::new("valet"), job_id, None).await.unwrap();
    let Some(StreamItem::Directive(directive)) = stream.next().await else { panic!("a directive") };
    assert_eq!((directive.directive_type, directive.job_id), (DirectiveType::CancelJob, Some(job_id)));
    assert_eq!(stream.next().await, Some(StreamItem::Quiet), "told once");
    let deregister = Deregister {
        selector: Selector::Target(name("sandbox-a")),
        actor: Actor::Client(ClientName::new("valet")),
        reason: "sandbox_terminated".into(),
        cancel_active_jobs: true,
        drain_timeout: None,
        hold: None,
        dry_run: false,
    };
    stage.control_plane.deregister(&deregister, Duration::ZERO).await.unwrap();
    let Some(StreamItem::Directive(last)) = stream.next().await else { panic!("a directive") };
    assert_eq!(last.directive_type, DirectiveType::Shutdown);
    assert_eq!(stream.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_deregistration_that_is_waited_for_is_answered_when_the_last_job_ends() {
    let stage = Stage::delivering();
    let who = stage.worker("worker-a", Some("sandbox-a")).await;
    let job_id = stage.submit(submission()).await;
    stage.control_plane.claim(&who, WAIT).await.unwrap().expect("a job");
    let deregister = Deregister {
        selector: Selector::Target(name("sandbox-a")),
        actor: Actor::Client(ClientName::new("valet")),
        reason: "scale-down".into(),
        cancel_active_jobs: false,
        drain_timeout: Some(Duration::from_secs(60)),
        hold: None,
        dry_run: false,
    };
    let (answer, ()) = tokio::join!(stage.control_plane.deregister(&deregister, Duration::from_secs(14)), async {
        tokio::task::yield_now().await;
        stage.complete(&who, job_id).await;
    });
    let deregistration = answer.unwrap().deregistration;
    assert_eq!(deregistration.deregistered, [name("worker-a")]);
    assert!(deregistration.finished_at.is_some());
    assert_eq!(stage.status(job_id).await, JobStatus::Completed);
}

#[tokio::test]
async fn a_callback_says_who_had_the_job_and_what_it_cost() {
    let stage = Stage::delivering();
    let who = stage.worker("worker-a", Some("sandbox-a")).await;
    let job_id = stage.submit(submission_to("sandbox-a", "preferred")).await;
    stage.control_plane.claim(&who, WAIT).await.unwrap().expect("a job");
    assert_eq!(stage.control_plane.deliver_once().await.unwrap(), 1);
    stage.complete(&who, job_id).await;
    assert_eq!(stage.control_plane.deliver_once().await.unwrap(), 1);
    let ids: Vec<String> = stage.sent.lock().unwrap().iter().map(|callback| callback.webhook_id.to_string()).collect();
    let running = format!(
        r#"{{"event_id":"{}","sequence":1,"job_id":"{job_id}","valet_task_id":"task-1","status":"running","worker_id":"worker-a","target_worker_id":"sandbox-a","worker_affinity":"preferred","run":1,"attempt":1,"side_effects_started":false,"timestamp":"2026-01-01T00:00:00Z"}}"#,
        ids[0]
    );
    let completed = format!(
        r#"{{"event_id":"{}","sequence":2,"job_id":"{job_id}","valet_task_id":"task-1","status":"completed","worker_id":"worker-a","target_worker_id":"sandbox-a","worker_affinity":"preferred","run":1,"attempt":1,"side_effects_started":false,"timestamp":"2026-01-01T00:00:00Z","cost":{{"total_cost_usd":0,"action_count":4,"total_tokens":0,"breakdown":[],"complete":true,"final":true,"revision":2,"unpriced_models":[]}},"result_summary":"Application submitted","completed_at":"2026-01-01T00:00:00Z"}}"#,
        ids[1]
    );
    assert_eq!(stage.bodies(), [running, completed]);
}

#[tokio::test]
async fn a_receiver_that_comes_back_gets_the_same_bytes_under_the_same_id_and_then_the_rest_in_order() {
    let down = Arc::new(Mutex::new(true));
    let is_down = Arc::clone(&down);
    let stage = Stage::new(move |_| {
        if *is_down.lock().unwrap() {
            SendOutcome::Unanswered { error: SendError::Connect, took: Duration::ZERO }
        } else {
            answered(204)
        }
    });
    let who = stage.worker("worker-a", None).await;
    let job_id = stage.submit(submission()).await;
    stage.control_plane.claim(&who, WAIT).await.unwrap().expect("a job");
    stage.complete(&who, job_id).await;
    assert_eq!(stage.control_plane.deliver_once().await.unwrap(), 1, "one request at a time per job");
    assert_eq!(stage.control_plane.deliver_once().await.unwrap(), 0, "not before its time");
    *down.lock().unwrap() = false;
    stage.clock.advance(Duration::from_secs(6));
    assert_eq!(stage.control_plane.deliver_once().await.unwrap(), 1);
    assert_eq!(stage.control_plane.deliver_once().await.unwrap(), 1);
    assert_eq!(stage.control_plane.deliver_once().await.unwrap(), 0);
    let sent = stage.sent.lock().unwrap();
    assert_eq!((sent[0].webhook_id, &sent[0].body), (sent[1].webhook_id, &sent[1].body));
    assert_eq!((sent[0].attempt, sent[1].attempt, sent[2].attempt), (1, 2, 1));
    assert!(std::str::from_utf8(&sent[2].body).unwrap().contains(r#""status":"completed""#));
}

#[tokio::test]
async fn what_the_rules_refuse_is_told_as_a_rejection_and_changes_nothing() {
    let stage = Stage::delivering();
    let missing = JobId::new(uuid::Uuid::nil());
    let refused = stage.control_plane.cancel(&ClientName::new("valet"), missing, None).await;
    assert!(matches!(refused, Err(UseCaseError::Rejected(Rejection::JobNotFound))));
    let mut request = submission();
    request.priority = Some(11);
    let refused = stage.control_plane.submit(&ClientName::new("valet"), request).await;
    let Err(UseCaseError::Rejected(Rejection::Invalid(errors))) = refused else { panic!("{refused:?}") };
    assert_eq!(errors[0].field, "priority");
}

/// Turns the clock of the loops, a second in steps, until something holds; says whether it did.
async fn within_a_second(holds: impl AsyncFn() -> bool) -> bool {
    for _ in 0..10 {
        if holds().await {
            return true;
        }
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    holds().await
}

/// A control plane of its own over a store, as another process has it: nobody wakes anybody in it from outside.
fn process(store: &Arc<MemoryStore>, sent: &Arc<tokio::sync::Semaphore>) -> ControlPlane {
    let mut sender = MockCallbackSender::new();
    let sent = Arc::clone(sent);
    sender.expect_send().returning(move |_| {
        sent.add_permits(1);
        answered(204)
    });
    ControlPlane::new(Ports::alone(Arc::clone(store), Arc::new(sender)), rules())
}

#[tokio::test(start_paused = true)]
async fn processes_that_answer_and_processes_that_sweep_and_deliver_work_apart() {
    let clock = Arc::new(ManualClock::default());
    let store = Arc::new(MemoryStore::new(clock.clone(), [7; 32]));
    let (sent_by_api, sent) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
    let (api, background) = (process(&store, &sent_by_api), process(&store, &sent));
    let story = async {
        let who = api.register(&registration("worker-a")).await.unwrap().credential;
        let valet = ClientName::new("valet");
        let (claimed, submitted) = tokio::join!(api.claim(&who, WAIT), async {
            tokio::task::yield_now().await;
            api.submit(&valet, submission()).await.unwrap()
        });
        assert_eq!(claimed.unwrap().expect("dispatch answers the claim").job.id, submitted.job.id);
        // The other process hears of nothing and delivers and sweeps all the same.
        sent.acquire().await.unwrap().forget();
        // Time passes while the process looks; in one leap it would be the process that stood still.
        for _ in 0..20 {
            clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let given_up = async || api.job(submitted.job.id).await.unwrap().live_lease().is_none();
        assert!(within_a_second(given_up).await, "the lost worker is given up");
        assert_eq!(sent_by_api.available_permits(), 0, "a process that does not deliver sends nothing");
        api.close();
        background.close();
    };
    let elsewhere = BackgroundLoops::SWEEP.and(BackgroundLoops::DELIVER);
    tokio::join!(BackgroundLoops::DISPATCH.run(&api), elsewhere.run(&background), story);
}

#[tokio::test(start_paused = true)]
async fn the_dispatch_loop_writes_down_a_connection_that_broke() {
    let stage = Stage::delivering();
    let who = stage.worker("worker-a", None).await;
    let listens_until = async || {
        let (_, view) = stage.control_plane.reader().worker(&who.worker_id).await.unwrap();
        view.unwrap().vitals.listened_until().unwrap()
    };
    let story = async {
        let claim = stage.control_plane.claim(&who, WAIT);
        assert!(tokio::time::timeout(Duration::from_secs(1), claim).await.is_err(), "the caller gave up");
        let now = stage.control_plane.reader().now().await.unwrap();
        assert!(within_a_second(async || listens_until().await <= now).await, "it is written down");
        stage.control_plane.close();
    };
    tokio::join!(BackgroundLoops::DISPATCH.run(&stage.control_plane), story);
}
