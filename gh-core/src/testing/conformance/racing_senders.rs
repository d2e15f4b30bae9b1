//! Servers that enqueue, send and settle at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::{join, join_all};

use super::callbacks::{answered, call, deliveries, settle, total};
use super::world::{SECOND, World};
use crate::domain::callback::{CallbackKind, DeliveryState};
use crate::domain::commands::{Command, Credential, Report, ReportOutcome, ReportUsage, UsageClosing, decide};
use crate::domain::ids::{DeliveryId, JobId};
use crate::domain::job::Completion;

/// Runs a command as a server does: decides anew whenever something moved.
async fn insist<C: Command>(world: &World, command: &C) {
    loop {
        let snapshot = world.snapshot(&command.keys()).await;
        let decision = decide(&snapshot, command, &world.rules);
        assert!(decision.answer.is_ok(), "{:?}", decision.answer.err());
        tokio::task::yield_now().await;
        if world.commit(vec![decision.changes]).await == [Ok(())] {
            return;
        }
    }
}

/// What several senders see together.
#[derive(Default)]
struct Seen {
    in_flight: HashMap<JobId, DeliveryId>,
    /// The callbacks of each job in the order in which they were given out.
    given: HashMap<JobId, Vec<DeliveryId>>,
    bytes: HashMap<DeliveryId, Bytes>,
}

/// One sender that works until the others are through and nothing is due. Every third attempt fails.
async fn send(world: &World, seen: &Mutex<Seen>, working: &Mutex<usize>) {
    let mut attempts = 0;
    for looks in 0.. {
        assert!(looks < 10_000, "something is given out for ever");
        let over = *working.lock().unwrap_or_else(PoisonError::into_inner) == 0;
        let leased = world.outbox.lease_due(2, &world.rules).await.unwrap();
        if over && leased.is_empty() {
            return;
        }
        for leased in &leased {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let other = seen.in_flight.insert(leased.job_id, leased.delivery_id);
            assert_eq!(other, None, "two senders have callbacks of one job");
            let given = seen.given.entry(leased.job_id).or_default();
            if given.last() != Some(&leased.delivery_id) {
                given.push(leased.delivery_id);
            }
            let first = seen.bytes.entry(leased.delivery_id).or_insert_with(|| leased.body.clone());
            assert_eq!(*first, leased.body);
        }
        // The others go on while these are on their way.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        for leased in &leased {
            // Still in the hands of this sender until the settlement is stored.
            seen.lock().unwrap_or_else(PoisonError::into_inner).in_flight.remove(&leased.job_id);
            attempts += 1;
            settle(world, leased, answered(if attempts % 3 == 0 { 400 } else { 200 })).await;
            tokio::task::yield_now().await;
        }
    }
}

pub(super) async fn what_is_enqueued_while_others_send_and_settle_is_neither_lost_nor_out_of_order(world: World) {
    const JOBS: usize = 4;
    const CALLS: usize = 6;
    let mut workers = Vec::new();
    for number in 0..JOBS {
        workers.push(world.worker(&format!("w-{number}")).await);
    }
    let ids = world.submit_many(JOBS).await;
    let granted = world.claim(&workers.iter().collect::<Vec<_>>()).await;
    assert_eq!(granted.len(), JOBS);
    let servers = join_all((0..JOBS + 3).map(|_| world.elsewhere())).await;
    let (spending, sending) = servers.split_at(JOBS);
    let (seen, working) = (Mutex::new(Seen::default()), Mutex::new(JOBS));
    let work = async |server: &World, who: &Credential, job_id: JobId| {
        let attempt = server.job(job_id).await.attempt;
        for number in 0..CALLS {
            let calls = vec![call(&format!("c{number}"))];
            insist(server, &ReportUsage { who: who.clone(), job_id, attempt, calls }).await;
            // Costs are told at a pace. All in all less time passes than a sender may keep a callback.
            server.clock.advance(SECOND);
            tokio::task::yield_now().await;
        }
        let report = Report::Complete(Completion::default(), UsageClosing::default());
        insist(server, &ReportOutcome { who: who.clone(), job_id, attempt, report }).await;
        *working.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    };
    let jobs = spending.iter().zip(&granted).map(|(server, (id, job_id))| {
        let who = workers.iter().find(|who| who.worker_id == *id).unwrap();
        work(server, who, *job_id)
    });
    join(join_all(jobs), join_all(sending.iter().map(|server| send(server, &seen, &working)))).await;
    // What was refused is sent again when its time comes; a lease that was settled is over.
    let mut rounds = 0;
    while let Some(due) = world.outbox.next_due().await.unwrap() {
        rounds += 1;
        assert!(rounds < 100, "something stays due for ever");
        world.clock.set(due.max(world.reader.now().await.unwrap()));
        send(&world, &seen, &working).await;
    }
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    for id in ids {
        let mut listed = deliveries(&world, id).await;
        listed.reverse();
        assert_eq!((listed[0].kind, listed[listed.len() - 1].kind), (CallbackKind::Transition, CallbackKind::Terminal));
        assert!(listed.is_sorted_by_key(|known| known.sequence));
        let given = &seen.given[&id];
        let sequence = |id: &DeliveryId| listed.iter().find(|known| known.id == *id).unwrap().sequence;
        assert!(given.iter().map(sequence).is_sorted_by(|one, next| one < next), "in the order of their numbers");
        for known in &listed {
            match known.state {
                DeliveryState::Delivered | DeliveryState::Dead => assert!(given.contains(&known.id), "{known:?}"),
                DeliveryState::Replaced => assert_eq!(known.kind, CallbackKind::CostSnapshot),
                DeliveryState::Pending | DeliveryState::Sending => panic!("left behind: {known:?}"),
            }
        }
        let told = total(&seen.bytes[given.last().unwrap()]);
        assert_eq!(told, Some(world.job(id).await.cost.total_cost_usd().to_string()), "the end tells the whole cost");
    }
}
