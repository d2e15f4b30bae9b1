//! What a store remembers may be out of date, and is never wrong unnoticed. A store that remembers nothing keeps all of
//! this.

use std::collections::HashMap;
use std::fmt::Debug;

use super::steps::{drain, events, reboot};
use super::world::{SECOND, World, cancel, heartbeat, submit};
use crate::domain::commands::{
    Claim, Command, Credential, Heartbeat, JobClaim, Report, ReportOutcome, UsageClosing, decide, decide_recalled,
};
use crate::domain::ids::{Attempt, JobId, Version, WorkerId};
use crate::domain::job::Completion;
use crate::domain::snapshot::{Keys, Snapshot};
use crate::ports::store::Conflict;
use crate::testing::{name, submission};

/// Every version of jobs and workers that was seen, as text.
#[derive(Default)]
struct Seen {
    jobs: HashMap<(JobId, Version), String>,
    workers: HashMap<(WorkerId, Version), String>,
}

impl Seen {
    fn keep(&mut self, snapshot: &Snapshot) {
        for job in snapshot.jobs.values() {
            self.jobs.insert((job.id, job.version), format!("{job:?}"));
        }
        for view in snapshot.workers.values() {
            self.workers.insert((view.worker.id.clone(), view.worker.version), format!("{:?}", view.worker));
        }
    }

    fn assert_knows(&self, recalled: &Snapshot) {
        for job in recalled.jobs.values() {
            assert_eq!(self.jobs.get(&(job.id, job.version)), Some(&format!("{job:?}")));
        }
        for view in recalled.workers.values() {
            let key = (view.worker.id.clone(), view.worker.version);
            assert_eq!(self.workers.get(&key), Some(&format!("{:?}", view.worker)));
        }
    }
}

/// Decides on what is remembered if that will do, else on what is loaded; what was refused, anew.
async fn run<C: Command>(world: &World, command: &C) {
    if let Some(snapshot) = world.store.recall(&command.keys())
        && let Some(decision) = decide_recalled(&snapshot, command, &world.rules)
        && world.commit(vec![decision.changes]).await == [Ok(())]
    {
        return;
    }
    let _whether_granted = world.attempt(command).await;
}

pub(super) async fn what_is_remembered_of_a_job_or_a_worker_was_stored_with_that_version(world: World) {
    let other = world.elsewhere().await;
    let who = world.worker("w-1").await;
    let mut seen = Seen::default();
    for round in 0..4 {
        let id = world.submit(submission()).await;
        let workers = vec![who.worker_id.clone()];
        let keys = Keys { jobs: vec![id], workers, ..Keys::default() };
        seen.keep(&world.snapshot(&keys).await);
        for step in 0..6 {
            world.clock.advance(SECOND);
            // Each step by another server than the one before it.
            let server = if (round + step) % 2 == 0 { &world } else { &other };
            match step {
                0 => assert_eq!(server.claim_one(&who).await, Some(id)),
                1 => run(server, &events(&who, id, Attempt::FIRST)).await,
                2 => run(server, &heartbeat(&who)).await,
                3 if round == 2 => run(server, &cancel(id)).await,
                3 => run(server, &events(&who, id, Attempt::FIRST)).await,
                4 => {
                    let report = Report::Complete(Completion::default(), UsageClosing::default());
                    let who = who.clone();
                    run(server, &ReportOutcome { who, job_id: id, attempt: Attempt::FIRST, report }).await;
                }
                _ => run(server, &server.claim_of(&who)).await,
            }
            for server in [&world, &other] {
                let known = server.store.recall(&keys);
                // Loading may change what is remembered: only afterwards.
                seen.keep(&server.snapshot(&keys).await);
                for recalled in known.into_iter().chain(server.store.recall(&keys)) {
                    seen.assert_knows(&recalled);
                }
            }
        }
    }
}

/// Decides on what this server remembers; unless it is what would be decided on what is stored, it must be refused.
async fn assert_found_out<C: Command<Answer: Debug>>(world: &World, what: &str, command: &C) {
    let Some(decision) =
        world.store.recall(&command.keys()).and_then(|snapshot| decide_recalled(&snapshot, command, &world.rules))
    else {
        return;
    };
    let stored = world.snapshot(&command.keys()).await;
    let right = decide(&stored, command, &world.rules).answer;
    let answer = format!("{:?}", decision.answer);
    let outcome = world.commit(vec![decision.changes]).await;
    assert!(outcome == [Err(Conflict)] || answer == format!("{right:?}"), "{what}: {answer} instead of {right:?}");
}

/// The same for whatever a worker, or a client, may say.
async fn assert_all_found_out(world: &World, what: &str, who: &Credential, id: JobId) {
    let claim: Claim = world.claim_of(who);
    let beat = |job| Heartbeat { job, ..heartbeat(who) };
    let report = Report::Complete(Completion::default(), UsageClosing::default());
    let end = ReportOutcome { who: who.clone(), job_id: id, attempt: Attempt::FIRST, report };
    assert_found_out(world, what, &beat(JobClaim::Job(id))).await;
    assert_found_out(world, what, &beat(JobClaim::None)).await;
    assert_found_out(world, what, &events(who, id, Attempt::FIRST)).await;
    assert_found_out(world, what, &claim).await;
    assert_found_out(world, what, &end).await;
    assert_found_out(world, what, &drain(who, None)).await;
    assert_found_out(world, what, &cancel(id)).await;
}

pub(super) async fn what_is_decided_on_memory_is_refused_where_another_server_made_it_wrong(world: World) {
    let other = world.elsewhere().await;
    for (number, what) in
        ["granted", "cancelled", "ended", "heard of", "without a job", "drained", "replaced"].iter().enumerate()
    {
        let who = world.worker(&format!("w-{number}")).await;
        let id = world.submit(submission()).await;
        if *what != "granted" {
            assert_eq!(world.claim_one(&who).await, Some(id));
            world.run(&events(&who, id, Attempt::FIRST)).await;
        }
        if *what == "without a job" {
            world.run(&Heartbeat { job: JobClaim::None, ..heartbeat(&who) }).await;
        }
        // Now it is remembered, if anything is.
        world.snapshot(&Keys { jobs: vec![id], workers: vec![who.worker_id.clone()], ..Keys::default() }).await;
        world.clock.advance(SECOND);
        match *what {
            "granted" => assert_eq!(other.claim_one(&who).await, Some(id)),
            "cancelled" => drop(other.run(&cancel(id)).await),
            "ended" => other.complete(&who, id).await,
            "drained" => other.run(&drain(&who, None)).await,
            "replaced" => drop(other.run(&reboot(who.worker_id.as_str(), "another-boot")).await),
            _ => drop(other.run(&Heartbeat { job: JobClaim::Job(id), ..heartbeat(&who) }).await),
        }
        world.clock.advance(SECOND);
        assert_all_found_out(&world, what, &who, id).await;
    }
}

pub(super) async fn only_jobs_and_workers_that_are_there_are_remembered(world: World) {
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let id = world.submit(submission()).await;
    let known = Keys { jobs: vec![id], workers: vec![who.worker_id.clone()], ..Keys::default() };
    world.snapshot(&known).await;
    let unknown = JobId::new(uuid::Uuid::from_u128(7));
    let key = submit(crate::testing::submission_to("sandbox-1", "strict")).keys();
    let wider = [
        Keys { jobs: vec![id, unknown], ..Keys::default() },
        Keys { workers: vec![name("w-2")], ..Keys::default() },
        Keys { names: vec![name("sandbox-1")], ..known.clone() },
        Keys { waiting_for: vec![name("sandbox-1")], ..known.clone() },
        Keys { idempotency_keys: vec![(crate::domain::code::ClientName::new("valet"), "k".into())], ..known.clone() },
        Keys { calls: vec![(id, "c-1".into())], ..known },
        key,
    ];
    for keys in wider {
        world.snapshot(&keys).await;
        assert!(world.store.recall(&keys).is_none(), "{keys:?}");
    }
}
