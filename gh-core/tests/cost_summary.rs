//! The totals of a job: what arrives in whatever order, however often and in whatever steps comes to the same sum.

#![expect(clippy::unwrap_used, reason = "a helper that fails must fail its test")]

mod cost_support;

use cost_support::{Job, now};
use gh_core::domain::cost::{CostBlock, CostSummary, Outcome, ReportedCall, Usage, UsageCounts};
use gh_core::domain::usd::Usd;
use proptest::prelude::*;

const MODELS: [(&str, &str); 6] = [
    ("anthropic", "claude-sonnet-4-20250514"),
    ("anthropic", "claude-haiku-4-5-20251001"),
    ("openai", "gpt-5-mini"),
    ("deepseek", "deepseek-v4-flash"),
    ("dashscope", "qwen-plus-2025-07-28"),
    ("acme", "acme-model-9"),
];

fn call(call_id: &str, (provider, model): (&str, &str), usage: impl Into<UsageCounts>) -> ReportedCall {
    ReportedCall {
        call_id: call_id.into(),
        provider: provider.into(),
        model: model.into(),
        usage: usage.into(),
        occurred_at: Some(now()),
        service_tier: None,
        inference_geo: None,
        speed: None,
        web_searches: None,
        claimed_cost_usd: None,
    }
}

/// A block without its revision, which counts the steps by which it came about.
fn outcome_of(job: &Job) -> CostBlock {
    CostBlock { revision: 0, ..job.summary.block(true) }
}

prop_compose! {
    fn any_usage()(
        input in 0..400_000_u64, cache_read in 0..200_000_u64, write_5m in 0..9_000_u64, write_1h in 0..9_000_u64,
        output in 0..50_000_u64, reasoning_percent in 0..=100_u64,
    ) -> Usage {
        let reasoning = output * reasoning_percent / 100;
        Usage::new(input, cache_read, write_5m, write_1h, output, reasoning).unwrap()
    }
}

/// The final report of a call, preceded by snapshots of it while it streamed.
fn snapshots(usage: Usage, steps: u64) -> impl Iterator<Item = Usage> {
    (1..=steps).map(move |step| {
        let part = |count: u64| count * step / steps;
        Usage::new(
            part(usage.input()),
            part(usage.cache_read()),
            part(usage.cache_write_5m()),
            part(usage.cache_write_1h()),
            part(usage.output()),
            part(usage.reasoning()),
        )
        .unwrap()
    })
}

proptest! {
    #[test]
    fn any_order_any_repetition_and_any_snapshots_come_to_the_same_total(
        calls in prop::collection::vec((0..MODELS.len(), any_usage(), 1..5_u64), 1..12),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        shuffle in any::<u64>(),
    ) {
        let mut once = Job::default();
        let mut reports = Vec::new();
        for (number, (model, usage, steps)) in calls.into_iter().enumerate() {
            let call_id = format!("call-{number}");
            let final_report = call(&call_id, MODELS[model], usage);
            once.report(final_report);
            reports.extend(snapshots(usage, steps).map(|usage| call(&call_id, MODELS[model], usage)));
        }
        let repeated: Vec<_> = repeats.iter().map(|index| index.get(&reports).clone()).collect();
        reports.extend(repeated);
        let mut state = shuffle;
        for place in (1..reports.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let other = usize::try_from(state >> 33).unwrap() % (place + 1);
            reports.swap(place, other);
        }

        let mut job = Job::default();
        for report in reports {
            job.report(report);
        }
        prop_assert_eq!(outcome_of(&job), outcome_of(&once));
    }

    #[test]
    fn the_breakdown_adds_up_to_the_total_exactly(
        calls in prop::collection::vec((0..MODELS.len(), any_usage(), 0..6_u8), 1..30),
    ) {
        let mut job = Job::default();
        for (model, usage, call_id) in calls {
            job.report(call(&call_id.to_string(), MODELS[model], usage));
            let block = job.summary.block(false);
            let cost: Usd = block.breakdown.iter().map(|line| line.cost_usd).sum();
            prop_assert_eq!(cost, block.total_cost_usd);
            let tokens: u64 = block.breakdown.iter().map(|line| line.tokens).sum();
            prop_assert_eq!(tokens, block.total_tokens);
            for line in &block.breakdown {
                let counts = [line.input_tokens, line.output_tokens, line.cache_read_tokens, line.cache_write_tokens];
                prop_assert_eq!(line.tokens, counts.iter().sum::<u64>());
            }
            prop_assert_eq!(block.complete, block.unpriced_models.is_empty());
        }
    }
}

fn output(tokens: u64) -> Usage {
    Usage::new(0, 0, 0, 0, tokens, 0).unwrap()
}

#[test]
fn a_model_is_unpriced_until_its_last_unpriced_call_is_replaced() {
    let (haiku, acme) = (MODELS[1], MODELS[5]);
    let mut job = Job::default();
    job.report(call("c1", acme, output(1)));
    job.report(call("c2", acme, output(1)));
    assert_eq!(job.summary.block(false).unpriced_models, ["acme-model-9".into()]);
    assert_eq!(job.report(call("c1", haiku, output(2))), Outcome::Replaced);
    assert_eq!(job.summary.unpriced_calls(), 1);
    assert!(!job.summary.is_complete());
    job.report(call("c2", haiku, output(2)));
    let block = job.summary.block(false);
    assert!(block.complete && block.unpriced_models.is_empty());
    assert_eq!(block.breakdown.len(), 1);
    assert_eq!(job.summary.calls(), 2);
}

#[test]
fn actions_without_usage_are_incomplete_unless_the_worker_made_no_call() {
    let mut summary = CostSummary::default();
    assert!(summary.is_empty() && summary.is_complete());
    summary.add_actions(4);
    assert!(!summary.is_empty() && !summary.is_complete());
    summary.declare_no_calls();
    assert!(summary.is_complete());

    let mut job = Job::default();
    job.summary.add_actions(4);
    job.report(call("c1", MODELS[1], output(1)));
    assert!(job.summary.is_complete());
}

#[test]
fn an_ended_attempt_with_calls_unreported_is_incomplete_until_they_arrive() {
    let mut job = Job::default();
    job.report(call("c1", MODELS[1], output(1)));
    job.summary.set_missing_calls(1);
    assert!(!job.summary.is_complete());
    job.summary.set_missing_calls(0);
    assert!(job.summary.is_complete());
}

#[test]
fn the_revision_counts_changes_and_nothing_else() {
    let mut job = Job::default();
    job.report(call("c1", MODELS[1], output(5)));
    assert_eq!(job.summary.revision(), 1);
    job.report(call("c1", MODELS[1], output(5)));
    job.report(call("c1", MODELS[1], output(4)));
    job.summary.add_actions(0);
    job.summary.set_missing_calls(0);
    assert_eq!(job.summary.revision(), 1);
    job.report(call("c1", MODELS[1], output(6)));
    job.summary.add_actions(3);
    job.summary.raise_actions(2);
    job.summary.raise_actions(4);
    job.summary.declare_no_calls();
    job.summary.declare_no_calls();
    assert_eq!((job.summary.revision(), job.summary.action_count()), (5, 4));
}

#[test]
fn the_block_carries_every_digit_on_the_wire() {
    let mut job = Job::default();
    job.summary.add_actions(4);
    let usage = Usage::new(1, 2, 3, 4, 5, 1).unwrap();
    job.report(call("c1", MODELS[1], usage));
    let json = serde_json::to_string(&job.summary.block(true)).unwrap();
    assert_eq!(
        json,
        concat!(
            r#"{"total_cost_usd":0.00003795,"action_count":4,"total_tokens":15,"breakdown":[{"model":"claude-haiku-4-5-20251001","#,
            r#""tokens":15,"cost_usd":0.00003795,"input_tokens":1,"output_tokens":5,"cache_read_tokens":2,"cache_write_tokens":7}],"#,
            r#""complete":true,"final":true,"revision":2,"unpriced_models":[]}"#
        )
    );
    assert_eq!(serde_json::from_str::<CostBlock>(&json).unwrap(), job.summary.block(true));
}
