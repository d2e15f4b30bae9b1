//! The exact price of one call of a language model.

use std::hint::black_box;

use criterion::Criterion;
use gh_core::domain::cost::{CallReport, PriceBook, price};
use gh_core::domain::time::Timestamp;

/// What is priced: a model by its very name, one with all that changes a rate, and one whose name the table does not have
/// as it stands.
const CALLS: [(&str, &str); 3] = [
    (
        "plain",
        r#""provider": "anthropic", "model": "claude-haiku-4-5-20251001", "usage": {"input": 2463, "output": 747}"#,
    ),
    (
        "cached_long_context",
        r#""provider": "anthropic", "model": "claude-sonnet-4-20250514", "web_searches": 2,
           "usage": {"input": 2100, "cache_read": 220000, "cache_write_5m": 4000, "output": 822}"#,
    ),
    (
        "undated_name",
        r#""provider": "bedrock", "model": "us.anthropic.claude-sonnet-5-20260801-v1:0", "usage": {"input": 2463, "output": 747}"#,
    ),
];

pub(crate) fn benches(criterion: &mut Criterion) {
    let book = PriceBook::embedded();
    let at = Timestamp::parse("2026-11-23T08:00:00Z").expect("a time");
    let mut group = criterion.benchmark_group("price");
    for (label, call) in CALLS {
        let call = serde_json::from_str(&format!(r#"{{"call_id": "call-1", {call}}}"#)).expect("a call");
        let call = CallReport::new(call).expect("in order");
        assert!(price(&call, &book, at).is_ok(), "{label} has a price");
        group.bench_function(label, |bencher| bencher.iter(|| price(black_box(&call), &book, at)));
    }
    group.finish();
}
