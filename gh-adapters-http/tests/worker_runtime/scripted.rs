//! The scripted worker over real HTTP.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gh_adapters_http::worker::ScriptedHandler;
use serde_json::{Value, json};

use crate::control_plane::{Running, start};
use crate::worker::{config, run};

async fn perform(input_data: Value, outcome: &str) -> (Running, Value) {
    let server = start().await;
    server.plane.offer_job(1, input_data);
    let handler = Arc::new(ScriptedHandler::new(Duration::from_millis(1)));
    let worker = run(config(&server), handler);
    let ended = server.plane.wait_for(outcome, 1).await.remove(0);
    worker.stop().await;
    (server, ended.body)
}

fn events(server: &Running) -> Vec<Value> {
    let batches = server.plane.calls("events");
    let list = |call: &crate::control_plane::Call| call.body["events"].as_array().cloned();
    batches.iter().filter_map(list).flatten().collect()
}

#[tokio::test]
async fn a_script_is_performed_step_by_step_and_reports_what_it_says_as_it_stands() {
    let usage = json!({"call_id": "c-1", "provider": "anthropic", "model": "claude-sonnet-4-20250514",
        "usage": {"input": 2463, "output": 747}, "claimed_cost_usd": 0.018594, "made_up": true});
    let script = json!([
        {"event": {"event_type": "thought", "message": "hm", "metadata": {"depth": 3}}},
        {"usage": usage},
        {"sleep_ms": 1},
        {"side_effects_started": true},
        {"event": {"event_type": "my_own_kind"}},
        {"complete": {"result_summary": "as written", "result_data": {"n": 1}, "action_count": 3, "llm_calls": 1}},
        {"event": {"event_type": "never_reached"}},
    ]);
    let (server, complete) = perform(json!({"script": script}), "complete").await;
    assert_eq!(
        complete,
        json!({"result_summary": "as written", "result_data": {"n": 1}, "action_count": 3, "llm_calls": 1})
    );
    let types: Vec<_> = events(&server).iter().map(|event| event["event_type"].clone()).collect();
    assert_eq!(types, ["thought", "my_own_kind"]);
    assert_eq!(server.plane.calls("usage")[0].body, json!({"calls": [usage]}));
    assert_eq!(server.plane.calls("side-effects-started").len(), 1);
}

#[tokio::test]
async fn a_script_can_fail() {
    let script = json!([{"fail": {"error_code": "login_required", "error_message": "no session", "retryable": true}}]);
    let (_, fail) = perform(json!({"script": script}), "fail").await;
    assert_eq!(fail, json!({"error_code": "login_required", "error_message": "no session", "retryable": true}));
}

#[tokio::test]
async fn a_malformed_script_fails_the_job_before_anything_is_done() {
    let script = json!([{"event": {"event_type": "thought"}}, {"jump": 3}]);
    let (server, fail) = perform(json!({"script": script}), "fail").await;
    assert_eq!(fail["error_code"], "validation_error");
    assert_eq!(fail["retryable"], false);
    let message = fail["error_message"].as_str().unwrap();
    assert!(message.contains("script[1]") && message.contains("jump"), "{message}");
    assert!(events(&server).is_empty());
}

#[tokio::test]
async fn without_a_script_an_application_with_every_kind_of_event_is_played() {
    let (server, complete) = perform(json!({"resume": "…"}), "complete").await;
    assert_eq!(complete["result_summary"], "Application submitted successfully");
    assert_eq!(complete["action_count"], 4);
    let events = events(&server);
    let types: BTreeSet<_> = events.iter().filter_map(|event| event["event_type"].as_str()).collect();
    // REQUIREMENTS.md §7 without what the server writes and what needs a human.
    for kind in [
        "step_started",
        "step_completed",
        "cookbook_step_started",
        "cookbook_step_completed",
        "cookbook_step_failed",
        "thought",
        "observation_started",
        "observation_completed",
        "mode_switched",
        "progress_update",
    ] {
        assert!(types.contains(kind), "{kind}");
    }
    let kinds: Vec<_> = events.iter().filter_map(|event| event["event_type"].as_str()).collect();
    let failed = kinds.iter().position(|kind| *kind == "cookbook_step_failed").unwrap();
    assert_eq!(kinds[failed + 1], "mode_switched");
    let switched = &events[failed + 1]["metadata"];
    assert_eq!(switched["fromMode"], "cookbook");
    assert_eq!(switched["toMode"], "ai");
    assert!(events.iter().all(|event| event["metadata"]["total_steps"] == 6));
    let models: BTreeSet<_> =
        server.plane.calls("usage").iter().map(|call| call.body["calls"][0]["model"].to_string()).collect();
    assert_eq!(models.len(), 2);
    let calls = server.plane.all_calls();
    let passed = calls.iter().position(|call| call.route == "side-effects-started").unwrap();
    let pressed = calls.iter().position(|call| call.body.to_string().contains("Submit button pressed")).unwrap();
    assert!(passed < pressed);
}
