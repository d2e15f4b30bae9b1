//! A snapshot holds everything that was asked for. It may hold more.

use std::collections::HashSet;

use futures_util::future::join;

use super::steps::{deregister, drain, events, names, patient, retry, usage, with_key};
use super::world::{SECOND, World, heartbeat, submit};
use crate::domain::code::ClientName;
use crate::domain::commands::{Deregister, Heartbeat, Selector};
use crate::domain::ids::{Attempt, JobId, Name};
use crate::domain::job::JobStatus;
use crate::domain::snapshot::{Keys, Snapshot};
use crate::domain::worker::{Beat, WorkerStatus};
use crate::testing::{name, registration, submission, submission_to};

fn set(texts: &[&str]) -> HashSet<Name> {
    names(texts).into_iter().collect()
}

fn found<'n>(names: impl IntoIterator<Item = &'n Name>) -> HashSet<Name> {
    names.into_iter().cloned().collect()
}

fn of_jobs(jobs: &[JobId]) -> Keys {
    Keys { jobs: jobs.to_vec(), ..Keys::default() }
}

fn of_names(texts: &[&str]) -> Keys {
    Keys { names: names(texts), ..Keys::default() }
}

pub(super) async fn a_job_brings_the_worker_that_has_it_or_had_it_last(world: World) {
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    let unknown = JobId::new(uuid::Uuid::from_u128(404));
    let keys = of_jobs(&[id, unknown]);
    let waiting = world.snapshot(&keys).await;
    assert!(waiting.jobs.contains_key(&id));
    assert!(!waiting.jobs.contains_key(&unknown));
    assert_eq!(world.claim_one(&who).await, Some(id));
    let running = world.snapshot(&keys).await;
    assert_eq!(running.workers[&who.worker_id].live_job(), Some(id));
    world.complete(&who, id).await;
    let ended = world.snapshot(&keys).await;
    assert_eq!(ended.workers[&who.worker_id].live_job(), None);
}

pub(super) async fn a_job_that_is_reserved_brings_its_worker_and_the_one_that_had_it_last(world: World) {
    let last = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let id = world.submit(submission_to("sandbox-1", "strict")).await;
    world.run(&world.claim_of(&last)).await;
    world.fail(&last, id, false).await;
    world.run(&drain(&last, None)).await;
    let next = world.worker_of("w-2", "sandbox-1", "i-2").await;
    let ended = world.job(id).await;
    world.run(&retry(&ended)).await;
    assert_eq!(world.job(id).await.occupies(), Some(&next.worker_id));
    let snapshot = world.snapshot(&of_jobs(&[id])).await;
    assert!(found(snapshot.workers.keys()).is_superset(&set(&["w-1", "w-2"])));
    assert!(snapshot.workers[&next.worker_id].occupied_by.is_some_and(|occupation| occupation.reserved));
}

pub(super) async fn a_worker_brings_the_job_that_occupies_it_and_what_its_calls_left_behind(world: World) {
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let id = world.submit(submission_to("sandbox-1", "strict")).await;
    let keys = Keys { workers: vec![who.worker_id.clone()], ..Keys::default() };
    let snapshot = world.snapshot(&keys).await;
    assert_eq!(snapshot.jobs[&id].occupies(), Some(&who.worker_id));
    let view = &snapshot.workers[&who.worker_id];
    assert!(view.occupied_by.is_some_and(|occupation| occupation.reserved));
    assert_eq!(view.instance_load, 1);
    world.clock.advance(SECOND);
    let beat = Beat { memory_usage: Some(1024), ..Beat::default() };
    world.run(&Heartbeat { beat, ..heartbeat(&who) }).await;
    let snapshot = world.elsewhere().await.snapshot(&keys).await;
    let view = &snapshot.workers[&who.worker_id];
    assert_eq!(view.vitals, world.view("w-1").await.vitals);
    assert_eq!((view.vitals.memory_usage, view.vitals.last_seen), (Some(1024), snapshot.now));
}

pub(super) async fn a_worker_brings_the_deregistration_that_waits_for_it_whichever_way_it_comes_in(world: World) {
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let id = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(id));
    let patient = Deregister { cancel_active_jobs: false, ..deregister("sandbox-1") };
    let record = world.run(&patient).await.deregistration;
    assert_eq!(record.draining, names(&["w-1"]));
    let by_worker = Keys { workers: names(&["w-1"]), ..Keys::default() };
    for keys in [by_worker, of_jobs(&[id]), of_names(&["w-1"]), of_names(&["sandbox-1"]), of_names(&["i-1"])] {
        let snapshot = world.snapshot(&keys).await;
        assert!(snapshot.workers.contains_key(&who.worker_id), "{keys:?}");
        assert_eq!(snapshot.deregistrations.get(&record.id).map(AsRef::as_ref), Some(&record), "{keys:?}");
    }
}

pub(super) async fn a_name_brings_its_record_and_the_deregistration_that_holds_it(world: World) {
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    let fresh = world.snapshot(&of_names(&["sandbox-1"])).await;
    assert!(fresh.names[&name("sandbox-1")].record.as_ref().is_some_and(|record| record.held_by.is_none()));
    let record = world.run(&deregister("sandbox-1")).await.deregistration;
    for held in ["w-1", "sandbox-1"] {
        let snapshot = world.snapshot(&of_names(&[held])).await;
        assert_eq!(snapshot.hold_on(&name(held)).map(AsRef::as_ref), Some(&record), "{held}");
    }
    let unknown = world.snapshot(&of_names(&["nobody"])).await;
    assert!(unknown.names.get(&name("nobody")).is_none_or(|view| view.record.is_none()));
}

pub(super) async fn a_name_brings_every_worker_that_carries_it_with_its_job_and_its_own_names(world: World) {
    let first = world.worker_of("w-1", "sandbox-1", "i-1").await;
    world.worker_of("w-2", "sandbox-1", "i-2").await;
    world.worker_of("w-3", "sandbox-3", "i-1").await;
    world.worker_of("w-4", "sandbox-3", "i-3").await;
    world.register(registration("sandbox-1")).await;
    world.worker("stranger").await;
    let job = world.submit(submission()).await;
    assert_eq!(world.claim_one(&first).await, Some(job));
    let snapshot = world.snapshot(&of_names(&["sandbox-1", "i-1"])).await;
    assert!(found(snapshot.workers.keys()).is_superset(&set(&["w-1", "w-2", "w-3", "w-4", "sandbox-1"])));
    assert!(snapshot.jobs.contains_key(&job));
    let view = &snapshot.names[&name("sandbox-1")];
    assert!(view.record.is_some());
    assert_eq!(found(&view.by_target), set(&["w-1", "w-2"]));
    assert_eq!(found(&snapshot.names[&name("i-1")].by_instance), set(&["w-1", "w-3"]));
    for own in ["w-1", "w-2", "w-3", "sandbox-3"] {
        assert!(snapshot.names[&name(own)].record.is_some(), "{own}");
    }
    assert_eq!(found(&snapshot.names[&name("sandbox-3")].by_target), set(&["w-3", "w-4"]));
    assert!(snapshot.workers[&name("sandbox-1")].id_is_a_target);
    assert!(!snapshot.workers[&name("w-1")].id_is_a_target);
}

pub(super) async fn a_target_brings_just_the_jobs_that_wait_for_it_where_asked_for(world: World) {
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    let reserved = world.submit(submission_to("sandbox-1", "preferred")).await;
    let waiting = world.submit(patient("sandbox-1", 60)).await;
    world.submit(submission()).await;
    world.submit(patient("sandbox-2", 60)).await;
    let asked = Keys { waiting_for: names(&["sandbox-1"]), ..of_names(&["sandbox-1"]) };
    let snapshot = world.snapshot(&asked).await;
    let listed: HashSet<JobId> = snapshot.names[&name("sandbox-1")].waiting_jobs.iter().copied().collect();
    assert_eq!(listed, HashSet::from([reserved, waiting]));
    for id in listed {
        assert!(snapshot.jobs[&id].wait().is_some(), "{id}");
    }
}

pub(super) async fn a_target_brings_also_the_jobs_that_back_off_or_are_fenced(world: World) {
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let id = world.submit(submission_to("sandbox-1", "strict")).await;
    world.run(&world.claim_of(&who)).await;
    world.run(&events(&who, id, Attempt::FIRST)).await;
    world.fail(&who, id, true).await;
    assert!(world.job(id).await.wait().is_some_and(|wait| wait.not_before.is_some()));
    let asked = Keys { waiting_for: names(&["sandbox-1"]), ..of_names(&["sandbox-1"]) };
    let snapshot = world.snapshot(&asked).await;
    assert_eq!(snapshot.names[&name("sandbox-1")].waiting_jobs, [id]);
    world.run(&deregister("sandbox-1")).await;
    assert_eq!(world.status(id).await, JobStatus::Failed, "nobody is left who may take it");
}

pub(super) async fn an_idempotency_key_brings_the_job_it_made(world: World) {
    let client = ClientName::new("valet");
    let command = submit(with_key("key-1"));
    let id = world.run(&command).await.job.id;
    let keys = Keys {
        idempotency_keys: vec![
            (client.clone(), "key-1".into()),
            (client, "key-2".into()),
            (ClientName::new("another"), "key-1".into()),
        ],
        ..Keys::default()
    };
    let snapshot = world.snapshot(&keys).await;
    assert_eq!(snapshot.idempotency_keys[&keys.idempotency_keys[0]].job_id, id);
    for unused in &keys.idempotency_keys[1..] {
        assert!(!snapshot.idempotency_keys.contains_key(unused), "{unused:?}");
    }
    assert!(snapshot.jobs.contains_key(&id));
}

pub(super) async fn reported_calls_are_found_by_job_and_call_and_a_greater_report_takes_the_place(world: World) {
    let (who, job_id) = world.running("w-1", submission()).await;
    let other = world.submit(submission()).await;
    world.run(&usage(&who, job_id, Attempt::FIRST, &[("c-2", 1), ("c-1", 1)])).await;
    world.run(&usage(&who, job_id, Attempt::FIRST, &[("c-1", 5)])).await;
    let call = |id: JobId, call_id: &str| (id, Box::<str>::from(call_id));
    let calls = vec![call(job_id, "c-1"), call(job_id, "c-2"), call(job_id, "c-3"), call(other, "c-1")];
    let snapshot = world.snapshot(&Keys { calls, ..Keys::default() }).await;
    let tokens = |call_id: &str| snapshot.calls[&call(job_id, call_id)].report.usage().total_tokens();
    assert_eq!((tokens("c-1"), tokens("c-2")), (15, 11));
    assert!(!snapshot.calls.contains_key(&call(job_id, "c-3")));
    assert!(!snapshot.calls.contains_key(&call(other, "c-1")));
}

pub(super) async fn all_workers_of_a_target_can_be_deregistered_in_one_change(world: World) {
    let first = world.worker_of("w-1", "sandbox-1", "i-1").await;
    world.worker_of("w-2", "sandbox-1", "i-2").await;
    let job = world.submit(submission()).await;
    assert_eq!(world.claim_one(&first).await, Some(job));
    let command = deregister("sandbox-1");
    let record = world.run(&command).await.deregistration;
    assert_eq!(world.status(job).await, JobStatus::Cancelled);
    assert_eq!(world.view("w-2").await.status(), WorkerStatus::Offline);
    let stored = world.reader.deregistration(record.id).await.unwrap().unwrap();
    assert_eq!(*stored, record);
}

pub(super) async fn deregistering_a_machine_leaves_strict_jobs_to_workers_of_their_target_elsewhere(world: World) {
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    let reserved = world.submit(submission_to("sandbox-1", "strict")).await;
    let elsewhere = world.worker_of("w-2", "sandbox-1", "i-2").await;
    let command = Deregister { selector: Selector::Instance(name("i-1")), ..deregister("sandbox-1") };
    world.run(&command).await;
    assert_eq!(world.status(reserved).await, JobStatus::Pending);
    assert_eq!(world.claim_one(&elsewhere).await, Some(reserved));
}

/// Whether workers and jobs of a snapshot agree on who has what.
fn assert_of_one_moment(snapshot: &Snapshot) {
    for view in snapshot.workers.values() {
        if let Some(occupation) = view.occupied_by {
            let job = snapshot.jobs.get(&occupation.job_id);
            let occupies = job.and_then(|job| job.occupies());
            assert_eq!(occupies, Some(&view.worker.id), "{:?} of another moment", occupation.job_id);
        }
    }
    for job in snapshot.jobs.values() {
        if let Some(view) = job.occupies().and_then(|id| snapshot.workers.get(id)) {
            assert_eq!(
                view.occupied_by.map(|occupation| occupation.job_id),
                Some(job.id),
                "a worker of another moment"
            );
        }
    }
}

pub(super) async fn a_snapshot_is_of_one_moment_while_others_write(world: World) {
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let reader = world.elsewhere().await;
    let keys = Keys { workers: names(&["w-1"]), waiting_for: names(&["sandbox-1"]), ..of_names(&["sandbox-1"]) };
    let write = async {
        for _ in 0..20 {
            let id = world.submit(submission_to("sandbox-1", "strict")).await;
            tokio::task::yield_now().await;
            world.run(&world.claim_of(&who)).await;
            tokio::task::yield_now().await;
            world.complete(&who, id).await;
            world.listen(&who).await;
        }
    };
    let read = async {
        for _ in 0..80 {
            assert_of_one_moment(&reader.snapshot(&keys).await);
            tokio::task::yield_now().await;
        }
    };
    join(write, read).await;
    assert_eq!(world.count(JobStatus::Completed).await, 20);
}
