//! Lanes: what shares a batch, how many may wait, and how it ends.

use futures_util::FutureExt;
use futures_util::future::{Either, join_all, select};
use gh_core::application::{BackgroundLoops, GroupCommit, LaneSettings, UseCaseError};
use gh_core::testing::{name, registration, submission};

use crate::stage::{Stage, heartbeat};

fn queue_of(places: usize) -> GroupCommit {
    let lane = LaneSettings { queue: places, committers: 1 };
    GroupCommit { ordinary: lane, ..GroupCommit::default() }
}

#[tokio::test]
async fn a_full_lane_refuses_at_once_and_what_it_took_is_answered() {
    let stage = Stage::with(&queue_of(10));
    stage
        .while_committing(async {
            let first = stage.begin_a_batch().await;
            let mut waiting = Vec::new();
            let mut refused = 0;
            for _ in 0..10_000 {
                let mut call = Box::pin(stage.submit(submission()));
                match (&mut call).now_or_never() {
                    None => waiting.push(call),
                    Some(Err(UseCaseError::Unavailable(None))) => refused += 1,
                    Some(answer) => panic!("{answer:?}"),
                }
            }
            assert_eq!((waiting.len(), refused), (10, 9_990));
            stage.door.open();
            first.await.unwrap();
            assert!(join_all(waiting).await.iter().all(Result::is_ok));
            stage.submit(submission()).await.unwrap();
        })
        .await;
    assert_eq!(stage.jobs().await.len(), 12);
}

#[tokio::test]
async fn signs_of_life_do_not_wait_behind_jobs() {
    let stage = Stage::new();
    let who = stage.worker("worker-a", None).await;
    stage
        .while_committing(async {
            let job = stage.begin_a_batch().await;
            let beat = heartbeat(&who);
            let mut beating = Box::pin(stage.grouping.heartbeat(&beat));
            assert!((&mut beating).now_or_never().is_none());
            stage.door.came(2).await;
            stage.door.open();
            beating.await.unwrap();
            job.await.unwrap();
        })
        .await;
}

#[tokio::test]
async fn a_command_over_many_aggregates_has_a_load_and_a_commit_of_its_own() {
    let stage = Stage::new();
    stage
        .while_committing(async {
            let job = stage.begin_a_batch().await;
            let registrations: Vec<_> = (0..5).map(|number| registration(&format!("worker-{number}"))).collect();
            let mut calls = Box::pin(join_all(registrations.iter().map(|register| stage.grouping.register(register))));
            assert!((&mut calls).now_or_never().is_none());
            stage.door.open();
            job.await.unwrap();
            assert!(calls.await.iter().all(Result::is_ok));
        })
        .await;
    let loads = stage.door.loads();
    for number in 0..5 {
        let worker = name(&format!("worker-{number}"));
        let own: Vec<_> = loads.iter().filter(|keys| keys.names.contains(&worker)).collect();
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].names, [worker]);
    }
    assert_eq!(stage.door.largest_commit(), 1);
}

#[tokio::test]
async fn with_two_committers_a_batch_is_decided_while_another_is_stored() {
    let lane = LaneSettings { queue: 100, committers: 2 };
    let stage = Stage::with(&GroupCommit { ordinary: lane, ..GroupCommit::default() });
    stage
        .while_committing(async {
            let first = stage.begin_a_batch().await;
            let mut second = Box::pin(stage.submit(submission()));
            assert!((&mut second).now_or_never().is_none());
            stage.door.came(2).await;
            stage.door.open();
            first.await.unwrap();
            second.await.unwrap();
        })
        .await;
}

#[tokio::test]
async fn a_lane_that_closes_answers_all_that_it_took_and_later_commands_go_their_own_way() {
    let stage = Stage::with(&GroupCommit { batch: 8, ..GroupCommit::default() });
    let answers = stage
        .while_committing(async {
            let calls = stage.held_in_one_batch((0..50).map(|_| stage.submit(submission()))).await;
            stage.grouping.close();
            stage.door.open();
            calls.await
        })
        .await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 50);
    stage.submit(submission()).await.unwrap();
    assert_eq!(stage.jobs().await.len(), 52);
}

#[tokio::test]
async fn callers_of_a_committer_that_is_cut_off_are_told_and_later_commands_go_their_own_way() {
    let stage = Stage::new();
    let committing = Box::pin(BackgroundLoops::COMMIT.run(&stage.grouping));
    let calling = Box::pin(stage.held_in_one_batch((0..50).map(|_| stage.submit(submission()))));
    let Either::Right((calls, committing)) = select(committing, calling).await else {
        panic!("committers run until they are closed");
    };
    drop(committing);
    for answer in calls.await {
        assert!(matches!(answer, Err(UseCaseError::Unavailable(None))), "{answer:?}");
    }
    stage.door.open();
    stage.submit(submission()).await.unwrap();
    assert_eq!(stage.jobs().await.len(), 2, "the one before the batch, and the last");
}
