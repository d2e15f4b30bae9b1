//! The decisions that happen all the time. What they see is loaded before; storing what they decide is not measured.

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use criterion::measurement::WallTime;
use gh_core::domain::commands::{
    Claim, Command, DrainWish, EventReport, Heartbeat, JobClaim, Report, ReportEvents, ReportOutcome, ReportUsage,
    UsageClosing, decide, grant_jobs,
};
use gh_core::domain::cost::CallReport;
use gh_core::domain::ids::{Attempt, ConnectionId};
use gh_core::domain::job::Completion;
use gh_core::domain::snapshot::Keys;
use gh_core::domain::worker::Beat;
use gh_core::ports::store::Store;
use uuid::Uuid;

use crate::world::{World, at_once, request, submit};

/// As a worker of ours reports one.
fn event(seq: u64) -> EventReport {
    let metadata =
        format!(r#"{{"step_index": {seq}, "total_steps": 30, "url": "https://jobs.example.com/postings/1"}}"#);
    EventReport {
        event_type: "step_started".into(),
        message: Some("Navigating to application page".into()),
        metadata: Some(serde_json::from_str(&metadata).expect("JSON")),
        occurred_at: None,
        worker_seq: Some(seq),
    }
}

fn call() -> CallReport {
    let call = r#"{"call_id": "msg_01XFDUDYJgAACzvnptvVoYEL", "provider": "anthropic",
        "model": "claude-sonnet-4-20250514", "usage": {"input": 4210, "cache_read": 18000, "output": 822}}"#;
    CallReport::new(serde_json::from_str(call).expect("a call")).expect("in order")
}

pub(crate) fn benches(criterion: &mut Criterion) {
    let world = World::new();
    let idle = world.worker(0);
    let who = world.worker(1);
    world.submit(request(1));
    let job_id = world.grant(&who);
    let attempt = Attempt::FIRST;
    let events = |first: u64, count: u64| ReportEvents {
        who: who.clone(),
        job_id,
        attempt,
        events: (first..first + count).map(event).collect(),
    };
    world.run(&events(1, 9));

    let mut group = criterion.benchmark_group("decide");
    let heartbeat = Heartbeat {
        who: who.clone(),
        beat: Beat {
            memory_usage: Some(412_000_000),
            current_task_url: Some("https://jobs.example.com/postings/1".into()),
            ..Beat::default()
        },
        job: JobClaim::Job(job_id),
        drain: DrainWish::Silent,
        acknowledged: Vec::new(),
    };
    measure(&mut group, "heartbeat", &world, &heartbeat);
    measure(&mut group, "event", &world, &events(10, 1));
    measure(&mut group, "20_events", &world, &events(10, 20));
    measure(&mut group, "usage", &world, &ReportUsage { who: who.clone(), job_id, attempt, calls: vec![call()] });
    let completion = Completion {
        result_summary: Some("Application submitted successfully".into()),
        result_data: Some(serde_json::from_str(r#"{"fields": 31, "confirmation": "A-1093"}"#).expect("JSON")),
        ..Completion::default()
    };
    let closing = UsageClosing { action_count: Some(31), llm_calls: Some(0), ..UsageClosing::default() };
    let report = Report::Complete(completion, closing);
    measure(&mut group, "complete", &world, &ReportOutcome { who: who.clone(), job_id, attempt, report });
    let connection = ConnectionId::new(Uuid::from_u128(1 << 64));
    let claim = Claim { who: idle.clone(), connection, wait: Duration::from_secs(25), waited: false };
    measure(&mut group, "claim", &world, &claim);
    measure(&mut group, "submit", &world, &submit(request(2)));
    let mut strict = request(3);
    strict.target_worker_id = Some("sandbox-0".into());
    strict.worker_affinity = Some("strict".into());
    measure(&mut group, "submit_strict", &world, &submit(strict));

    let waiting = world.submit(request(4)).id;
    let keys = Keys { jobs: vec![waiting], workers: vec![idle.worker_id], ..Keys::default() };
    let snapshot = at_once(world.store.load(&keys)).expect("the store answers");
    assert_eq!(grant_jobs(&snapshot, &world.rules).len(), 1, "there is one job for one worker");
    group.bench_function("grant", |bencher| {
        bencher.iter(|| grant_jobs(black_box(&snapshot), &world.rules));
    });
    group.finish();
}

/// The time of one decision, with giving its memory back.
fn measure<C: Command>(group: &mut criterion::BenchmarkGroup<'_, WallTime>, label: &str, world: &World, command: &C) {
    let snapshot = world.load(command);
    let decision = decide(&snapshot, command, &world.rules);
    assert!(decision.answer.is_ok() && !decision.changes.is_empty(), "{label} changes something");
    group.bench_function(label, |bencher| {
        bencher.iter(|| decide(black_box(&snapshot), black_box(command), &world.rules));
    });
}
