//! The sweeper finds everything that is due, and nothing else.

use gh_core::domain::code::{Actor, ClientName};
use gh_core::domain::commands::{Drain, Retry};
use gh_core::domain::job::JobStatus;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::worker::WorkerStatus;
use gh_core::testing::{name, submission, submission_to};

use crate::world::{SECOND, World, heartbeat};

fn expiring(seconds: i64) -> SubmissionRequest {
    SubmissionRequest { expires_in_seconds: Some(seconds), ..submission() }
}

#[tokio::test]
async fn jobs_are_due_at_their_deadline_and_no_sooner() {
    let world = World::new();
    let soon = world.submit(expiring(10)).await;
    let late = world.submit(expiring(20)).await;
    world.clock.advance(9 * SECOND);
    assert!(world.sweep(10).await.committed.is_empty());
    world.clock.advance(SECOND);
    assert_eq!(world.sweep(10).await.committed.len(), 1);
    assert_eq!(world.status(soon).await, JobStatus::Expired);
    assert_eq!(world.status(late).await, JobStatus::Pending);
}

#[tokio::test]
async fn a_sweep_takes_no_more_than_its_limit_and_says_that_there_is_more() {
    let world = World::new();
    for _ in 0..5 {
        world.submit(expiring(1)).await;
    }
    world.clock.advance(SECOND);
    let mut sweeps = Vec::new();
    loop {
        let swept = world.sweep(2).await;
        sweeps.push(swept.committed.len());
        if !swept.more {
            break;
        }
    }
    assert_eq!(sweeps, [2, 2, 1]);
}

#[tokio::test]
async fn a_silent_worker_is_given_up_and_its_job_put_back_while_one_that_beats_stays() {
    let world = World::new();
    let silent = world.worker("w-1").await;
    let alive = world.worker("w-2").await;
    let jobs = world.submit_many(2).await;
    let granted = world.claim(&[&silent, &alive]).await;
    assert_eq!(granted.len(), 2);
    for _ in 0..5 {
        world.clock.advance(5 * SECOND);
        world.run(&heartbeat(&alive)).await;
    }
    let swept = world.sweep(10).await;
    assert!(!swept.more);
    assert_eq!(world.view("w-1").await.status(), WorkerStatus::Offline);
    assert_eq!(world.view("w-2").await.status(), WorkerStatus::Busy);
    for id in jobs {
        let (worker, _) = granted.iter().find(|(_, job)| *job == id).unwrap();
        let expected = if *worker == name("w-1") { JobStatus::Pending } else { JobStatus::Running };
        assert_eq!(world.status(id).await, expected);
    }
    assert!(world.sweep(10).await.committed.is_empty(), "once is enough");
}

#[tokio::test]
async fn a_worker_that_beat_since_it_was_last_looked_at_is_due_again_when_it_falls_silent() {
    let world = World::new();
    let who = world.worker("w-1").await;
    world.clock.advance(15 * SECOND);
    world.run(&heartbeat(&who)).await;
    world.clock.advance(15 * SECOND);
    assert!(world.sweep(10).await.committed.is_empty());
    world.clock.advance(5 * SECOND);
    assert_eq!(world.sweep(10).await.committed.len(), 1);
    assert_eq!(world.view("w-1").await.status(), WorkerStatus::Offline);
}

#[tokio::test]
async fn workers_that_beat_take_no_place_in_a_sweep_with_a_limit() {
    let world = World::new();
    let alive = world.worker("w-1").await;
    world.worker("w-2").await;
    world.clock.advance(15 * SECOND);
    world.run(&heartbeat(&alive)).await;
    world.clock.advance(6 * SECOND);
    let swept = world.sweep(1).await;
    assert_eq!((swept.committed.len(), swept.more), (1, false));
    assert_eq!(world.view("w-2").await.status(), WorkerStatus::Offline);
}

#[tokio::test]
async fn a_reservation_that_is_not_picked_up_lapses_though_the_worker_lives() {
    let world = World::new();
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let id = world.submit(submission_to("sandbox-1", "preferred")).await;
    assert_eq!(world.status(id).await, JobStatus::Queued);
    world.clock.advance(10 * SECOND);
    world.run(&heartbeat(&who)).await;
    world.sweep(10).await;
    assert_eq!(world.status(id).await, JobStatus::Pending);
    let view = world.view("w-1").await;
    assert_eq!((view.occupied_by, view.worker.lapsed), (None, true));
}

#[tokio::test]
async fn a_drain_deadline_takes_the_job_from_a_living_worker() {
    let world = World::new();
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(id));
    let drain = Drain {
        worker_id: who.worker_id.clone(),
        actor: Actor::Client(ClientName::new("valet")),
        reason: "deploy".into(),
        timeout: Some(8 * SECOND),
    };
    world.run(&drain).await;
    world.clock.advance(7 * SECOND);
    world.run(&heartbeat(&who)).await;
    assert!(world.sweep(10).await.committed.is_empty());
    world.clock.advance(SECOND);
    world.sweep(10).await;
    assert_eq!(world.status(id).await, JobStatus::Pending);
    assert_eq!(world.view("w-1").await.status(), WorkerStatus::Draining);
}

#[tokio::test]
async fn a_worker_that_only_comes_along_with_a_due_job_is_not_given_up_without_its_own_job() {
    let world = World::new();
    let last_holder = world.worker_of("w-2", "sandbox-1", "i-1").await;
    let id = world.submit(submission_to("sandbox-1", "strict")).await;
    world.run(&world.claim_of(&last_holder)).await;
    world.fail(&last_holder, id, false).await;
    let present = world.submit(submission()).await;
    world.listen(&last_holder).await;
    assert_eq!(world.claim_one(&last_holder).await, Some(present));
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    let retry = Retry {
        job_id: id,
        routing: world.job(id).await.spec.routing.clone(),
        actor: Actor::Client(ClientName::new("valet")),
        run: None,
        side_effects_checked: false,
    };
    world.run(&retry).await;
    assert_eq!(world.status(id).await, JobStatus::Queued);
    // Both workers fall silent; the limit leaves one of them to a later sweep, but the due reservation brings it along.
    world.clock.advance(21 * SECOND);
    while world.sweep(1).await.more {}
    for worker in ["w-1", "w-2"] {
        assert_eq!(world.view(worker).await.status(), WorkerStatus::Offline);
    }
    assert_eq!(world.status(present).await, JobStatus::Pending);
}
