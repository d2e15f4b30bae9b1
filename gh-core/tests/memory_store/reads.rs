//! Lists are in order, complete, and stable while rows arrive.

use gh_core::domain::commands::{EventReport, ReportEvents};
use gh_core::domain::event::EventType;
use gh_core::domain::ids::JobId;
use gh_core::domain::job::JobStatus;
use gh_core::domain::job::WaitObstacle;
use gh_core::domain::placement::WaitingGroup;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::ports::reader::{JobEventQuery, JobPosition, JobQuery, Reader, WorkerQuery};
use gh_core::testing::{name, registration, submission, submission_to};

use crate::world::{SECOND, World, cancel, heartbeat};

impl World {
    async fn list(&self, query: JobQuery) -> Vec<JobId> {
        let jobs = self.store.jobs(&query).await.unwrap();
        jobs.iter().map(|job| job.id).collect()
    }
}

fn first(limit: usize) -> JobQuery {
    JobQuery { limit, ..JobQuery::default() }
}

#[tokio::test]
async fn jobs_are_listed_newest_first_and_pages_neither_repeat_nor_skip() {
    let world = World::new();
    let mut expected = Vec::new();
    for second in 0..4 {
        // Several of one instant: the id decides.
        expected.extend(world.submit_many(3).await);
        world.run(&cancel(expected[second])).await;
        world.clock.advance(SECOND);
    }
    expected.reverse();
    let mut listed = Vec::new();
    let mut query = first(5);
    loop {
        let page = world.store.jobs(&query).await.unwrap();
        let Some(last) = page.last() else { break };
        query.after = Some(JobPosition { created_at: last.created_at, id: last.id });
        listed.extend(page.iter().map(|job| job.id));
        // What arrives meanwhile is newer than every later page.
        world.submit(submission()).await;
    }
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn every_filter_of_the_list_of_jobs_leaves_out_what_does_not_match() {
    let world = World::new();
    let who = world.worker("w-1").await;
    let start = world.store.now().await.unwrap();
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

#[tokio::test]
async fn events_of_a_job_are_numbered_without_gaps_and_paged_and_filtered() {
    let world = World::new();
    let who = world.worker("w-1").await;
    let job_id = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(job_id));
    let report = |event_type: &str| EventReport {
        event_type: event_type.into(),
        message: None,
        metadata: None,
        occurred_at: None,
        worker_seq: None,
    };
    let reported = ReportEvents {
        who: who.clone(),
        job_id,
        attempt: world.job(job_id).await.attempt,
        events: vec![report("step_started"), report("thought"), report("step_started")],
    };
    world.run(&reported).await;
    let query = |after_seq, event_types: &[&str], limit| JobEventQuery {
        job_id,
        after_seq,
        event_types: event_types.iter().map(|text| EventType::parse(text).unwrap()).collect(),
        limit,
    };
    let numbers = async |query: JobEventQuery| -> Vec<u64> {
        let events = world.store.job_events(&query).await.unwrap();
        events.iter().map(|event| event.seq).collect()
    };
    assert_eq!(numbers(query(0, &[], 100)).await, [1, 2, 3, 4, 5]);
    assert_eq!(numbers(query(2, &[], 2)).await, [3, 4]);
    assert_eq!(numbers(query(0, &["step_started"], 100)).await, [3, 5]);
    assert!(numbers(query(5, &[], 100)).await.is_empty());
    assert!(numbers(query(99, &[], 100)).await.is_empty());
}

#[tokio::test]
async fn events_of_a_worker_are_listed_newest_first() {
    let world = World::new();
    let who = world.worker("w-1").await;
    for _ in 0..3 {
        world.clock.advance(30 * SECOND);
        world.run(&heartbeat(&who)).await;
    }
    let page = world.store.worker_events(&who.worker_id, None, 2).await.unwrap();
    let last = world.view("w-1").await.worker.event_seq;
    assert_eq!(page.iter().map(|event| event.seq).collect::<Vec<_>>(), [last, last - 1]);
    let rest = world.store.worker_events(&who.worker_id, Some(last - 1), 100).await.unwrap();
    assert_eq!(rest.len() as u64, last - 2);
    assert_eq!(rest.last().unwrap().event_type, EventType::WORKER_REGISTERED);
}

#[tokio::test]
async fn workers_are_listed_by_name_and_found_by_target_and_machine() {
    let world = World::new();
    world.worker_of("w-2", "sandbox-1", "i-1").await;
    world.worker_of("w-1", "sandbox-1", "i-2").await;
    world.worker_of("w-3", "sandbox-2", "i-1").await;
    let found = async |target: Option<&str>, instance: Option<&str>| -> Vec<String> {
        let query = WorkerQuery { target_worker_id: target.map(name), ec2_instance_id: instance.map(name) };
        let (_, views) = world.store.workers(&query).await.unwrap();
        views.iter().map(|view| view.worker.id.to_string()).collect()
    };
    assert_eq!(found(None, None).await, ["w-1", "w-2", "w-3"]);
    assert_eq!(found(Some("sandbox-1"), None).await, ["w-1", "w-2"]);
    assert_eq!(found(None, Some("i-1")).await, ["w-2", "w-3"]);
    assert_eq!(found(Some("sandbox-1"), Some("i-1")).await, ["w-2"]);
    assert!(found(Some("w-1"), None).await.is_empty());
}

#[tokio::test]
async fn a_worker_that_comes_back_with_other_names_is_found_by_these_only() {
    let world = World::new();
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let job = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(job));
    world.worker_of("w-2", "sandbox-1", "i-2").await;
    world.worker_of("w-3", "sandbox-3", "i-1").await;
    assert_eq!(world.view("w-1").await.instance_load, 1);
    assert_eq!(world.view("w-3").await.instance_load, 1);
    assert_eq!(world.view("w-2").await.instance_load, 0);
    let mut restart = registration("w-1");
    restart.boot_id = name("w-1-boot-2");
    restart.identity.ec2_instance_id = Some(name("i-2"));
    let restarted = world.register(restart).await;
    assert_eq!(world.view("w-2").await.instance_load, 0);
    assert_eq!(world.view("w-3").await.instance_load, 0);
    assert_eq!(world.claim_one(&restarted).await, Some(job), "it gets back what it lost");
    assert_eq!(world.view("w-2").await.instance_load, 1);
    let query = WorkerQuery { target_worker_id: Some(name("sandbox-1")), ec2_instance_id: None };
    let (_, views) = world.store.workers(&query).await.unwrap();
    assert_eq!(views.len(), 1);
    assert_eq!(views[0].worker.id, name("w-2"));
}

#[tokio::test]
async fn figures_group_what_waits_by_target_and_obstacle() {
    let world = World::new();
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let start = world.store.now().await.unwrap();
    let failing = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(failing));
    world.submit(submission_to("sandbox-2", "preferred")).await;
    world.clock.advance(SECOND);
    world.submit(SubmissionRequest { affinity_wait_seconds: Some(60), ..submission_to("sandbox-1", "strict") }).await;
    world.fail(&who, failing, true).await;
    let group =
        |target: Option<&str>, obstacle, oldest| WaitingGroup { target: target.map(name), obstacle, jobs: 1, oldest };
    let figures = world.store.figures().await.unwrap();
    assert_eq!(
        figures.waiting,
        [
            group(None, WaitObstacle::None, start),
            group(None, WaitObstacle::Backoff, start + SECOND),
            group(Some("sandbox-1"), WaitObstacle::None, start + SECOND),
        ]
    );
    world.clock.advance(5 * SECOND);
    let figures = world.store.figures().await.unwrap();
    let backing_off = figures.waiting.iter().any(|group| group.obstacle == WaitObstacle::Backoff);
    assert!(!backing_off, "{:?}", figures.waiting);
    let pending = figures.jobs.iter().find(|(status, _)| *status == JobStatus::Pending);
    assert_eq!(pending, Some(&(JobStatus::Pending, 3)));
}

#[tokio::test]
async fn what_does_not_exist_is_absent_and_no_error() {
    let world = World::new();
    let nothing = JobId::new(uuid::Uuid::from_u128(404));
    assert!(world.store.job(nothing).await.unwrap().is_none());
    assert!(world.store.deliveries(nothing, None, 10).await.unwrap().is_empty());
    assert!(world.store.worker(&name("nobody")).await.unwrap().1.is_none());
    assert!(world.store.worker_events(&name("nobody"), None, 10).await.unwrap().is_empty());
    let unknown = gh_core::domain::ids::DeregistrationId::new(uuid::Uuid::from_u128(404));
    assert!(world.store.deregistration(unknown).await.unwrap().is_none());
}
