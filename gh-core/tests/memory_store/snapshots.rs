//! A snapshot holds everything that was asked for.

use std::collections::HashSet;
use std::sync::Arc;

use gh_core::domain::code::{Actor, ClientName};
use gh_core::domain::commands::{Deregister, ReportUsage, Selector};
use gh_core::domain::cost::{CallReport, ReportedCall};
use gh_core::domain::ids::{JobId, Name};
use gh_core::domain::job::JobStatus;
use gh_core::domain::snapshot::Keys;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::worker::WorkerStatus;
use gh_core::ports::reader::Reader;
use gh_core::testing::{name, registration, submission, submission_to};

use crate::world::{World, submit};

fn names(texts: &[&str]) -> HashSet<Name> {
    texts.iter().map(|text| name(text)).collect()
}

#[tokio::test]
async fn a_job_brings_the_worker_that_has_it_or_had_it_last() {
    let world = World::new();
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    let keys = Keys { jobs: vec![id, JobId::new(uuid::Uuid::from_u128(404))], ..Keys::default() };
    let waiting = world.snapshot(&keys).await;
    assert_eq!((waiting.jobs.len(), waiting.workers.len()), (1, 0));
    assert_eq!(world.claim_one(&who).await, Some(id));
    let running = world.snapshot(&keys).await;
    assert_eq!(running.workers[&who.worker_id].live_job(), Some(id));
    world.complete(&who, id).await;
    let ended = world.snapshot(&keys).await;
    assert_eq!(ended.workers[&who.worker_id].live_job(), None);
}

#[tokio::test]
async fn a_worker_brings_the_job_that_occupies_it() {
    let world = World::new();
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let id = world.submit(submission_to("sandbox-1", "strict")).await;
    let keys = Keys { workers: vec![who.worker_id.clone()], ..Keys::default() };
    let snapshot = world.snapshot(&keys).await;
    assert_eq!(snapshot.jobs[&id].occupies(), Some(&who.worker_id));
    let view = &snapshot.workers[&who.worker_id];
    assert!(view.occupied_by.is_some_and(|occupation| occupation.reserved));
    assert_eq!(view.instance_load, 1);
}

#[tokio::test]
async fn a_name_brings_every_worker_that_carries_it_with_its_job_and_its_own_names() {
    let world = World::new();
    let first = world.worker_of("w-1", "sandbox-1", "i-1").await;
    world.worker_of("w-2", "sandbox-1", "i-2").await;
    world.worker_of("w-3", "sandbox-3", "i-1").await;
    world.register(registration("sandbox-1")).await;
    world.worker("stranger").await;
    let job = world.submit(submission()).await;
    assert_eq!(world.claim_one(&first).await, Some(job));
    let keys = Keys { names: vec![name("sandbox-1"), name("i-1")], ..Keys::default() };
    let snapshot = world.snapshot(&keys).await;
    let found: HashSet<Name> = snapshot.workers.keys().cloned().collect();
    assert_eq!(found, names(&["w-1", "w-2", "w-3", "sandbox-1"]));
    assert!(snapshot.jobs.contains_key(&job));
    let view = &snapshot.names[&name("sandbox-1")];
    assert!(view.record.is_some());
    assert_eq!(view.by_target, [name("w-1"), name("w-2")]);
    assert_eq!(snapshot.names[&name("i-1")].by_instance, [name("w-1"), name("w-3")]);
    for own in ["w-1", "w-2", "w-3", "sandbox-3"] {
        assert!(snapshot.names[&name(own)].record.is_some(), "{own}");
    }
    assert_eq!(snapshot.names[&name("sandbox-3")].by_target, [name("w-3")]);
    assert!(snapshot.workers[&name("sandbox-1")].id_is_a_target);
    let unknown = Keys { names: vec![name("nobody")], ..Keys::default() };
    let snapshot = world.snapshot(&unknown).await;
    assert!(snapshot.names[&name("nobody")].record.is_none());
}

#[tokio::test]
async fn the_jobs_that_wait_for_a_target_come_only_when_asked_for() {
    let world = World::new();
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    let reserved = world.submit(submission_to("sandbox-1", "preferred")).await;
    let waiting = world
        .submit(SubmissionRequest { affinity_wait_seconds: Some(60), ..submission_to("sandbox-1", "strict") })
        .await;
    world.submit(submission()).await;
    world.submit(SubmissionRequest { affinity_wait_seconds: Some(60), ..submission_to("sandbox-2", "strict") }).await;
    let asked = Keys { names: vec![name("sandbox-1")], waiting_for: vec![name("sandbox-1")], ..Keys::default() };
    let snapshot = world.snapshot(&asked).await;
    let listed: HashSet<JobId> = snapshot.names[&name("sandbox-1")].waiting_jobs.iter().copied().collect();
    assert_eq!(listed, HashSet::from([reserved, waiting]));
    assert_eq!(snapshot.jobs.keys().copied().collect::<HashSet<_>>(), listed);
    let not_asked = Keys { names: vec![name("sandbox-1")], ..Keys::default() };
    let snapshot = world.snapshot(&not_asked).await;
    assert!(snapshot.names[&name("sandbox-1")].waiting_jobs.is_empty());
    assert!(!snapshot.jobs.contains_key(&waiting));
}

#[tokio::test]
async fn an_idempotency_key_brings_the_job_it_made() {
    let world = World::new();
    let client = ClientName::new("valet");
    let command = submit(SubmissionRequest { idempotency_key: Some("key-1".into()), ..submission() });
    let id = world.run(&command).await.job.id;
    let keys = Keys {
        idempotency_keys: vec![
            (client.clone(), "key-1".into()),
            (client.clone(), "key-2".into()),
            (ClientName::new("another"), "key-1".into()),
        ],
        ..Keys::default()
    };
    let snapshot = world.snapshot(&keys).await;
    assert_eq!(snapshot.idempotency_keys.len(), 1);
    assert_eq!(snapshot.idempotency_keys[&(client, "key-1".into())].job_id, id);
    assert!(snapshot.jobs.contains_key(&id));
}

#[tokio::test]
async fn reported_calls_are_found_by_job_and_call_and_a_greater_report_takes_the_place() {
    let world = World::new();
    let who = world.worker("w-1").await;
    let job_id = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(job_id));
    let call = |call_id: &str, output: u64| {
        let reported: Result<ReportedCall, _> = serde_json::from_value(serde_json::json!({
            "call_id": call_id, "provider": "anthropic", "model": "claude-haiku-4-5",
            "usage": { "input": 10, "output": output }
        }));
        CallReport::new(reported.unwrap()).unwrap()
    };
    let report = |calls| ReportUsage { who: who.clone(), job_id, attempt: gh_core::domain::ids::Attempt::FIRST, calls };
    world.run(&report(vec![call("c-2", 1), call("c-1", 1)])).await;
    world.run(&report(vec![call("c-1", 5)])).await;
    let keys = Keys {
        calls: ["c-1", "c-2", "c-3"].into_iter().map(|call_id| (job_id, call_id.into())).collect(),
        ..Keys::default()
    };
    let snapshot = world.snapshot(&keys).await;
    assert_eq!(snapshot.calls.len(), 2);
    let tokens = |call_id: &str| {
        let entry = &snapshot.calls[&(job_id, call_id.into())];
        entry.report.usage().total_tokens()
    };
    assert_eq!((tokens("c-1"), tokens("c-2")), (15, 11));
}

#[tokio::test]
async fn all_workers_of_a_target_can_be_deregistered_in_one_change() {
    let world = World::new();
    let first = world.worker_of("w-1", "sandbox-1", "i-1").await;
    world.worker_of("w-2", "sandbox-1", "i-2").await;
    let job = world.submit(submission()).await;
    assert_eq!(world.claim_one(&first).await, Some(job));
    let command = deregister("sandbox-1");
    let record = world.run(&command).await.deregistration;
    assert_eq!(world.status(job).await, JobStatus::Cancelled);
    assert_eq!(world.view("w-2").await.status(), WorkerStatus::Offline);
    let stored = world.store.deregistration(record.id).await.unwrap().unwrap();
    assert_eq!(*stored, record);
    let keys = Keys { names: vec![name("w-1")], ..Keys::default() };
    let snapshot = world.snapshot(&keys).await;
    let hold = snapshot.hold_on(&name("w-1")).map(Arc::clone);
    assert_eq!(hold.map(|known| known.id), Some(record.id));
}

#[tokio::test]
async fn deregistering_a_machine_leaves_strict_jobs_to_workers_of_their_target_elsewhere() {
    let world = World::new();
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    let reserved = world.submit(submission_to("sandbox-1", "strict")).await;
    let elsewhere = world.worker_of("w-2", "sandbox-1", "i-2").await;
    let command = Deregister { selector: Selector::Instance(name("i-1")), ..deregister("sandbox-1") };
    world.run(&command).await;
    assert_eq!(world.status(reserved).await, JobStatus::Pending);
    assert_eq!(world.claim_one(&elsewhere).await, Some(reserved));
}

fn deregister(target: &str) -> Deregister {
    Deregister {
        selector: Selector::Target(name(target)),
        actor: Actor::Client(ClientName::new("valet")),
        reason: "scale-down".into(),
        cancel_active_jobs: true,
        drain_timeout: None,
        hold: None,
        dry_run: false,
    }
}
