//! Tiers, service tiers, caches, hours, places and speeds: which rate a token gets.

#![expect(clippy::unwrap_used, reason = "a helper that fails must fail its test")]

use gh_core::domain::cost::{CallReport, PriceBook, Priced, ReportedCall, Unpriced, price};
use gh_core::domain::time::Timestamp;

const MONDAY_PEAK: &str = "2026-11-23T08:00:00Z";

/// A call from the fields that follow `call_id`, priced by the embedded table.
fn priced_at(call: &str, at: &str) -> Result<Priced, Unpriced> {
    priced_by(&PriceBook::embedded(), call, at)
}

fn priced_by(book: &PriceBook, call: &str, at: &str) -> Result<Priced, Unpriced> {
    let call: ReportedCall = serde_json::from_str(&format!(r#"{{"call_id": "c1", {call}}}"#)).unwrap();
    let call = CallReport::new(call).unwrap();
    price(&call, book, Timestamp::parse(at).unwrap())
}

fn cost(call: &str) -> String {
    priced_at(call, MONDAY_PEAK).unwrap().cost.to_string()
}

fn book(entry: &str) -> PriceBook {
    let json = format!(
        r#"{{"format": 1, "currency": "USD", "models": [{{"provider": "acme", "model": "m", "source": "list v1", {entry}}}]}}"#
    );
    PriceBook::from_json(&json).unwrap()
}

fn acme(entry: &str, call: &str) -> String {
    let call = format!(r#""provider": "acme", "model": "m", {call}"#);
    priced_by(&book(entry), &call, MONDAY_PEAK).unwrap().cost.to_string()
}

#[test]
fn a_tier_begins_one_token_above_its_threshold_and_holds_for_the_whole_call() {
    let sonnet = |input: u32, cache_read: u32| {
        cost(&format!(
            r#""provider": "anthropic", "model": "claude-sonnet-4-20250514",
               "usage": {{"input": {input}, "cache_read": {cache_read}, "output": 1000}}"#
        ))
    };
    assert_eq!(sonnet(200_000, 0), "0.615");
    assert_eq!(sonnet(200_001, 0), "1.222506");
    assert_eq!(sonnet(1, 200_000), "0.142506");
}

#[test]
fn an_inclusive_tier_begins_at_its_threshold() {
    let grok = |input: u32| cost(&format!(r#""provider": "xai", "model": "grok-4.3", "usage": {{"input": {input}}}"#));
    assert_eq!(grok(199_999), "0.24999875");
    assert_eq!(grok(200_000), "0.5");
}

#[test]
fn the_highest_passed_of_several_tiers_holds() {
    let qwen = |input: u32| {
        cost(&format!(r#""provider": "dashscope", "model": "qwen3-coder-plus", "usage": {{"input": {input}}}"#))
    };
    assert_eq!(qwen(32_000), "0.032");
    assert_eq!(qwen(32_001), "0.0576018");
    assert_eq!(qwen(128_001), "0.384003");
    assert_eq!(qwen(256_001), "1.536006");
}

#[test]
fn a_rate_that_a_tier_does_not_state_is_the_base_rate_of_the_same_kind() {
    let call = r#""provider": "anthropic", "model": "claude-sonnet-4-20250514", "usage": {"input": 200000, "cache_write_1h": 1000}"#;
    assert_eq!(cost(call), "1.206");
}

#[test]
fn a_service_tier_has_its_own_rates_and_tiers_and_else_the_base_rates() {
    let gemini = |service_tier: &str, input: u32| {
        cost(&format!(
            r#""provider": "gemini", "model": "gemini-2.5-pro", "service_tier": "{service_tier}", "usage": {{"input": {input}}}"#
        ))
    };
    assert_eq!(gemini("standard", 200_001), "0.5000025");
    assert_eq!(gemini("batch", 200_000), "0.125");
    assert_eq!(gemini("batch", 200_001), "0.25000125");
    assert_eq!(gemini("priority", 200_001), "0.9000045");
    // Flex has no long-context tier in the table: its rate is for any length.
    assert_eq!(gemini("flex", 200_001), "0.125000625");
    let haiku_has_no_priority = r#""provider": "anthropic", "model": "claude-haiku-4-5", "service_tier": "priority", "usage": {"input": 1000000}"#;
    assert_eq!(cost(haiku_has_no_priority), "1");
    let batch_without_cache_rate = r#""provider": "bedrock", "model": "anthropic.claude-haiku-4-5-20251001-v1:0", "service_tier": "batch", "usage": {"cache_read": 1000000}"#;
    assert_eq!(cost(batch_without_cache_rate), "0.1");
}

#[test]
fn missing_cache_rates_follow_the_input_rate_that_holds_for_the_call() {
    let entry = r#""input": "2", "output": "4", "tiers": [{"above_input_tokens": 1000000, "input": "3"}]"#;
    let usage = |bucket: &str, tokens: u32| format!(r#""usage": {{"{bucket}": {tokens}}}"#);
    for bucket in ["input", "cache_read", "cache_write_5m", "cache_write_1h"] {
        assert_eq!(acme(entry, &usage(bucket, 1_000_000)), "2", "{bucket}");
        assert_eq!(acme(entry, &usage(bucket, 2_000_000)), "6", "{bucket}");
    }
    let written = r#""input": "2", "output": "4", "cache_write_5m": "2.5""#;
    assert_eq!(acme(written, &usage("cache_write_1h", 1_000_000)), "2.5");
}

#[test]
fn an_hour_in_the_cache_costs_anthropic_users_twice_the_input_rate_unless_the_table_says_otherwise() {
    let stated = r#""provider": "anthropic", "model": "claude-haiku-4-5", "usage": {"cache_write_1h": 1000000}"#;
    assert_eq!(cost(stated), "2");
    let book = PriceBook::embedded();
    let unstated = book
        .prices()
        .filter(|price| matches!(price.provider(), "anthropic" | "bedrock" | "vertex_ai"))
        .find(|price| price.base().rates().get(gh_core::domain::cost::Bucket::CacheWrite1h).is_none())
        .unwrap();
    let call = format!(
        r#""provider": "{}", "model": "{}", "usage": {{"cache_write_1h": 1000}}"#,
        unstated.provider(),
        unstated.model()
    );
    let doubled = priced_at(&call, MONDAY_PEAK).unwrap();
    assert_eq!(doubled.explanation.parts[0].rate, unstated.input() + unstated.input());
}

#[test]
fn an_explicit_zero_is_a_price() {
    let entry = r#""input": "0", "output": "0", "cache_read": "0""#;
    assert_eq!(acme(entry, r#""usage": {"input": 1000000, "cache_read": 5, "output": 7}"#), "0");
    let deepseek = r#""provider": "deepseek", "model": "deepseek-v4-flash", "usage": {"cache_write_5m": 1000000}"#;
    assert_eq!(cost(deepseek), "0");
}

#[test]
fn reasoning_is_inside_the_output_and_has_its_own_rate_only_where_the_table_gives_one() {
    let call = |model: &str| {
        cost(&format!(
            r#""provider": "dashscope", "model": "{model}", "usage": {{"output": 1000000, "reasoning": 250000}}"#
        ))
    };
    assert_eq!(call("qwen-plus-2025-07-28"), "1.9");
    assert_eq!(call("qwen3-coder-plus"), "5");
}

#[test]
fn off_peak_rates_hold_in_their_hours_in_utc() {
    let call = r#""provider": "deepseek", "model": "deepseek-v4-flash", "usage": {"output": 1000000}"#;
    for (at, expected) in [
        ("2026-11-23T08:00:00Z", "1.2"),
        ("2026-11-23T09:59:59.999999Z", "1.2"),
        ("2026-11-23T10:00:00Z", "0.6"),
        ("2026-11-23T23:59:59Z", "0.6"),
        ("2026-11-24T00:59:59Z", "0.6"),
        ("2026-11-24T01:00:00Z", "1.2"),
        ("2026-11-24T04:00:00+02:00", "1.2"),
        ("2026-11-24T06:00:00+02:00", "0.6"),
        ("2026-11-21T08:00:00Z", "0.6"),
        ("2026-11-22T08:00:00Z", "0.6"),
    ] {
        let priced = priced_at(call, at).unwrap();
        assert_eq!(priced.cost.to_string(), expected, "{at}");
        assert_eq!(priced.explanation.off_peak, expected == "0.6", "{at}");
    }
}

#[test]
fn places_and_speeds_multiply_the_tokens_where_the_call_names_them() {
    let opus = |extra: &str| {
        cost(&format!(r#""provider": "anthropic", "model": "claude-opus-5", "usage": {{"input": 1000000}}{extra}"#))
    };
    assert_eq!(opus(""), "5");
    assert_eq!(opus(r#", "inference_geo": "us""#), "5.5");
    assert_eq!(opus(r#", "inference_geo": "global""#), "5");
    assert_eq!(opus(r#", "speed": "fast""#), "10");
    assert_eq!(opus(r#", "speed": "standard""#), "5");
    assert_eq!(opus(r#", "inference_geo": "us", "speed": "fast""#), "11");
    assert_eq!(opus(r#", "inference_geo": "us", "web_searches": 2"#), "5.52");

    let vertex = |place: &str| {
        cost(&format!(
            r#""provider": "vertex_ai", "model": "claude-opus-5", "inference_geo": "{place}", "usage": {{"input": 1000000}}"#
        ))
    };
    assert_eq!(vertex("global"), "5");
    assert_eq!(vertex("us-east5"), "5.5");
    let resident = r#""provider": "openai", "model": "gpt-5.4", "inference_geo": "eu", "usage": {"input": 100000}"#;
    assert_eq!(cost(resident), "0.275");
}

#[test]
fn what_has_no_price_is_never_free() {
    let unknown = r#""provider": "anthropic", "model": "claude-nonexistent-9", "usage": {}"#;
    assert_eq!(priced_at(unknown, MONDAY_PEAK), Err(Unpriced::Model));
    let call = r#""provider": "acme", "model": "m", "web_searches": 1, "usage": {}"#;
    let book = book(r#""input": "1", "output": "1""#);
    assert_eq!(priced_by(&book, call, MONDAY_PEAK), Err(Unpriced::WebSearch));
}

#[test]
fn the_greatest_call_keeps_its_last_digit() {
    let entry = r#""input": "10000", "output": "9999.999999", "cache_read": "9999.999999", "web_search_per_request": "0.000001",
                   "multipliers": {"inference_geo_us": "9.9", "speed_fast": "9.9"}"#;
    let call = r#""usage": {"input": 1000000000, "cache_read": 1000000000, "cache_write_5m": 1000000000,
                            "cache_write_1h": 1000000000, "output": 999999999},
                  "inference_geo": "us", "speed": "fast", "web_searches": 1"#;
    // (3 × 10¹³ + 9999.999999 × 1999999999) ÷ 10⁶ × 98.01 + 0.000001
    assert_eq!(acme(entry, call), "4900499998.82388100009801");
}

#[test]
fn the_arithmetic_is_told_in_words() {
    let words = |call: &str| priced_at(call, MONDAY_PEAK).unwrap().explanation.to_string();
    assert_eq!(
        words(
            r#""provider": "anthropic", "model": "claude-haiku-4-5-20251001", "usage": {"input": 2463, "cache_read": 20, "output": 747}"#
        ),
        "2463 input × $1/1M + 20 cache read × $0.1/1M + 747 output × $5/1M = $0.0062"
    );
    assert_eq!(
        words(
            r#""provider": "anthropic", "model": "claude-haiku-5-5", "inference_geo": "us", "web_searches": 1, "service_tier": "batch", "usage": {"input": 100001}"#
        ),
        "(100001 input × $0.25/1M) × 1.1 (inference_geo_us) + 1 web searches × $0.01 = $0.037500275; batch rates; long-context rates from 100000 input tokens"
    );
    assert_eq!(words(r#""provider": "anthropic", "model": "claude-haiku-4-5", "usage": {}"#), "no tokens = $0");
}
