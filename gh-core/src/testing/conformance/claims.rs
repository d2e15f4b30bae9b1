//! Claims find the right job, whatever keeps others waiting, and whoever else claims.

use std::collections::HashSet;

use futures_util::future::join_all;

use super::steps::{events, patient, reboot};
use super::world::{SECOND, World, cancel, heartbeat};
use crate::domain::commands::{ClaimAnswer, Credential, Heartbeat, JobClaim};
use crate::domain::ids::{Attempt, JobId};
use crate::domain::job::{JobStatus, WaitObstacle};
use crate::domain::rejection::Rejection;
use crate::domain::submission::SubmissionRequest;
use crate::testing::{name, submission, submission_to};

fn with_priority(priority: i64) -> SubmissionRequest {
    SubmissionRequest { priority: Some(priority), ..submission() }
}

impl World {
    async fn complete_and_listen(&self, who: &Credential, job_id: JobId) {
        self.complete(who, job_id).await;
        self.listen(who).await;
    }
}

pub(super) async fn higher_priority_comes_first_then_older(world: World) {
    let who = world.worker("w-1").await;
    let low = world.submit(with_priority(1)).await;
    let first = world.submit(with_priority(5)).await;
    world.clock.advance(SECOND);
    let second = world.submit(with_priority(5)).await;
    let high = world.submit(with_priority(9)).await;
    let mut order = Vec::new();
    while let Some(id) = world.claim_one(&who).await {
        order.push(id);
        world.complete_and_listen(&who, id).await;
    }
    assert_eq!(order, [high, first, second, low]);
}

pub(super) async fn every_job_is_started_once_and_no_worker_gets_two_however_many_servers_claim(world: World) {
    const SERVERS: usize = 8;
    let (mut servers, mut workers) = (Vec::new(), Vec::new());
    for index in 0..SERVERS {
        servers.push(world.elsewhere().await);
        workers.push(world.worker(&format!("w-{index}")).await);
    }
    let mut waiting: HashSet<JobId> = world.submit_many(5 * SERVERS).await.into_iter().collect();
    while !waiting.is_empty() {
        // Each worker waits on two servers: its call to one of them was cut off, and the server does not know it yet.
        let claims = servers
            .iter()
            .enumerate()
            .map(async |(index, server)| server.claim(&[&workers[index], &workers[(index + 1) % SERVERS]]).await);
        let granted: Vec<_> = join_all(claims).await.into_iter().flatten().collect();
        assert!(!granted.is_empty(), "{} jobs and {SERVERS} workers wait for each other", waiting.len());
        let busy: HashSet<_> = granted.iter().map(|(worker, _)| worker).collect();
        assert_eq!(busy.len(), granted.len(), "a worker got two jobs");
        for (worker, job_id) in &granted {
            assert!(waiting.remove(job_id), "{job_id} was started twice");
            let job = world.job(*job_id).await;
            assert_eq!((job.occupies(), job.attempt), (Some(worker), Attempt::FIRST));
            assert_eq!(world.view(worker.as_str()).await.live_job(), Some(*job_id));
        }
        for (worker, job_id) in granted {
            let who = workers.iter().find(|who| who.worker_id == worker).unwrap();
            world.complete_and_listen(who, job_id).await;
        }
    }
    assert_eq!(world.count(JobStatus::Completed).await, 5 * SERVERS);
}

pub(super) async fn one_claim_gives_every_idle_worker_a_job_while_there_are_any(world: World) {
    let mut workers = Vec::new();
    for index in 0..5 {
        workers.push(world.worker(&format!("w-{index}")).await);
    }
    let all: Vec<&Credential> = workers.iter().collect();
    let jobs: HashSet<JobId> = world.submit_many(7).await.into_iter().collect();
    let granted = world.claim(&all).await;
    assert_eq!(granted.len(), 5);
    assert!(granted.iter().all(|(_, job)| jobs.contains(job)));
    assert_eq!(world.claim(&all).await, [], "all have one");
}

pub(super) async fn a_server_may_claim_for_workers_that_wait_on_another(world: World) {
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    let elsewhere = world.elsewhere().await;
    assert_eq!(elsewhere.claim(&[&who]).await, [(name("w-1"), id)]);
    assert_eq!(world.claim(&[&who]).await, []);
}

pub(super) async fn a_job_for_one_target_goes_to_a_worker_of_that_target_only(world: World) {
    let busy = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let stranger = world.worker("w-2").await;
    let running = world.submit(submission_to("sandbox-1", "strict")).await;
    let waiting = world.submit(patient("sandbox-1", 60)).await;
    assert_eq!(world.status(waiting).await, JobStatus::Pending);
    assert_eq!(world.claim_one(&stranger).await, None);
    world.run(&world.claim_of(&busy)).await;
    assert_eq!(world.status(running).await, JobStatus::Running);
    world.complete_and_listen(&busy, running).await;
    assert_eq!(world.claim(&[&stranger, &busy]).await, [(name("w-1"), waiting)]);
}

pub(super) async fn a_preferred_job_waits_for_its_target_first_and_then_goes_to_anyone(world: World) {
    let target = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let first = world.submit(submission_to("sandbox-1", "preferred")).await;
    assert_eq!(world.status(first).await, JobStatus::Queued, "reserved for its target");
    world.run(&world.claim_of(&target)).await;
    let other = world.worker("w-2").await;
    let patient = SubmissionRequest { affinity_wait_seconds: Some(5), ..submission_to("sandbox-1", "preferred") };
    let second = world.submit(patient).await;
    assert_eq!(world.claim_one(&other).await, None, "it waits for its target yet");
    world.clock.advance(5 * SECOND);
    world.sweep(10).await;
    assert_eq!(world.claim_one(&other).await, Some(second));
    world.complete_and_listen(&other, second).await;
    let impatient = world.submit(submission_to("sandbox-1", "preferred")).await;
    assert_eq!(world.claim_one(&other).await, Some(impatient), "its target is busy, and it waits for nobody");
}

pub(super) async fn a_job_for_anyone_goes_to_anyone_whatever_target_it_names(world: World) {
    let stranger = world.worker("w-2").await;
    let id = world.submit(submission_to("sandbox-1", "any")).await;
    assert_eq!(world.claim_one(&stranger).await, Some(id));
}

pub(super) async fn a_name_that_no_worker_carries_as_target_means_the_worker_of_that_id(world: World) {
    let who = world.worker("w-1").await;
    let first = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(first));
    let by_id = world.submit(patient("w-1", 60)).await;
    world.complete_and_listen(&who, first).await;
    assert_eq!(world.claim_one(&who).await, Some(by_id));
    let waiting = world.submit(patient("w-1", 60)).await;
    world.complete_and_listen(&who, by_id).await;
    let namesake = world.worker_of("w-2", "w-1", "i-1").await;
    assert_eq!(world.claim_one(&who).await, None, "now the name means another worker");
    assert_eq!(world.claim_one(&namesake).await, Some(waiting));
}

pub(super) async fn jobs_that_a_worker_may_not_take_do_not_hide_those_behind_them(world: World) {
    let who = world.worker("w-1").await;
    for target in ["sandbox-1", "sandbox-2"] {
        for _ in 0..40 {
            world.submit(SubmissionRequest { priority: Some(10), ..patient(target, 600) }).await;
        }
    }
    let last = world.submit(with_priority(1)).await;
    assert_eq!(world.claim_one(&who).await, Some(last));
}

pub(super) async fn a_fenced_job_that_its_worker_may_no_longer_take_does_not_hide_another(world: World) {
    let brief = |request| SubmissionRequest { timeout_seconds: Some(1), ..request };
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let strict = SubmissionRequest { priority: Some(10), ..submission_to("sandbox-1", "strict") };
    let strict = world.submit(brief(strict)).await;
    world.run(&world.claim_of(&who)).await;
    world.clock.advance(SECOND);
    world.sweep(10).await;
    world.listen(&who).await;
    let other = world.submit(brief(submission())).await;
    assert_eq!(world.claim_one(&who).await, Some(other));
    world.clock.advance(SECOND);
    world.sweep(10).await;
    // It comes back without the target: of the two jobs that are fenced to it, it may take the second one only.
    world.clock.advance(5 * SECOND);
    let again = world.register(reboot("w-1", "w-1-boot-2")).await;
    let fenced = async |id| world.job(id).await.obstacle(world.reader.now().await.unwrap());
    assert_eq!((fenced(strict).await, fenced(other).await), (Some(WaitObstacle::Fencing), Some(WaitObstacle::Fencing)));
    assert_eq!(world.claim_one(&again).await, Some(other));
}

pub(super) async fn a_job_that_backs_off_is_passed_over_until_its_time(world: World) {
    let who = world.worker("w-1").await;
    let failing = world.submit(with_priority(10)).await;
    let other = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(failing));
    world.fail(&who, failing, true).await;
    world.listen(&who).await;
    assert_eq!(world.claim_one(&who).await, Some(other));
    world.complete_and_listen(&who, other).await;
    assert_eq!(world.claim_one(&who).await, None);
    world.clock.advance(5 * SECOND);
    assert_eq!(world.claim_one(&who).await, Some(failing));
}

pub(super) async fn a_fenced_job_is_for_the_worker_that_lost_it_until_the_fence_passes(world: World) {
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

pub(super) async fn when_its_fence_has_passed_anyone_may_take_the_job(world: World) {
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

pub(super) async fn jobs_that_are_reserved_or_ended_and_workers_that_do_not_listen_are_left_out(world: World) {
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    let other = world.worker("w-2").await;
    world.submit(submission_to("sandbox-1", "preferred")).await;
    let cancelled = world.submit(submission()).await;
    world.run(&cancel(cancelled)).await;
    assert_eq!(world.claim_one(&other).await, None);
    world.submit(submission()).await;
    world.clock.advance(12 * SECOND);
    assert_eq!(world.claim_one(&other).await, None, "it was not heard from lately");
    let stranger = Credential { worker_id: name("nobody"), generation: other.generation };
    assert_eq!(world.claim_one(&stranger).await, None, "it never registered");
}

pub(super) async fn a_job_whose_worker_never_heard_of_it_is_answered_again_on_every_server(world: World) {
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(id));
    for server in [world.elsewhere().await, world.elsewhere().await] {
        for asked in [&world, &server] {
            let answer = asked.run(&asked.claim_of(&who)).await;
            let ClaimAnswer::Granted(granted) = answer else { panic!("{answer:?}") };
            assert_eq!((granted.job.id, granted.job.attempt), (id, Attempt::FIRST));
        }
    }
    let starts = world.event_types(id).await.into_iter().filter(|event| event == "job_started").count();
    assert_eq!(starts, 1);
}

pub(super) async fn a_job_that_its_worker_knows_of_is_not_answered_again(world: World) {
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(id));
    world.run(&events(&who, id, Attempt::FIRST)).await;
    let server = world.elsewhere().await;
    for asked in [&world, &server] {
        let refused = asked.attempt(&asked.claim_of(&who)).await;
        assert!(
            matches!(refused, Err(Rejection::LeaseHeld { job_id, attempt: Attempt::FIRST }) if job_id == id),
            "{refused:?}"
        );
    }
    assert_eq!(world.status(id).await, JobStatus::Running);
}

pub(super) async fn a_job_that_its_worker_twice_denies_is_put_back_whichever_servers_hear_it(world: World) {
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(id));
    let denial = Heartbeat { job: JobClaim::None, ..heartbeat(&who) };
    world.run(&denial).await;
    assert_eq!(world.status(id).await, JobStatus::Running, "it may have crossed the grant");
    world.elsewhere().await.run(&denial).await;
    let job = world.job(id).await;
    assert_eq!((job.status(), job.attempt), (JobStatus::Pending, Attempt(2)));
    assert_eq!(world.view("w-1").await.occupied_by, None);
    world.listen(&who).await;
    assert_eq!(world.claim_one(&who).await, Some(id));
}
