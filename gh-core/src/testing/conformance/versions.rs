//! Of two decisions that contradict each other the one that is stored second is refused, in either order.

use futures_util::future::join_all;

use super::steps::{deregister, drain, patient, reboot};
use super::world::{SECOND, World, cancel, heartbeat, submit};
use crate::domain::changeset::Changeset;
use crate::domain::commands::{Credential, Deregister, Goodbye, Selector};
use crate::domain::ids::JobId;
use crate::domain::job::JobStatus;
use crate::domain::rejection::Rejection;
use crate::domain::worker::{WorkerState, WorkerStatus};
use crate::ports::store::Conflict;
use crate::testing::{name, registration, submission, submission_to};

/// How a worker stops taking jobs.
#[derive(Clone, Copy, Debug)]
enum Retirement {
    Deregistered,
    Drained,
    Replaced,
    SaidGoodbye,
    FellSilent,
}

impl Retirement {
    /// Decided now and not stored; time passes where it has to.
    async fn decide(self, world: &World, who: &Credential) -> Changeset {
        match self {
            Self::Deregistered => world.decision(&self.deregistration(who)).await,
            Self::Drained => world.decision(&drain(who, None)).await,
            Self::Replaced => world.decision(&reboot(who.worker_id.as_str(), "another-boot")).await,
            Self::SaidGoodbye => world.decision(&Goodbye { who: who.clone(), reason: "deploy".into() }).await,
            Self::FellSilent => {
                world.clock.advance(21 * SECOND);
                world.given_up(who).await
            }
        }
    }

    /// Decides it anew, since it was refused.
    async fn repeat(self, world: &World, who: &Credential) {
        match self {
            Self::Deregistered => {
                world.run(&self.deregistration(who)).await;
            }
            Self::Drained => world.run(&drain(who, None)).await,
            Self::Replaced => {
                world.run(&reboot(who.worker_id.as_str(), "another-boot")).await;
            }
            Self::SaidGoodbye => {
                world.run(&Goodbye { who: who.clone(), reason: "deploy".into() }).await;
            }
            Self::FellSilent => {
                world.clock.advance(21 * SECOND);
                let changes = world.given_up(who).await;
                assert_eq!(world.commit(vec![changes]).await, [Ok(())]);
            }
        }
    }

    fn deregistration(self, who: &Credential) -> Deregister {
        Deregister { selector: Selector::Target(who.worker_id.clone()), ..deregister("unused") }
    }

    async fn assert_done(self, world: &World, who: &Credential) {
        let view = world.view(who.worker_id.as_str()).await;
        match self {
            Self::Deregistered | Self::SaidGoodbye | Self::FellSilent => {
                assert_eq!(view.status(), WorkerStatus::Offline, "{self:?}");
            }
            Self::Drained => assert!(matches!(view.worker.state, WorkerState::Draining(_)), "{self:?}"),
            Self::Replaced => assert_eq!(view.worker.generation, who.generation.next(), "{self:?}"),
        }
    }
}

/// A job is granted while its worker is retired: once the grant is first, once the retirement.
async fn grant_against(world: World, retirement: Retirement) {
    let server = world.elsewhere().await;

    let who = world.worker("retired-first").await;
    let id = world.submit(submission()).await;
    world.clock.advance(SECOND);
    let grant = world.grant_of(id, &who).await;
    let retired = retirement.decide(&server, &who).await;
    assert_eq!(server.commit(vec![retired]).await, [Ok(())]);
    assert_eq!(world.commit(vec![grant]).await, [Err(Conflict)], "granted to a worker that is gone");
    assert_eq!(world.status(id).await, JobStatus::Pending);
    assert_eq!(world.view("retired-first").await.occupied_by, None);
    retirement.assert_done(&world, &who).await;

    let who = world.worker("granted-first").await;
    world.clock.advance(SECOND);
    let grant = world.grant_of(id, &who).await;
    let retired = retirement.decide(&server, &who).await;
    assert_eq!(world.commit(vec![grant]).await, [Ok(())]);
    assert_eq!(server.commit(vec![retired]).await, [Err(Conflict)], "retired without a word on its job");
    assert_eq!(world.view("granted-first").await.live_job(), Some(id));
    retirement.repeat(&server, &who).await;
    retirement.assert_done(&world, &who).await;
    world.assert_no_job_on_a_retired_worker().await;
}

pub(super) async fn a_grant_and_a_deregistration_refuse_each_other(world: World) {
    grant_against(world, Retirement::Deregistered).await;
}

pub(super) async fn a_grant_and_a_drain_refuse_each_other(world: World) {
    grant_against(world, Retirement::Drained).await;
}

pub(super) async fn a_grant_and_the_registration_of_another_process_refuse_each_other(world: World) {
    grant_against(world, Retirement::Replaced).await;
}

pub(super) async fn a_grant_and_a_goodbye_refuse_each_other(world: World) {
    grant_against(world, Retirement::SaidGoodbye).await;
}

pub(super) async fn a_grant_and_the_end_of_a_silent_worker_refuse_each_other(world: World) {
    grant_against(world, Retirement::FellSilent).await;
}

/// The same for a strict submission that reserves its target's worker.
async fn reservation_against(world: World, retirement: Retirement) {
    let server = world.elsewhere().await;
    let reserve = async |id: &str| -> (Credential, Changeset, JobId) {
        let who = world.worker(id).await;
        world.clock.advance(SECOND);
        let changes = world.decision(&submit(patient(id, 60))).await;
        let job = &changes.jobs()[0].job;
        assert_eq!(job.occupies(), Some(&who.worker_id));
        let job_id = job.id;
        (who, changes, job_id)
    };

    let (who, reservation, id) = reserve("retired-first").await;
    let retired = retirement.decide(&server, &who).await;
    assert_eq!(server.commit(vec![retired]).await, [Ok(())]);
    assert_eq!(world.commit(vec![reservation]).await, [Err(Conflict)], "reserved on a worker that is gone");
    assert!(world.reader.job(id).await.unwrap().is_none());
    retirement.assert_done(&world, &who).await;

    let (who, reservation, id) = reserve("reserved-first").await;
    let retired = retirement.decide(&server, &who).await;
    assert_eq!(world.commit(vec![reservation]).await, [Ok(())]);
    assert_eq!(server.commit(vec![retired]).await, [Err(Conflict)], "retired without a word on its reservation");
    retirement.repeat(&server, &who).await;
    retirement.assert_done(&world, &who).await;
    assert_eq!(world.job(id).await.occupies(), None);
}

pub(super) async fn a_reservation_and_a_deregistration_refuse_each_other(world: World) {
    reservation_against(world, Retirement::Deregistered).await;
}

pub(super) async fn a_reservation_and_a_drain_refuse_each_other(world: World) {
    reservation_against(world, Retirement::Drained).await;
}

pub(super) async fn a_reservation_and_the_registration_of_another_process_refuse_each_other(world: World) {
    reservation_against(world, Retirement::Replaced).await;
}

pub(super) async fn a_reservation_and_the_end_of_a_silent_worker_refuse_each_other(world: World) {
    reservation_against(world, Retirement::FellSilent).await;
}

pub(super) async fn a_worker_that_was_heard_from_meanwhile_is_not_given_up(world: World) {
    let who = world.worker("w-1").await;
    // The first heartbeat leaves an event and so writes the worker; the one that matters here must not.
    world.run(&heartbeat(&who)).await;
    world.clock.advance(21 * SECOND);
    let given_up = world.given_up(&who).await;
    let version = world.view("w-1").await.worker.version;
    world.elsewhere().await.run(&heartbeat(&who)).await;
    assert_eq!(world.view("w-1").await.worker.version, version);
    assert_eq!(world.commit(vec![given_up]).await, [Err(Conflict)]);
    assert_eq!(world.view("w-1").await.status(), WorkerStatus::Idle);
}

pub(super) async fn a_heartbeat_that_was_decided_before_its_worker_was_given_up_is_decided_anew(world: World) {
    let who = world.worker("w-1").await;
    world.run(&heartbeat(&who)).await;
    world.clock.advance(21 * SECOND);
    let beat = world.decision(&heartbeat(&who)).await;
    let given_up = world.given_up(&who).await;
    assert_eq!(world.elsewhere().await.commit(vec![given_up]).await, [Ok(())]);
    assert_eq!(world.commit(vec![beat]).await, [Err(Conflict)], "told that all is well when it was given up");
    assert!(matches!(world.attempt(&heartbeat(&who)).await, Err(Rejection::StaleGeneration)));
}

pub(super) async fn a_hold_on_a_name_and_a_registration_under_it_refuse_each_other(world: World) {
    let server = world.elsewhere().await;
    let newcomer = |id: &str, target: &str| {
        let mut register = registration(id);
        register.identity.target_worker_id = Some(name(target));
        register
    };
    for (target, held_first) in [("sandbox-1", true), ("sandbox-2", false)] {
        world.worker_of(&format!("{target}-old"), target, "i-1").await;
        let id = format!("{target}-new");
        let arrival = world.decision(&newcomer(&id, target)).await;
        let retirement = server.decision(&deregister(target)).await;
        let (first, second) = if held_first { (retirement, arrival) } else { (arrival, retirement) };
        assert_eq!(server.commit(vec![first]).await, [Ok(())]);
        assert_eq!(world.commit(vec![second]).await, [Err(Conflict)]);
        let again = world.attempt(&newcomer(&id, target)).await;
        if held_first {
            assert!(matches!(again, Err(Rejection::WorkerDeregistered { retry_at: Some(_) })), "{again:?}");
        } else {
            world.run(&deregister(target)).await;
            assert_eq!(world.view(&id).await.status(), WorkerStatus::Offline, "retired with the others");
        }
    }
}

pub(super) async fn of_two_strict_submissions_that_saw_one_idle_worker_only_one_gets_it(world: World) {
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

pub(super) async fn of_strict_submissions_that_race_for_one_idle_worker_just_one_is_reserved(world: World) {
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    let mut servers = Vec::new();
    for _ in 0..8 {
        servers.push(world.elsewhere().await);
    }
    let commands: Vec<_> = servers.iter().map(|_| submit(submission_to("sandbox-1", "strict"))).collect();
    let submitted = join_all(servers.iter().zip(&commands).map(|(server, command)| server.contend(command))).await;
    let queued: Vec<JobId> = submitted
        .into_iter()
        .map(|answer| answer.unwrap().job)
        .filter(|job| job.status() == JobStatus::Queued)
        .map(|job| job.id)
        .collect();
    assert_eq!(queued.len(), 1);
    assert_eq!((world.count(JobStatus::Queued).await, world.count(JobStatus::Failed).await), (1, 7));
    assert_eq!(world.view("w-1").await.occupied_by.map(|occupation| occupation.job_id), Some(queued[0]));
}

pub(super) async fn a_grant_and_a_cancellation_of_its_job_refuse_each_other(world: World) {
    let who = world.worker("w-1").await;
    for granted_first in [false, true] {
        let id = world.submit(submission()).await;
        let grant = world.grant_of(id, &who).await;
        let cancelled = world.decision(&cancel(id)).await;
        let (first, second) = if granted_first { (grant, cancelled) } else { (cancelled, grant) };
        assert_eq!(world.commit(vec![first]).await, [Ok(())]);
        assert_eq!(world.elsewhere().await.commit(vec![second]).await, [Err(Conflict)]);
        let expected = if granted_first { JobStatus::Running } else { JobStatus::Cancelled };
        assert_eq!(world.status(id).await, expected);
        assert_eq!(world.view("w-1").await.live_job(), granted_first.then_some(id));
    }
}
