//! Pages are in order, and neither repeat nor skip while rows arrive between them.

use std::sync::Arc;

use uuid::Uuid;

use super::callbacks::{answered, settlement};
use super::world::{SECOND, World, cancel, heartbeat};
use crate::domain::commands::{Credential, EventReport, ReportEvents, Retry};
use crate::domain::event::EventType;
use crate::domain::ids::JobId;
use crate::domain::job::{Job, JobStatus};
use crate::domain::submission::SubmissionRequest;
use crate::ports::reader::{JobEventQuery, JobPosition, JobQuery};
use crate::testing::scenes::client;
use crate::testing::{name, submission, submission_to};

/// The same user as that of no other job.
const USER: &str = "00000000-0000-0000-0000-000000000001";

/// Jobs of one instant that have ended, of each kind that a filter tells apart.
async fn arrive(world: &World, who: &Credential) -> Vec<Arc<Job>> {
    let completed = world.submit(submission()).await;
    world.listen(who).await;
    assert_eq!(world.claim_one(who).await, Some(completed));
    world.complete(who, completed).await;
    let failed = world.submit(submission_to("sandbox-1", "strict")).await;
    let plain = world.submit(submission()).await;
    let special = SubmissionRequest {
        valet_task_id: Some("task-2".into()),
        valet_user_id: Some(USER.into()),
        target_worker_id: Some("sandbox-1".into()),
        ..submission()
    };
    let special = world.submit(special).await;
    let mut arrived = Vec::new();
    for id in [plain, special] {
        world.run(&cancel(id)).await;
    }
    for id in [completed, failed, plain, special] {
        arrived.push(world.job(id).await);
    }
    arrived
}

pub(super) async fn pages_of_jobs_neither_repeat_nor_skip_while_jobs_arrive_with_every_filter(world: World) {
    let who = world.worker("w-1").await;
    let start = world.reader.now().await.unwrap();
    let mut known = Vec::new();
    for _ in 0..3 {
        known.extend(arrive(&world, &who).await);
        world.clock.advance(SECOND);
    }
    let any = JobQuery::default();
    let filters = [
        JobQuery { status: Some(JobStatus::Completed), ..any.clone() },
        JobQuery { status: Some(JobStatus::Failed), ..any.clone() },
        JobQuery { status: Some(JobStatus::Cancelled), ..any.clone() },
        JobQuery { status: Some(JobStatus::Expired), ..any.clone() },
        JobQuery { worker_id: Some(name("w-1")), ..any.clone() },
        JobQuery { target_worker_id: Some(name("sandbox-1")), ..any.clone() },
        JobQuery { valet_task_id: Some("task-2".into()), ..any.clone() },
        JobQuery { valet_user_id: Some(Uuid::from_u128(1)), ..any.clone() },
        JobQuery { error_code: Some("WORKER_UNAVAILABLE".into()), ..any.clone() },
        JobQuery { created_after: Some(start + SECOND), ..any.clone() },
        JobQuery { created_before: Some(start + 2 * SECOND), ..any.clone() },
        JobQuery { created_after: Some(start + SECOND), created_before: Some(start + 2 * SECOND), ..any.clone() },
        JobQuery { status: Some(JobStatus::Cancelled), target_worker_id: Some(name("sandbox-1")), ..any.clone() },
        any,
    ];
    let server = world.elsewhere().await;
    for (number, filter) in filters.into_iter().enumerate() {
        let mut expected: Vec<&Arc<Job>> = known.iter().filter(|job| filter.accepts(job)).collect();
        expected.sort_by_key(|job| std::cmp::Reverse(JobPosition::of(job)));
        let expected: Vec<JobId> = expected.iter().map(|job| job.id).collect();
        let mut listed = Vec::new();
        let mut query = JobQuery { limit: 1 + number % 3, ..filter.clone() };
        for pages in 0.. {
            let page = world.reader.jobs(&query).await.unwrap();
            assert!(page.len() <= query.limit, "{} in {query:?}", page.len());
            let Some(last) = page.last() else { break };
            assert!(query.after.is_none_or(|after| JobPosition::of(last) < after), "{query:?} does not end");
            query.after = Some(JobPosition::of(last));
            listed.extend(page.iter().map(|job| job.id));
            if pages < 2 {
                server.clock.advance(SECOND);
                known.extend(arrive(&server, &who).await);
            }
        }
        assert_eq!(listed, expected, "{filter:?}");
    }
}

/// A worker with a job that it has started.
async fn working(world: &World) -> (Credential, JobId) {
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(id));
    (who, id)
}

async fn report(world: &World, who: &Credential, job_id: JobId, types: &[&str]) {
    let event = |event_type: &&str| EventReport {
        event_type: (*event_type).into(),
        message: None,
        metadata: None,
        occurred_at: None,
        worker_seq: None,
    };
    let attempt = world.job(job_id).await.attempt;
    let events = types.iter().map(event).collect();
    world.run(&ReportEvents { who: who.clone(), job_id, attempt, events }).await;
}

pub(super) async fn events_of_a_job_are_numbered_without_gaps_and_paged_and_filtered(world: World) {
    let (who, job_id) = working(&world).await;
    report(&world, &who, job_id, &["step_started", "thought", "step_started"]).await;
    let other = world.elsewhere().await;
    let query = |after_seq, event_types: &[&str], limit| JobEventQuery {
        job_id,
        after_seq,
        event_types: event_types.iter().map(|text| EventType::parse(text).unwrap()).collect(),
        limit,
    };
    let numbers = async |query: JobEventQuery| -> Vec<u64> {
        let events = other.reader.job_events(&query).await.unwrap();
        events.iter().map(|event| event.seq).collect()
    };
    assert_eq!(numbers(query(0, &[], 100)).await, [1, 2, 3, 4, 5]);
    assert_eq!(numbers(query(2, &[], 2)).await, [3, 4]);
    assert_eq!(numbers(query(0, &["step_started"], 100)).await, [3, 5]);
    assert_eq!(numbers(query(0, &["step_started"], 1)).await, [3], "the limit is of those that match");
    assert_eq!(numbers(query(3, &["step_started", "thought"], 100)).await, [4, 5]);
    assert!(numbers(query(5, &[], 100)).await.is_empty());
    assert!(numbers(query(u64::MAX, &[], 100)).await.is_empty());
}

pub(super) async fn who_follows_the_events_of_a_job_misses_none_that_arrive_meanwhile(world: World) {
    let (who, job_id) = working(&world).await;
    let server = world.elsewhere().await;
    for event_types in [Vec::new(), vec![EventType::THOUGHT]] {
        let everything = event_types.is_empty();
        let mut query = JobEventQuery { job_id, after_seq: 0, event_types, limit: 2 };
        let (mut followed, mut rounds) = (Vec::new(), 0);
        loop {
            let page = world.reader.job_events(&query).await.unwrap();
            assert!(page.len() <= 2);
            let Some(last) = page.last() else { break };
            assert!(last.seq > query.after_seq, "{query:?} does not end");
            query.after_seq = last.seq;
            followed.extend(page.into_iter().map(|event| event.seq));
            rounds += 1;
            if rounds <= 4 {
                report(&server, &who, job_id, &["thought", "step_started", "thought"]).await;
            }
        }
        let all = JobEventQuery { after_seq: 0, limit: 1000, ..query.clone() };
        let all: Vec<u64> = world.reader.job_events(&all).await.unwrap().iter().map(|event| event.seq).collect();
        assert_eq!(followed, all);
        if everything {
            assert_eq!(followed, (1..=world.job(job_id).await.event_seq).collect::<Vec<_>>());
        } else {
            assert!(followed.len() >= 8);
        }
    }
}

pub(super) async fn events_of_a_worker_are_listed_newest_first_while_it_goes_on(world: World) {
    let who = world.worker("w-1").await;
    let server = world.elsewhere().await;
    let beat = async || {
        server.clock.advance(30 * SECOND);
        server.run(&heartbeat(&who)).await;
    };
    for _ in 0..6 {
        beat().await;
    }
    let newest = world.view("w-1").await.worker.event_seq;
    assert!(newest >= 7, "{newest}");
    let (mut listed, mut before) = (Vec::new(), None);
    loop {
        let page = world.reader.worker_events(&who.worker_id, before, 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        assert!(before.is_none_or(|before| last.seq < before), "{before:?} does not end");
        before = Some(last.seq);
        listed.extend(page);
        beat().await;
    }
    let numbers: Vec<u64> = listed.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=newest).rev().collect::<Vec<_>>());
    assert_eq!(listed.last().unwrap().event_type, EventType::WORKER_REGISTERED);
}

pub(super) async fn deliveries_are_paged_by_sequence_while_callbacks_come_and_go(world: World) {
    let id = world.submit(submission()).await;
    let end_a_run = async |server: &World| {
        server.run(&cancel(id)).await;
        let routing = server.job(id).await.spec.routing.clone();
        let retry = Retry { job_id: id, routing, actor: client(), run: None, side_effects_checked: false };
        server.run(&retry).await;
    };
    for _ in 0..4 {
        end_a_run(&world).await;
    }
    let server = world.elsewhere().await;
    let known = world.reader.deliveries(id, None, 100).await.unwrap();
    assert_eq!(known.len(), 4);
    let (mut listed, mut before) = (Vec::new(), None);
    loop {
        let page = world.reader.deliveries(id, before, 1).await.unwrap();
        assert!(page.len() <= 1);
        let Some(last) = page.last() else { break };
        assert!(before.is_none_or(|before| last.sequence < before), "{before:?} does not end");
        before = Some(last.sequence);
        listed.push(last.id);
        // The oldest one goes out, which moves it from the open ones to those that are through; a newer one comes.
        let leased = server.outbox.lease_due(1, &server.rules).await.unwrap();
        let settlements = leased.iter().map(|leased| settlement(leased, answered(200))).collect();
        server.outbox.settle(settlements, &server.rules).await.unwrap();
        end_a_run(&server).await;
    }
    assert_eq!(listed, known.iter().map(|known| known.id).collect::<Vec<_>>());
    assert!(known.is_sorted_by(|one, next| one.sequence > next.sequence));
}
