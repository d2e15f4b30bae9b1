//! A store that remembers is asked less; what it remembers may be wrong, and no answer ever is.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt;
use gh_core::application::UseCaseError;
use gh_core::domain::commands::{
    ClaimAnswer, DrainWish, Heartbeat, JobClaim, LeaseWord, Report, ReportOutcome, UsageClosing,
};
use gh_core::domain::ids::{Attempt, JobId};
use gh_core::domain::job::{Completion, JobStatus};
use gh_core::domain::rejection::Rejection;
use gh_core::ports::store::{ClaimRequest, Store};
use gh_core::testing::submission;
use proptest::prelude::*;

use crate::equality::{assert_same, block_on, cast, dump_of, some};
use crate::operations::{Cast, Operation, any_operation, ordinary};
use crate::stage::{Counted, Stage, actor, cancel, claim, client, heartbeat, report, with_key};

fn complete(who: &gh_core::domain::commands::Credential, job_id: JobId) -> ReportOutcome {
    let report = Report::Complete(Completion::default(), UsageClosing::default());
    ReportOutcome { who: who.clone(), job_id, attempt: Attempt::FIRST, report }
}

fn tick(stage: &Stage) {
    stage.clock.advance(Duration::from_millis(10));
}

async fn grant(stage: &Stage, who: &gh_core::domain::commands::Credential) -> JobId {
    let id = stage.direct.submit(&client(), submission()).await.unwrap().job.id;
    let request = ClaimRequest::waiting(vec![who.worker_id.clone()]);
    assert_eq!(stage.store.claim(request, &stage.rules).await.unwrap().committed[0].jobs()[0].job.id, id);
    id
}

#[tokio::test]
async fn commands_of_which_all_is_remembered_are_decided_and_stored_without_a_load() {
    let stage = Stage::new();
    let (who, idle) = (stage.worker("worker-a", None).await, stage.worker("worker-b", None).await);
    let id = stage.running_job(&who).await;
    stage.door.remember(&[id], &[&idle.worker_id]).await;
    tick(&stage);
    let (event, end, claim) = (report(&who, id, "step"), complete(&who, id), claim(&idle, 7));
    let answers = stage
        .while_committing(async {
            let calls = [
                stage.submit(submission()).map(|answer| answer.map(drop)).boxed(),
                stage.grouping.execute(&event).map(|answer| answer.map(drop)).boxed(),
                stage.grouping.execute(&claim).map(|answer| answer.map(drop)).boxed(),
                stage.grouping.execute(&end).map(|answer| answer.map(drop)).boxed(),
            ];
            stage.in_one_batch(calls).await
        })
        .await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!((stage.door.loads().len(), stage.door.commits()), (0, 1));
    let types: Vec<String> = stage.events(id).await.into_iter().map(|(_, event_type)| event_type).collect();
    assert_eq!(types, ["job_queued", "job_started", "step", "job_completed"]);
}

#[tokio::test]
async fn only_what_is_not_remembered_is_loaded() {
    let stage = Stage::new();
    let who = stage.worker("worker-a", None).await;
    let id = stage.running_job(&who).await;
    let other = stage.direct.submit(&client(), submission()).await.unwrap().job.id;
    stage.door.remember(&[id], &[]).await;
    let (event, cancel) = (report(&who, id, "step"), cancel(other));
    let answers = stage
        .while_committing(async {
            let calls = [
                stage.grouping.execute(&event).map(|answer| answer.map(drop)).boxed(),
                stage.submit(with_key("k", "a")).map(|answer| answer.map(drop)).boxed(),
                stage.grouping.execute(&cancel).map(|answer| answer.map(drop)).boxed(),
            ];
            stage.in_one_batch(calls).await
        })
        .await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let [loaded] = &stage.door.loads()[..] else { panic!("one load") };
    assert_eq!((loaded.jobs.as_slice(), loaded.workers.len(), loaded.idempotency_keys.len()), (&[other][..], 0, 1));
    assert_eq!(stage.door.commits(), 1);
}

#[tokio::test]
async fn what_memory_would_grant_is_refused_when_it_is_no_longer_so() {
    let stage = Stage::new();
    let who = stage.worker("worker-a", None).await;
    let id = stage.running_job(&who).await;
    stage.door.remember(&[id], &[]).await;
    stage.direct.execute(&cancel(id)).await.unwrap();
    let event = Counted::new(report(&who, id, "step"));
    let answer = stage.while_committing(stage.grouping.execute(&event)).await;
    assert!(matches!(answer, Err(UseCaseError::Rejected(Rejection::StaleLease))), "{answer:?}");
    assert_eq!((event.times(), stage.door.loads().len()), (2, 1), "on what was remembered, then on what is stored");
}

#[tokio::test]
async fn a_refusal_is_decided_on_what_is_stored_whatever_is_remembered() {
    let stage = Stage::new();
    let who = stage.worker("worker-a", None).await;
    let id = stage.direct.submit(&client(), submission()).await.unwrap().job.id;
    stage.door.remember(&[id], &[&who.worker_id]).await;
    let request = ClaimRequest::waiting(vec![who.worker_id.clone()]);
    stage.store.claim(request, &stage.rules).await.unwrap();
    // By what is remembered the job still waits, and the refusal of a report on it would leave a sign of life.
    let event = report(&who, id, "step");
    stage.while_committing(stage.grouping.execute(&event)).await.unwrap();
    assert_eq!(stage.events(id).await.len(), 3);
    assert_eq!((stage.door.recalled(), stage.door.commits()), (1, 1), "nothing was stored before it was loaded");
}

#[tokio::test]
async fn a_repetition_is_answered_from_what_is_stored() {
    let stage = Stage::new();
    let id = stage.direct.submit(&client(), submission()).await.unwrap().job.id;
    stage.direct.execute(&cancel(id)).await.unwrap();
    stage.door.remember(&[id], &[]).await;
    let job = stage.direct.job(id).await.unwrap();
    stage.direct.retry(&client(), id, None, false).await.unwrap();
    // By what is remembered it is cancelled already, and there is nothing to do.
    let cancel = cancel(id);
    let cancelled = stage.while_committing(stage.grouping.execute(&cancel)).await.unwrap();
    assert_eq!((job.run, cancelled.run, cancelled.status()), (1, 2, JobStatus::Cancelled));
}

#[tokio::test]
async fn a_worker_that_was_given_a_job_meanwhile_is_neither_told_that_it_lost_it_nor_left_waiting() {
    let stage = Stage::new();
    let (one, other) = (stage.worker("worker-a", None).await, stage.worker("worker-b", None).await);
    stage.door.remember(&[], &[&one.worker_id, &other.worker_id]).await;
    // A grant writes no worker: their versions stay.
    let (held, given) = (grant(&stage, &one).await, grant(&stage, &other).await);
    tick(&stage);
    let beat = Heartbeat { job: JobClaim::Job(held), ..heartbeat(&one) };
    let claim = claim(&other, 2);
    let (lease, answer) = stage
        .while_committing(async { (stage.grouping.execute(&beat).await, stage.grouping.execute(&claim).await) })
        .await;
    assert_eq!(lease.unwrap().lease, LeaseWord::Held);
    let ClaimAnswer::Granted(granted) = answer.unwrap() else { panic!("it waits for a job that it has") };
    assert_eq!(granted.job.id, given);
    assert_eq!(stage.door.recalled(), 2);
}

#[tokio::test]
async fn a_job_is_not_lost_for_a_sign_of_life_that_was_forgotten() {
    let stage = Stage::new();
    let who = stage.worker("worker-a", None).await;
    let id = stage.running_job(&who).await;
    let (has_none, has_it) =
        (Heartbeat { job: JobClaim::None, ..heartbeat(&who) }, Heartbeat { job: JobClaim::Job(id), ..heartbeat(&who) });
    // It knows of its job: nothing that it says of it changes the job.
    stage.direct.execute(&has_it).await.unwrap();
    stage.direct.execute(&has_none).await.unwrap();
    stage.door.remember(&[], &[&who.worker_id]).await;
    tick(&stage);
    stage.direct.execute(&has_it).await.unwrap();
    tick(&stage);
    // By what is remembered it is the second in a row.
    stage.while_committing(stage.grouping.execute(&has_none)).await.unwrap();
    assert_eq!(stage.door.recalled(), 1);
    assert_eq!(stage.direct.job(id).await.unwrap().status(), JobStatus::Running);
}

#[tokio::test]
async fn a_fence_counts_from_the_last_sign_of_life_that_is_stored() {
    let stage = Stage::new();
    let who = stage.worker("worker-a", None).await;
    let id = stage.running_job(&who).await;
    // The next one leaves no event, and changes nothing of the worker but when it was heard of.
    stage.direct.execute(&heartbeat(&who)).await.unwrap();
    stage.door.remember(&[id], &[&who.worker_id]).await;
    stage.clock.advance(Duration::from_secs(2));
    let beat = Heartbeat { drain: DrainWish::Silent, ..heartbeat(&who) };
    stage.direct.execute(&beat).await.unwrap();
    let cancel = gh_core::domain::commands::Cancel { job_id: id, actor: actor(), reason: None };
    let job = stage.while_committing(stage.grouping.execute(&cancel)).await.unwrap();
    let (_, view) = gh_core::ports::reader::Reader::worker(stage.store.as_ref(), &who.worker_id).await.unwrap();
    let fence = job.ending().unwrap().fence.clone().unwrap();
    assert_eq!(fence.until, view.unwrap().vitals.last_seen + stage.rules.policy.self_fence_after);
    assert_eq!(stage.door.recalled(), 1);
}

/// Which jobs and workers are remembered, by their numbers.
type Remembered = (Vec<usize>, Vec<usize>);

/// What happens before the batch, each with what is remembered just before it.
type Past = Vec<(Remembered, Operation)>;

fn past() -> impl Strategy<Value = Past> {
    let remembered = (prop::collection::vec(0_usize..8, 0..6), prop::collection::vec(0_usize..4, 0..4));
    prop::collection::vec((remembered, any_operation()), 0..12)
}

async fn live_through(stage: &Stage, cast: &Cast, past: &Past) {
    for ((jobs, workers), operation) in past {
        let jobs: Vec<JobId> = jobs.iter().map(|number| cast.jobs[number % cast.jobs.len()].id).collect();
        let workers: Vec<_> = workers.iter().map(|number| &cast.workers[*number].worker_id).collect();
        stage.door.remember(&jobs, &workers).await;
        tick(stage);
        operation.run(cast, &mut &stage.direct).await;
    }
    tick(stage);
}

async fn one_by_one(past: &Past, operations: &[Operation]) -> String {
    let stage = Stage::new();
    let cast = cast(&stage).await;
    live_through(&stage, &cast, past).await;
    stage.direct.submit(&client(), submission()).await.unwrap();
    let mut answers = Vec::new();
    for operation in operations {
        answers.push(operation.run(&cast, &mut &stage.direct).await);
    }
    with_ids_in_order(&stage, &answers).await
}

async fn in_one_batch(past: &Past, operations: &[Operation]) -> String {
    let stage = Stage::new();
    let cast = cast(&stage).await;
    live_through(&stage, &cast, past).await;
    let (cast, grouping) = (&cast, &stage.grouping);
    let calls = operations.iter().map(|operation| async move {
        let mut run = grouping;
        operation.run(cast, &mut run).await
    });
    let answers = stage.while_committing(stage.in_one_batch(calls)).await;
    with_ids_in_order(&stage, &answers).await
}

/// The answers and everything that is stored, with ids by the order in which they come: decisions that were made anew
/// have used up some, and jobs that they made come later.
async fn with_ids_in_order(stage: &Stage, answers: &[String]) -> String {
    let answers = answers.join("\n");
    let mut jobs = stage.jobs().await;
    jobs.sort_by_key(|job| answers.find(&job.id.to_string()));
    let text = format!("{answers}\n{}", dump_of(stage, &jobs).await);
    const LENGTH: usize = 36;
    let is_id = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') && uuid::Uuid::try_parse(part).is_ok()
    };
    let mut known: HashMap<&str, usize> = HashMap::new();
    let (mut out, mut rest) = (String::with_capacity(text.len()), text.as_str());
    while let Some(next) = rest.chars().next() {
        if let Some(part) = rest.get(..LENGTH).filter(|part| is_id(part)) {
            let number = known.len();
            let number = *known.entry(part).or_insert(number);
            out.push_str(&format!("id-{number}"));
            rest = &rest[LENGTH..];
        } else {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    out
}

proptest! {
    #[test]
    fn a_batch_leaves_and_answers_the_same_however_wrong_what_is_remembered_is(
        past in past(), operations in some(ordinary(), 1..20)
    ) {
        let expected = block_on(one_by_one(&past, &operations));
        assert_same(&block_on(in_one_batch(&past, &operations)), &expected);
    }
}
