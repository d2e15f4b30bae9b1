//! A changeset is stored whole or not at all, and then everybody sees it.

use std::sync::Arc;

use futures_util::future::join_all;

use super::steps::{EVERYTHING, deregister, drain, events, names, no_return, patient, reboot, usage, with_key};
use super::world::{SECOND, World, cancel, heartbeat, submit};
use crate::domain::changeset::Changeset;
use crate::domain::code::ClientName;
use crate::domain::commands::{Command, Credential, Heartbeat, Report, ReportOutcome, Submit, UsageClosing, decide};
use crate::domain::ids::{Attempt, JobId};
use crate::domain::job::{Completion, JobStatus};
use crate::domain::snapshot::{Keys, Snapshot};
use crate::domain::submission::SubmissionRequest;
use crate::domain::worker::Beat;
use crate::ports::reader::{JobEventQuery, JobQuery};
use crate::ports::store::Conflict;
use crate::testing::{name, submission, submission_to};

fn key(text: &str) -> (ClientName, Box<str>) {
    (ClientName::new("valet"), text.into())
}

pub(super) async fn of_two_decisions_on_one_version_only_the_first_is_stored_and_the_second_leaves_no_trace(
    world: World,
) {
    let id = world.submit(submission()).await;
    let other = world.submit(submission()).await;
    let twice = vec![
        world.decision(&cancel(id)).await,
        world.decision(&cancel(id)).await,
        world.decision(&cancel(other)).await,
    ];
    let stored = world.commit(twice).await;
    assert_eq!(stored, [Ok(()), Err(Conflict), Ok(())], "one that is refused does not touch the others");
    assert_eq!(world.event_types(id).await, ["job_queued", "job_cancelled"]);
    assert_eq!(world.reader.deliveries(id, None, EVERYTHING).await.unwrap().len(), 1);
    assert_eq!(world.status(other).await, JobStatus::Cancelled);
}

/// Retires two workers, one with a running job and one with a reserved one, and fails a job that waits: then one
/// member of all that has moved since.
pub(super) async fn nothing_of_a_refused_deregistration_is_visible_whichever_of_its_members_moved(world: World) {
    for moved in ["job", "worker", "name"] {
        let of = |what: &str| format!("{moved}-{what}");
        let target = of("target");
        world.worker_of(&of("w-1"), &target, &of("i-1")).await;
        world.worker_of(&of("w-2"), &target, &of("i-2")).await;
        let mut jobs = Vec::new();
        for _ in 0..2 {
            jobs.push(world.submit(submission_to(&target, "strict")).await);
        }
        let waiting = world.submit(patient(&target, 60)).await;
        let first = world.job(jobs[0]).await.occupies().unwrap().clone();
        let who =
            Credential { worker_id: first.clone(), generation: world.view(first.as_str()).await.worker.generation };
        world.run(&world.claim_of(&who)).await;
        assert_eq!(world.status(jobs[0]).await, JobStatus::Running);
        let refused = world.decision(&deregister(&target)).await;
        assert_eq!((refused.workers().len(), refused.jobs().len(), refused.deregistrations().len()), (2, 3, 1));
        assert_eq!(refused.names().len(), 3);
        assert!(!refused.callbacks().is_empty() && !refused.job_events().is_empty() && !refused.vitals().is_empty());
        match moved {
            "job" => {
                world.run(&cancel(waiting)).await;
            }
            "worker" => world.run(&drain(&who, None)).await,
            _ => {
                world.worker_of(&of("w-3"), &target, &of("i-3")).await;
            }
        }
        let held = [&*target, first.as_str(), &*of("w-1"), &*of("w-2")];
        let keys = Keys { names: names(&held), ..Keys::default() };
        let before = world.traces(&keys).await;
        let made = refused.deregistrations()[0].id;
        assert_eq!(world.commit(vec![refused]).await, [Err(Conflict)], "a {moved} moved");
        assert_eq!(world.traces(&keys).await, before, "a {moved} moved");
        assert_eq!(world.elsewhere().await.traces(&keys).await, before, "a {moved} moved");
        assert!(world.reader.deregistration(made).await.unwrap().is_none());
    }
}

pub(super) async fn nothing_of_a_refused_report_of_costs_is_visible(world: World) {
    let (who, id) = world.running("w-1", submission()).await;
    world.run(&usage(&who, id, Attempt::FIRST, &[("c-1", 1)])).await;
    let refused = world.decision(&usage(&who, id, Attempt::FIRST, &[("c-1", 9), ("c-2", 5)])).await;
    assert_eq!(refused.ledger().len(), 2);
    world.run(&cancel(id)).await;
    let calls = ["c-1", "c-2"].into_iter().map(|call| (id, call.into())).collect();
    let keys = Keys { calls, ..Keys::default() };
    let before = world.traces(&keys).await;
    assert_eq!(world.commit(vec![refused]).await, [Err(Conflict)]);
    assert_eq!(world.traces(&keys).await, before);
}

pub(super) async fn nothing_of_a_refused_submission_is_visible_and_its_key_is_free(world: World) {
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let request = SubmissionRequest { idempotency_key: Some("key-1".into()), ..submission_to("sandbox-1", "strict") };
    let command = submit(request);
    let refused = world.decision(&command).await;
    world.run(&drain(&who, None)).await;
    let keys = Keys { names: names(&["sandbox-1"]), idempotency_keys: vec![key("key-1")], ..Keys::default() };
    let before = world.traces(&keys).await;
    let made = refused.jobs()[0].job.id;
    assert_eq!(world.commit(vec![refused]).await, [Err(Conflict)]);
    assert_eq!(world.traces(&keys).await, before);
    assert!(world.reader.job(made).await.unwrap().is_none());
    assert!(!world.run(&command).await.duplicate);
}

pub(super) async fn nothing_of_a_refused_heartbeat_is_visible(world: World) {
    let who = world.worker("w-1").await;
    let beat = Beat { memory_usage: Some(1024), ..Beat::default() };
    world.clock.advance(SECOND);
    let refused = world.decision(&Heartbeat { beat, ..heartbeat(&who) }).await;
    world.run(&drain(&who, None)).await;
    let before = world.traces(&Keys::default()).await;
    assert_eq!(world.commit(vec![refused]).await, [Err(Conflict)]);
    assert_eq!(world.traces(&Keys::default()).await, before);
}

/// The snapshot as it will be when these changes are stored: what a server that gathers commands decides the next on.
fn after(mut snapshot: Snapshot, changes: &Changeset) -> Snapshot {
    for write in changes.jobs() {
        let job = &write.job;
        for view in snapshot.workers.values_mut() {
            view.occupied_by = view.occupied_by.filter(|occupation| occupation.job_id != job.id);
            if let Some((_, occupation)) = job.occupation().filter(|(id, _)| **id == view.worker.id) {
                view.occupied_by = Some(occupation);
            }
        }
        snapshot.jobs.insert(job.id, Arc::clone(job));
    }
    for worker in changes.workers() {
        if let Some(view) = snapshot.workers.get_mut(&worker.id) {
            view.worker = Arc::clone(worker);
        }
    }
    for change in changes.vitals() {
        if let Some(view) = snapshot.workers.get_mut(&change.worker_id) {
            view.vitals.apply(change);
        }
    }
    snapshot
}

impl World {
    /// Decides one command on a state that is still to be stored.
    fn decide_next<C: Command>(&self, snapshot: Snapshot, command: &C) -> (Changeset, Snapshot) {
        let decision = decide(&snapshot, command, &self.rules);
        assert!(decision.answer.is_ok(), "{:?}", decision.answer.err());
        let next = after(snapshot, &decision.changes);
        (decision.changes, next)
    }

    async fn numbers_of_events(&self, job_id: JobId) -> Vec<u64> {
        let query = JobEventQuery { job_id, after_seq: 0, event_types: Vec::new(), limit: EVERYTHING };
        let events = self.reader.job_events(&query).await.unwrap();
        events.iter().map(|event| event.seq).collect()
    }
}

pub(super) async fn several_commands_for_one_job_are_stored_in_one_batch_each_on_what_the_one_before_left(
    world: World,
) {
    let (who, id) = world.running("w-1", submission()).await;
    let before = world.job(id).await;
    let next = world.submit(submission()).await;
    let complete = Report::Complete(Completion::default(), UsageClosing::default());
    let complete = ReportOutcome { who: who.clone(), job_id: id, attempt: Attempt::FIRST, report: complete };
    let keys = Keys { jobs: vec![id, next], workers: vec![who.worker_id.clone()], ..Keys::default() };
    let snapshot = world.snapshot(&keys).await;
    let (first, snapshot) = world.decide_next(snapshot, &events(&who, id, Attempt::FIRST));
    let (second, snapshot) = world.decide_next(snapshot, &no_return(&who, id, Attempt::FIRST));
    let (third, snapshot) = world.decide_next(snapshot, &complete);
    let (listens, _) = world.decide_next(snapshot, &world.claim_of(&who));
    let batch = vec![first, second, third, listens];
    assert_eq!(world.commit(batch).await, [Ok(()); 4]);
    let job = world.job(id).await;
    assert_eq!(job.status(), JobStatus::Completed);
    assert_eq!(job.version.0, before.version.0 + 3);
    assert_eq!(
        world.event_types(id).await[before.event_seq as usize..],
        ["step_started", "side_effects_started", "job_completed"]
    );
    let numbers: Vec<u64> = (1..=before.event_seq + 3).collect();
    assert_eq!(world.numbers_of_events(id).await, numbers);
    assert_eq!(world.claim_one(&who).await, Some(next), "its worker is free and waits");
}

pub(super) async fn what_was_decided_on_a_refused_change_of_its_batch_is_refused_with_it(world: World) {
    let (who, id) = world.running("w-1", submission()).await;
    let other = world.submit(submission()).await;
    let keys = Keys { jobs: vec![id], workers: vec![who.worker_id.clone()], ..Keys::default() };
    let snapshot = world.snapshot(&keys).await;
    let (first, snapshot) = world.decide_next(snapshot, &events(&who, id, Attempt::FIRST));
    let (second, _) = world.decide_next(snapshot, &no_return(&who, id, Attempt::FIRST));
    let unrelated = world.decision(&cancel(other)).await;
    // One write by somebody else: the job now has just the version that the first would have given it.
    world.elsewhere().await.run(&cancel(id)).await;
    let before = world.event_types(id).await;
    assert_eq!(world.commit(vec![first, second, unrelated]).await, [Err(Conflict), Err(Conflict), Ok(())]);
    assert_eq!(world.status(id).await, JobStatus::Cancelled);
    assert_eq!(world.event_types(id).await, before);
}

pub(super) async fn of_two_submissions_with_one_key_in_one_batch_only_one_is_stored(world: World) {
    let command = submit(with_key("key-1"));
    let twice = vec![world.decision(&command).await, world.decision(&command).await];
    assert_eq!(world.commit(twice).await, [Ok(()), Err(Conflict)]);
    let jobs = world.reader.jobs(&JobQuery { limit: EVERYTHING, ..JobQuery::default() }).await.unwrap();
    assert_eq!(jobs.len(), 1);
    let again = world.run(&command).await;
    assert!(again.duplicate);
    assert_eq!(again.job.id, jobs[0].id);
}

pub(super) async fn of_submissions_with_one_key_through_many_handles_at_once_only_one_makes_a_job(world: World) {
    let command = submit(with_key("key-1"));
    let mut servers = Vec::new();
    for _ in 0..8 {
        servers.push(world.elsewhere().await);
    }
    let answers = join_all(servers.iter().map(|server| server.contend(&command))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1);
    assert!(answers.iter().all(|answer| answer.job.id == answers[0].job.id), "all are told of one job");
    assert_eq!(world.count(JobStatus::Pending).await, 1);
}

pub(super) async fn keys_of_different_clients_do_not_meet(world: World) {
    let mine = submit(with_key("key-1"));
    let theirs = Submit { client: ClientName::new("another"), ..mine.clone() };
    let both = vec![world.decision(&mine).await, world.decision(&theirs).await];
    assert_eq!(world.commit(both).await, [Ok(()), Ok(())]);
    assert_eq!(world.count(JobStatus::Pending).await, 2);
}

pub(super) async fn what_one_handle_stored_every_other_sees_at_once_also_one_opened_afterwards(world: World) {
    let early = world.elsewhere().await;
    let (who, id) = world.running("w-1", with_key("key-1")).await;
    world.run(&usage(&who, id, Attempt::FIRST, &[("c-1", 1)])).await;
    world.worker_of("w-2", "sandbox-1", "i-1").await;
    world.run(&deregister("sandbox-1")).await;
    let keys = Keys {
        names: names(&["w-1", "w-2", "sandbox-1", "i-1"]),
        idempotency_keys: vec![key("key-1")],
        calls: vec![(id, "c-1".into())],
        ..Keys::default()
    };
    let stored = world.traces(&keys).await;
    assert_eq!(early.traces(&keys).await, stored);
    let late = world.elsewhere().await;
    assert_eq!(late.traces(&keys).await, stored);
    // And goes on where the others left off.
    late.complete(&who, id).await;
    assert_eq!(early.status(id).await, JobStatus::Completed);
    assert!(early.run(&submit(with_key("key-1"))).await.duplicate);
}

pub(super) async fn what_one_handle_told_as_the_time_no_other_goes_behind(world: World) {
    let other = world.elsewhere().await;
    let mut last = world.reader.now().await.unwrap();
    for step in 0..4 {
        world.clock.advance(SECOND / 4);
        let server = if step % 2 == 0 { &other } else { &world };
        let told = server.reader.now().await.unwrap();
        assert!(told > last, "{told} after {last}: time stands still");
        let loaded = world.snapshot(&Keys::default()).await.now;
        assert!(loaded >= told, "{loaded} after {told}");
        last = world.reader.worker(&name("nobody")).await.unwrap().0.max(loaded);
    }
    assert!(world.elsewhere().await.reader.now().await.unwrap() >= last);
}

pub(super) async fn all_handles_share_one_secret_for_tokens(world: World) {
    let secret = world.store.token_key().await.unwrap();
    assert_ne!(secret, [0; 32]);
    assert_eq!(world.elsewhere().await.store.token_key().await.unwrap(), secret);
    assert_eq!(world.store.token_key().await.unwrap(), secret);
}

pub(super) async fn a_changeset_that_changes_nothing_is_stored(world: World) {
    let id = world.submit(submission()).await;
    world.run(&cancel(id)).await;
    let repeated = world.decision(&cancel(id)).await;
    assert!(repeated.jobs().is_empty());
    assert_eq!(world.commit(vec![repeated, Changeset::default()]).await, [Ok(()), Ok(())]);
    assert_eq!(world.commit(Vec::new()).await, []);
}

pub(super) async fn two_heartbeats_decided_on_one_moment_both_count(world: World) {
    let who = world.worker("w-1").await;
    let beat = |beat: Beat| Heartbeat { beat, ..heartbeat(&who) };
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

pub(super) async fn refused_calls_of_a_retired_process_are_all_counted_whichever_server_they_reach(world: World) {
    let old = world.worker("w-1").await;
    world.register(reboot("w-1", "w-1-boot-2")).await;
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(world.elsewhere().await);
    }
    let beat = heartbeat(&old);
    let answers = join_all(servers.iter().map(|server| server.contend(&beat))).await;
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(world.view("w-1").await.vitals.refused_calls, 4);
}
