//! Claims find the right job, whatever keeps others waiting.

use std::collections::HashSet;

use gh_core::domain::ids::JobId;
use gh_core::domain::job::JobStatus;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::testing::{name, submission, submission_to};

use crate::world::{SECOND, World, cancel};

fn with_priority(priority: i64) -> SubmissionRequest {
    SubmissionRequest { priority: Some(priority), ..submission() }
}

#[tokio::test]
async fn higher_priority_comes_first_then_older() {
    let world = World::new();
    let who = world.worker("w-1").await;
    let low = world.submit(with_priority(1)).await;
    let first = world.submit(with_priority(5)).await;
    world.clock.advance(SECOND);
    let second = world.submit(with_priority(5)).await;
    let high = world.submit(with_priority(9)).await;
    let mut order = Vec::new();
    while let Some(id) = world.claim_one(&who).await {
        order.push(id);
        world.complete(&who, id).await;
        world.listen(&who).await;
    }
    assert_eq!(order, [high, first, second, low]);
}

#[tokio::test]
async fn every_job_is_started_once_and_every_worker_gets_one_at_most() {
    let world = World::new();
    let mut workers = Vec::new();
    for index in 0..8 {
        workers.push(world.worker(&format!("w-{index}")).await);
    }
    let mut waiting: HashSet<JobId> = world.submit_many(20).await.into_iter().collect();
    while !waiting.is_empty() {
        let expected = waiting.len().min(workers.len());
        let granted = world.claim(&workers.iter().collect::<Vec<_>>()).await;
        let busy: HashSet<_> = granted.iter().map(|(worker, _)| worker).collect();
        assert_eq!((granted.len(), busy.len()), (expected, expected));
        assert!(world.claim(&workers.iter().collect::<Vec<_>>()).await.is_empty() || expected < workers.len());
        for (worker, job) in granted {
            assert!(waiting.remove(&job), "{job} was started twice");
            let who = workers.iter().find(|who| who.worker_id == worker).unwrap();
            world.complete(who, job).await;
            world.listen(who).await;
        }
    }
}

#[tokio::test]
async fn a_job_for_one_target_goes_to_a_worker_of_that_target_only() {
    let world = World::new();
    let busy = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let stranger = world.worker("w-2").await;
    let running = world.submit(submission_to("sandbox-1", "strict")).await;
    let waiting = world
        .submit(SubmissionRequest { affinity_wait_seconds: Some(60), ..submission_to("sandbox-1", "strict") })
        .await;
    assert_eq!(world.status(waiting).await, JobStatus::Pending);
    assert_eq!(world.claim_one(&stranger).await, None);
    world.run(&world.claim_of(&busy)).await;
    assert_eq!(world.status(running).await, JobStatus::Running);
    world.complete(&busy, running).await;
    world.listen(&busy).await;
    assert_eq!(world.claim(&[&stranger, &busy]).await, [(name("w-1"), waiting)]);
}

#[tokio::test]
async fn a_name_that_no_worker_carries_as_target_means_the_worker_of_that_id() {
    let world = World::new();
    let who = world.worker("w-1").await;
    let first = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(first));
    let waiting =
        world.submit(SubmissionRequest { affinity_wait_seconds: Some(60), ..submission_to("w-1", "strict") }).await;
    world.complete(&who, first).await;
    world.listen(&who).await;
    let namesake = world.worker_of("w-2", "w-1", "i-1").await;
    assert_eq!(world.claim_one(&who).await, None, "now the name means another worker");
    assert_eq!(world.claim_one(&namesake).await, Some(waiting));
}

#[tokio::test]
async fn a_job_that_backs_off_is_passed_over_until_its_time() {
    let world = World::new();
    let who = world.worker("w-1").await;
    let failing = world.submit(with_priority(10)).await;
    let other = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(failing));
    world.fail(&who, failing, true).await;
    world.listen(&who).await;
    assert_eq!(world.claim_one(&who).await, Some(other));
    world.complete(&who, other).await;
    world.listen(&who).await;
    assert_eq!(world.claim_one(&who).await, None);
    world.clock.advance(5 * SECOND);
    assert_eq!(world.claim_one(&who).await, Some(failing));
}

#[tokio::test]
async fn a_fenced_job_is_for_the_worker_that_lost_it_until_the_fence_passes() {
    let world = World::new();
    let slow = world.worker("w-1").await;
    let id = world.submit(SubmissionRequest { timeout_seconds: Some(1), ..submission() }).await;
    assert_eq!(world.claim_one(&slow).await, Some(id));
    world.clock.advance(SECOND);
    world.sweep(10).await;
    let job = world.job(id).await;
    let wait = job.wait().unwrap();
    let fence = wait.fence.clone().unwrap();
    assert!(wait.not_before.unwrap() < fence.until, "backs off first, is fenced then");
    world.clock.set(wait.not_before.unwrap());
    let other = world.worker("w-2").await;
    assert_eq!(world.claim_one(&other).await, None);
    world.listen(&slow).await;
    assert_eq!(world.claim(&[&other, &slow]).await, [(name("w-1"), id)]);
}

#[tokio::test]
async fn when_its_fence_has_passed_anyone_may_take_the_job() {
    let world = World::new();
    let slow = world.worker("w-1").await;
    let id = world.submit(SubmissionRequest { timeout_seconds: Some(1), ..submission() }).await;
    assert_eq!(world.claim_one(&slow).await, Some(id));
    world.clock.advance(SECOND);
    world.sweep(10).await;
    let fenced_until = world.job(id).await.wait().unwrap().fence.clone().unwrap().until;
    world.clock.set(fenced_until - SECOND);
    let other = world.worker("w-2").await;
    assert_eq!(world.claim_one(&other).await, None);
    world.clock.set(fenced_until);
    assert_eq!(world.claim_one(&other).await, Some(id));
}

#[tokio::test]
async fn jobs_that_are_reserved_or_ended_and_workers_that_do_not_listen_are_left_out() {
    let world = World::new();
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    let other = world.worker("w-2").await;
    world.submit(submission_to("sandbox-1", "preferred")).await;
    let cancelled = world.submit(submission()).await;
    world.run(&cancel(cancelled)).await;
    assert_eq!(world.claim_one(&other).await, None);
    world.submit(submission()).await;
    world.clock.advance(12 * SECOND);
    assert_eq!(world.claim_one(&other).await, None, "it was not heard from lately");
}
