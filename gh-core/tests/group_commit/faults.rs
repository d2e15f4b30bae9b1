//! What goes wrong for one, or for all.

use futures_util::FutureExt;
use gh_core::application::UseCaseError;
use gh_core::domain::changeset::Changeset;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::ports::store::StoreError;
use gh_core::testing::submission;

use crate::stage::{Panics, Stage, cancel, client};

fn poison() -> SubmissionRequest {
    SubmissionRequest { valet_task_id: Some("poison".into()), ..submission() }
}

fn is_poisoned(changes: &Changeset) -> bool {
    changes.jobs().iter().any(|write| &*write.job.spec.valet_task_id == "poison")
}

#[tokio::test]
async fn a_batch_that_the_store_cannot_take_is_halved_until_the_poison_stands_alone() {
    let stage = Stage::new();
    stage.door.fail_commits(|batch| {
        batch.iter().any(is_poisoned).then(|| StoreError::Internal("a value that the store does not take".into()))
    });
    let calls = (0..100).map(|number| stage.submit(if number == 37 { poison() } else { submission() }));
    let answers = stage.while_committing(stage.in_one_batch(calls)).await;
    for (number, answer) in answers.iter().enumerate() {
        match answer {
            Ok(_) => assert_ne!(number, 37),
            Err(error) => assert!(number == 37 && matches!(error, UseCaseError::Internal(_)), "{number}: {error:?}"),
        }
    }
    assert_eq!(stage.jobs().await.len(), 100, "99 of the batch, and the one before it");
    assert!(stage.door.commits() <= 15, "{} commits for 7 halvings", stage.door.commits());
}

#[tokio::test]
async fn a_row_that_makes_no_sense_fails_only_the_caller_who_asked_for_it() {
    let stage = Stage::new();
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(stage.direct.submit(&client(), submission()).await.unwrap().job.id);
    }
    let corrupt = ids[3];
    stage.door.fail_loads(move |keys| keys.jobs.contains(&corrupt).then(|| StoreError::Corrupt("a job".into())));
    let cancels: Vec<_> = ids.iter().map(|id| cancel(*id)).collect();
    let calls = cancels.iter().map(|cancel| stage.grouping.execute(cancel));
    let answers = stage.while_committing(stage.in_one_batch(calls)).await;
    let failed: Vec<usize> = (0..10).filter(|number| answers[*number].is_err()).collect();
    assert_eq!(failed, [3]);
    assert!(matches!(answers[3], Err(UseCaseError::Internal(StoreError::Corrupt(_)))));
}

#[tokio::test]
async fn a_store_that_is_away_is_told_to_every_caller_with_its_cause_and_asked_once() {
    let stage = Stage::new();
    let calls = (0..100).map(|_| stage.submit(submission()));
    let answers = stage
        .while_committing(async {
            let calls = stage.held_in_one_batch(calls).await;
            stage.door.came(1).await;
            stage.door.fail_commits(|_| Some(StoreError::Unavailable(Some("no route to the database".into()))));
            stage.door.open();
            calls.await
        })
        .await;
    assert_eq!(stage.door.commits(), 1);
    for answer in answers {
        let Err(UseCaseError::Unavailable(Some(error))) = answer else { panic!("{answer:?}") };
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        assert_eq!(cause.to_string(), "no route to the database");
    }
    assert_eq!(stage.jobs().await.len(), 1, "the one before the batch");
}

#[tokio::test]
async fn a_decision_that_panics_fails_alone_and_the_committer_goes_on() {
    let stage = Stage::new();
    stage
        .while_committing(async {
            let good = stage.submit(submission()).map(|answer| answer.map(drop)).boxed();
            let bad = stage.grouping.execute(&Panics).boxed();
            let later = stage.submit(submission()).map(|answer| answer.map(drop)).boxed();
            let answers = stage.in_one_batch([good, bad, later]).await;
            assert!(answers[0].is_ok() && answers[2].is_ok());
            assert!(matches!(answers[1], Err(UseCaseError::Internal(_))), "{:?}", answers[1]);
            stage.submit(submission()).await.unwrap();
        })
        .await;
    assert!(matches!(stage.direct.execute(&Panics).await, Err(UseCaseError::Internal(_))), "the same without lanes");
}

#[tokio::test]
async fn a_command_that_is_always_overtaken_is_given_up_and_the_others_are_not() {
    let stage = Stage::new();
    let id = stage.direct.submit(&client(), submission()).await.unwrap().job.id;
    let answers = stage
        .while_committing(async {
            let cancel = cancel(id);
            let overtaken = stage.grouping.execute(&cancel).map(|answer| answer.map(drop)).boxed();
            let other = stage.submit(submission()).map(|answer| answer.map(drop)).boxed();
            stage.door.refuse_every_write_of(id);
            stage.in_one_batch([overtaken, other]).await
        })
        .await;
    assert!(matches!(answers[0], Err(UseCaseError::Unavailable(None))), "{:?}", answers[0]);
    assert!(answers[1].is_ok());
    assert_eq!(stage.door.commits(), 64);
}

#[tokio::test]
async fn a_caller_that_goes_away_neither_stops_nor_spoils_the_batch() {
    let stage = Stage::new();
    stage
        .while_committing(async {
            let in_flight = stage.begin_a_batch().await;
            let mut queued = Box::pin(stage.submit(submission()));
            let mut stays = Box::pin(stage.submit(submission()));
            assert!((&mut queued).now_or_never().is_none());
            assert!((&mut stays).now_or_never().is_none());
            drop(in_flight);
            drop(queued);
            stage.door.open();
            stays.await.unwrap();
        })
        .await;
    assert_eq!(stage.jobs().await.len(), 2, "what was in flight is stored, what still waited was taken back");
}
