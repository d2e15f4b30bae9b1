//! The sweeper finds everything that is due, and nothing else.

use futures_util::future::join_all;

use super::steps::{EVERYTHING, drain, retry};
use super::world::{SECOND, World, heartbeat};
use crate::domain::event::EventType;
use crate::domain::ids::JobId;
use crate::domain::job::JobStatus;
use crate::domain::submission::SubmissionRequest;
use crate::domain::worker::WorkerStatus;
use crate::testing::{name, submission, submission_to};

fn expiring(seconds: i64) -> SubmissionRequest {
    SubmissionRequest { expires_in_seconds: Some(seconds), ..submission() }
}

impl World {
    /// Jobs that expire in a second.
    async fn submit_expiring(&self, count: usize) -> Vec<JobId> {
        let mut jobs = Vec::new();
        for _ in 0..count {
            jobs.push(self.submit(expiring(1)).await);
        }
        jobs
    }

    /// Sweeps until nothing is due.
    async fn sweep_all(&self, limit: usize) {
        for _ in 0..EVERYTHING {
            if !self.sweep(limit).await.more {
                return;
            }
        }
        panic!("there is always more to sweep");
    }
}

pub(super) async fn jobs_are_due_at_their_deadline_and_no_sooner(world: World) {
    let soon = world.submit(expiring(10)).await;
    let late = world.submit(expiring(20)).await;
    world.clock.advance(9 * SECOND);
    assert!(world.sweep(10).await.committed.is_empty());
    world.clock.advance(SECOND);
    assert_eq!(world.sweep(10).await.committed.len(), 1);
    assert_eq!(world.status(soon).await, JobStatus::Expired);
    assert_eq!(world.status(late).await, JobStatus::Pending);
}

pub(super) async fn a_sweep_takes_no_more_than_its_limit_and_says_that_there_is_more(world: World) {
    world.submit_expiring(5).await;
    world.clock.advance(SECOND);
    let mut done = 0;
    while done < 5 {
        let swept = world.sweep(2).await;
        let expired = swept.committed.len();
        assert!((1..=2).contains(&expired), "{expired}");
        done += expired;
        assert_eq!(swept.more, done < 5);
    }
    assert_eq!(world.count(JobStatus::Expired).await, 5);
}

pub(super) async fn what_is_due_happens_once_however_many_servers_sweep(world: World) {
    const JOBS: usize = 20;
    let jobs = world.submit_expiring(JOBS).await;
    world.worker("w-1").await;
    let mut servers = Vec::new();
    for _ in 0..8 {
        servers.push(world.elsewhere().await);
    }
    world.clock.advance(21 * SECOND);
    let mut committed = 0;
    loop {
        let swept = join_all(servers.iter().map(|server| server.sweep(3))).await;
        let round: usize = swept.iter().map(|swept| swept.committed.len()).sum();
        committed += round;
        if round == 0 {
            break;
        }
    }
    assert_eq!(committed, JOBS + 1);
    for id in jobs {
        assert_eq!(world.event_types(id).await, ["job_queued", "job_expired"]);
        assert_eq!(world.reader.deliveries(id, None, EVERYTHING).await.unwrap().len(), 1);
    }
    let events = world.reader.worker_events(&name("w-1"), None, EVERYTHING).await.unwrap();
    assert_eq!(events.iter().filter(|event| event.event_type == EventType::WORKER_OFFLINE).count(), 1);
}

pub(super) async fn a_silent_worker_is_given_up_and_its_job_put_back_while_one_that_beats_stays(world: World) {
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

pub(super) async fn a_worker_that_beat_since_it_was_last_looked_at_is_due_again_when_it_falls_silent(world: World) {
    let who = world.worker("w-1").await;
    world.clock.advance(15 * SECOND);
    world.run(&heartbeat(&who)).await;
    world.clock.advance(15 * SECOND);
    assert!(world.sweep(10).await.committed.is_empty());
    world.clock.advance(5 * SECOND);
    assert_eq!(world.sweep(10).await.committed.len(), 1);
    assert_eq!(world.view("w-1").await.status(), WorkerStatus::Offline);
}

pub(super) async fn workers_that_beat_take_no_place_in_a_sweep_with_a_limit(world: World) {
    let alive = world.worker("w-1").await;
    world.worker("w-2").await;
    world.clock.advance(15 * SECOND);
    world.run(&heartbeat(&alive)).await;
    world.clock.advance(6 * SECOND);
    let swept = world.sweep(1).await;
    assert_eq!((swept.committed.len(), swept.more), (1, false));
    assert_eq!(world.view("w-2").await.status(), WorkerStatus::Offline);
}

pub(super) async fn a_reservation_that_is_not_picked_up_lapses_though_the_worker_lives(world: World) {
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

pub(super) async fn a_drain_deadline_takes_the_job_from_a_living_worker(world: World) {
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(id));
    world.run(&drain(&who, Some(8 * SECOND))).await;
    world.clock.advance(7 * SECOND);
    world.run(&heartbeat(&who)).await;
    assert!(world.sweep(10).await.committed.is_empty());
    world.clock.advance(SECOND);
    world.sweep(10).await;
    assert_eq!(world.status(id).await, JobStatus::Pending);
    assert_eq!(world.view("w-1").await.status(), WorkerStatus::Draining);
}

pub(super) async fn a_worker_that_only_comes_along_with_a_due_job_is_not_given_up_without_its_own_job(world: World) {
    let last_holder = world.worker_of("w-2", "sandbox-1", "i-1").await;
    let id = world.submit(submission_to("sandbox-1", "strict")).await;
    world.run(&world.claim_of(&last_holder)).await;
    world.fail(&last_holder, id, false).await;
    let present = world.submit(submission()).await;
    world.listen(&last_holder).await;
    assert_eq!(world.claim_one(&last_holder).await, Some(present));
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    let ended = world.job(id).await;
    world.run(&retry(&ended)).await;
    assert_eq!(world.status(id).await, JobStatus::Queued);
    // Both workers fall silent; the limit leaves one of them to a later sweep, but the due reservation brings it along.
    world.clock.advance(21 * SECOND);
    world.sweep_all(1).await;
    for worker in ["w-1", "w-2"] {
        assert_eq!(world.view(worker).await.status(), WorkerStatus::Offline);
    }
    assert_eq!(world.status(present).await, JobStatus::Pending);
}
