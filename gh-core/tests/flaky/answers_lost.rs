//! One call each whose answer was lost after it was carried out, and what its caller finds when it comes again.

use std::time::Duration;

use gh_core::domain::code::Actor;
use gh_core::domain::commands::{
    Credential, Deregister, Report, ReportOutcome, Selector, SideEffectsStarted, UsageClosing,
};
use gh_core::domain::ids::{Attempt, JobId};
use gh_core::domain::job::{Completion, JobStatus};
use gh_core::domain::submission::SubmissionRequest;
use gh_core::ports::reader::{JobQuery, Reader};
use gh_core::testing::{Fault, StoreCall, name, submission, submission_to};

use crate::stage::{Stage, WAIT, client, register, unanswered};

/// A worker with a job that it has begun.
async fn running(stage: &Stage) -> (Credential, JobId) {
    let who = stage.worker("worker-a", "sandbox-a").await;
    let job_id = stage.control_plane.submit(&client(), submission()).await.unwrap().job.id;
    assert_eq!(stage.control_plane.claim(&who, WAIT).await.unwrap().unwrap().job.id, job_id);
    (who, job_id)
}

fn complete(who: &Credential, job_id: JobId) -> ReportOutcome {
    let report = Report::Complete(Completion::default(), UsageClosing::default());
    ReportOutcome { who: who.clone(), job_id, attempt: Attempt::FIRST, report }
}

#[tokio::test(start_paused = true)]
async fn a_submission_with_a_key_is_there_once_and_its_repetition_is_called_a_duplicate() {
    let stage = Stage::new(0);
    let request = SubmissionRequest { idempotency_key: Some("key-1".into()), ..submission() };
    stage.next(StoreCall::Commit, Fault::After);
    assert!(unanswered(&stage.control_plane.submit(&client(), request.clone()).await));
    let again = stage.control_plane.submit(&client(), request).await.unwrap();
    assert!(again.duplicate);
    let jobs = stage.memory.jobs(&JobQuery { limit: 10, ..JobQuery::default() }).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [again.job.id]);
}

#[tokio::test(start_paused = true)]
async fn a_registration_goes_on_as_the_same_generation() {
    let stage = Stage::new(0);
    let registration = register("worker-a", "sandbox-a", 1);
    stage.next(StoreCall::Commit, Fault::After);
    assert!(unanswered(&stage.control_plane.register(&registration).await));
    let again = stage.control_plane.register(&registration).await.unwrap();
    assert_eq!((again.created, again.credential.generation.0), (false, 1));
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_answered_again_with_the_job_it_had_been_given() {
    let stage = Stage::new(0);
    let who = stage.worker("worker-a", "sandbox-a").await;
    let job_id = stage.control_plane.submit(&client(), submission()).await.unwrap().job.id;
    stage.next(StoreCall::Claim, Fault::After);
    assert!(unanswered(&stage.control_plane.claim(&who, WAIT).await));
    let granted = stage.control_plane.claim(&who, WAIT).await.unwrap().unwrap();
    assert_eq!((granted.job.id, granted.job.attempt), (job_id, Attempt::FIRST));
    assert_eq!(stage.event_types(job_id).await, ["job_queued", "job_started"]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_a_reserved_job_is_answered_again_too() {
    let stage = Stage::new(0);
    let who = stage.worker("worker-a", "sandbox-a").await;
    let waiting = stage.control_plane.claim(&who, WAIT);
    let reserving = async {
        tokio::task::yield_now().await;
        stage.flaky.next(StoreCall::Commit, [None, Some(Fault::After)]);
        stage.control_plane.submit(&client(), submission_to("sandbox-a", "strict")).await.unwrap().job.id
    };
    let (unheard, job_id) = tokio::join!(waiting, reserving);
    assert!(unanswered(&unheard));
    let granted = stage.control_plane.claim(&who, WAIT).await.unwrap().unwrap();
    assert_eq!((granted.job.id, granted.job.attempt), (job_id, Attempt::FIRST));
}

#[tokio::test(start_paused = true)]
async fn all_claims_that_wait_get_what_a_dispatch_gave_them_as_soon_as_the_store_answers() {
    let stage = Stage::new(0);
    let (first, second) = (stage.worker("worker-a", "a").await, stage.worker("worker-b", "b").await);
    let claim = async |who: &Credential| {
        let granted = tokio::time::timeout(Duration::from_secs(1), stage.control_plane.claim(who, WAIT)).await;
        granted.expect("nobody waits until its claim is over").unwrap().unwrap().job.id
    };
    let dispatching = async {
        tokio::task::yield_now().await;
        for _ in 0..2 {
            stage.control_plane.submit(&client(), submission()).await.unwrap();
        }
        stage.next(StoreCall::Claim, Fault::After);
        assert!(unanswered(&stage.control_plane.dispatch_once().await));
        assert_eq!(stage.control_plane.dispatch_once().await.unwrap(), 0, "both were granted before");
    };
    let (one, other, ()) = tokio::join!(claim(&first), claim(&second), dispatching);
    assert_ne!(one, other);
}

#[tokio::test(start_paused = true)]
async fn a_reservation_wakes_its_worker_although_the_client_was_not_answered() {
    let stage = Stage::new(0);
    let who = stage.worker("worker-a", "sandbox-a").await;
    let submitting = async {
        tokio::task::yield_now().await;
        stage.next(StoreCall::Commit, Fault::After);
        let answer = stage.control_plane.submit(&client(), submission_to("sandbox-a", "strict")).await;
        assert!(unanswered(&answer));
    };
    let (claimed, ()) = tokio::join!(stage.control_plane.claim(&who, Duration::from_secs(5)), submitting);
    assert!(claimed.unwrap().is_some(), "the reservation would lapse while the worker waits");
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_caller_went_away_is_written_down_when_the_store_is_back() {
    let stage = Stage::new(0);
    let who = stage.worker("worker-a", "sandbox-a").await;
    let gone = tokio::time::timeout(Duration::from_secs(1), stage.control_plane.claim(&who, WAIT)).await;
    assert!(gone.is_err());
    stage.next(StoreCall::Commit, Fault::Before);
    assert!(unanswered(&stage.control_plane.note_departures().await));
    stage.control_plane.note_departures().await.unwrap();
    stage.clock.advance(Duration::from_secs(4));
    let strict = stage.control_plane.submit(&client(), submission_to("sandbox-a", "strict")).await.unwrap();
    assert_eq!(strict.worker_status.as_deref(), Some("unresponsive"));
}

#[tokio::test(start_paused = true)]
async fn the_point_of_no_return_is_passed_once() {
    let stage = Stage::new(0);
    let (who, job_id) = running(&stage).await;
    let report = SideEffectsStarted { who, job_id, attempt: Attempt::FIRST, what: None };
    stage.next(StoreCall::Commit, Fault::After);
    assert!(unanswered(&stage.control_plane.side_effects_started(&report).await));
    stage.control_plane.side_effects_started(&report).await.unwrap();
    assert_eq!(stage.event_types(job_id).await, ["job_queued", "job_started", "side_effects_started"]);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_taken_once_and_answered_alike() {
    let stage = Stage::new(0);
    let (who, job_id) = running(&stage).await;
    stage.next(StoreCall::Commit, Fault::After);
    assert!(unanswered(&stage.control_plane.report_outcome(&complete(&who, job_id)).await));
    let answer = stage.control_plane.report_outcome(&complete(&who, job_id)).await.unwrap();
    assert_eq!((answer.status, answer.will_retry), (JobStatus::Completed, false));
    assert_eq!(stage.event_types(job_id).await, ["job_queued", "job_started", "job_completed"]);
}

#[tokio::test(start_paused = true)]
async fn a_deregistration_answers_with_its_record() {
    let stage = Stage::new(0);
    let who = stage.worker("worker-a", "sandbox-a").await;
    let deregister = Deregister {
        selector: Selector::Target(name("sandbox-a")),
        actor: Actor::Client(client()),
        reason: "sandbox_terminated".into(),
        cancel_active_jobs: true,
        drain_timeout: None,
        hold: None,
        dry_run: false,
    };
    stage.next(StoreCall::Commit, Fault::After);
    assert!(unanswered(&stage.control_plane.deregister(&deregister, Duration::ZERO).await));
    let again = stage.control_plane.deregister(&deregister, Duration::ZERO).await.unwrap();
    let gone = std::slice::from_ref(&who.worker_id);
    assert_eq!(again.deregistration.deregistered, gone, "a new one would find nobody left");
    let events = stage.memory.worker_events(&who.worker_id, None, 10).await.unwrap();
    let retired = events.iter().filter(|event| event.event_type.as_str() == "worker_deregistered");
    assert_eq!(retired.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn callbacks_that_were_leased_unheard_are_sent_when_the_lease_is_over() {
    let stage = Stage::new(0);
    running(&stage).await;
    stage.next(StoreCall::LeaseDue, Fault::After);
    assert!(unanswered(&stage.control_plane.deliver_once().await));
    assert_eq!(stage.control_plane.deliver_once().await.unwrap(), 0, "somebody has it");
    stage.clock.advance(Duration::from_secs(30));
    assert_eq!(stage.control_plane.deliver_once().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_callback_whose_delivery_was_not_recorded_is_sent_again_with_the_same_id_and_bytes() {
    let stage = Stage::new(0);
    running(&stage).await;
    stage.next(StoreCall::Settle, Fault::Before);
    assert!(unanswered(&stage.control_plane.deliver_once().await));
    stage.clock.advance(Duration::from_secs(30));
    assert_eq!(stage.control_plane.deliver_once().await.unwrap(), 1);
    let received = stage.receiver.received.lock().unwrap();
    let [first, again] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!((first.webhook_id, &first.body), (again.webhook_id, &again.body));
}

#[tokio::test(start_paused = true)]
async fn a_callback_whose_delivery_was_recorded_unheard_is_not_sent_again() {
    let stage = Stage::new(0);
    running(&stage).await;
    stage.next(StoreCall::Settle, Fault::After);
    assert!(unanswered(&stage.control_plane.deliver_once().await));
    stage.clock.advance(Duration::from_secs(3600));
    assert_eq!(stage.control_plane.deliver_once().await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_conflicts_with_itself_is_answered_as_what_it_did() {
    let stage = Stage::new(0);
    let (who, job_id) = running(&stage).await;
    let twice = Fault::Repeat(gh_core::testing::Heard::Second);
    stage.next(StoreCall::Commit, twice);
    let answer = stage.control_plane.report_outcome(&complete(&who, job_id)).await.unwrap();
    assert_eq!(answer.status, JobStatus::Completed);
    assert_eq!(stage.event_types(job_id).await, ["job_queued", "job_started", "job_completed"]);
}
