//! Callbacks go out in order, one sender at a time, and whatever becomes of them stays visible.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

pub(super) use super::racing_senders::what_is_enqueued_while_others_send_and_settle_is_neither_lost_nor_out_of_order;
use super::world::{SECOND, World, cancel};
use crate::domain::callback::{CallbackKind, CallbackStatus, Delivery, DeliveryState, LeasedDelivery};
use crate::domain::commands::{Credential, Report, ReportOutcome, ReportUsage, UsageClosing};
use crate::domain::cost::{CallReport, ReportedCall, UsageCounts};
use crate::domain::event::{EventType, JobEvent};
use crate::domain::ids::JobId;
use crate::domain::job::Completion;
use crate::domain::submission::SubmissionRequest;
use crate::ports::callback_sender::{SendError, SendOutcome};
use crate::ports::outbox::Settlement;
use crate::ports::reader::JobEventQuery;
use crate::ports::store::Conflict;
use crate::testing::submission;

/// Everything that is due, leased by the server that `world` is a handle of.
async fn lease(world: &World) -> Vec<LeasedDelivery> {
    world.outbox.lease_due(100, &world.rules).await.unwrap()
}

async fn lease_one(world: &World) -> LeasedDelivery {
    let mut leased = lease(world).await;
    assert_eq!(leased.len(), 1, "{leased:?}");
    leased.remove(0)
}

pub(super) fn settlement(leased: &LeasedDelivery, outcome: SendOutcome) -> Settlement {
    Settlement {
        job_id: leased.job_id,
        lease_id: leased.lease_id,
        delivery_id: leased.delivery_id,
        outcome,
        jitter: 0.0,
    }
}

pub(super) async fn settle(world: &World, leased: &LeasedDelivery, outcome: SendOutcome) {
    world.outbox.settle(vec![settlement(leased, outcome)], &world.rules).await.unwrap();
}

pub(super) fn answered(status: u16) -> SendOutcome {
    SendOutcome::Answered { status, retry_after: None, excerpt: String::new(), took: Duration::from_millis(3) }
}

/// A report of an LLM call that has a price.
pub(super) fn call(call_id: &str) -> CallReport {
    let call = ReportedCall {
        call_id: call_id.into(),
        provider: "anthropic".into(),
        model: "claude-haiku-4-5-20251001".into(),
        usage: UsageCounts { output: Some(1000.into()), ..UsageCounts::default() },
        occurred_at: None,
        service_tier: None,
        inference_geo: None,
        speed: None,
        web_searches: None,
        claimed_cost_usd: None,
    };
    CallReport::new(call).unwrap()
}

async fn usage(world: &World, who: &Credential, job_id: JobId, call_id: &str) -> ReportUsage {
    let attempt = world.job(job_id).await.attempt;
    ReportUsage { who: who.clone(), job_id, attempt, calls: vec![call(call_id)] }
}

async fn spend(world: &World, who: &Credential, job_id: JobId, call_id: &str) {
    let report = usage(world, who, job_id, call_id).await;
    world.run(&report).await;
}

/// A job that runs, with a `running` callback that is pending.
async fn running_job(world: &World) -> (Credential, JobId) {
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(id));
    (who, id)
}

/// A job with a `running` and then a `completed` callback.
pub(super) async fn finished_job(world: &World) -> JobId {
    let (who, id) = running_job(world).await;
    world.complete(&who, id).await;
    id
}

/// Newest first.
pub(super) async fn deliveries(world: &World, id: JobId) -> Vec<Arc<Delivery>> {
    world.reader.deliveries(id, None, 100).await.unwrap()
}

async fn states(world: &World, id: JobId) -> Vec<(CallbackStatus, DeliveryState)> {
    deliveries(world, id).await.iter().map(|known| (known.status, known.state)).collect()
}

async fn dead_letters(world: &World, job_id: JobId) -> Vec<JobEvent> {
    let event_types = vec![EventType::CALLBACK_DEAD];
    let query = JobEventQuery { job_id, after_seq: 0, event_types, limit: 100 };
    world.reader.job_events(&query).await.unwrap()
}

pub(super) async fn a_job_has_one_sender_at_a_time_and_its_callbacks_go_in_order(world: World) {
    let id = finished_job(&world).await;
    let other = world.elsewhere().await;
    let first = lease_one(&world).await;
    assert!(lease(&other).await.is_empty(), "its head is being sent");
    settle(&other, &first, answered(200)).await;
    let second = lease_one(&other).await;
    assert_ne!(second.delivery_id, first.delivery_id);
    settle(&world, &second, answered(204)).await;
    assert!(lease(&other).await.is_empty());
    assert_eq!(world.outbox.next_due().await.unwrap(), None);
    assert_eq!(
        states(&other, id).await,
        [(CallbackStatus::Completed, DeliveryState::Delivered), (CallbackStatus::Running, DeliveryState::Delivered)],
        "what is through stays listed, newest first"
    );
}

pub(super) async fn jobs_do_not_wait_for_each_other_and_the_longest_due_comes_first(world: World) {
    let ids = world.submit_many(3).await;
    for id in &ids {
        world.run(&cancel(*id)).await;
        world.clock.advance(SECOND);
    }
    let two = world.outbox.lease_due(2, &world.rules).await.unwrap();
    let leased: Vec<JobId> = two.iter().map(|leased| leased.job_id).collect();
    assert_eq!(leased, ids[..2], "no more than was asked for");
    let third = lease_one(&world.elsewhere().await).await;
    assert_eq!(third.job_id, ids[2], "two that are being sent hold back nobody else");
    settle(&world, &third, answered(500)).await;
    let again = world.clock.advance(5 * SECOND);
    assert_eq!(world.outbox.next_due().await.unwrap(), Some(again));
    assert_eq!(lease_one(&world).await.delivery_id, third.delivery_id);
}

pub(super) async fn when_many_servers_look_at_once_each_callback_goes_to_one_of_them(world: World) {
    let ids: HashSet<JobId> = world.submit_many(12).await.into_iter().collect();
    for id in &ids {
        world.run(&cancel(*id)).await;
    }
    let servers = join_all((0..4).map(|_| world.elsewhere())).await;
    let leased = join_all(servers.iter().map(lease)).await;
    let leased: Vec<JobId> = leased.iter().flatten().map(|leased| leased.job_id).collect();
    let distinct: HashSet<JobId> = leased.iter().copied().collect();
    assert_eq!(leased.len(), distinct.len(), "one callback went to two servers");
    let rest: HashSet<JobId> = lease(&world).await.iter().map(|leased| leased.job_id).collect();
    assert!(rest.is_disjoint(&distinct));
    assert_eq!(&distinct | &rest, ids, "none is left out");
}

pub(super) async fn a_failed_attempt_is_repeated_at_its_time_with_the_same_id_and_bytes(world: World) {
    let id = finished_job(&world).await;
    let first = lease_one(&world).await;
    let unanswered = SendOutcome::Unanswered { error: SendError::Connect, took: SECOND };
    let failed_at = world.clock.advance(SECOND);
    settle(&world, &first, unanswered).await;
    let other = world.elsewhere().await;
    assert_eq!(other.outbox.next_due().await.unwrap(), Some(failed_at + 5 * SECOND));
    world.clock.advance(4 * SECOND);
    assert!(lease(&other).await.is_empty());
    world.clock.advance(SECOND);
    let again = lease_one(&other).await;
    assert_eq!((again.delivery_id, again.attempt), (first.delivery_id, 2));
    assert_eq!((&again.body, &again.url), (&first.body, &first.url));
    let listed = deliveries(&other, id).await;
    let attempts = &listed[1].attempts;
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].at, attempts[0].error_class.as_deref()), (failed_at, Some("connect")));
    assert_eq!(attempts[0].duration_ms, 1000);
}

pub(super) async fn when_a_sender_is_lost_another_takes_over_and_the_first_comes_too_late(world: World) {
    let id = finished_job(&world).await;
    let lost = lease_one(&world).await;
    let over = world.clock.advance(world.rules.policy.send_lease);
    assert_eq!(world.outbox.next_due().await.unwrap(), Some(over), "when the lost sender's hold is over");
    let other = world.elsewhere().await;
    let taken_over = lease_one(&other).await;
    assert_eq!((taken_over.delivery_id, taken_over.attempt), (lost.delivery_id, 1));
    assert_eq!(taken_over.body, lost.body);
    for outcome in
        [answered(200), answered(500), SendOutcome::Unanswered { error: SendError::BlockedAddress, took: SECOND }]
    {
        settle(&world, &lost, outcome).await;
    }
    assert_eq!(states(&other, id).await[1], (CallbackStatus::Running, DeliveryState::Sending));
    assert_eq!(deliveries(&world, id).await[1].attempts, [], "it left no trace");
    assert!(dead_letters(&world, id).await.is_empty());
    settle(&other, &taken_over, answered(200)).await;
    assert_eq!(states(&world, id).await[1], (CallbackStatus::Running, DeliveryState::Delivered));
    settle(&world, &taken_over, answered(500)).await;
    assert_eq!(deliveries(&world, id).await[1].attempts.len(), 1, "settled twice counts once");
}

pub(super) async fn one_settlement_that_comes_too_late_does_not_touch_the_others(world: World) {
    let ids = world.submit_many(3).await;
    for id in &ids {
        world.run(&cancel(*id)).await;
    }
    let leased = lease(&world).await;
    assert_eq!(leased.len(), 3);
    world.clock.advance(world.rules.policy.send_lease);
    let retaken = world.elsewhere().await.outbox.lease_due(1, &world.rules).await.unwrap();
    let late = retaken[0].job_id;
    let settlements = leased.iter().map(|leased| settlement(leased, answered(200))).collect();
    world.outbox.settle(settlements, &world.rules).await.unwrap();
    for id in ids {
        let wanted = if id == late { DeliveryState::Sending } else { DeliveryState::Delivered };
        assert_eq!(states(&world, id).await, [(CallbackStatus::Cancelled, wanted)]);
    }
}

pub(super) async fn a_callback_that_is_refused_three_times_is_overtaken_and_leaves_an_event(world: World) {
    let id = finished_job(&world).await;
    for _ in 0..3 {
        let leased = lease_one(&world).await;
        settle(&world, &leased, answered(400)).await;
        world.clock.advance(600 * SECOND);
    }
    let other = world.elsewhere().await;
    assert_eq!(
        states(&other, id).await,
        [(CallbackStatus::Completed, DeliveryState::Pending), (CallbackStatus::Running, DeliveryState::Dead)]
    );
    let events = dead_letters(&other, id).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].seq, other.job(id).await.event_seq);
    let terminal = lease_one(&other).await;
    settle(&other, &terminal, answered(200)).await;
    assert_eq!(states(&world, id).await[0], (CallbackStatus::Completed, DeliveryState::Delivered));
}

pub(super) async fn a_dead_letter_leaves_a_numbered_event_in_the_same_transaction(world: World) {
    let (who, id) = running_job(&world).await;
    let before = world.job(id).await;
    let report = usage(&world, &who, id, "c1").await;
    let decided_before = world.decision(&report).await;
    let leased = lease_one(&world).await;
    let other = world.elsewhere().await;
    settle(&other, &leased, SendOutcome::Unanswered { error: SendError::BlockedAddress, took: SECOND }).await;
    let listed = deliveries(&world, id).await;
    assert_eq!((listed[0].state, listed[0].dead_reason.as_deref()), (DeliveryState::Dead, Some("blocked_ip")));
    let events = dead_letters(&world, id).await;
    let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, [before.event_seq + 1]);
    assert_eq!(world.job(id).await.event_seq, before.event_seq + 1);
    assert_eq!(world.commit(vec![decided_before]).await, [Err(Conflict)], "its event would have the same number");
    spend(&world, &who, id, "c1").await;
    let query = JobEventQuery { job_id: id, after_seq: before.event_seq, event_types: Vec::new(), limit: 10 };
    let numbers: Vec<u64> = other.reader.job_events(&query).await.unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(numbers, [before.event_seq + 1, before.event_seq + 2]);
}

pub(super) async fn a_newer_cost_replaces_an_unsent_one_but_never_a_transition(world: World) {
    let (who, id) = running_job(&world).await;
    // The head is frozen, so that a changed cost needs a callback of its own.
    let head = lease_one(&world).await;
    spend(&world, &who, id, "c1").await;
    settle(&world, &head, answered(500)).await;
    world.complete(&who, id).await;
    let listed = deliveries(&world.elsewhere().await, id).await;
    let kinds: Vec<(CallbackKind, DeliveryState)> = listed.iter().map(|known| (known.kind, known.state)).collect();
    assert_eq!(
        kinds,
        [
            (CallbackKind::Terminal, DeliveryState::Pending),
            (CallbackKind::CostSnapshot, DeliveryState::Replaced),
            (CallbackKind::Transition, DeliveryState::Pending),
        ],
        "what was replaced stays listed"
    );
    world.clock.advance(5 * SECOND);
    let head = lease_one(&world).await;
    settle(&world, &head, answered(200)).await;
    let terminal = lease_one(&world).await;
    assert_eq!(terminal.delivery_id, listed[0].id);
    spend(&world, &who, id, "c2").await;
    settle(&world, &terminal, answered(500)).await;
    let listed = deliveries(&world, id).await;
    assert_eq!((listed[0].kind, listed[0].state), (CallbackKind::CostFollowUp, DeliveryState::Pending));
    assert_eq!((listed[1].kind, listed[1].state), (CallbackKind::Terminal, DeliveryState::Pending));
}

pub(super) fn total(body: &Bytes) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Body<'b> {
        #[serde(borrow)]
        cost: Option<HashMap<&'b str, &'b serde_json::value::RawValue>>,
    }
    let body: Body<'_> = serde_json::from_slice(body).unwrap();
    Some(body.cost?.get("total_cost_usd")?.get().to_owned())
}

pub(super) async fn frozen_bytes_stay_while_the_ledger_grows_and_unfrozen_cost_follows_it(world: World) {
    let (who, id) = running_job(&world).await;
    spend(&world, &who, id, "c1").await;
    assert_eq!(deliveries(&world, id).await.len(), 1, "what waits will tell the new cost by itself");
    let first = lease_one(&world).await;
    let spent = world.job(id).await.cost.total_cost_usd().to_string();
    assert_eq!(total(&first.body), Some(spent), "the cost of the moment of sending, not of enqueueing");
    settle(&world, &first, answered(500)).await;
    spend(&world, &who, id, "c2").await;
    world.clock.advance(5 * SECOND);
    let other = world.elsewhere().await;
    let again = lease_one(&other).await;
    assert_eq!(again.body, first.body, "every attempt sends the same bytes");
    assert_eq!(deliveries(&world, id).await[1].body.as_ref(), Some(&first.body));
    settle(&other, &again, answered(200)).await;
    world.complete(&who, id).await;
    spend(&world, &who, id, "c3").await;
    let terminal = lease_one(&other).await;
    let spent = world.job(id).await.cost.total_cost_usd().to_string();
    assert_eq!(total(&terminal.body), Some(spent));
}

/// Ends the job of this worker; the usage of one call is announced.
async fn complete_announcing(world: &World, who: &Credential, job_id: JobId, call_id: &str) {
    let attempt = world.job(job_id).await.attempt;
    let closing = UsageClosing { calls_in_flight: vec![call_id.into()], ..UsageClosing::default() };
    let report = Report::Complete(Completion::default(), closing);
    world.run(&ReportOutcome { who: who.clone(), job_id, attempt, report }).await;
}

pub(super) async fn the_end_is_told_when_announced_calls_are_reported_or_after_a_short_wait(world: World) {
    let (who, reported) = running_job(&world).await;
    let running = lease_one(&world).await;
    settle(&world, &running, answered(200)).await;
    complete_announcing(&world, &who, reported, "c1").await;
    assert!(lease(&world).await.is_empty(), "held for the announced call");
    let wait = world.rules.policy.announced_calls_wait;
    let now = world.reader.now().await.unwrap();
    assert_eq!(world.outbox.next_due().await.unwrap(), Some(now + wait));
    let other = world.elsewhere().await;
    spend(&other, &who, reported, "c1").await;
    let terminal = lease_one(&other).await;
    assert_eq!(terminal.job_id, reported, "let go by the report");
    assert!(total(&terminal.body).is_some());
    settle(&other, &terminal, answered(200)).await;

    let unreported = world.submit(submission()).await;
    world.listen(&who).await;
    assert_eq!(world.claim_one(&who).await, Some(unreported));
    let running = lease_one(&world).await;
    settle(&world, &running, answered(200)).await;
    complete_announcing(&world, &who, unreported, "c1").await;
    assert!(lease(&world).await.is_empty());
    world.clock.advance(wait);
    assert_eq!(lease_one(&world).await.job_id, unreported, "let go by the time");
}

pub(super) async fn the_next_time_to_look_is_that_of_the_earliest_queue(world: World) {
    assert_eq!(world.outbox.next_due().await.unwrap(), None, "nothing was ever enqueued");
    let start = world.reader.now().await.unwrap();
    let first = world.submit(submission()).await;
    world.run(&cancel(first)).await;
    world.clock.advance(SECOND);
    let second = world.submit(submission()).await;
    world.run(&cancel(second)).await;
    let other = world.elsewhere().await;
    assert_eq!(other.outbox.next_due().await.unwrap(), Some(start), "the past, when one is due now");
    let leased = world.outbox.lease_due(1, &world.rules).await.unwrap();
    assert_eq!(leased[0].job_id, first);
    assert_eq!(other.outbox.next_due().await.unwrap(), Some(start + SECOND));
    let later = lease_one(&other).await;
    settle(&other, &later, answered(200)).await;
    let lease_over = start + SECOND + world.rules.policy.send_lease;
    assert_eq!(world.outbox.next_due().await.unwrap(), Some(lease_over), "when the sender of the first is lost");
    settle(&world, &leased[0], answered(200)).await;
    assert_eq!(other.outbox.next_due().await.unwrap(), None);
}

pub(super) async fn a_job_without_a_callback_address_has_nothing_to_send(world: World) {
    let id = world.submit(SubmissionRequest { callback_url: None, ..submission() }).await;
    world.run(&cancel(id)).await;
    assert!(lease(&world).await.is_empty());
    assert!(states(&world, id).await.is_empty());
    assert_eq!(world.outbox.next_due().await.unwrap(), None);
}

pub(super) async fn figures_count_what_is_open_and_what_is_due(world: World) {
    finished_job(&world).await;
    let other = world.elsewhere().await;
    let figures = async || {
        let figures = other.reader.figures().await.unwrap();
        (figures.callbacks_open, figures.callbacks_due)
    };
    assert_eq!(figures().await, (2, 1));
    let leased = lease_one(&world).await;
    assert_eq!(figures().await, (2, 0));
    settle(&world, &leased, answered(200)).await;
    assert_eq!(figures().await, (1, 1));
}
