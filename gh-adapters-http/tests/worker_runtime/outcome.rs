//! Events, usage, the point of no return and outcomes when answers are lost.

use std::sync::Arc;
use std::time::Duration;

use gh_adapters_http::worker::{Completion, Event, Failure, TokenCounts, UsageCall};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::control_plane::{Call, Odd, code, start};
use crate::worker::{Handler, ManualHost, Word, config, puppet, run};

fn seqs(batches: &[Call]) -> Vec<u64> {
    let events = |call: &Call| call.body["events"].as_array().cloned().unwrap_or_default();
    let seq = |event: Value| event["worker_seq"].as_u64().unwrap_or(u64::MAX);
    batches.iter().flat_map(events).map(seq).collect()
}

#[tokio::test]
async fn events_arrive_in_order_before_the_outcome_with_step_numbers() {
    let server = start().await;
    let handler = Handler::new(|_, context| async move {
        context.plan(2);
        let step = context.step("Opening");
        context.event(Event::new("thought").detail("step_index", 7));
        step.completed("Opened");
        let recipe = context.recipe("fill");
        recipe.failed("field not found");
        Ok(Completion::new("done"))
    });
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), handler);
    server.plane.wait_for("complete", 1).await;
    let calls = server.plane.all_calls();
    let at = |route: &str| calls.iter().rposition(|call| call.route == route).unwrap();
    assert!(at("events") < at("complete"));
    let batches = server.plane.calls("events");
    assert_eq!(seqs(&batches), [0, 1, 2, 3, 4]);
    let events: Vec<Value> = batches.iter().flat_map(|call| call.body["events"].as_array().unwrap().clone()).collect();
    assert_eq!(events[0]["event_type"], "step_started");
    assert_eq!(events[0]["metadata"]["step_index"], 1);
    assert_eq!(events[0]["metadata"]["total_steps"], 2);
    assert_eq!(events[1]["metadata"]["step_index"], 7, "the handler's own number wins");
    assert_eq!(events[4]["event_type"], "cookbook_step_failed");
    assert_eq!(events[4]["metadata"]["step_index"], 2);
    assert!(events[0]["occurred_at"].as_str().unwrap().ends_with('Z'));
    worker.stop().await;
}

#[tokio::test]
async fn an_event_does_not_wait_for_another() {
    let server = start().await;
    let mut puppet = puppet();
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), puppet.handler.clone());
    puppet.perform(Word::Event).await;
    server.plane.wait_for("events", 1).await;
    puppet.say(Word::Complete);
    server.plane.wait_for("complete", 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn one_batch_is_in_flight_and_a_lost_answer_brings_the_same_events_again() {
    let server = start().await;
    let mut config = config(&server);
    config.limits.request_timeout = Duration::from_millis(300);
    let mut puppet = puppet();
    server.plane.next("events", [Odd::LoseAnswer]);
    server.plane.offer_job(1, json!({}));
    let worker = run(config, puppet.handler.clone());
    puppet.perform(Word::Event).await;
    server.plane.wait_for("events", 1).await;
    puppet.perform(Word::Event).await;
    let batches = server.plane.wait_for("events", 2).await;
    assert_eq!(seqs(&batches[..1]), [0]);
    assert_eq!(seqs(&batches[1..2])[0], 0);
    puppet.say(Word::Complete);
    server.plane.wait_for("complete", 1).await;
    let all = seqs(&server.plane.calls("events")[1..]);
    assert_eq!(all, [0, 1]);
    worker.stop().await;
}

#[tokio::test]
async fn an_outcome_whose_answer_was_lost_is_offered_again_unchanged() {
    let server = start().await;
    let mut config = config(&server);
    config.limits.request_timeout = Duration::from_millis(300);
    let handler = Handler::new(|_, _| async {
        let mut completion = Completion::new("done").data(json!({"confirmation": "X-1"}));
        completion.action_count = Some(4);
        completion.llm_calls = Some(0);
        Ok(completion)
    });
    // The stand-in ends the lease with the first call, so that heartbeats say `lost` meanwhile.
    server.plane.next("complete", [Odd::LoseAnswer, Odd::LoseAnswer]);
    server.plane.offer_job(1, json!({}));
    let worker = run(config, handler);
    let completes = server.plane.wait_for("complete", 3).await;
    let body =
        json!({"result_data": {"confirmation": "X-1"}, "result_summary": "done", "action_count": 4, "llm_calls": 0});
    assert!(completes.iter().all(|call| call.body == body));
    server.plane.wait_for("claim", 2).await;
    assert_eq!(server.plane.calls("complete").len(), 3);
    worker.stop().await;
}

#[tokio::test]
async fn the_first_answer_to_an_outcome_ends_the_offer() {
    let server = start().await;
    server.plane.next("fail", [code(409, "STALE_LEASE")]);
    server.plane.offer_job(1, json!({}));
    let handler = Handler::new(|_, _| async { Err(Failure::new("network_error", "no route").retryable()) });
    let worker = run(config(&server), handler);
    server.plane.wait_for("claim", 2).await;
    let fails = server.plane.calls("fail");
    assert_eq!(fails.len(), 1);
    assert_eq!(fails[0].body, json!({"error_code": "network_error", "error_message": "no route", "retryable": true}));
    worker.stop().await;
}

#[tokio::test]
async fn the_point_of_no_return_is_passed_after_earlier_events_and_only_when_it_is_answered() {
    let server = start().await;
    let mut puppet = puppet();
    server.plane.next("side-effects-started", [code(503, "UNAVAILABLE"), code(500, "INTERNAL_ERROR")]);
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), puppet.handler.clone());
    puppet.perform(Word::Event).await;
    puppet.perform(Word::PassNoReturn).await;
    let calls = server.plane.all_calls();
    let first = |route: &str| calls.iter().position(|call| call.route == route).unwrap();
    assert!(first("events") < first("side-effects-started"));
    assert_eq!(server.plane.calls("side-effects-started").len(), 3);
    puppet.say(Word::Complete);
    server.plane.wait_for("complete", 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn an_answer_that_comes_too_late_to_act_on_is_asked_for_again() {
    let server = start().await;
    let host = Arc::new(ManualHost::default());
    let mut config = config(&server);
    config.host = host.clone();
    let mut puppet = puppet();
    let late = Arc::new(Notify::new());
    server.plane.next("side-effects-started", [Odd::AnswerWhen(late.clone())]);
    server.plane.offer_job(1, json!({}));
    let worker = run(config, puppet.handler.clone());
    puppet.say(Word::PassNoReturn);
    server.plane.wait_for("side-effects-started", 1).await;
    host.advance(2);
    late.notify_one();
    puppet.wait_done().await;
    assert_eq!(server.plane.calls("side-effects-started").len(), 2);
    puppet.say(Word::Complete);
    server.plane.wait_for("complete", 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_refused_point_of_no_return_is_not_passed() {
    let server = start().await;
    let handler = Handler::new(|_, context| async move {
        let refused = context.side_effects_started(None).await;
        assert!(refused.is_err());
        Err(Failure::new("internal_error", "not allowed to act"))
    });
    server.plane.next("side-effects-started", [code(422, "INVALID_REQUEST")]);
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), handler);
    let fail = server.plane.wait_for("fail", 1).await.remove(0);
    assert_eq!(fail.body["error_message"], "not allowed to act");
    worker.stop().await;
}

fn call(id: &str) -> UsageCall {
    UsageCall {
        call_id: id.into(),
        provider: "anthropic".into(),
        model: "claude-haiku-4-5-20251001".into(),
        occurred_at: None,
        usage: Some(TokenCounts::default()),
        provider_usage: None,
        service_tier: None,
        inference_geo: None,
        speed: None,
        web_searches: None,
        claimed_cost_usd: None,
    }
}

#[tokio::test]
async fn usage_is_delivered_even_when_the_job_that_caused_it_was_lost() {
    let server = start().await;
    let handler = Handler::new(|_, context| async move {
        context.usage([call("call-1")]).await?;
        std::future::pending().await
    });
    server.plane.always("usage", Some(code(503, "UNAVAILABLE")));
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), handler.clone());
    server.plane.wait_for("usage", 1).await;
    server.plane.next("heartbeat", [code(409, "STALE_GENERATION")]);
    handler.wait_dropped(1).await;
    server.plane.wait_for("register", 2).await;
    server.plane.wait_for_more("usage", 1).await;
    server.plane.always("usage", None);
    server.plane.wait_for_more("usage", 1).await;
    let last = server.plane.calls("usage").pop().unwrap();
    assert_eq!(last.token, "token-1");
    assert_eq!(last.body["calls"][0]["call_id"], "call-1");
    worker.stop().await;
}

#[tokio::test]
async fn an_outcome_names_the_calls_whose_usage_is_still_to_come() {
    let server = start().await;
    let mut config = config(&server);
    config.limits.usage_patience = Duration::from_millis(20);
    config.limits.farewell = Duration::from_millis(200);
    let handler = Handler::new(|_, context| async move {
        assert!(!context.usage([call("call-1"), call("call-2")]).await?);
        Ok(Completion::new("done"))
    });
    server.plane.always("usage", Some(code(503, "UNAVAILABLE")));
    server.plane.offer_job(1, json!({}));
    let worker = run(config, handler);
    let complete = server.plane.wait_for("complete", 1).await.remove(0);
    assert_eq!(complete.body["calls_in_flight"], json!(["call-1", "call-2"]));
    worker.stop().await;
}
