//! The public vectors: every call and every job costs what an independent computation says, to the last digit.

#![expect(clippy::unwrap_used, reason = "a helper that fails must fail its test")]

mod cost_support;

use std::collections::BTreeMap;

use cost_support::{Job, now};
use gh_core::domain::cost::{CallReport, Outcome, PriceBook, ReportedCall, Rule, ServiceTier, UsageCounts, price};
use gh_core::domain::time::Timestamp;
use gh_core::domain::usd::Usd;
use rust_decimal::Decimal;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
    job_vectors: Vec<JobVector>,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    provider: String,
    model: String,
    usage: UsageCounts,
    service_tier: ServiceTier,
    at: Option<Timestamp>,
    multipliers: Vec<String>,
    tier_applied: Option<u64>,
    expected_usd: String,
    parts: BTreeMap<String, String>,
    price_source: String,
}

#[derive(Deserialize)]
struct JobVector {
    id: String,
    #[serde(default)]
    calls: Vec<String>,
    #[serde(default)]
    reports: Vec<Report>,
    expected_total_usd: Option<String>,
    expected_breakdown: Option<BTreeMap<String, String>>,
    expected_known_usd: Option<String>,
    expected_unpriced_calls: Option<u64>,
    expected_cost_complete: Option<bool>,
    expected_terminal_usd: Option<String>,
    expected_final_usd: Option<String>,
}

#[derive(Deserialize)]
struct Report {
    call_id: String,
    vector: Option<String>,
    model: Option<String>,
    usage: Option<UsageCounts>,
}

impl Vectors {
    fn load() -> Self {
        serde_json::from_str(include_str!("data/cost_vectors.json")).unwrap()
    }

    fn call(&self, id: &str) -> ReportedCall {
        let vector = self.vectors.iter().find(|vector| vector.id == id);
        vector.unwrap_or_else(|| panic!("no vector {id}")).call()
    }

    fn job(&self, id: &str) -> &JobVector {
        self.job_vectors.iter().find(|job| job.id == id).unwrap()
    }
}

impl Vector {
    /// The vector as a worker would report it.
    fn call(&self) -> ReportedCall {
        let named =
            |prefix: &str| self.multipliers.iter().find_map(|name| name.strip_prefix(prefix)).map(str::to_owned);
        ReportedCall {
            call_id: self.id.clone(),
            provider: self.provider.clone(),
            model: self.model.clone(),
            usage: self.usage.clone(),
            occurred_at: self.at,
            service_tier: Some(self.service_tier),
            inference_geo: named("inference_geo_").or_else(|| named("data_residency_")),
            speed: named("speed_"),
            web_searches: None,
            claimed_cost_usd: None,
        }
    }
}

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

#[test]
fn every_call_costs_exactly_what_the_vector_says() {
    let vectors = Vectors::load();
    assert_eq!(vectors.vectors.len(), 21);
    for vector in &vectors.vectors {
        let call = CallReport::new(vector.call()).unwrap();
        let at = vector.at.unwrap_or_else(now);
        let priced = price(&call, &PriceBook::embedded(), at).unwrap();
        let id = &vector.id;
        assert_eq!(priced.cost.to_string(), vector.expected_usd, "{id}");
        assert_eq!(priced.rule, Rule::Exact, "{id}");
        assert_eq!(priced.explanation.tier_applied(), vector.tier_applied, "{id}");
        let parts: BTreeMap<_, _> =
            priced.explanation.parts.iter().map(|part| (part.bucket.to_string(), part.cost.to_string())).collect();
        assert_eq!(parts, vector.parts, "{id}");
        let version = vector.price_source.rsplit('v').next().unwrap();
        let price_id = format!("{}/{}@{version}", vector.provider, vector.model);
        assert_eq!(*priced.price_id, *price_id, "{id}");
    }
}

#[test]
fn j1_a_job_costs_the_exact_sum_of_its_calls() {
    let vectors = Vectors::load();
    let expected = vectors.job("j1");
    let mut job = Job::default();
    for id in &expected.calls {
        assert_eq!(job.report(vectors.call(id)), Outcome::Recorded, "{id}");
    }
    let block = job.summary.block(true);
    assert_eq!(Some(block.total_cost_usd.to_string()), expected.expected_total_usd);
    let breakdown: BTreeMap<_, _> =
        block.breakdown.iter().map(|line| (line.model.to_string(), line.cost_usd.to_string())).collect();
    assert_eq!(Some(breakdown), expected.expected_breakdown);
    assert!(block.complete);
}

#[test]
fn j3_a_call_reported_twice_counts_once() {
    let vectors = Vectors::load();
    let expected = vectors.job("j3");
    let mut job = Job::default();
    let outcomes: Vec<_> = expected
        .reports
        .iter()
        .map(|report| {
            let call_id = report.call_id.clone();
            let call = vectors.call(report.vector.as_ref().unwrap());
            job.report(ReportedCall { call_id, ..call })
        })
        .collect();
    assert_eq!(outcomes, [Outcome::Recorded, Outcome::Unchanged]);
    assert_eq!(Some(job.summary.total_cost_usd().to_string()), expected.expected_total_usd);
    assert_eq!(job.summary.revision(), 1);
}

#[test]
fn j5_an_unknown_model_makes_the_total_incomplete_and_is_never_free() {
    let vectors = Vectors::load();
    let expected = vectors.job("j5");
    let mut job = Job::default();
    for report in &expected.reports {
        let mut call = vectors.call(report.vector.as_deref().unwrap_or("v08"));
        call.call_id.clone_from(&report.call_id);
        if let (Some(model), Some(usage)) = (&report.model, &report.usage) {
            call.model.clone_from(model);
            call.usage.clone_from(usage);
            assert_eq!(job.report(call), Outcome::Unpriced);
        } else {
            assert_eq!(job.report(call), Outcome::Recorded);
        }
    }
    let block = job.summary.block(true);
    assert_eq!(Some(block.total_cost_usd.to_string()), expected.expected_known_usd);
    assert_eq!(Some(job.summary.unpriced_calls()), expected.expected_unpriced_calls);
    assert_eq!(Some(block.complete), expected.expected_cost_complete);
    assert_eq!(block.unpriced_models, ["acme-model-9".into()]);
    assert_eq!(block.total_tokens, 2100 + 1130 + 110);
}

#[test]
fn j7_late_usage_raises_the_total_and_the_revision() {
    let vectors = Vectors::load();
    let expected = vectors.job("j7");
    let mut job = Job::default();
    job.report(vectors.call("v08"));
    let terminal = job.summary.block(true);
    assert_eq!(Some(terminal.total_cost_usd.to_string()), expected.expected_terminal_usd);
    assert_eq!(expected.calls, ["v08", "v10 (late)"]);
    job.report(vectors.call("v10"));
    let follow_up = job.summary.block(true);
    assert_eq!(Some(follow_up.total_cost_usd.to_string()), expected.expected_final_usd);
    assert!(follow_up.revision > terminal.revision);
}

#[test]
fn a_thousand_tiny_calls_are_not_rounded_away() {
    let vectors = Vectors::load();
    let mut job = Job::default();
    for number in 0..1000 {
        let call_id = format!("call-{number}");
        job.report(ReportedCall { call_id, ..vectors.call("v10") });
    }
    assert_eq!(job.summary.total_cost_usd(), usd("0.006"));
}

#[test]
fn what_the_explanation_says_adds_up_to_the_cost() {
    for vector in Vectors::load().vectors {
        let call = CallReport::new(vector.call()).unwrap();
        let priced = price(&call, &PriceBook::embedded(), vector.at.unwrap_or_else(now)).unwrap();
        let recomputed: Decimal = priced
            .explanation
            .parts
            .iter()
            .map(|part| Decimal::from(part.tokens) * part.rate / Decimal::from(1_000_000))
            .sum();
        assert_eq!(Usd::new(recomputed), priced.cost, "{}", vector.id);
    }
}
