//! API.md's table "a worker sees / it does", row by row.

use std::time::Duration;

use gh_adapters_http::worker::{Completion, Event, Failure, TokenCounts, UsageCall, WorkerExit};
use serde_json::{Value, json};

use crate::control_plane::{Odd, code, directive, job_id, start};
use crate::worker::{Handler, Word, config, puppet, run};

#[tokio::test]
async fn a_stale_lease_ends_the_job_without_a_further_act_and_the_worker_claims_again() {
    let server = start().await;
    let plane = &server.plane;
    let handler = Handler::new(|_, context| async move {
        context.thought("hm");
        std::future::pending().await
    });
    plane.next("events", [code(409, "STALE_LEASE")]);
    plane.offer_job(1, json!({}));
    let worker = run(config(&server), handler.clone());
    handler.wait_dropped(1).await;
    plane.wait_for("claim", 2).await;
    assert_eq!(plane.generation(), 1);
    for outcome in ["complete", "fail", "release"] {
        assert!(plane.calls(outcome).is_empty());
    }
    assert_eq!(worker.stop().await, WorkerExit::Stopped);
}

#[tokio::test]
async fn a_lease_that_a_heartbeat_calls_lost_ends_the_job() {
    let server = start().await;
    let handler = Handler::endless();
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), handler.clone());
    handler.wait_started(1).await;
    server.plane.take_lease_away();
    handler.wait_dropped(1).await;
    server.plane.wait_for("claim", 2).await;
    assert!(server.plane.calls("fail").is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn after_too_long_a_silence_the_same_boot_registers_again() {
    let server = start().await;
    let handler = Handler::endless();
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), handler.clone());
    handler.wait_started(1).await;
    server.plane.next("heartbeat", [code(409, "STALE_GENERATION")]);
    handler.wait_dropped(1).await;
    let boots = server.plane.wait_for("register", 2).await;
    assert_eq!(boots[0].body["boot_id"], boots[1].body["boot_id"]);
    assert_eq!(boots[1].body["worker_id"], "worker-1");
    server.plane.wait_for_call("claim", |call| call.token == "token-2").await;
    assert_eq!(worker.stop().await, WorkerExit::Stopped);
}

#[tokio::test]
async fn a_process_that_was_replaced_exits_and_is_not_to_be_restarted() {
    let server = start().await;
    let worker = run(config(&server), Handler::quick());
    server.plane.wait_for("heartbeat", 1).await;
    server.plane.always("register", Some(code(410, "WORKER_DEREGISTERED")));
    server.plane.always("heartbeat", Some(code(409, "STALE_GENERATION")));
    let exit = worker.exit().await;
    assert_eq!(exit, WorkerExit::Replaced);
    assert_eq!(exit.code(), 65);
}

#[tokio::test]
async fn deregistration_and_refused_credentials_end_the_job_and_the_process() {
    for refusal in [code(410, "WORKER_DEREGISTERED"), code(401, "UNAUTHENTICATED"), code(403, "NOT_YOUR_WORKER")] {
        let server = start().await;
        let handler = Handler::endless();
        server.plane.offer_job(1, json!({}));
        let worker = run(config(&server), handler.clone());
        handler.wait_started(1).await;
        server.plane.always("heartbeat", Some(refusal));
        let exit = worker.exit().await;
        assert_eq!(exit, WorkerExit::Retired);
        assert_ne!(exit.code(), 0);
        assert_eq!(*handler.dropped.borrow(), 1);
        for outcome in ["complete", "fail", "release", "deregister"] {
            assert!(server.plane.calls(outcome).is_empty(), "{outcome}");
        }
    }
}

#[tokio::test]
async fn a_worker_whose_name_is_held_exits_instead_of_coming_back() {
    let server = start().await;
    server.plane.always("register", Some(code(410, "WORKER_DEREGISTERED")));
    let worker = run(config(&server), Handler::quick());
    assert_eq!(worker.exit().await, WorkerExit::Retired);
    assert_eq!(server.plane.calls("register").len(), 1);
}

#[tokio::test]
async fn a_worker_that_is_not_known_registers_again() {
    let server = start().await;
    let worker = run(config(&server), Handler::quick());
    server.plane.wait_for("claim", 1).await;
    server.plane.next("heartbeat", [code(404, "WORKER_NOT_FOUND")]);
    server.plane.wait_for("register", 2).await;
    server.plane.wait_for_call("heartbeat", |call| call.token == "token-2").await;
    worker.stop().await;
}

#[tokio::test]
async fn a_lease_that_this_process_does_not_know_is_released() {
    let server = start().await;
    let held = json!({"code": "LEASE_HELD", "job_id": job_id(9), "attempt": 4});
    server.plane.next("claim", [Odd::Say(409, held)]);
    let worker = run(config(&server), Handler::quick());
    let release = server.plane.wait_for("release", 1).await.remove(0);
    assert_eq!(release.path, format!("/api/v1/jobs/{}/attempts/4/release", job_id(9)));
    server.plane.wait_for("claim", 2).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_draining_worker_claims_no_more_until_the_drain_is_withdrawn() {
    let server = start().await;
    server.plane.set_draining(true);
    server.plane.next("claim", [code(409, "WORKER_DRAINING")]);
    let worker = run(config(&server), Handler::quick());
    server.plane.wait_for("claim", 1).await;
    server.plane.wait_for_more("heartbeat", 5).await;
    assert_eq!(server.plane.calls("claim").len(), 1);
    server.plane.set_draining(false);
    server.plane.wait_for("claim", 2).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_contested_name_is_asked_for_again_after_the_time_named() {
    let server = start().await;
    let contested = json!({"code": "WORKER_ID_CONTESTED"});
    server.plane.next("register", [Odd::SayRetryAfter(409, contested, 1)]);
    let worker = run(config(&server), Handler::quick());
    server.plane.wait_for("register", 1).await;
    let second = tokio::time::timeout(Duration::from_millis(900), server.plane.wait_for("register", 2));
    assert!(second.await.is_err(), "asked again too soon");
    server.plane.wait_for("claim", 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn an_outcome_of_a_paused_job_waits_for_resume_job() {
    let server = start().await;
    server.plane.next("complete", [code(409, "JOB_PAUSED")]);
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), Handler::quick());
    server.plane.wait_for("complete", 1).await;
    server.plane.wait_for_more("heartbeat", 5).await;
    assert_eq!(server.plane.calls("complete").len(), 1);
    server.plane.stream(directive(1, "resume_job", 1, Some(1))).await;
    server.plane.wait_for("complete", 2).await;
    server.plane.wait_for("claim", 2).await;
    worker.stop().await;
}

fn call(id: &str) -> UsageCall {
    UsageCall {
        call_id: id.into(),
        provider: "anthropic".into(),
        model: "claude-haiku-4-5-20251001".into(),
        occurred_at: None,
        usage: Some(TokenCounts { input: 10, output: 5, ..TokenCounts::default() }),
        provider_usage: None,
        service_tier: None,
        inference_geo: None,
        speed: None,
        web_searches: None,
        claimed_cost_usd: Some("0.0062".parse().expect("an amount")),
    }
}

#[tokio::test]
async fn when_spending_is_stopped_a_job_before_its_point_of_no_return_ends() {
    let stop = Odd::Say(200, json!({"results": [], "stop": true}));
    for answer in [stop, code(409, "BUDGET_EXCEEDED"), code(409, "MODEL_UNPRICED")] {
        let server = start().await;
        let handler = Handler::new(|_, context| async move {
            context.usage([call("call-1")]).await?;
            std::future::pending().await
        });
        server.plane.next("usage", [answer]);
        server.plane.offer_job(1, json!({}));
        let worker = run(config(&server), handler.clone());
        handler.wait_dropped(1).await;
        let fail = server.plane.wait_for("fail", 1).await.remove(0);
        assert_eq!(fail.body["error_code"], "budget_exceeded");
        assert_eq!(fail.body["retryable"], false);
        server.plane.wait_for("claim", 2).await;
        worker.stop().await;
    }
}

#[tokio::test]
async fn when_spending_is_stopped_a_job_past_its_point_of_no_return_goes_on_without_llm_calls() {
    let server = start().await;
    let handler = Handler::new(|_, context| async move {
        context.side_effects_started(None).await?;
        let stopped = context.usage([call("call-1")]).await?;
        assert!(stopped && context.spending_stopped());
        Ok(Completion::new("submitted"))
    });
    server.plane.next("usage", [Odd::Say(200, json!({"results": [], "stop": true}))]);
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), handler);
    let complete = server.plane.wait_for("complete", 1).await.remove(0);
    assert_eq!(complete.body["result_summary"], "submitted");
    let usage = server.plane.calls("usage").remove(0);
    assert_eq!(usage.body["calls"][0]["claimed_cost_usd"], json!(0.0062));
    assert_eq!(usage.body["calls"][0]["usage"]["input"], 10);
    worker.stop().await;
}

#[tokio::test]
async fn a_rejected_report_is_dropped_and_the_job_goes_on() {
    for status in [404, 413, 422] {
        let server = start().await;
        let mut puppet = puppet();
        server.plane.next("events", [code(status, "INVALID_REQUEST")]);
        server.plane.offer_job(1, json!({}));
        let worker = run(config(&server), puppet.handler.clone());
        puppet.perform(Word::Event).await;
        server.plane.wait_for("events", 1).await;
        puppet.perform(Word::Event).await;
        let batches = server.plane.wait_for("events", 2).await;
        assert_eq!(batches[1].body["events"][0]["worker_seq"], 1);
        puppet.say(Word::Complete);
        server.plane.wait_for("complete", 1).await;
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_rejected_outcome_is_sent_once_more_in_its_bare_form() {
    let server = start().await;
    let handler = Handler::new(|job, _| async move {
        if job.job.job_id.to_string() == job_id(1) {
            Ok(Completion::new("done").data(json!({"odd": true})))
        } else {
            Err(Failure::new("not a code", "it\u{0}failed"))
        }
    });
    let refused = || code(422, "INVALID_REQUEST");
    server.plane.next("complete", [refused(), refused()]);
    server.plane.next("fail", [refused()]);
    server.plane.offer_job(1, json!({}));
    server.plane.offer_job(2, json!({}));
    let worker = run(config(&server), handler);
    let fails = server.plane.wait_for("fail", 2).await;
    let completes = server.plane.calls("complete");
    assert_eq!(completes.len(), 2);
    assert_eq!(completes[0].body["result_data"], json!({"odd": true}));
    assert_eq!(completes[1].body, json!({}));
    let bare = json!({"error_code": "internal_error", "error_message": "itfailed", "retryable": false});
    assert_eq!(fails[1].body, bare);
    worker.stop().await;
}

#[tokio::test]
async fn what_is_not_answered_is_repeated_in_order_and_as_it_was() {
    let server = start().await;
    let handler = Handler::new(|_, context| async move {
        for number in 0..3 {
            context.event(Event::new("thought").detail("number", number));
        }
        Ok(Completion::new("done"))
    });
    let odd = || {
        [
            code(408, "REQUEST_TIMEOUT"),
            code(429, "RATE_LIMITED"),
            code(500, "INTERNAL_ERROR"),
            code(503, "UNAVAILABLE"),
            Odd::Say(502, json!("<html>")),
        ]
    };
    for route in ["register", "claim", "events", "complete", "heartbeat"] {
        server.plane.next(route, odd());
    }
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), handler);
    let completes = server.plane.wait_for("complete", 6).await;
    assert!(completes.iter().all(|call| call.body == completes[0].body));
    let batches = server.plane.calls("events");
    let numbers = |batch: &Value| -> Vec<Value> {
        let events = batch["events"].as_array().expect("a list");
        events.iter().map(|event| event["worker_seq"].clone()).collect()
    };
    assert!(batches.len() >= 6);
    for batch in &batches {
        assert_eq!(numbers(&batch.body), [0, 1, 2]);
    }
    let boots = server.plane.calls("register");
    assert_eq!(boots.len(), 6);
    assert!(boots.iter().all(|call| call.body == boots[0].body));
    worker.stop().await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let server = start().await;
    let busy = Odd::SayRetryAfter(503, json!({"code": "UNAVAILABLE"}), 1);
    server.plane.next("complete", [busy]);
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), Handler::quick());
    server.plane.wait_for("complete", 1).await;
    let second = tokio::time::timeout(Duration::from_millis(900), server.plane.wait_for("complete", 2));
    assert!(second.await.is_err(), "repeated too soon");
    server.plane.wait_for("complete", 2).await;
    worker.stop().await;
}
