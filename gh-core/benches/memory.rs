//! How much memory a finished job takes in the in-memory store: the goal of `docs/performance.md`.
//!
//! Bytes that were asked for, counted by the allocator, so the figures are the same at every run. What the allocator
//! itself adds is not in them: eight bytes a piece and rounding up to sixteen, with the system's own on Linux.
//!
//! `cargo bench -p gh-core --bench memory` prints the figures. `cargo test -p gh-core --bench memory` prints them for
//! fewer jobs; both fail when a job takes more than the goal.

#[path = "speed/world.rs"]
mod world;

use std::alloc::System;
use std::fmt;
use std::time::Duration;

use gh_core::domain::callback::LeasedDelivery;
use gh_core::domain::commands::{
    Credential, EventReport, Report, ReportEvents, ReportOutcome, ReportUsage, UsageClosing,
};
use gh_core::domain::cost::CallReport;
use gh_core::domain::ids::Attempt;
use gh_core::domain::job::Completion;
use gh_core::ports::callback_sender::SendOutcome;
use gh_core::ports::outbox::{Outbox, Settlement};
use gh_core::ports::reader::{JobEventQuery, Reader};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use world::{World, at_once, measures, request};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many bytes a finished job with [`EVENTS`] may hold.
const GOAL: usize = 8 * 1024;
/// How many events each of the jobs has.
const EVENTS: usize = 10;
/// Events that come without a worker's report: queued, assigned, completed.
const EVENTS_OF_EVERY_JOB: u64 = 3;

/// What one job holds.
struct Held {
    bytes: usize,
    pieces: usize,
}

impl fmt::Display for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, pieces } = self;
        write!(formatter, "{bytes:>5} bytes in {pieces:>3} pieces")
    }
}

fn main() {
    let jobs = if measures() { 16_384 } else { 1_024 };
    let waiting = held_by_each(jobs, |world, _, index| drop(world.submit(request(index))));
    let plain = held_by_each(jobs, |world, who, index| finish(world, who, index, 0));
    let with_calls = held_by_each(jobs, |world, who, index| finish(world, who, index, 2));
    println!("waiting job                                     {waiting}");
    println!("finished job, {EVENTS} events, no LLM call           {plain}");
    println!("finished job, {EVENTS} events, 2 of them LLM calls   {with_calls}");
    for held in [plain, with_calls] {
        assert!(held.bytes <= GOAL, "a finished job holds {held}: more than {GOAL} bytes");
    }
}

/// What the store holds more after so many jobs than before, shared out among them.
fn held_by_each(jobs: usize, live: impl Fn(&World, &Credential, usize)) -> Held {
    let world = World::new();
    let who = world.worker(0);
    let region = Region::new(ALLOCATOR);
    (0..jobs).for_each(|index| live(&world, &who, index));
    let change = region.change();
    Held {
        bytes: (change.bytes_allocated - change.bytes_deallocated) / jobs,
        pieces: (change.allocations - change.deallocations) / jobs,
    }
}

/// The whole life of a job that makes so many LLM calls, and as many steps as it takes to come to ten events.
fn finish(world: &World, who: &Credential, index: usize, calls: u64) {
    world.submit(request(index));
    let job_id = world.grant(who);
    let attempt = Attempt::FIRST;
    for seq in 0..EVENTS as u64 - EVENTS_OF_EVERY_JOB - calls {
        let metadata =
            format!(r#"{{"step_index": {seq}, "total_steps": 8, "url": "https://jobs.example.com/postings/1"}}"#);
        let event = EventReport {
            event_type: "step_started".into(),
            message: Some("Navigating to application page".into()),
            metadata: Some(serde_json::from_str(&metadata).expect("JSON")),
            occurred_at: None,
            worker_seq: Some(seq),
        };
        world.run(&ReportEvents { who: who.clone(), job_id, attempt, events: vec![event] });
    }
    for number in 0..calls {
        let call = format!(
            r#"{{"call_id": "msg_01XFDUDYJgAACzvnptvVo{number:03}", "provider": "anthropic",
                "model": "claude-sonnet-4-20250514", "usage": {{"input": 4210, "cache_read": 18000, "output": 822}}}}"#
        );
        let call = CallReport::new(serde_json::from_str(&call).expect("a call")).expect("in order");
        world.run(&ReportUsage { who: who.clone(), job_id, attempt, calls: vec![call] });
    }
    let completion = Completion {
        result_summary: Some("Application submitted successfully".into()),
        result_data: Some(serde_json::from_str(r#"{"fields": 31, "confirmation": "A-1093"}"#).expect("JSON")),
        ..Completion::default()
    };
    let closing = UsageClosing { llm_calls: Some(calls), ..UsageClosing::default() };
    world.run(&ReportOutcome { who: who.clone(), job_id, attempt, report: Report::Complete(completion, closing) });
    deliver(world);
    let query = JobEventQuery { job_id, after_seq: 0, event_types: Vec::new(), limit: 2 * EVENTS };
    assert_eq!(at_once(world.store.job_events(&query)).expect("the store answers").len(), EVENTS);
}

/// Every callback that is due arrives.
fn deliver(world: &World) {
    loop {
        let due = at_once(world.store.lease_due(100, &world.rules)).expect("the store answers");
        if due.is_empty() {
            return;
        }
        let settle = |due: LeasedDelivery| Settlement {
            job_id: due.job_id,
            lease_id: due.lease_id,
            delivery_id: due.delivery_id,
            outcome: SendOutcome::Answered {
                status: 204,
                retry_after: None,
                excerpt: String::new(),
                took: Duration::from_millis(3),
            },
            jitter: 0.5,
        };
        let settled = due.into_iter().map(settle).collect();
        at_once(world.store.settle(settled, &world.rules)).expect("the store answers");
    }
}
