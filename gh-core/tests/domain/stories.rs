//! Rules whose stories take more than one command, told on pure decisions.

use std::time::Duration;

use gh_core::domain::callback::CallbackKind;
use gh_core::domain::changeset::Changeset;
use gh_core::domain::code::{Actor, ClientName, ErrorCode};
use gh_core::domain::commands::{
    Cancel, Claim, ClaimAnswer, Credential, Deregister, Drain, FailureReport, Goodbye, LiftHold, Register, Report,
    ReportOutcome, ReportUsage, Retry, Selector, SideEffectsStarted, Submit, Undrain, UsageClosing,
};
use gh_core::domain::cost::{CallReport, ReportedCall};
use gh_core::domain::ids::{Attempt, ConnectionId, JobId};
use gh_core::domain::job::{Completion, JobStatus};
use gh_core::domain::rejection::Rejection;
use gh_core::domain::worker::{WorkerIdentity, WorkerStatus};
use gh_core::testing::{name, submission, submission_to};
use uuid::Uuid;

use crate::world::World;

fn client() -> Actor {
    Actor::Client(ClientName::new("valet"))
}

fn claim(world: &mut World, who: &Credential) -> Result<ClaimAnswer, Rejection> {
    let connection = ConnectionId::new(Uuid::nil());
    world.run(&Claim { who: who.clone(), connection, wait: Duration::from_secs(25), waited: false }).0
}

fn complete(who: &Credential, job_id: JobId, attempt: u32) -> ReportOutcome {
    let report = Report::Complete(Completion::default(), UsageClosing::default());
    ReportOutcome { who: who.clone(), job_id, attempt: Attempt(attempt), report }
}

fn fail(who: &Credential, job_id: JobId, attempt: u32, retryable: bool) -> ReportOutcome {
    let failure = FailureReport {
        error_code: ErrorCode::parse("network_error").unwrap(),
        error_message: "the page did not load".into(),
        retryable,
    };
    let report = Report::Fail(failure, UsageClosing::default());
    ReportOutcome { who: who.clone(), job_id, attempt: Attempt(attempt), report }
}

fn side_effects(who: &Credential, job_id: JobId) -> SideEffectsStarted {
    SideEffectsStarted { who: who.clone(), job_id, attempt: Attempt::FIRST, what: None }
}

fn usage(who: &Credential, job_id: JobId, call_id: &str, input: u64) -> ReportUsage {
    let call: ReportedCall = serde_json::from_str(&format!(
        r#"{{"call_id": "{call_id}", "provider": "anthropic", "model": "claude-haiku-4-5-20251001",
             "usage": {{"input": {input}}}}}"#
    ))
    .unwrap();
    let calls = vec![CallReport::new(call).unwrap()];
    ReportUsage { who: who.clone(), job_id, attempt: Attempt::FIRST, calls }
}

fn deregister(target: &str, cancel_active_jobs: bool, drain_seconds: Option<u64>) -> Deregister {
    Deregister {
        selector: Selector::Target(name(target)),
        actor: client(),
        reason: "sandbox_terminated".into(),
        cancel_active_jobs,
        drain_timeout: drain_seconds.map(Duration::from_secs),
        hold: None,
        dry_run: false,
    }
}

fn register(id: &str, boot: &str, target: Option<&str>) -> Register {
    let identity = WorkerIdentity { target_worker_id: target.map(name), ..WorkerIdentity::default() };
    Register { worker_id: name(id), boot_id: name(boot), identity, metadata: None }
}

/// A running job of a worker with a target.
fn running(world: &mut World, target: Option<&str>) -> (Credential, JobId) {
    let who = world.worker("worker-a", target);
    let job_id = world.submit(submission()).id;
    assert_eq!(world.dispatch().len(), 1);
    (who, job_id)
}

fn status(world: &World, job_id: JobId) -> JobStatus {
    world.job(job_id).status()
}

fn error_code(world: &World, job_id: JobId) -> String {
    use gh_core::domain::job::Outcome;
    match &world.job(job_id).ending().expect("it ended").outcome {
        Outcome::Failed { code, .. } => code.to_string(),
        other => panic!("it did not fail: {other:?}"),
    }
}

fn event_types(changes: &[Changeset]) -> Vec<String> {
    changes.iter().flat_map(Changeset::job_events).map(|event| event.event_type.to_string()).collect()
}

#[test]
fn a_retryable_failure_is_tried_again_after_a_backoff_that_doubles_until_no_attempt_is_left() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, None);
    for (attempt, backoff) in [(1, 5), (2, 10)] {
        let (answer, _) = world.run(&fail(&who, job_id, attempt, true));
        assert!(answer.unwrap().will_retry);
        world.listens(&who.worker_id);
        world.pass(backoff - 1);
        world.listens(&who.worker_id);
        assert!(world.dispatch().is_empty(), "attempt {attempt} waits {backoff} s");
        world.pass(1);
        assert_eq!(world.dispatch().len(), 1);
    }
    let (answer, changes) = world.run(&fail(&who, job_id, 3, true));
    assert!(!answer.unwrap().will_retry);
    assert_eq!((status(&world, job_id), error_code(&world, job_id).as_str()), (JobStatus::Failed, "network_error"));
    assert_eq!(changes.callbacks().len(), 1, "failed is told once, when it is final");
}

#[test]
fn a_report_of_an_earlier_attempt_is_stale_and_its_own_outcome_is_answered_as_before() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, None);
    let first = world.run(&fail(&who, job_id, 1, true)).0.unwrap();
    world.pass(5);
    world.listens(&who.worker_id);
    assert_eq!(world.dispatch().len(), 1);
    let before = world.job(job_id);
    assert_eq!(world.run(&fail(&who, job_id, 1, true)).0.unwrap(), first);
    assert_eq!(world.run(&complete(&who, job_id, 1)).0, Err(Rejection::StaleLease), "another outcome than the first");
    assert_eq!(world.job(job_id).version, before.version);
}

#[test]
fn a_lost_worker_may_still_complete_a_job_past_its_point_of_no_return_within_the_grace() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, None);
    world.run(&side_effects(&who, job_id)).0.unwrap();
    world.pass(21);
    world.sweep();
    assert_eq!(world.view(&who.worker_id).status(), WorkerStatus::Offline);
    assert_eq!(status(&world, job_id), JobStatus::Running, "nobody else will run it");
    world.worker("worker-b", None);
    assert!(world.dispatch().is_empty());
    world.pass(250);
    let (answer, changes) = world.run(&complete(&who, job_id, 1));
    assert_eq!(answer.unwrap().status, JobStatus::Completed);
    assert!(changes.callbacks()[0].facts.side_effects_started);
}

#[test]
fn when_the_grace_is_over_the_job_is_failed_and_a_retry_needs_a_look_first() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, None);
    world.run(&side_effects(&who, job_id)).0.unwrap();
    world.pass(21);
    world.sweep();
    world.pass(300);
    world.sweep();
    assert_eq!(error_code(&world, job_id), "WORKER_LOST");
    assert_eq!(world.run(&complete(&who, job_id, 1)).0, Err(Rejection::StaleGeneration));
    let routing = world.job(job_id).spec.routing.clone();
    let mut retry = Retry { job_id, routing, actor: client(), run: None, side_effects_checked: false };
    assert_eq!(world.run(&retry).0.unwrap_err(), Rejection::SideEffectsStarted);
    retry.run = Some(7);
    retry.side_effects_checked = true;
    assert!(matches!(world.run(&retry).0, Err(Rejection::JobNotRetryable { .. })), "another run was named");
    retry.run = Some(1);
    let job = world.run(&retry).0.unwrap();
    assert_eq!((job.run, job.attempt, job.side_effects_started()), (2, Attempt(2), false));
}

#[test]
fn a_cancelled_job_can_be_retried_only_when_its_worker_is_free_or_fenced() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, None);
    world.run(&Cancel { job_id, actor: client(), reason: None }).0.unwrap();
    let routing = world.job(job_id).spec.routing.clone();
    let retry = Retry { job_id, routing, actor: client(), run: None, side_effects_checked: false };
    assert!(matches!(world.run(&retry).0, Err(Rejection::JobNotRetryable { .. })));
    let mut later = world.clone();
    later.pass(15);
    assert!(later.run(&retry).0.is_ok(), "its self-fence has passed");
    claim(&mut world, &who).unwrap();
    assert!(world.run(&retry).0.is_ok(), "its worker said that it is free");
}

#[test]
fn a_worker_whose_job_was_ended_by_others_gets_no_job_until_it_is_free() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, Some("sandbox-a"));
    world.run(&Cancel { job_id, actor: client(), reason: None }).0.unwrap();
    let second = world.submit(submission()).id;
    assert!(world.dispatch().is_empty(), "it may still be at the cancelled job");
    let directives = world.view(&who.worker_id).worker.directives.clone();
    assert_eq!(directives.len(), 1);
    assert_eq!((directives[0].job_id, directives[0].attempt), (Some(job_id), Some(Attempt::FIRST)));
    claim(&mut world, &who).unwrap();
    assert_eq!(world.dispatch().len(), 1);
    assert_eq!(status(&world, second), JobStatus::Running);
    assert!(world.view(&who.worker_id).worker.directives.is_empty(), "a directive dies with what it names");
}

#[test]
fn a_strict_job_that_lost_its_worker_waits_for_its_target_and_then_fails() {
    let mut world = World::new();
    let who = world.worker("worker-a", Some("sandbox-a"));
    let job_id = world.submit(submission_to("sandbox-a", "strict")).id;
    claim(&mut world, &who).unwrap();
    world.run(&Goodbye { who, reason: "deploy".into() }).0.unwrap();
    world.worker("worker-b", Some("sandbox-b"));
    assert!(world.dispatch().is_empty(), "never another worker");
    let mut back = world.clone();
    back.pass(29);
    back.sweep();
    back.worker("worker-a", Some("sandbox-a"));
    assert_eq!(back.dispatch().len(), 1, "a deploy brings the same target back in seconds");
    world.pass(30);
    world.sweep();
    assert_eq!(error_code(&world, job_id), "WORKER_UNAVAILABLE");
}

#[test]
fn while_a_lost_worker_may_still_act_only_the_same_worker_may_take_its_job() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, None);
    world
        .run(&gh_core::domain::commands::ReportEvents {
            who: who.clone(),
            job_id,
            attempt: Attempt::FIRST,
            events: Vec::new(),
        })
        .0
        .unwrap();
    let drain = Drain {
        worker_id: who.worker_id.clone(),
        actor: client(),
        reason: "deploy".into(),
        timeout: Some(Duration::ZERO),
    };
    world.run(&drain).0.unwrap();
    world.sweep();
    assert_eq!(status(&world, job_id), JobStatus::Pending);
    world.worker("worker-b", None);
    assert!(world.dispatch().is_empty(), "until the self-fence has certainly passed");
    world.pass(15);
    world.listens(&name("worker-b"));
    assert_eq!(world.dispatch().len(), 1);
    assert_eq!(world.job(job_id).worker_id().unwrap().as_str(), "worker-b");
}

#[test]
fn a_held_name_lets_nobody_in_until_the_hold_is_over_or_lifted() {
    let mut world = World::new();
    world.worker("worker-a", Some("sandbox-a"));
    let answer = world.run(&deregister("sandbox-a", false, None)).0.unwrap().deregistration;
    assert_eq!(answer.deregistered, [name("worker-a")]);
    for registration in [register("worker-a", "new", None), register("worker-z", "new", Some("sandbox-a"))] {
        let refused = world.run(&registration).0.unwrap_err();
        assert_eq!(refused.code(), "WORKER_DEREGISTERED");
        assert_eq!(refused.retry_at(), Some(world.now() + Duration::from_secs(3600)));
    }
    let mut lifted = world.clone();
    let held = lifted.run(&LiftHold { name: name("sandbox-a") }).0.unwrap().held;
    assert!(!held);
    assert!(lifted.run(&register("worker-a", "new", Some("sandbox-a"))).0.is_ok());
    assert_eq!(
        lifted.run(&register("worker-a", "boot-1", Some("sandbox-a"))).0,
        Err(Rejection::WorkerDeregistered { retry_at: None }),
        "a deregistered process never comes back"
    );
    world.pass(3600);
    assert!(world.run(&register("worker-a", "new", Some("sandbox-a"))).0.is_ok());
}

#[test]
fn a_deregistration_that_still_runs_keeps_its_hold_and_answers_repetitions_with_its_record() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, Some("sandbox-a"));
    let first = world.run(&deregister("sandbox-a", false, Some(60))).0.unwrap().deregistration;
    assert_eq!((&first.draining_jobs, first.finished_at), (&vec![job_id], None));
    assert!(world.run(&LiftHold { name: name("sandbox-a") }).0.unwrap().held);
    let again = world.run(&deregister("sandbox-a", false, Some(300))).0.unwrap().deregistration;
    assert_eq!((again.id, again.drain_deadline), (first.id, first.drain_deadline), "only ever tighter");
    let mut tightened = world.clone();
    let stricter = tightened.run(&deregister("sandbox-a", true, None)).0.unwrap().deregistration;
    assert_eq!((stricter.id, &stricter.cancelled_jobs), (first.id, &vec![job_id]));
    assert_eq!(status(&tightened, job_id), JobStatus::Cancelled);
    assert_eq!(
        world.run(&register("worker-a", "boot-1", Some("sandbox-a"))).0.unwrap().credential,
        who,
        "still draining"
    );
    let (answer, changes) = world.run(&complete(&who, job_id, 1));
    assert_eq!(answer.unwrap().status, JobStatus::Completed);
    let last = changes.worker_events().last().unwrap().event_type.to_string();
    assert_eq!(last, "worker_deregistered", "gone by the very call that made it free");
    let done = world.run(&deregister("sandbox-a", false, None)).0.unwrap().deregistration;
    assert_eq!((done.id, &done.deregistered, &done.draining), (first.id, &vec![name("worker-a")], &vec![]));
}

#[test]
fn a_drain_deadline_ends_a_deregistration_to_the_second() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, Some("sandbox-a"));
    world
        .run(&gh_core::domain::commands::ReportEvents {
            who: who.clone(),
            job_id,
            attempt: Attempt::FIRST,
            events: Vec::new(),
        })
        .0
        .unwrap();
    world.run(&deregister("sandbox-a", false, Some(10))).0.unwrap();
    world.pass(9);
    world.listens(&who.worker_id);
    assert!(world.sweep().is_empty());
    world.pass(1);
    let changes = world.sweep();
    assert_eq!(status(&world, job_id), JobStatus::Pending);
    assert_eq!(event_types(&changes), ["job_requeued"]);
    assert_eq!(world.view(&who.worker_id).status(), WorkerStatus::Offline);
    assert_eq!(world.run(&complete(&who, job_id, 1)).0.unwrap_err().code(), "WORKER_DEREGISTERED");
}

#[test]
fn a_dry_run_says_what_then_really_happens() {
    let mut world = World::new();
    let (_, job_id) = running(&mut world, Some("sandbox-a"));
    let mut request = deregister("sandbox-a", true, Some(30));
    request.dry_run = true;
    let (answer, changes) = world.run(&request);
    let foretold = answer.unwrap();
    assert!(foretold.dry_run && changes.is_empty());
    assert_eq!(status(&world, job_id), JobStatus::Running);
    request.dry_run = false;
    let done = world.run(&request).0.unwrap().deregistration;
    assert_eq!(done.cancelled_jobs, foretold.deregistration.cancelled_jobs);
    assert_eq!(done.draining, foretold.deregistration.draining);
    assert_eq!(done.drain_deadline, foretold.deregistration.drain_deadline);
}

#[test]
fn a_deregistration_fails_strict_jobs_that_wait_and_lets_others_wait_for_anyone() {
    let mut world = World::new();
    world.worker("worker-a", Some("sandbox-a"));
    let reserved = world.submit(submission_to("sandbox-a", "preferred")).id;
    let mut request = submission_to("sandbox-a", "strict");
    request.affinity_wait_seconds = Some(600);
    let waiting = world.submit(request).id;
    world.run(&deregister("sandbox-a", true, None)).0.unwrap();
    assert_eq!(error_code(&world, waiting), "WORKER_UNAVAILABLE");
    assert_eq!(status(&world, reserved), JobStatus::Pending);
    world.worker("worker-b", None);
    assert_eq!(world.dispatch().len(), 1);
}

#[test]
fn a_name_that_nobody_ever_had_cannot_be_deregistered() {
    let mut world = World::new();
    assert_eq!(world.run(&deregister("nobody", false, None)).0, Err(Rejection::WorkerNotFound));
    assert_eq!(world.run(&LiftHold { name: name("nobody") }).0, Err(Rejection::NameNotFound));
}

#[test]
fn living_processes_that_replace_each_other_three_times_are_stopped_for_a_minute() {
    let mut world = World::new();
    for boot in ["b0", "b1", "b2", "b3"] {
        assert!(world.run(&register("worker-a", boot, None)).0.is_ok(), "{boot}");
    }
    let (refused, changes) = world.run(&register("worker-a", "b4", None));
    let retry_at = world.now() + Duration::from_secs(60);
    assert_eq!(refused, Err(Rejection::WorkerIdContested { retry_at }));
    assert_eq!(changes.worker_events()[0].event_type.to_string(), "worker_contested");
    let (again, changes) = world.run(&register("worker-a", "b4", None));
    assert!(again.is_err() && changes.is_empty(), "told once");
    world.pass(61);
    assert!(world.run(&register("worker-a", "b4", None)).0.is_ok());
}

#[test]
fn an_operators_drain_is_not_undone_by_the_worker_and_an_undrain_needs_a_drain() {
    let mut world = World::new();
    let who = world.worker("worker-a", None);
    let undrain = Undrain { worker_id: who.worker_id.clone() };
    assert_eq!(world.run(&undrain).0, Err(Rejection::WorkerNotDraining));
    let drain = Drain { worker_id: who.worker_id.clone(), actor: client(), reason: "deploy".into(), timeout: None };
    world.run(&drain).0.unwrap();
    let beat = gh_core::domain::commands::Heartbeat {
        who: who.clone(),
        beat: gh_core::domain::worker::Beat::default(),
        job: gh_core::domain::commands::JobClaim::None,
        drain: gh_core::domain::commands::DrainWish::Undo,
        acknowledged: Vec::new(),
    };
    assert_eq!(world.run(&beat).0.unwrap().status, WorkerStatus::Draining);
    assert_eq!(claim(&mut world, &who).unwrap_err(), Rejection::WorkerDraining);
    world.run(&undrain).0.unwrap();
    assert!(matches!(claim(&mut world, &who), Ok(ClaimAnswer::Waiting)));
}

#[test]
fn a_used_idempotency_key_answers_as_the_first_did_and_refuses_another_body() {
    let mut world = World::new();
    let submit = |target: &str, priority| {
        let mut request = submission_to(target, "strict");
        request.idempotency_key = Some("key-1".into());
        request.priority = priority;
        Submit::new(ClientName::new("valet"), request.validate().unwrap())
    };
    let first = world.run(&submit("nobody", None)).0.unwrap();
    assert_eq!(first.worker_status.as_deref(), Some("unknown"));
    let (second, changes) = world.run(&submit("nobody", None));
    let second = second.unwrap();
    assert!(changes.is_empty() && second.duplicate);
    assert_eq!((second.job.id, second.worker_status), (first.job.id, first.worker_status));
    assert_eq!(world.run(&submit("nobody", Some(9))).0.unwrap_err(), Rejection::IdempotencyKeyReused);
    let mut other = submit("nobody", Some(9));
    other.client = ClientName::new("another");
    assert!(!world.run(&other).0.unwrap().duplicate, "keys are each client's own");
}

#[test]
fn a_job_over_its_budget_is_stopped_with_one_warning_at_four_fifths() {
    let mut world = World::new();
    let who = world.worker("worker-a", None);
    let mut request = submission();
    request.budget_usd = "0.001".parse().ok();
    let job_id = world.submit(request).id;
    world.dispatch();
    let (answer, changes) = world.run(&usage(&who, job_id, "c1", 799));
    assert!(!answer.unwrap().stop);
    assert_eq!(event_types(&[changes]), ["tokens_used"]);
    let (_, changes) = world.run(&usage(&who, job_id, "c2", 1));
    assert_eq!(event_types(&[changes]), ["tokens_used", "budget_warning"]);
    let (answer, changes) = world.run(&usage(&who, job_id, "c3", 201));
    assert!(answer.unwrap().stop);
    assert_eq!(event_types(&[changes]), ["tokens_used", "budget_warning", "job_failed"]);
    assert_eq!(error_code(&world, job_id), "budget_exceeded");
}

#[test]
fn past_the_point_of_no_return_a_budget_only_stops_further_calls() {
    let mut world = World::new();
    let who = world.worker("worker-a", None);
    let mut request = submission();
    request.budget_usd = "0.001".parse().ok();
    let job_id = world.submit(request).id;
    world.dispatch();
    world.run(&side_effects(&who, job_id)).0.unwrap();
    assert!(world.run(&usage(&who, job_id, "c1", 5000)).0.unwrap().stop);
    assert_eq!(status(&world, job_id), JobStatus::Running);
}

#[test]
fn an_announced_call_holds_the_terminal_callback_until_it_is_reported() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, None);
    let mut report = complete(&who, job_id, 1);
    report.report = Report::Complete(
        Completion::default(),
        UsageClosing { calls_in_flight: vec!["c9".into()], action_count: Some(3), ..UsageClosing::default() },
    );
    let (_, changes) = world.run(&report);
    let terminal = &changes.callbacks()[0];
    assert_eq!((terminal.kind, terminal.not_before), (CallbackKind::Terminal, world.now() + Duration::from_secs(3)));
    let block = world.job(job_id).cost_block().unwrap();
    assert!(!block.is_final && !block.complete);
    let (_, changes) = world.run(&usage(&who, job_id, "c9", 10));
    assert_eq!(changes.released_callbacks(), [job_id]);
    let block = world.job(job_id).cost_block().unwrap();
    assert!(block.is_final && block.complete);
}

#[test]
fn an_announcement_that_lapses_sends_a_final_follow_up_that_says_it_is_incomplete() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, None);
    let mut report = complete(&who, job_id, 1);
    report.report = Report::Complete(
        Completion::default(),
        UsageClosing { calls_in_flight: vec!["c9".into()], action_count: Some(3), ..UsageClosing::default() },
    );
    world.run(&report).0.unwrap();
    world.pass(600);
    let changes = world.sweep();
    let told: Vec<CallbackKind> = changes.iter().flat_map(Changeset::callbacks).map(|callback| callback.kind).collect();
    assert_eq!(told, [CallbackKind::CostFollowUp]);
    let block = world.job(job_id).cost_block().unwrap();
    assert!(block.is_final && !block.complete);
}

#[test]
fn usage_is_taken_from_whoever_held_the_attempt_for_a_day_and_from_nobody_else() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, Some("sandbox-a"));
    world.run(&deregister("sandbox-a", true, None)).0.unwrap();
    let stranger = world.worker("worker-b", None);
    let outcome = |world: &mut World, who: &Credential, call: &str| {
        let (answer, changes) = world.run(&usage(who, job_id, call, 10));
        (answer.unwrap().results[0].outcome.as_str(), changes)
    };
    assert_eq!(outcome(&mut world, &stranger, "c1").0, "refused");
    let (taken, changes) = outcome(&mut world, &who, "c1");
    assert_eq!(taken, "recorded");
    assert!(changes.vitals().is_empty() && changes.workers().is_empty(), "no sign of life, no state");
    world.pass(24 * 3600 + 1);
    assert_eq!(outcome(&mut world, &who, "c2").0, "refused");
}

#[test]
fn a_job_expires_only_while_it_waits() {
    let mut world = World::new();
    let mut request = submission();
    request.expires_in_seconds = Some(60);
    request.timeout_seconds = Some(3600);
    let waiting = world.submit(request.clone()).id;
    world.pass(60);
    world.sweep();
    assert_eq!(status(&world, waiting), JobStatus::Expired);
    let who = world.worker("worker-a", None);
    let taken = world.submit(request).id;
    world.dispatch();
    world.pass(61);
    world.listens(&who.worker_id);
    world.sweep();
    assert_eq!(status(&world, taken), JobStatus::Running);
}

#[test]
fn ten_releases_in_a_row_cost_no_attempt_and_the_eleventh_does() {
    let mut world = World::new();
    let who = world.worker("worker-a", None);
    let mut request = submission();
    request.max_attempts = Some(1);
    let job_id = world.submit(request).id;
    for attempt in 1..=11 {
        world.listens(&who.worker_id);
        assert_eq!(world.dispatch().len(), 1, "attempt {attempt}");
        let report = Report::Release(gh_core::domain::commands::JobLeft { reason: "deploy".into() });
        let released = ReportOutcome { who: who.clone(), job_id, attempt: Attempt(attempt), report };
        let answer = world.run(&released).0.unwrap();
        assert_eq!(answer.will_retry, attempt <= 10);
    }
    assert_eq!(error_code(&world, job_id), "WORKER_LOST");
}

#[test]
fn a_claim_that_was_woken_for_nothing_is_believed_no_longer_than_it_said() {
    let mut world = World::new();
    let who = world.run(&register("worker-a", "boot-1", None)).0.unwrap().credential;
    let connection = ConnectionId::new(Uuid::nil());
    let claim = |waited| Claim { who: who.clone(), connection, wait: Duration::from_secs(25), waited };
    let until = world.now() + Duration::from_secs(25);
    assert!(matches!(world.run(&claim(false)).0, Ok(ClaimAnswer::Waiting)));
    world.pass(20);
    assert!(matches!(world.run(&claim(true)).0, Ok(ClaimAnswer::Waiting)));
    assert_eq!(world.view(&who.worker_id).vitals.listened_until(), Some(until));
}

#[test]
fn events_are_numbered_without_gaps_and_tell_worker_time_and_step() {
    let mut world = World::new();
    let (who, job_id) = running(&mut world, None);
    world.wait(Duration::from_millis(3420));
    let event = |event_type: &str, seq| gh_core::domain::commands::EventReport {
        event_type: event_type.into(),
        message: None,
        metadata: serde_json::from_str(r#"{"step_index": 3, "total_steps": 8}"#).ok(),
        occurred_at: None,
        worker_seq: Some(seq),
    };
    let report = gh_core::domain::commands::ReportEvents {
        who,
        job_id,
        attempt: Attempt::FIRST,
        events: vec![
            event("step_started", 1),
            event("job_completed", 2),
            event("step_started", 1),
            event("Not a type", 3),
        ],
    };
    let (outcomes, changes) = world.run(&report);
    use gh_core::domain::commands::EventOutcome::{Accepted, Duplicate, Refused};
    assert_eq!(outcomes.unwrap(), [Accepted(3), Refused, Duplicate, Refused]);
    let stored = &changes.job_events()[0];
    assert_eq!(stored.message.as_ref(), "Step started", "a sentence, not a type's name");
    let metadata = serde_json::to_value(&stored.metadata).unwrap();
    let expected = serde_json::json!({"worker_id": "worker-a", "elapsed_ms": 3420, "step_index": 3, "total_steps": 8});
    assert_eq!(metadata, expected);
}

#[test]
fn an_attempt_that_never_started_costs_none_when_its_time_is_over() {
    let mut world = World::new();
    let who = world.worker("worker-a", None);
    let mut request = submission();
    request.max_attempts = Some(1);
    let job_id = world.submit(request).id;
    assert_eq!(world.dispatch().len(), 1);
    world.pass(300);
    world.listens(&who.worker_id);
    world.sweep();
    let job = world.job(job_id);
    assert_eq!((job.status(), job.attempt, job.attempts_spent), (JobStatus::Pending, Attempt(2), 0));
}

#[test]
fn of_two_deregistrations_of_one_worker_the_earlier_ends_and_the_later_waits() {
    let mut world = World::new();
    let identity = WorkerIdentity {
        target_worker_id: Some(name("sandbox-a")),
        ec2_instance_id: Some(name("i-1")),
        ..WorkerIdentity::default()
    };
    let registration = Register { identity, ..register("worker-a", "boot-1", None) };
    let who = world.run(&registration).0.unwrap().credential;
    world.listens(&who.worker_id);
    let job_id = world.submit(submission()).id;
    assert_eq!(world.dispatch().len(), 1);
    let of_machine = Deregister { selector: Selector::Instance(name("i-1")), ..deregister("i-1", false, Some(60)) };
    let earlier = world.run(&of_machine).0.unwrap().deregistration.id;
    let later = world.run(&deregister("sandbox-a", false, Some(60))).0.unwrap().deregistration;
    assert_eq!(later.draining_jobs, [job_id]);
    let given_up = &world.snapshot.deregistrations[&earlier];
    assert!(given_up.finished_at.is_some(), "nobody would ever tell it that the worker is gone");
    assert!(given_up.draining.is_empty() && given_up.draining_jobs.is_empty());
    assert!(world.run(&complete(&who, job_id, 1)).0.is_ok());
    assert!(world.snapshot.deregistrations[&later.id].finished_at.is_some());
}
