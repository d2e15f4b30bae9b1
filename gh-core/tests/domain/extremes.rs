//! Values that are allowed, but that nobody sensible sends.

use gh_core::domain::commands::{EventReport, ReportEvents, ReportUsage};
use gh_core::domain::cost::{CallReport, ReportedCall};
use gh_core::domain::ids::Attempt;
use gh_core::testing::submission;
use serde_json::value::RawValue;

use crate::world::World;

#[test]
fn the_greatest_budget_there_is_can_be_spent_from() {
    let mut world = World::new();
    let who = world.worker("worker-a", None);
    let mut request = submission();
    request.budget_usd = "79228162514264337593543950335".parse().ok();
    let job_id = world.submit(request).id;
    world.dispatch();
    let call: ReportedCall = serde_json::from_str(
        r#"{"call_id": "c1", "provider": "anthropic", "model": "claude-haiku-4-5-20251001", "usage": {"input": 2100}}"#,
    )
    .unwrap();
    let calls = vec![CallReport::new(call).unwrap()];
    let (answer, changes) = world.run(&ReportUsage { who, job_id, attempt: Attempt::FIRST, calls });
    assert!(!answer.unwrap().stop);
    assert_eq!(changes.job_events().len(), 1, "no warning");
}

#[test]
fn an_event_whose_metadata_has_a_key_that_is_no_text_can_be_read_back() {
    let mut world = World::new();
    let who = world.worker("worker-a", None);
    let job_id = world.submit(submission()).id;
    world.dispatch();
    let event = EventReport {
        event_type: "step_started".into(),
        message: None,
        metadata: RawValue::from_string(r#"{"\ud800": 1}"#.into()).ok(),
        occurred_at: None,
        worker_seq: None,
    };
    assert!(event.metadata.is_some(), "it is valid JSON");
    let (answer, changes) = world.run(&ReportEvents { who, job_id, attempt: Attempt::FIRST, events: vec![event] });
    assert!(answer.is_ok());
    let written = serde_json::to_string(&changes.job_events()[0].metadata).unwrap();
    assert!(written.contains(r#""truncated":true"#), "{written}");
}
