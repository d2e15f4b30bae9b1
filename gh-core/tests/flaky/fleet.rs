//! A fleet and its client over a store that goes wrong thousands of times.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures_util::future::join_all;
use gh_core::application::{BackgroundLoops, UseCaseError};
use gh_core::domain::callback::{CallbackKind, DeliveryState};
use gh_core::domain::code::ErrorCode;
use gh_core::domain::commands::{
    Credential, DrainWish, EventReport, FailureReport, Heartbeat, JobClaim, JobLeft, Report, ReportEvents,
    ReportOutcome, ReportUsage, SideEffectsStarted, UsageClosing,
};
use gh_core::domain::cost::{CallReport, ReportedCall};
use gh_core::domain::ids::{Attempt, JobId};
use gh_core::domain::job::{Completion, Job};
use gh_core::domain::rejection::Rejection;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::usd::Usd;
use gh_core::domain::worker::Beat;
use gh_core::ports::reader::{JobQuery, Reader};
use gh_core::testing::{FaultPlan, submission, submission_to};
use serde_json::json;

use crate::stage::{Stage, client, register};

const JOBS: usize = 150;
const TICK: Duration = Duration::from_millis(50);

/// What the callers know at the end.
#[derive(Default)]
struct Known {
    accepted: BTreeSet<JobId>,
    /// The calls of each job whose report was answered.
    calls: BTreeMap<JobId, BTreeSet<String>>,
}

/// Repeats a call until it is answered.
async fn persist<T, F>(call: impl Fn() -> F) -> Result<T, Rejection>
where
    F: Future<Output = Result<T, UseCaseError>>,
{
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(UseCaseError::Rejected(rejection)) => return Err(rejection),
            Err(UseCaseError::Unavailable(_)) => tokio::time::sleep(TICK).await,
            Err(error @ UseCaseError::Internal(_)) => panic!("{error:?}"),
        }
    }
}

/// A worker's process as API.md tells it to behave; it crashes now and then and comes back as another process.
async fn work(stage: &Stage, known: &RefCell<Known>, index: usize) {
    let (id, target) = (format!("worker-{index}"), format!("target-{}", index % 2));
    let mut boot = 1;
    let mut jobs = 0;
    'registration: loop {
        let registration = register(&id, &target, boot);
        let who = match persist(|| stage.control_plane.register(&registration)).await {
            Ok(registered) => registered.credential,
            // Its own crashes may look like two processes that fight.
            Err(rejection) => {
                assert_eq!(rejection.code(), "WORKER_ID_CONTESTED");
                tokio::time::sleep(Duration::from_secs(60)).await;
                continue;
            }
        };
        loop {
            match persist(|| stage.control_plane.claim(&who, Duration::from_secs(2))).await {
                Ok(None) => {}
                Ok(Some(granted)) => {
                    jobs += 1;
                    if jobs % 11 == 0 {
                        boot += 1;
                        continue 'registration;
                    }
                    if run(stage, known, &who, &granted.job).await == Err(Rejection::StaleGeneration) {
                        continue 'registration;
                    }
                }
                Err(Rejection::LeaseHeld { job_id, attempt }) => {
                    let report = Report::Release(JobLeft { reason: "not mine".into() });
                    let release = ReportOutcome { who: who.clone(), job_id, attempt, report };
                    let _lost_in_between = persist(|| stage.control_plane.report_outcome(&release)).await;
                }
                Err(Rejection::StaleGeneration) => continue 'registration,
                Err(rejection) => panic!("{rejection:?}"),
            }
        }
    }
}

/// One attempt; ended early when the worker hears that it has lost it.
async fn run(stage: &Stage, known: &RefCell<Known>, who: &Credential, job: &Job) -> Result<(), Rejection> {
    let (job_id, attempt) = (job.id, job.attempt);
    let plane = &stage.control_plane;
    let kind = job_id.as_uuid().as_u128() % 7 + u128::from(attempt.0);
    for step in 1..=3 {
        let beat = Heartbeat {
            who: who.clone(),
            beat: Beat::default(),
            job: JobClaim::Job(job_id),
            drain: DrainWish::Silent,
            acknowledged: Vec::new(),
        };
        persist(|| plane.heartbeat(&beat)).await?;
        let event = EventReport {
            event_type: "step_completed".into(),
            message: None,
            metadata: None,
            occurred_at: None,
            worker_seq: Some(step),
        };
        let events = ReportEvents { who: who.clone(), job_id, attempt, events: vec![event] };
        persist(|| plane.report_events(&events)).await?;
        let call = format!("call-{attempt}-{step}");
        let usage = ReportUsage { who: who.clone(), job_id, attempt, calls: vec![usage(&call)] };
        persist(|| plane.report_usage(&usage)).await?;
        known.borrow_mut().calls.entry(job_id).or_default().insert(call);
        tokio::time::sleep(TICK).await;
    }
    if kind.is_multiple_of(3) {
        let started = SideEffectsStarted { who: who.clone(), job_id, attempt, what: None };
        persist(|| plane.side_effects_started(&started)).await?;
    }
    let report = if kind.is_multiple_of(4) {
        let error_code = ErrorCode::parse("network_error").unwrap();
        let failure = FailureReport { error_code, error_message: "no route".into(), retryable: true };
        Report::Fail(failure, UsageClosing::default())
    } else {
        Report::Complete(Completion::default(), UsageClosing::default())
    };
    let outcome = ReportOutcome { who: who.clone(), job_id, attempt, report };
    persist(|| plane.report_outcome(&outcome)).await.map(drop)
}

/// A call that costs a ten-thousandth of a dollar.
fn usage(call_id: &str) -> CallReport {
    let call: ReportedCall = serde_json::from_value(json!({
        "call_id": call_id,
        "provider": "anthropic",
        "model": "claude-haiku-4-5",
        "usage": { "input": 100 },
    }))
    .unwrap();
    CallReport::new(call).unwrap()
}

/// Submits every job under a key of its own, until it is answered; cancels some.
async fn submit_all(stage: &Stage, known: &RefCell<Known>) {
    let client = client();
    for index in 0..JOBS {
        let request = match index % 3 {
            0 => submission(),
            1 => submission_to(&format!("target-{}", index % 2), "preferred"),
            _ => SubmissionRequest {
                affinity_wait_seconds: Some(600),
                ..submission_to(&format!("target-{}", index % 2), "strict")
            },
        };
        let request = SubmissionRequest { idempotency_key: Some(format!("key-{index}")), ..request };
        let submitted = persist(|| stage.control_plane.submit(&client, request.clone())).await.unwrap();
        let first = known.borrow_mut().accepted.insert(submitted.job.id);
        assert!(first, "one job for each key");
        if index % 13 == 0 {
            let cancelled = persist(|| stage.control_plane.cancel(&client, submitted.job.id, None)).await;
            assert!(matches!(cancelled, Ok(_) | Err(Rejection::JobNotCancellable { .. })), "{cancelled:?}");
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Lets time pass, and looks at every moment that nobody has two of anything; until all is done.
async fn watch(stage: &Stage, known: &RefCell<Known>) {
    let began = stage.clock.advance(Duration::ZERO);
    loop {
        tokio::time::sleep(TICK).await;
        let now = stage.clock.advance(TICK);
        let jobs = all_jobs(stage).await;
        let mut workers = BTreeSet::new();
        for job in &jobs {
            assert!(job.occupies().is_none_or(|worker| workers.insert(worker)), "two jobs on one worker");
            let open = job.holdings.iter().filter(|holding| holding.ended_at.is_none()).count();
            assert_eq!(open, usize::from(job.live_lease().is_some()), "{}: two leases", job.id);
        }
        let done = known.borrow().accepted.len() == JOBS && jobs.iter().all(|job| job.ending().is_some());
        if done && stage.memory.figures().await.unwrap().callbacks_open == 0 {
            return;
        }
        assert!(now.since(began) < Duration::from_secs(3600), "some job or callback never comes to an end");
    }
}

async fn all_jobs(stage: &Stage) -> Vec<std::sync::Arc<Job>> {
    stage.memory.jobs(&JobQuery { limit: 10_000, ..JobQuery::default() }).await.unwrap()
}

async fn everything_holds_at_the_end(seed: u64) {
    let stage = Stage::new(9);
    let known = RefCell::new(Known::default());
    stage.flaky.follow(FaultPlan::seeded(seed, 250));
    tokio::select! {
        _ = join_all((0..4).map(|index| work(&stage, &known, index))) => {}
        () = BackgroundLoops::ALL.run(&stage.control_plane) => panic!("the loops ended by themselves"),
        () = async { tokio::join!(submit_all(&stage, &known), watch(&stage, &known)); } => {}
    }
    assert!(stage.flaky.faults() > 1_000, "only {} faults", stage.flaky.faults());
    let known = known.into_inner();
    let jobs = all_jobs(&stage).await;
    assert_eq!(jobs.iter().map(|job| job.id).collect::<BTreeSet<_>>(), known.accepted);
    for job in jobs {
        let events = stage.events(job.id).await;
        let ends = events.iter().filter(|event| event.to_status.is_some_and(|status| status.is_terminal()));
        assert_eq!(ends.count(), 1, "{} ended once", job.id);
        let starts = events.iter().filter(|event| event.event_type.as_str() == "job_started");
        let held: Vec<Attempt> = job.holdings.iter().map(|holding| holding.attempt).collect();
        assert_eq!(starts.map(|event| event.attempt).collect::<Vec<_>>(), held, "one job_started for each attempt");
        let calls = known.calls.get(&job.id).map_or(0, BTreeSet::len);
        let cost = rust_decimal::Decimal::new(i64::try_from(calls).unwrap(), 4);
        assert_eq!(job.cost.total_cost_usd(), Usd::new(cost), "{calls} calls of {}", job.id);
    }
    callbacks_came_in_order(&stage).await;
}

async fn callbacks_came_in_order(stage: &Stage) {
    let mut bodies = HashMap::new();
    let mut last = HashMap::new();
    let received = stage.receiver.received.lock().unwrap().clone();
    for callback in &received {
        let first = bodies.entry(callback.webhook_id).or_insert_with(|| callback.body.clone());
        assert_eq!(*first, callback.body, "the same bytes under one id");
        let body: serde_json::Value = serde_json::from_slice(&callback.body).unwrap();
        let sequence = body["sequence"].as_u64().unwrap();
        let before = last.insert(body["job_id"].to_string(), sequence);
        assert!(before.is_none_or(|before| before <= sequence), "a callback came after a later one");
    }
    for job in all_jobs(stage).await {
        for delivery in stage.memory.deliveries(job.id, None, 10_000).await.unwrap() {
            let through = delivery.state == DeliveryState::Delivered;
            let told = matches!(delivery.kind, CallbackKind::CostSnapshot | CallbackKind::CostFollowUp);
            assert!(through || (told && delivery.state == DeliveryState::Replaced), "{delivery:?}");
            assert!(!through || bodies.contains_key(&delivery.id), "delivered, and never sent");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_job_is_lost_or_done_twice_and_every_callback_comes_however_often_the_store_goes_wrong() {
    everything_holds_at_the_end(1).await;
}

#[tokio::test(start_paused = true)]
async fn so_it_is_with_other_faults() {
    everything_holds_at_the_end(2).await;
}
