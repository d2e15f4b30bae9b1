//! Claims that have just come are written down by the dispatch that serves them, together with what they are granted.

use futures_util::future::join_all;

use super::steps::{drain, events, reboot};
use super::world::{SECOND, World};
use crate::domain::commands::{Claim, ClaimAnswer, Credential};
use crate::domain::ids::{Attempt, JobId};
use crate::domain::job::JobStatus;
use crate::domain::rejection::Rejection;
use crate::domain::worker::WorkerView;
use crate::ports::store::{ClaimRequest, Dispatched};
use crate::testing::{name, registration, submission, submission_to};

impl World {
    /// Serves claims that have just come.
    async fn arrive(&self, claims: &[&Claim]) -> Dispatched {
        let claims: Vec<Claim> = claims.iter().copied().cloned().collect();
        let asked = claims.len();
        let request = ClaimRequest { workers: Vec::new(), claims };
        let dispatched = self.store.claim(request, &self.rules).await.unwrap();
        assert_eq!(dispatched.answers.len(), asked, "each claim has its answer");
        dispatched
    }

    /// Registers a worker that has never asked for a job.
    async fn silent_worker(&self, id: &str) -> Credential {
        self.run(&registration(id)).await.credential
    }
}

fn granted(dispatched: &Dispatched) -> Vec<(JobId, &str)> {
    let jobs = dispatched.committed.iter().flat_map(|changes| changes.jobs());
    jobs.map(|write| (write.job.id, write.job.occupies().unwrap().as_str())).collect()
}

fn waits_by(view: &WorkerView, claim: &Claim) -> bool {
    view.vitals.claim.as_ref().is_some_and(|known| known.id == claim.connection)
}

pub(super) async fn a_claim_and_the_job_that_it_is_granted_are_one_change(world: World) {
    let who = world.silent_worker("w-1").await;
    let id = world.submit(submission()).await;
    world.clock.advance(SECOND);
    let claim = world.claim_of(&who);
    let dispatched = world.arrive(&[&claim]).await;
    assert!(matches!(dispatched.answers[..], [Ok(Ok(ClaimAnswer::Waiting))]), "{:?}", dispatched.answers);
    assert_eq!(granted(&dispatched), [(id, "w-1")]);
    let [changes] = &dispatched.committed[..] else { panic!("{:?}", dispatched.committed) };
    assert!(!changes.vitals().is_empty() && !changes.job_events().is_empty());
    let (job, view) = (world.job(id).await, world.view("w-1").await);
    assert_eq!((job.status(), job.attempt, view.live_job()), (JobStatus::Running, Attempt::FIRST, Some(id)));
    assert!(waits_by(&view, &claim));
    assert_eq!(view.vitals.last_seen, world.snapshot(&Default::default()).await.now);
    assert_eq!(world.event_types(id).await.last().map(String::as_str), Some("job_started"));
    // What it was granted can be worked on, like any other.
    world.run(&events(&who, id, Attempt::FIRST)).await;
    world.complete(&who, id).await;
    assert_eq!(world.status(id).await, JobStatus::Completed);
}

pub(super) async fn a_claim_for_which_there_is_no_job_is_stored_as_waiting(world: World) {
    let who = world.silent_worker("w-1").await;
    let claim = world.claim_of(&who);
    let dispatched = world.arrive(&[&claim]).await;
    assert!(matches!(dispatched.answers[..], [Ok(Ok(ClaimAnswer::Waiting))]), "{:?}", dispatched.answers);
    assert_eq!(granted(&dispatched), []);
    assert!(waits_by(&world.view("w-1").await, &claim));
    let id = world.submit(submission()).await;
    assert_eq!(world.elsewhere().await.claim_one(&who).await, Some(id), "every server sees that it waits");
}

pub(super) async fn new_claims_and_those_that_wait_are_served_together(world: World) {
    let waits = world.worker("w-1").await;
    let comes = world.silent_worker("w-2").await;
    let jobs = [world.submit(submission()).await, world.submit(submission()).await];
    let request = ClaimRequest { workers: vec![waits.worker_id.clone()], claims: vec![world.claim_of(&comes)] };
    let dispatched = world.store.claim(request, &world.rules).await.unwrap();
    let mut granted = granted(&dispatched);
    granted.sort_unstable_by_key(|(_, worker)| *worker);
    assert_eq!(granted.iter().map(|(_, worker)| *worker).collect::<Vec<_>>(), ["w-1", "w-2"]);
    assert!(jobs.iter().all(|id| granted.iter().any(|(granted, _)| granted == id)));
}

pub(super) async fn a_claim_that_the_rules_refuse_is_given_no_job(world: World) {
    let draining = world.worker("w-1").await;
    world.run(&drain(&draining, None)).await;
    // A drain may have been the end of an idle worker: only one that is busy still drains.
    let busy = world.worker("w-2").await;
    let running = world.submit(submission()).await;
    assert_eq!(world.claim_one(&busy).await, Some(running));
    world.run(&events(&busy, running, Attempt::FIRST)).await;
    let replaced = world.silent_worker("w-3").await;
    let successor = world.register(reboot("w-3", "boot-2")).await;
    let unknown = Credential { worker_id: name("w-4"), ..replaced.clone() };
    let id = world.submit(submission()).await;
    let claims = [&draining, &busy, &replaced, &unknown].map(|who| world.claim_of(who));
    let dispatched = world.arrive(&claims.each_ref()).await;
    assert!(
        matches!(
            dispatched.answers[..],
            [
                Ok(Err(Rejection::WorkerDraining | Rejection::WorkerDeregistered { .. })),
                Ok(Err(Rejection::LeaseHeld { job_id, .. })),
                Ok(Err(Rejection::StaleGeneration)),
                Ok(Err(Rejection::WorkerNotFound)),
            ] if job_id == running
        ),
        "{:?}",
        dispatched.answers
    );
    // Not even the successor of the one that was replaced: it waits elsewhere, and nobody there would hear of it.
    assert_eq!(granted(&dispatched), []);
    assert_eq!(world.status(id).await, JobStatus::Pending);
    assert_eq!(world.view("w-3").await.vitals.refused_calls, 1);
    assert_eq!(world.claim_one(&successor).await, Some(id));
}

pub(super) async fn a_newer_claim_ends_the_older_that_came_with_it(world: World) {
    let who = world.silent_worker("w-1").await;
    let (first, second) = (world.submit(submission()).await, world.submit(submission()).await);
    let (older, newer) = (world.claim_of(&who), world.claim_of(&who));
    let dispatched = world.arrive(&[&older, &newer]).await;
    assert!(dispatched.answers.iter().all(|answer| matches!(answer, Ok(Ok(ClaimAnswer::Waiting)))));
    assert_eq!(granted(&dispatched).len(), 1, "a worker takes one job");
    assert!(waits_by(&world.view("w-1").await, &newer));
    let mut left = [world.status(first).await, world.status(second).await];
    left.sort_unstable_by_key(|status| *status == JobStatus::Running);
    assert_eq!(left, [JobStatus::Pending, JobStatus::Running]);
}

pub(super) async fn a_claim_whose_answer_was_lost_is_given_the_same_job_again(world: World) {
    let who = world.silent_worker("w-1").await;
    let ids = [world.submit(submission()).await, world.submit(submission()).await];
    let first = world.arrive(&[&world.claim_of(&who)]).await;
    let [(id, _)] = granted(&first)[..] else { panic!("{first:?}") };
    for server in [world.elsewhere().await, world.elsewhere().await] {
        let again = server.arrive(&[&server.claim_of(&who)]).await;
        let [Ok(Ok(ClaimAnswer::Granted(granted)))] = &again.answers[..] else { panic!("{again:?}") };
        assert_eq!((granted.job.id, granted.job.attempt), (id, Attempt::FIRST));
    }
    let starts = world.event_types(id).await.into_iter().filter(|event| event == "job_started").count();
    assert_eq!(starts, 1);
    let other = ids.into_iter().find(|other| *other != id).unwrap();
    assert_eq!(world.status(other).await, JobStatus::Pending);
}

pub(super) async fn a_claim_takes_the_job_that_is_reserved_for_its_worker(world: World) {
    let who = world.worker_of("w-1", "target-a", "i-1").await;
    let id = world.submit(submission_to("target-a", "strict")).await;
    assert_eq!(world.status(id).await, JobStatus::Queued);
    let dispatched = world.arrive(&[&world.claim_of(&who)]).await;
    let [Ok(Ok(ClaimAnswer::Granted(granted)))] = &dispatched.answers[..] else { panic!("{dispatched:?}") };
    assert_eq!(granted.job.id, id);
    assert_eq!((world.status(id).await, world.view("w-1").await.live_job()), (JobStatus::Running, Some(id)));
}

pub(super) async fn of_a_claim_that_met_a_conflict_nothing_is_stored(world: World) {
    const SERVERS: usize = 6;
    let (mut servers, mut workers) = (Vec::new(), Vec::new());
    for index in 0..SERVERS {
        servers.push(world.elsewhere().await);
        workers.push(world.silent_worker(&format!("w-{index}")).await);
    }
    for round in 0..4 {
        let jobs = world.submit_many(SERVERS / 2).await;
        world.clock.advance(SECOND);
        let claims: Vec<Claim> = workers.iter().map(|who| world.claim_of(who)).collect();
        let calls = servers.iter().zip(&claims).map(async |(server, claim)| server.arrive(&[claim]).await);
        let all = join_all(calls).await;
        let mut started = Vec::new();
        for ((dispatched, claim), who) in all.iter().zip(&claims).zip(&workers) {
            let view = world.view(who.worker_id.as_str()).await;
            match &dispatched.answers[..] {
                [Ok(Ok(ClaimAnswer::Waiting))] => assert!(waits_by(&view, claim)),
                [Err(_)] => {
                    assert!(!waits_by(&view, claim) && view.occupied_by.is_none(), "{view:?}");
                    assert_eq!(granted(dispatched), []);
                }
                answers => panic!("round {round}: {answers:?}"),
            }
            for (id, worker) in granted(dispatched) {
                assert_eq!((worker, view.live_job()), (who.worker_id.as_str(), Some(id)));
                started.push((id, who));
            }
        }
        for id in &jobs {
            let times = started.iter().filter(|(granted, _)| granted == id).count();
            let running = world.status(*id).await == JobStatus::Running;
            assert_eq!(times, usize::from(running), "{id} is granted once, or not at all");
        }
        for (id, who) in started {
            world.complete(who, id).await;
        }
        // What nobody took is taken by those who try again.
        while world.count(JobStatus::Pending).await > 0 {
            let left = world.arrive(&claims.iter().collect::<Vec<_>>()).await;
            for (id, worker) in granted(&left) {
                let who = workers.iter().find(|who| who.worker_id.as_str() == worker).unwrap();
                world.complete(who, id).await;
            }
        }
    }
    assert_eq!(world.count(JobStatus::Completed).await, 4 * (SERVERS / 2));
}
