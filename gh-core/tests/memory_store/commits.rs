//! A changeset is stored whole or not at all.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use gh_core::domain::commands::{decide, sweep};
use gh_core::domain::job::JobStatus;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::Keys;
use gh_core::domain::worker::{Beat, WorkerStatus};
use gh_core::ports::ids::IdSource;
use gh_core::ports::reader::{JobEventQuery, JobQuery, Reader};
use gh_core::ports::store::{ClaimRequest, Conflict, Store};
use gh_core::testing::{name, submission, submission_to};

use crate::world::{SECOND, World, cancel, heartbeat, submit};

#[tokio::test]
async fn of_two_decisions_on_one_version_only_the_first_is_stored_and_the_second_leaves_no_trace() {
    let world = World::new();
    let id = world.submit(submission()).await;
    let other = world.submit(submission()).await;
    let twice = vec![
        world.decision(&cancel(id)).await,
        world.decision(&cancel(id)).await,
        world.decision(&cancel(other)).await,
    ];
    let stored = world.commit(twice).await;
    assert_eq!(stored, [Ok(()), Err(Conflict), Ok(())], "one that is refused does not touch the others");
    let query = JobEventQuery { job_id: id, after_seq: 0, event_types: Vec::new(), limit: 10 };
    let events = world.store.job_events(&query).await.unwrap();
    let types: Vec<&str> = events.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["job_queued", "job_cancelled"]);
    assert_eq!(world.store.deliveries(id, None, 10).await.unwrap().len(), 1);
    assert_eq!(world.status(other).await, JobStatus::Cancelled);
}

#[tokio::test]
async fn of_two_submissions_with_one_key_at_once_only_one_is_stored() {
    let world = World::new();
    let command = submit(gh_core::domain::submission::SubmissionRequest {
        idempotency_key: Some("key-1".into()),
        ..submission()
    });
    let twice = vec![world.decision(&command).await, world.decision(&command).await];
    assert_eq!(world.commit(twice).await, [Ok(()), Err(Conflict)]);
    let jobs = world.store.jobs(&all()).await.unwrap();
    assert_eq!(jobs.len(), 1);
    let again = world.run(&command).await;
    assert!(again.duplicate);
    assert_eq!(again.job.id, jobs[0].id);
}

fn all() -> JobQuery {
    JobQuery { limit: 100, ..JobQuery::default() }
}

#[tokio::test]
async fn of_two_strict_submissions_that_saw_one_idle_worker_only_one_gets_it() {
    let world = World::new();
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    let command = submit(submission_to("sandbox-1", "strict"));
    let twice = vec![world.decision(&command).await, world.decision(&command).await];
    assert_eq!(
        world.commit(twice).await,
        [Ok(()), Err(Conflict)],
        "the worker itself was not written: its place is taken"
    );
    let view = world.view("w-1").await;
    assert!(view.occupied_by.is_some_and(|occupation| occupation.reserved));
}

#[tokio::test]
async fn a_worker_that_was_heard_from_meanwhile_is_not_given_up() {
    let world = World::new();
    let who = world.worker("w-1").await;
    // The first heartbeat leaves an event and so writes the worker; the one that matters here must not.
    world.run(&heartbeat(&who)).await;
    world.clock.advance(21 * SECOND);
    let keys = Keys { workers: vec![who.worker_id.clone()], names: vec![who.worker_id.clone()], ..Keys::default() };
    let snapshot = world.snapshot(&keys).await;
    let given_up = sweep(&snapshot, &world.rules);
    assert_eq!(given_up.len(), 1);
    let version = world.view("w-1").await.worker.version;
    world.run(&heartbeat(&who)).await;
    assert_eq!(world.view("w-1").await.worker.version, version);
    assert_eq!(world.commit(given_up).await, [Err(Conflict)]);
    assert_eq!(world.view("w-1").await.status(), WorkerStatus::Idle);
}

#[tokio::test]
async fn two_heartbeats_decided_on_one_moment_both_count() {
    let world = World::new();
    let who = world.worker("w-1").await;
    let beat = |beat: Beat| gh_core::domain::commands::Heartbeat { beat, ..heartbeat(&who) };
    let memory = beat(Beat { memory_usage: Some(1024), ..Beat::default() });
    let session = beat(Beat { browser_session_id: Some("session-1".into()), ..Beat::default() });
    world.clock.advance(SECOND);
    // The first of a generation may leave an event and so write the worker: what is at stake are those without.
    world.run(&heartbeat(&who)).await;
    let both = vec![world.decision(&memory).await, world.decision(&session).await];
    assert_eq!(world.commit(both).await, [Ok(()), Ok(())]);
    let vitals = world.view("w-1").await.vitals;
    assert_eq!(vitals.memory_usage, Some(1024));
    assert_eq!(vitals.browser_session_id.as_deref(), Some("session-1"));
}

#[tokio::test]
async fn refused_calls_of_a_retired_generation_are_counted_though_nothing_else_is_stored() {
    let world = World::new();
    let old = world.worker("w-1").await;
    let mut restart = gh_core::testing::registration("w-1");
    restart.boot_id = name("w-1-boot-2");
    world.register(restart).await;
    for _ in 0..3 {
        assert!(world.attempt(&heartbeat(&old)).await.is_err());
    }
    assert_eq!(world.view("w-1").await.vitals.refused_calls, 3);
}

#[tokio::test]
async fn the_stores_time_never_goes_back() {
    let world = World::new();
    let later = world.clock.advance(60 * SECOND);
    assert_eq!(world.store.now().await.unwrap(), later);
    world.clock.set(later - 30 * SECOND);
    assert_eq!(world.store.now().await.unwrap(), later);
    assert_eq!(world.snapshot(&Keys::default()).await.now, later);
}

#[tokio::test]
async fn the_token_key_is_the_one_it_was_made_with_and_is_not_shown() {
    let world = World::new();
    assert_eq!(world.store.token_key().await.unwrap(), [7; 32]);
    let shown = format!("{:?}", world.store);
    assert!(!shown.contains("7, 7"), "{shown}");
}

#[tokio::test]
async fn a_changeset_that_changes_nothing_is_stored() {
    let world = World::new();
    let id = world.submit(submission()).await;
    world.run(&cancel(id)).await;
    let snapshot = world.snapshot(&Keys { jobs: vec![id], ..Keys::default() }).await;
    let repeated = decide(&snapshot, &cancel(id), &world.rules);
    assert!(repeated.changes.jobs().is_empty());
    assert_eq!(world.commit(vec![repeated.changes]).await, [Ok(())]);
}

/// An id source that fails as only a defect would.
#[derive(Debug)]
struct BrokenIds;

impl IdSource for BrokenIds {
    fn uuid(&self) -> uuid::Uuid {
        panic!("no more ids")
    }

    fn jitter(&self) -> f64 {
        0.5
    }
}

#[test]
fn a_decision_that_panics_harms_nobody_but_its_caller() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let world = World::new();
    let (who, id) = runtime.block_on(async {
        let who = world.worker("w-1").await;
        (who, world.submit(submission()).await)
    });
    let broken = Rules { ids: Arc::new(BrokenIds), ..world.rules.clone() };
    let request = ClaimRequest { workers: vec![who.worker_id.clone()] };
    let claim = AssertUnwindSafe(|| runtime.block_on(world.store.claim(request, &broken)));
    assert!(std::panic::catch_unwind(claim).is_err());
    assert_eq!(runtime.block_on(world.claim_one(&who)), Some(id));
}
