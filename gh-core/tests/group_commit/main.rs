//! Commands that come while others are being stored are decided and stored together, and nobody notices but the store.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod equality;
mod faults;
mod lanes;
mod operations;
mod recall;
mod stage;
mod store;

use std::time::Duration;

use futures_util::FutureExt;
use gh_core::application::{GroupCommit, UseCaseError};
use gh_core::domain::job::JobStatus;
use gh_core::domain::rejection::Rejection;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::testing::{submission, submission_to};

use crate::stage::{Counted, Stage, cancel, client, report, with_key};

#[tokio::test]
async fn commands_that_come_while_others_are_stored_share_one_load_and_one_commit() {
    let stage = Stage::new();
    stage
        .while_committing(async {
            let answers = stage.in_one_batch((0..500).map(|_| stage.submit(submission()))).await;
            assert!(answers.iter().all(Result::is_ok));
        })
        .await;
    assert_eq!((stage.door.loads().len(), stage.door.commits()), (2, 2), "500 commands in batches of at most 256");
    assert_eq!(stage.door.largest_commit(), 256);
    assert_eq!(stage.jobs().await.len(), 501);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_comes_alone_waits_for_nothing() {
    let stage = Stage::new();
    stage
        .while_committing(async {
            for _ in 0..100 {
                // Paused time passes only while somebody waits for it.
                let alone = tokio::time::timeout(Duration::from_nanos(1), stage.submit(submission())).await;
                assert!(alone.expect("no time passes").is_ok());
            }
        })
        .await;
    assert_eq!(stage.door.commits(), 100);
}

#[tokio::test]
async fn two_submissions_with_one_key_in_one_batch_make_one_job_and_one_duplicate() {
    let stage = Stage::new();
    let calls =
        [with_key("k", "a"), with_key("k", "a"), with_key("k", "b")].map(|request| Box::pin(stage.submit(request)));
    let answers = stage.while_committing(stage.in_one_batch(calls)).await;
    let [first, second, third] = &answers[..] else { panic!("three answers") };
    let (first, second) = (first.as_ref().unwrap(), second.as_ref().unwrap());
    assert_eq!((first.duplicate, second.duplicate, first.job.id), (false, true, second.job.id));
    assert!(matches!(third, Err(UseCaseError::Rejected(Rejection::IdempotencyKeyReused))), "{third:?}");
    assert_eq!(stage.door.commits(), 1);
    assert_eq!(stage.jobs().await.len(), 2, "with the one before the batch");
}

#[tokio::test]
async fn several_commands_for_one_job_in_one_batch_keep_their_order_and_number_events_through() {
    let stage = Stage::new();
    let who = stage.worker("worker-a", None).await;
    let id = stage.running_job(&who).await;
    let types: Vec<String> = (0..20).map(|number| format!("step_{number}")).collect();
    let reports: Vec<_> = types.iter().map(|event_type| report(&who, id, event_type)).collect();
    let calls = reports.iter().map(|report| stage.grouping.report_events(report));
    let answers = stage.while_committing(stage.in_one_batch(calls)).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((stage.door.commits(), stage.door.largest_commit()), (1, 1), "they stand or fall together");
    let expected = ["job_queued", "job_started"].into_iter().chain(types.iter().map(String::as_str));
    let expected: Vec<(u64, String)> = (1..).zip(expected.map(str::to_owned)).collect();
    assert_eq!(stage.events(id).await, expected);
}

#[tokio::test]
async fn a_conflict_with_another_writer_decides_again_only_what_hung_on_it() {
    let stage = Stage::new();
    let who = stage.worker("worker-a", None).await;
    let id = stage.running_job(&who).await;
    let (first, second) = (Counted::new(report(&who, id, "one")), Counted::new(report(&who, id, "two")));
    let other = stage.direct.submit(&client(), submission()).await.unwrap().job.id;
    let apart = Counted::new(cancel(other));
    stage
        .while_committing(async {
            let reports = async { tokio::try_join!(stage.grouping.execute(&first), stage.grouping.execute(&second)) };
            let calls = [reports.map(|answers| answers.map(drop)).boxed(), {
                stage.grouping.execute(&apart).map(|answer| answer.map(drop)).boxed()
            }];
            let calls = stage.held_in_one_batch(calls).await;
            stage.door.came(1).await;
            // One write of the job: its version is now the one that the second report counts on.
            stage.direct.report_events(&report(&who, id, "meanwhile")).await.unwrap();
            stage.door.open();
            assert!(calls.await.iter().all(Result::is_ok));
        })
        .await;
    assert_eq!((first.times(), second.times(), apart.times()), (2, 2, 1));
    assert_eq!((stage.door.loads().len(), stage.door.commits()), (2, 2));
    let types: Vec<String> = stage.events(id).await.into_iter().map(|(_, event_type)| event_type).collect();
    assert_eq!(types, ["job_queued", "job_started", "meanwhile", "one", "two"]);
}

#[tokio::test]
async fn a_refusal_is_not_answered_when_what_it_rested_on_was_not_stored() {
    let stage = Stage::new();
    let (first, second) = stage
        .while_committing(async {
            let calls = [with_key("k", "a"), with_key("k", "b")].map(|request| Box::pin(stage.submit(request)));
            let calls = stage.held_in_one_batch(calls).await;
            stage.door.came(1).await;
            // In the batch the second one was refused, for the sake of the first.
            stage.direct.submit(&client(), with_key("k", "b")).await.unwrap();
            stage.door.open();
            let mut answers = calls.await.into_iter();
            (answers.next().unwrap(), answers.next().unwrap())
        })
        .await;
    assert!(matches!(first, Err(UseCaseError::Rejected(Rejection::IdempotencyKeyReused))), "{first:?}");
    assert!(second.unwrap().duplicate);
}

#[tokio::test]
async fn a_strict_job_does_not_fail_for_a_reservation_that_was_not_stored() {
    let stage = Stage::new();
    stage.worker("worker-a", Some("sandbox")).await;
    let keyed = SubmissionRequest { idempotency_key: Some("k".into()), ..submission_to("sandbox", "strict") };
    let calls = [keyed, submission_to("sandbox", "strict")].map(|request| Box::pin(stage.submit(request)));
    let answers = stage
        .while_committing(async {
            let calls = stage.held_in_one_batch(calls).await;
            stage.door.came(1).await;
            // Somebody else uses the key of the first, which had reserved the worker.
            stage.direct.submit(&client(), with_key("k", "another text")).await.unwrap();
            stage.door.open();
            calls.await
        })
        .await;
    assert!(matches!(answers[0], Err(UseCaseError::Rejected(Rejection::IdempotencyKeyReused))), "{:?}", answers[0]);
    assert_eq!(answers[1].as_ref().unwrap().job.status(), JobStatus::Queued, "the worker was free all the time");
}

#[tokio::test]
async fn a_refusal_that_rests_on_nothing_new_is_answered_before_the_batch_is_stored() {
    let stage = Stage::new();
    let known = stage.direct.submit(&client(), with_key("k", "a")).await.unwrap().job.id;
    stage
        .while_committing(async {
            let mut refused = Box::pin(stage.submit(with_key("k", "b")));
            let first = stage.begin_a_batch().await;
            let mut stored = Box::pin(stage.submit(submission()));
            assert!((&mut refused).now_or_never().is_none());
            assert!((&mut stored).now_or_never().is_none());
            stage.door.let_through(1);
            first.await.unwrap();
            let refused = refused.await;
            assert!(matches!(refused, Err(UseCaseError::Rejected(Rejection::IdempotencyKeyReused))), "{refused:?}");
            assert!((&mut stored).now_or_never().is_none(), "the door is closed");
            stage.door.open();
            stored.await.unwrap();
        })
        .await;
    assert!(stage.jobs().await.iter().any(|job| job.id == known));
}

#[tokio::test]
async fn of_a_thousand_strict_submissions_that_race_for_ten_workers_exactly_ten_are_admitted() {
    let stage = Stage::with(&GroupCommit { batch: 64, ..GroupCommit::default() });
    for number in 0..10 {
        stage.worker(&format!("worker-{number}"), Some("sandbox")).await;
    }
    let calls = (0..1000).map(|_| stage.submit(submission_to("sandbox", "strict")));
    let answers = stage.while_committing(stage.in_one_batch(calls)).await;
    let admitted: Vec<_> = answers.iter().map(|answer| answer.as_ref().unwrap()).collect();
    let admitted: Vec<_> = admitted.into_iter().filter(|submitted| submitted.worker_status.is_none()).collect();
    assert_eq!(admitted.len(), 10);
    let mut workers: Vec<_> = admitted.iter().map(|submitted| submitted.job.occupies().unwrap()).collect();
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers.len(), 10, "one job each");
    assert_eq!(stage.door.commits(), 16);
    let failed = stage.jobs().await.iter().filter(|job| job.status() == JobStatus::Failed).count();
    assert_eq!(failed, 990);
}
