//! Lists leave out what was not asked for, and figures count what is there.

use super::steps::{patient, reboot};
use super::world::{SECOND, World};
use crate::domain::ids::{DeregistrationId, JobId};
use crate::domain::job::{JobStatus, WaitObstacle};
use crate::domain::placement::WaitingGroup;
use crate::domain::submission::SubmissionRequest;
use crate::ports::reader::{JobQuery, WorkerQuery};
use crate::testing::{name, submission, submission_to};

impl World {
    async fn list(&self, query: JobQuery) -> Vec<JobId> {
        let jobs = self.reader.jobs(&query).await.unwrap();
        jobs.iter().map(|job| job.id).collect()
    }
}

fn first(limit: usize) -> JobQuery {
    JobQuery { limit, ..JobQuery::default() }
}

pub(super) async fn every_filter_of_the_list_of_jobs_leaves_out_what_does_not_match(world: World) {
    let who = world.worker("w-1").await;
    let start = world.reader.now().await.unwrap();
    let running = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(running));
    world.clock.advance(SECOND);
    let failed = world.submit(submission_to("sandbox-1", "strict")).await;
    world.clock.advance(SECOND);
    let special = world
        .submit(SubmissionRequest {
            valet_task_id: Some("task-2".into()),
            valet_user_id: Some("00000000-0000-0000-0000-000000000001".into()),
            ..submission()
        })
        .await;
    let with_status = |status| JobQuery { status: Some(status), ..first(10) };
    assert_eq!(world.list(with_status(JobStatus::Running)).await, [running]);
    assert_eq!(world.list(with_status(JobStatus::Failed)).await, [failed]);
    assert_eq!(world.list(with_status(JobStatus::Expired)).await, []);
    let of_worker = JobQuery { worker_id: Some(name("w-1")), ..first(10) };
    assert_eq!(world.list(of_worker).await, [running]);
    let of_target = JobQuery { target_worker_id: Some(name("sandbox-1")), ..first(10) };
    assert_eq!(world.list(of_target).await, [failed]);
    let with_code = JobQuery { error_code: Some("WORKER_UNAVAILABLE".into()), ..first(10) };
    assert_eq!(world.list(with_code).await, [failed]);
    let of_task = JobQuery { valet_task_id: Some("task-2".into()), ..first(10) };
    assert_eq!(world.list(of_task).await, [special]);
    let of_user = JobQuery { valet_user_id: Some(uuid::Uuid::from_u128(1)), ..first(10) };
    assert_eq!(world.list(of_user).await, [special]);
    let after = JobQuery { created_after: Some(start + SECOND), ..first(10) };
    assert_eq!(world.list(after).await, [special, failed], "at or after");
    let before = JobQuery { created_before: Some(start + SECOND), ..first(10) };
    assert_eq!(world.list(before).await, [running], "before, not at");
}

pub(super) async fn workers_are_listed_by_name_and_found_by_target_and_machine(world: World) {
    world.worker_of("w-2", "sandbox-1", "i-1").await;
    world.worker_of("w-1", "sandbox-1", "i-2").await;
    world.worker_of("w-3", "sandbox-2", "i-1").await;
    let found = async |target: Option<&str>, instance: Option<&str>| -> Vec<String> {
        let query = WorkerQuery { target_worker_id: target.map(name), ec2_instance_id: instance.map(name) };
        let (_, views) = world.reader.workers(&query).await.unwrap();
        views.iter().map(|view| view.worker.id.to_string()).collect()
    };
    assert_eq!(found(None, None).await, ["w-1", "w-2", "w-3"]);
    assert_eq!(found(Some("sandbox-1"), None).await, ["w-1", "w-2"]);
    assert_eq!(found(None, Some("i-1")).await, ["w-2", "w-3"]);
    assert_eq!(found(Some("sandbox-1"), Some("i-1")).await, ["w-2"]);
    assert!(found(Some("w-1"), None).await.is_empty());
}

pub(super) async fn a_worker_that_comes_back_with_other_names_is_found_by_these_only(world: World) {
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let job = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(job));
    world.worker_of("w-2", "sandbox-1", "i-2").await;
    world.worker_of("w-3", "sandbox-3", "i-1").await;
    assert_eq!(world.view("w-1").await.instance_load, 1);
    assert_eq!(world.view("w-3").await.instance_load, 1);
    assert_eq!(world.view("w-2").await.instance_load, 0);
    let mut restart = reboot("w-1", "w-1-boot-2");
    restart.identity.ec2_instance_id = Some(name("i-2"));
    let restarted = world.register(restart).await;
    assert_eq!(world.view("w-2").await.instance_load, 0);
    assert_eq!(world.view("w-3").await.instance_load, 0);
    assert_eq!(world.claim_one(&restarted).await, Some(job), "it gets back what it lost");
    assert_eq!(world.view("w-2").await.instance_load, 1);
    let query = WorkerQuery { target_worker_id: Some(name("sandbox-1")), ec2_instance_id: None };
    let (_, views) = world.reader.workers(&query).await.unwrap();
    assert_eq!(views.len(), 1);
    assert_eq!(views[0].worker.id, name("w-2"));
}

pub(super) async fn figures_group_what_waits_by_target_and_obstacle(world: World) {
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let start = world.reader.now().await.unwrap();
    let failing = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(failing));
    world.submit(submission_to("sandbox-2", "preferred")).await;
    world.clock.advance(SECOND);
    world.submit(patient("sandbox-1", 60)).await;
    world.fail(&who, failing, true).await;
    let group =
        |target: Option<&str>, obstacle, oldest| WaitingGroup { target: target.map(name), obstacle, jobs: 1, oldest };
    let figures = world.reader.figures().await.unwrap();
    let mut waiting = figures.waiting;
    waiting.sort_by_key(|group| (group.target.clone(), group.obstacle));
    assert_eq!(
        waiting,
        [
            group(None, WaitObstacle::None, start),
            group(None, WaitObstacle::Backoff, start + SECOND),
            group(Some("sandbox-1"), WaitObstacle::None, start + SECOND),
        ]
    );
    world.clock.advance(5 * SECOND);
    let figures = world.reader.figures().await.unwrap();
    let backing_off = figures.waiting.iter().any(|group| group.obstacle == WaitObstacle::Backoff);
    assert!(!backing_off, "{:?}", figures.waiting);
    let pending = figures.jobs.iter().find(|(status, _)| *status == JobStatus::Pending);
    assert_eq!(pending, Some(&(JobStatus::Pending, 3)));
}

pub(super) async fn figures_count_live_jobs_and_no_history(world: World) {
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    for _ in 0..3 {
        world.submit(submission()).await;
    }
    let failing = world.claim_one(&who).await.unwrap();
    world.fail(&who, failing, false).await;
    let mut jobs = world.reader.figures().await.unwrap().jobs;
    jobs.sort_by_key(|(status, _)| *status as usize);
    assert_eq!(jobs, JobStatus::LIVE.map(|status| (status, if status == JobStatus::Pending { 2 } else { 0 })));
}

pub(super) async fn what_does_not_exist_is_absent_and_no_error(world: World) {
    let nothing = JobId::new(uuid::Uuid::from_u128(404));
    assert!(world.reader.job(nothing).await.unwrap().is_none());
    assert!(world.reader.deliveries(nothing, None, 10).await.unwrap().is_empty());
    assert!(world.reader.worker(&name("nobody")).await.unwrap().1.is_none());
    assert!(world.reader.worker_events(&name("nobody"), None, 10).await.unwrap().is_empty());
    let unknown = DeregistrationId::new(uuid::Uuid::from_u128(404));
    assert!(world.reader.deregistration(unknown).await.unwrap().is_none());
}
