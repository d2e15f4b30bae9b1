//! What was stored is read back exactly, whatever it is.
//!
//! All values are generated first and stored in few calls, so that this is no question of speed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::option;

use super::callbacks::{answered, settlement};
use super::dump::{Record, commit_all};
use super::values::{
    beats, boxed, calls, clients, completions, events, failures, identities, names, numbered, object, some, submissions,
};
use super::world::{SECOND, World, heartbeat};
use crate::domain::callback::CallbackKind;
use crate::domain::changeset::Changeset;
use crate::domain::code::{Actor, ClientName};
use crate::domain::commands::{
    Cancel, Credential, Deregister, Drain, DrainWish, Heartbeat, JobLeft, LiftHold, Register, Report, ReportEvents,
    ReportOutcome, ReportUsage, Selector, SideEffectsStarted, Submit, UsageClosing,
};
use crate::domain::cost::CallReport;
use crate::domain::ids::{Attempt, Generation, JobId, Name, WorkerId};
use crate::domain::job::{Job, Outcome};
use crate::domain::submission::SubmissionRequest;
use crate::domain::time::Timestamp;
use crate::ports::reader::{JobQuery, WorkerQuery};
use crate::ports::store::ClaimRequest;
use crate::testing::scenes::{Wish, wish};
use crate::testing::submission;

/// No whole number of milliseconds.
const ODD: Duration = Duration::from_micros(1_234_567);

/// Stores these, and notes what must be read back.
async fn store(world: &World, record: &mut Record, wishes: Vec<Wish>) -> Vec<Changeset> {
    let stored = commit_all(world, &wishes).await;
    record.stored(world, &stored);
    stored
}

/// Commands that hand in these jobs, each by a client of its own.
fn submit_all(requests: Vec<SubmissionRequest>) -> Vec<Wish> {
    let names = some(requests.len(), &clients());
    let submit = |(number, (mut request, client)): (usize, (SubmissionRequest, Arc<str>))| {
        request.idempotency_key = request.idempotency_key.map(|key| format!("{number}{key}"));
        wish(Submit::new(ClientName::new(&client), request.validate().unwrap()))
    };
    requests.into_iter().zip(names).enumerate().map(submit).collect()
}

pub(super) async fn submissions_are_read_back_as_they_were_accepted(world: World) {
    world.clock.advance(ODD);
    let mut requests = some(96, &submissions());
    for (number, request) in requests.iter_mut().enumerate() {
        let target = request.target_worker_id.as_deref().map(|text| numbered(number, &Name::parse(text).unwrap()));
        request.target_worker_id = target.map(|name| name.as_str().to_owned());
    }
    let mut record = Record::default();
    let stored = store(&world, &mut record, submit_all(requests)).await;
    let other = world.elsewhere().await;
    record.check(&other, "after the submission").await;
    for changes in &stored {
        // Texts find what they are part of, and nothing else.
        let job = &changes.jobs()[0].job;
        let spec = &job.spec;
        let query = JobQuery {
            valet_task_id: Some(spec.valet_task_id.as_ref().into()),
            valet_user_id: Some(spec.valet_user_id),
            target_worker_id: spec.routing.target().cloned(),
            limit: 10,
            ..JobQuery::default()
        };
        let found = other.reader.jobs(&query).await.unwrap();
        assert_eq!(found.iter().map(|found| found.id).collect::<Vec<JobId>>(), [job.id], "{query:?}");
    }
    let reasons = some(stored.len(), &boxed(500));
    let running = stored.iter().map(|changes| &changes.jobs()[0].job).filter(|job| job.ending().is_none());
    let cancel = |(job, reason): (&Arc<Job>, Box<str>)| {
        wish(Cancel { job_id: job.id, actor: Actor::Client(job.client.clone()), reason: Some(reason) })
    };
    let cancels = running.zip(reasons).map(cancel).collect();
    store(&world, &mut record, cancels).await;
    record.check(&other, "after the end").await;
}

/// Registers workers with all that they can say of themselves.
async fn register_all(world: &World, record: &mut Record, count: usize) -> Vec<Credential> {
    let said = some(count, &(names("w"), names("b"), identities(), option::of(object(8 * 1024))));
    let mut wishes = Vec::new();
    let mut all = Vec::new();
    for (number, (worker_id, boot_id, mut identity, metadata)) in said.into_iter().enumerate() {
        let own = |name: Name| numbered(number, &name);
        identity.target_worker_id = identity.target_worker_id.map(own);
        identity.ec2_instance_id = identity.ec2_instance_id.map(own);
        let worker_id = own(worker_id);
        all.push(Credential { worker_id: worker_id.clone(), generation: Generation::FIRST });
        wishes.push(wish(Register { worker_id, boot_id, identity, metadata }));
    }
    store(world, record, wishes).await;
    all
}

pub(super) async fn what_workers_say_of_themselves_is_read_back_exactly(world: World) {
    world.clock.advance(ODD);
    let mut record = Record::default();
    let workers = register_all(&world, &mut record, 48).await;
    let other = world.elsewhere().await;
    record.check(&other, "after the registration").await;
    let beat = |(who, beat)| wish(Heartbeat { beat, ..heartbeat(who) });
    let beats = workers.iter().zip(some(workers.len(), &beats())).map(beat).collect();
    store(&world, &mut record, beats).await;
    record.check(&other, "after a heartbeat").await;
    world.clock.advance(SECOND);
    // Each way to stop, with reasons of all kinds.
    let reasons = some(workers.len(), &boxed(500));
    let client = || Actor::Client(ClientName::new("Ünïcode 😀 \"client\""));
    let stop = |(number, (who, reason)): (usize, (&Credential, Box<str>))| match number % 3 {
        0 => {
            let drain = DrainWish::Drain { reason, timeout: Some(1000 * SECOND) };
            wish(Heartbeat { drain, ..heartbeat(who) })
        }
        1 => wish(Drain { worker_id: who.worker_id.clone(), actor: client(), reason, timeout: Some(60 * SECOND) }),
        _ => wish(Deregister {
            selector: Selector::Target(who.worker_id.clone()),
            actor: client(),
            reason,
            cancel_active_jobs: number % 2 == 0,
            drain_timeout: Some(3600 * SECOND),
            hold: Some(604_800 * SECOND),
            dry_run: false,
        }),
    };
    let stops = workers.iter().zip(reasons).enumerate().map(stop).collect();
    store(&world, &mut record, stops).await;
    record.check(&other, "after the stop").await;
    let held = workers.iter().skip(2).step_by(3);
    let lifts = held.map(|who| wish(LiftHold { name: who.worker_id.clone() })).collect();
    store(&world, &mut record, lifts).await;
    record.check(&other, "after the hold was lifted").await;
    for who in &workers {
        let (_, view) = other.reader.worker(&who.worker_id).await.unwrap();
        let identity = view.unwrap().worker.identity.clone();
        let (target_worker_id, ec2_instance_id) = (identity.target_worker_id, identity.ec2_instance_id);
        if target_worker_id.is_some() || ec2_instance_id.is_some() {
            let query = WorkerQuery { target_worker_id, ec2_instance_id };
            let (_, found) = other.reader.workers(&query).await.unwrap();
            let found: Vec<&WorkerId> = found.iter().map(|view| &view.worker.id).collect();
            assert_eq!(found, [&who.worker_id], "{query:?}");
        }
    }
}

/// Jobs with generated contents that run, each on a worker.
async fn run_all(world: &World, record: &mut Record, count: usize) -> Vec<(Credential, JobId)> {
    let workers = register_all(world, record, count).await;
    let payloads = some(count, &submissions());
    let request = |request: SubmissionRequest| SubmissionRequest {
        // The budget may not end them, and anyone may take them.
        budget_usd: None,
        target_worker_id: None,
        worker_affinity: None,
        affinity_wait_seconds: None,
        callback_url: request.callback_url.or_else(|| submission().callback_url),
        ..request
    };
    store(world, record, submit_all(payloads.into_iter().map(request).collect())).await;
    record.check(world, "after the submission").await;
    let listening = workers.iter().map(|who| wish(world.claim_of(who))).collect();
    store(world, record, listening).await;
    let request = ClaimRequest::waiting(workers.iter().map(|who| who.worker_id.clone()).collect());
    let granted = world.store.claim(request, &world.rules).await.unwrap().committed;
    assert_eq!(granted.len(), count);
    record.stored(world, &granted);
    let by_id: HashMap<&WorkerId, &Credential> = workers.iter().map(|who| (&who.worker_id, who)).collect();
    let running = granted.iter().flat_map(Changeset::jobs).map(|write| &write.job);
    running.map(|job| (by_id[job.occupies().unwrap()].clone(), job.id)).collect()
}

/// Everything that a worker can report of its job.
async fn report_all(world: &World, record: &mut Record, other: &World, jobs: &[(Credential, JobId)]) {
    let now = world.reader.now().await.unwrap();
    let attempt = Attempt::FIRST;
    let mut wishes = Vec::new();
    let mut reported = some(jobs.len() * 8, &events());
    for (who, job_id) in jobs {
        let mut events = reported.split_off(reported.len() - 8);
        for (event, worker_seq) in events.iter_mut().zip([0, 1, u64::from(u32::MAX), u64::MAX - 1, u64::MAX]) {
            event.worker_seq = Some(worker_seq);
        }
        wishes.push(wish(ReportEvents { who: who.clone(), job_id: *job_id, attempt, events }));
    }
    store(world, record, wishes).await;
    record.check(other, "after events").await;
    let mut wishes = Vec::new();
    let mut reported = some(jobs.len() * 6, &calls(now));
    for (who, job_id) in jobs {
        let calls = reported.split_off(reported.len() - 6);
        let calls = calls.into_iter().map(|call| CallReport::new(call).unwrap()).collect();
        wishes.push(wish(ReportUsage { who: who.clone(), job_id: *job_id, attempt, calls }));
    }
    store(world, record, wishes).await;
    record.check(other, "after usage").await;
    let acts = some(jobs.len(), &option::of(boxed(500)));
    let act = |((who, job_id), what): (&(Credential, JobId), Option<Box<str>>)| {
        wish(SideEffectsStarted { who: who.clone(), job_id: *job_id, attempt, what })
    };
    let acts = jobs.iter().zip(acts).step_by(3).map(act).collect();
    store(world, record, acts).await;
    record.check(other, "after the point of no return").await;
    let endings = some(jobs.len(), &(completions(), failures(), boxed(255)));
    let mut wishes = Vec::new();
    for (number, ((who, job_id), (completion, failure, text))) in jobs.iter().zip(endings).enumerate() {
        let calls_in_flight = vec![text.clone()];
        let announcing = UsageClosing { action_count: Some(u64::MAX), llm_calls: Some(1), calls_in_flight };
        let report = match number % 5 {
            0 => Report::Complete(completion, announcing),
            1 | 2 => Report::Complete(completion, UsageClosing::default()),
            3 => Report::Fail(failure, announcing),
            _ => Report::Release(JobLeft { reason: text }),
        };
        wishes.push(wish(ReportOutcome { who: who.clone(), job_id: *job_id, attempt, report }));
    }
    store(world, record, wishes).await;
    record.check(other, "after the end").await;
}

pub(super) async fn what_is_reported_of_a_job_is_read_back_exactly(world: World) {
    let mut record = Record::default();
    let jobs = run_all(&world, &mut record, 40).await;
    let other = world.elsewhere().await;
    record.check(&other, "after the grant").await;
    world.clock.advance(ODD);
    report_all(&world, &mut record, &other, &jobs).await;
}

pub(super) async fn times_of_the_far_future_are_read_back_to_the_microsecond(world: World) {
    world.clock.set(Timestamp::parse("9000-12-31T23:59:59.999999Z").unwrap());
    let mut record = Record::default();
    let jobs = run_all(&world, &mut record, 6).await;
    let other = world.elsewhere().await;
    report_all(&world, &mut record, &other, &jobs).await;
}

pub(super) async fn bodies_of_callbacks_are_kept_to_the_byte(world: World) {
    let jobs = run_all(&world, &mut Record::default(), 30).await;
    let reports = jobs.iter().zip(some(jobs.len(), &completions())).map(|((who, job_id), completion)| {
        let report = Report::Complete(completion, UsageClosing::default());
        wish(ReportOutcome { who: who.clone(), job_id: *job_id, attempt: Attempt::FIRST, report })
    });
    commit_all(&world, &reports.collect::<Vec<_>>()).await;
    let other = world.elsewhere().await;
    for status in [503, 200, 200] {
        let leased = world.outbox.lease_due(jobs.len() + 1, &world.rules).await.unwrap();
        assert_eq!(leased.len(), jobs.len());
        for leased in &leased {
            let listed = other.reader.deliveries(leased.job_id, None, 10).await.unwrap();
            let listed = listed.iter().find(|known| known.id == leased.delivery_id).unwrap();
            assert_eq!(listed.body.as_ref(), Some(&leased.body));
            let job = other.job(leased.job_id).await;
            assert_eq!(job.spec.callback_url.as_ref(), Some(&leased.url));
            if let Some(Outcome::Completed(completion)) = job.ending().map(|end| &end.outcome)
                && listed.kind == CallbackKind::Terminal
                && let Some(result) = &completion.result_data
            {
                let body = std::str::from_utf8(&leased.body).unwrap();
                assert!(body.contains(result.get()), "{body} is not told as it came: {result}");
            }
        }
        let settlements = leased.iter().map(|leased| settlement(leased, answered(status))).collect();
        other.outbox.settle(settlements, &other.rules).await.unwrap();
        world.clock.advance(5 * SECOND);
    }
    assert_eq!(other.outbox.next_due().await.unwrap(), None);
}
