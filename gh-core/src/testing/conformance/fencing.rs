//! Only who holds a job changes it: not an earlier attempt, and not a process that was retired.

use super::steps::{deregister, drain, events, no_return, reboot, retry, usage};
use super::world::{SECOND, World, heartbeat};
use crate::domain::code::ErrorCode;
use crate::domain::commands::{
    Command, Credential, Deregister, Heartbeat, JobClaim, LeaseWord, Report, ReportOutcome, Selector, UsageClosing,
};
use crate::domain::cost::{Outcome as CallOutcome, RefusalCode};
use crate::domain::ids::{Attempt, JobId};
use crate::domain::job::{Completion, JobStatus};
use crate::domain::rejection::Rejection;
use crate::domain::worker::WorkerStatus;
use crate::testing::{name, submission, submission_to};

fn complete(who: &Credential, job_id: JobId, attempt: Attempt) -> ReportOutcome {
    let report = Report::Complete(Completion::default(), UsageClosing::default());
    ReportOutcome { who: who.clone(), job_id, attempt, report }
}

impl World {
    /// Refuses a command with this; the job is as it was before.
    async fn refuses<C: Command<Answer: std::fmt::Debug>>(&self, command: &C, job_id: JobId, expected: &Rejection) {
        let before = format!("{:?}", self.job(job_id).await);
        let answer = self.attempt(command).await;
        assert_eq!(answer.as_ref().err(), Some(expected), "{answer:?}");
        assert_eq!(format!("{:?}", self.job(job_id).await), before);
    }

    /// Refuses all that a process may say of an attempt, but what it cost; each refusal reaches another server.
    async fn refuses_all_but_usage(&self, who: &Credential, job_id: JobId, attempt: Attempt, expected: &Rejection) {
        let server = self.elsewhere().await;
        self.refuses(&events(who, job_id, attempt), job_id, expected).await;
        server.refuses(&no_return(who, job_id, attempt), job_id, expected).await;
        server.refuses(&complete(who, job_id, attempt), job_id, expected).await;
        let spent = server.job(job_id).await.cost.calls();
        let answer = self.run(&usage(who, job_id, attempt, &[("late", 5)])).await;
        assert_eq!(answer.results[0].outcome, CallOutcome::Recorded, "what was spent was spent");
        assert!(answer.stop, "and no more shall be");
        assert_eq!(server.job(job_id).await.cost.calls(), spent + 1);
    }

    /// Refuses all that a retired process may say, and counts it.
    async fn refuses_retired(&self, who: &Credential, job_id: JobId, expected: &Rejection) {
        let id = who.worker_id.as_str();
        let before = self.view(id).await.vitals.refused_calls;
        self.refuses_all_but_usage(who, job_id, Attempt::FIRST, expected).await;
        self.refuses(&heartbeat(who), job_id, expected).await;
        self.refuses(&self.claim_of(who), job_id, expected).await;
        self.refuses(&Heartbeat { job: JobClaim::Job(job_id), ..heartbeat(who) }, job_id, expected).await;
        assert_eq!(self.view(id).await.vitals.refused_calls, before + 6);
    }

    /// Lets all workers fall silent, and gives them up.
    async fn silence(&self) {
        self.clock.advance(21 * SECOND);
        self.sweep(10).await;
    }
}

pub(super) async fn an_earlier_attempt_of_the_same_worker_says_nothing_but_what_it_cost(world: World) {
    let (who, id) = world.running("w-1", submission()).await;
    world.fail(&who, id, true).await;
    world.clock.advance(5 * SECOND);
    world.listen(&who).await;
    assert_eq!(world.claim_one(&who).await, Some(id));
    assert_eq!(world.job(id).await.attempt, Attempt(2));
    world.refuses_all_but_usage(&who, id, Attempt::FIRST, &Rejection::StaleLease).await;
    let never = world.run(&usage(&who, id, Attempt(3), &[("c-1", 1)])).await;
    assert_eq!(never.results[0].outcome, CallOutcome::Refused(RefusalCode::UsageTooLate), "it never held it");
    world.run(&complete(&who, id, Attempt(2))).await;
    assert_eq!(world.status(id).await, JobStatus::Completed);
}

pub(super) async fn a_worker_that_asks_after_a_job_which_another_has_is_told_that_it_lost_it(world: World) {
    let (who, id) = world.running("w-1", submission()).await;
    let ask = Heartbeat { job: JobClaim::Job(id), ..heartbeat(&who) };
    assert_eq!(world.run(&ask).await.lease, LeaseWord::Held);
    world.fail(&who, id, true).await;
    world.clock.advance(5 * SECOND);
    let other = world.worker("w-2").await;
    assert_eq!(world.claim_one(&other).await, Some(id));
    let answer = world.elsewhere().await.run(&ask).await;
    assert_eq!((answer.lease, answer.held), (LeaseWord::Lost, None));
    world.refuses_all_but_usage(&who, id, Attempt::FIRST, &Rejection::StaleLease).await;
    let stolen = complete(&who, id, Attempt(2));
    world.refuses(&stolen, id, &Rejection::StaleLease).await;
}

pub(super) async fn a_process_that_was_replaced_is_refused_everything_but_usage_and_counted(world: World) {
    let (old, id) = world.running("w-1", submission()).await;
    let new = world.register(reboot("w-1", "w-1-boot-2")).await;
    assert_eq!(new.generation, old.generation.next());
    world.refuses_retired(&old, id, &Rejection::StaleGeneration).await;
    assert_eq!(world.claim_one(&new).await, Some(id));
    assert_eq!(world.job(id).await.attempt, Attempt(2));
    world.refuses(&complete(&old, id, Attempt(2)), id, &Rejection::StaleGeneration).await;
    world.run(&complete(&new, id, Attempt(2))).await;
    assert_eq!(world.view("w-1").await.worker.jobs_completed, 1);
}

pub(super) async fn a_process_that_was_given_up_is_refused_everything_but_usage_and_counted(world: World) {
    let (who, id) = world.running("w-1", submission()).await;
    world.silence().await;
    world.refuses_retired(&who, id, &Rejection::StaleGeneration).await;
    assert_eq!(world.view("w-1").await.status(), WorkerStatus::Offline, "none of it brought it back");
}

pub(super) async fn a_process_that_was_deregistered_is_refused_for_good_and_counted(world: World) {
    let (who, id) = world.running("w-1", submission()).await;
    let at_once = Deregister {
        selector: Selector::Target(name("w-1")),
        cancel_active_jobs: false,
        drain_timeout: Some(std::time::Duration::ZERO),
        ..deregister("unused")
    };
    world.run(&at_once).await;
    world.refuses_retired(&who, id, &Rejection::WorkerDeregistered { retry_at: None }).await;
}

pub(super) async fn a_job_whose_worker_is_lost_before_the_point_of_no_return_is_tried_again(world: World) {
    let (_, id) = world.running("w-1", submission()).await;
    world.silence().await;
    let job = world.job(id).await;
    assert_eq!((job.status(), job.attempt, job.attempts_spent), (JobStatus::Pending, Attempt(2), 1));
    let other = world.worker("w-2").await;
    assert_eq!(world.elsewhere().await.claim_one(&other).await, Some(id));
    world.run(&complete(&other, id, Attempt(2))).await;
    assert_eq!(world.status(id).await, JobStatus::Completed);
}

pub(super) async fn a_job_past_its_point_of_no_return_is_given_to_nobody_and_its_own_worker_may_still_tell_the_end(
    world: World,
) {
    let (who, id) = world.running("w-1", submission()).await;
    world.run(&no_return(&who, id, Attempt::FIRST)).await;
    world.silence().await;
    let job = world.job(id).await;
    assert_eq!((job.status(), job.attempt), (JobStatus::Running, Attempt::FIRST));
    assert!(job.live_lease().is_none());
    assert_eq!(world.view("w-1").await.occupied_by, None);
    let other = world.worker("w-2").await;
    assert_eq!(world.claim_one(&other).await, None);
    world.refuses(&events(&who, id, Attempt::FIRST), id, &Rejection::StaleGeneration).await;
    world.clock.advance(250 * SECOND);
    world.sweep(10).await;
    world.elsewhere().await.run(&complete(&who, id, Attempt::FIRST)).await;
    assert_eq!(world.status(id).await, JobStatus::Completed);
}

pub(super) async fn a_job_past_its_point_of_no_return_fails_when_its_worker_stays_away_and_is_never_started_again(
    world: World,
) {
    let (who, id) = world.running("w-1", submission()).await;
    world.run(&no_return(&who, id, Attempt::FIRST)).await;
    world.silence().await;
    world.clock.advance(300 * SECOND);
    world.sweep(10).await;
    let job = world.job(id).await;
    let code = job.ending().and_then(|ending| ending.outcome.error()).map(|(code, _)| code.clone());
    assert_eq!(code, Some(ErrorCode::WORKER_LOST));
    world.refuses(&complete(&who, id, Attempt::FIRST), id, &Rejection::StaleGeneration).await;
    world.refuses(&retry(&job), id, &Rejection::SideEffectsStarted).await;
    let other = world.worker("w-2").await;
    assert_eq!(world.claim_one(&other).await, None);
}

pub(super) async fn a_strict_job_never_runs_on_a_worker_of_another_target(world: World) {
    let own = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let id = world.submit(submission_to("sandbox-1", "strict")).await;
    world.run(&world.claim_of(&own)).await;
    world.run(&events(&own, id, Attempt::FIRST)).await;
    world.silence().await;
    let mut strangers = Vec::new();
    for (id, target) in [("w-2", "sandbox-2"), ("w-3", "w-1")] {
        strangers.push(world.worker_of(id, target, "i-1").await);
    }
    strangers.push(world.worker("w-4").await);
    let all: Vec<&Credential> = strangers.iter().collect();
    assert_eq!(world.status(id).await, JobStatus::Pending);
    assert_eq!(world.claim(&all).await, []);
    let successor = world.worker_of("w-5", "sandbox-1", "i-2").await;
    assert_eq!(world.claim_one(&successor).await, Some(id));
    world.run(&drain(&successor, None)).await;
    world.fail(&successor, id, true).await;
    for step in 0..6 {
        world.clock.advance(8 * SECOND);
        for who in &strangers {
            world.run(&heartbeat(who)).await;
            world.listen(who).await;
        }
        world.sweep(10).await;
        assert_eq!(world.claim(&all).await, [], "step {step}");
    }
    assert_eq!(world.status(id).await, JobStatus::Failed, "rather than elsewhere");
}

pub(super) async fn an_end_that_is_reported_again_is_answered_alike_on_every_server(world: World) {
    let (who, id) = world.running("w-1", submission()).await;
    let first = world.run(&complete(&who, id, Attempt::FIRST)).await;
    let before = world.event_types(id).await;
    assert_eq!(world.elsewhere().await.run(&complete(&who, id, Attempt::FIRST)).await, first);
    assert_eq!(world.event_types(id).await, before);
    assert_eq!(world.view("w-1").await.worker.jobs_completed, 1);
}
