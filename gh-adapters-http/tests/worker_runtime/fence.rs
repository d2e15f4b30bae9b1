//! Freeze and thaw, and what the point of no return changes about them.

use std::sync::Arc;

use gh_adapters_http::worker::WorkerExit;
use serde_json::json;
use tokio::sync::Notify;

use crate::control_plane::{Odd, Running, code, directive, start};
use crate::worker::{Live, ManualHost, Puppet, Word, config, puppet, run};

struct Scene {
    server: Running,
    host: Arc<ManualHost>,
    puppet: Puppet,
    worker: Live,
}

/// A worker with a job that has been confirmed by a heartbeat, under a clock that stands still.
async fn working() -> Scene {
    let server = start().await;
    let host = Arc::new(ManualHost::default());
    let mut puppet = puppet();
    server.plane.offer_job(1, json!({}));
    let mut config = config(&server);
    config.host = host.clone();
    let worker = run(config, puppet.handler.clone());
    puppet.perform(Word::Checkpoint).await;
    server.plane.wait_for_more("heartbeat", 2).await;
    Scene { server, host, puppet, worker }
}

fn away() -> Odd {
    code(503, "UNAVAILABLE")
}

#[tokio::test]
async fn without_held_for_fifteen_seconds_a_job_freezes_and_held_thaws_it() {
    let mut scene = working().await;
    let plane = &scene.server.plane;
    plane.always("heartbeat", Some(away()));
    plane.wait_for_more("heartbeat", 2).await;
    scene.host.advance(14);
    scene.puppet.perform(Word::Checkpoint).await;
    scene.host.advance(1);
    assert!(scene.puppet.is_frozen().await);
    scene.puppet.say(Word::Checkpoint);
    plane.wait_for_more("heartbeat", 3).await;
    assert!(scene.puppet.done.try_recv().is_err(), "it acted while frozen");
    plane.always("heartbeat", None);
    scene.puppet.wait_done().await;
    assert!(!scene.puppet.is_frozen().await);
    scene.puppet.say(Word::Complete);
    plane.wait_for("complete", 1).await;
    assert_eq!(scene.worker.stop().await, WorkerExit::Stopped);
}

#[tokio::test]
async fn only_held_counts_and_no_other_answer() {
    let mut scene = working().await;
    let plane = &scene.server.plane;
    let shrug = json!({"status": "busy", "lease": "none", "directives": []});
    plane.always("heartbeat", Some(Odd::Say(200, shrug)));
    plane.wait_for_more("heartbeat", 2).await;
    scene.host.advance(15);
    // The events of the job are answered all the time.
    scene.puppet.perform(Word::Event).await;
    plane.wait_for("events", 1).await;
    assert!(scene.puppet.is_frozen().await);
    scene.worker.stop_at_once().await;
}

#[tokio::test]
async fn held_counts_from_when_the_heartbeat_was_sent() {
    let mut scene = working().await;
    let plane = &scene.server.plane;
    let late = Arc::new(Notify::new());
    plane.always("heartbeat", Some(away()));
    plane.wait_for_more("heartbeat", 2).await;
    plane.next("heartbeat", [Odd::AnswerWhen(late.clone())]);
    plane.wait_for_more("heartbeat", 1).await;
    scene.host.advance(14);
    late.notify_one();
    plane.wait_for_more("heartbeat", 2).await;
    assert!(!scene.puppet.is_frozen().await);
    scene.host.advance(1);
    assert!(scene.puppet.is_frozen().await);
    scene.worker.stop_at_once().await;
}

#[tokio::test]
async fn a_claim_counts_from_when_it_was_sent() {
    let server = start().await;
    let host = Arc::new(ManualHost::default());
    let mut puppet = puppet();
    let mut config = config(&server);
    config.host = host.clone();
    let worker = run(config, puppet.handler.clone());
    server.plane.wait_for("claim", 1).await;
    server.plane.always("heartbeat", Some(away()));
    server.plane.wait_for_more("heartbeat", 2).await;
    host.advance(20);
    server.plane.offer_job(1, json!({}));
    assert!(puppet.is_frozen().await, "the job starts frozen");
    server.plane.always("heartbeat", None);
    puppet.perform(Word::Checkpoint).await;
    worker.stop_at_once().await;
}

#[tokio::test]
async fn five_minutes_without_an_answer_end_a_job() {
    let scene = working().await;
    let plane = &scene.server.plane;
    plane.always("heartbeat", Some(away()));
    plane.wait_for_more("heartbeat", 2).await;
    scene.host.advance(300);
    scene.puppet.handler.wait_dropped(1).await;
    plane.always("heartbeat", None);
    plane.wait_for("claim", 2).await;
    for outcome in ["complete", "fail", "release"] {
        assert!(plane.calls(outcome).is_empty(), "{outcome}");
    }
    scene.worker.stop().await;
}

#[tokio::test]
async fn past_the_point_of_no_return_a_job_is_not_frozen_and_offers_its_outcome_until_it_is_answered() {
    let mut scene = working().await;
    let plane = &scene.server.plane;
    scene.puppet.perform(Word::PassNoReturn).await;
    plane.always("heartbeat", Some(away()));
    plane.always("complete", Some(away()));
    plane.wait_for_more("heartbeat", 2).await;
    scene.host.advance(3_600);
    assert!(!scene.puppet.is_frozen().await);
    scene.puppet.perform(Word::Checkpoint).await;
    scene.puppet.say(Word::Complete);
    plane.wait_for("complete", 4).await;
    plane.always("complete", None);
    plane.always("heartbeat", None);
    plane.wait_for("claim", 2).await;
    scene.worker.stop().await;
}

#[tokio::test]
async fn past_the_point_of_no_return_the_outcome_is_told_with_the_token_that_held_the_job() {
    let mut scene = working().await;
    let plane = &scene.server.plane;
    scene.puppet.perform(Word::PassNoReturn).await;
    plane.next("heartbeat", [code(409, "STALE_GENERATION")]);
    plane.wait_for("register", 2).await;
    let heartbeat = plane.wait_for_call("heartbeat", |call| call.token == "token-2").await;
    assert!(heartbeat.body.get("current_job_id").is_none());
    scene.puppet.perform(Word::Checkpoint).await;
    assert_eq!(plane.calls("claim").len(), 1, "the worker is not free yet");
    scene.puppet.say(Word::Complete);
    let complete = plane.wait_for("complete", 1).await.remove(0);
    assert_eq!(complete.token, "token-1");
    plane.wait_for_call("claim", |call| call.token == "token-2").await;
    scene.worker.stop().await;
}

#[tokio::test]
async fn past_the_point_of_no_return_a_deregistered_worker_tells_its_outcome_before_it_exits() {
    let mut scene = working().await;
    let plane = &scene.server.plane;
    scene.puppet.perform(Word::PassNoReturn).await;
    plane.always("heartbeat", Some(code(410, "WORKER_DEREGISTERED")));
    plane.wait_for_more("heartbeat", 1).await;
    scene.puppet.perform(Word::Checkpoint).await;
    scene.puppet.say(Word::Complete);
    assert_eq!(scene.worker.exit().await, WorkerExit::Retired);
    assert_eq!(plane.calls("complete").len(), 1);
}

#[tokio::test]
async fn a_cancellation_ends_a_job_past_its_point_of_no_return_too() {
    let mut scene = working().await;
    let plane = &scene.server.plane;
    scene.puppet.perform(Word::PassNoReturn).await;
    plane.take_lease_away();
    plane.direct(directive(1, "cancel_job", 1, Some(1)));
    scene.puppet.handler.wait_dropped(1).await;
    plane.wait_for("claim", 2).await;
    assert!(plane.calls("complete").is_empty());
    scene.worker.stop().await;
}

#[tokio::test]
async fn when_nobody_would_take_its_outcome_any_more_a_job_past_its_point_of_no_return_ends() {
    let mut scene = working().await;
    let plane = &scene.server.plane;
    scene.puppet.perform(Word::PassNoReturn).await;
    plane.next("heartbeat", [code(409, "STALE_GENERATION")]);
    plane.wait_for("register", 2).await;
    plane.wait_for_call("heartbeat", |call| call.token == "token-2").await;
    scene.host.advance(299);
    scene.puppet.perform(Word::Checkpoint).await;
    scene.host.advance(1);
    scene.puppet.handler.wait_dropped(1).await;
    plane.wait_for_call("claim", |call| call.token == "token-2").await;
    scene.worker.stop().await;
}

#[tokio::test]
async fn past_the_point_of_no_return_a_refused_event_does_not_silence_the_outcome() {
    let mut scene = working().await;
    let plane = &scene.server.plane;
    scene.puppet.perform(Word::PassNoReturn).await;
    plane.always("events", Some(code(409, "STALE_LEASE")));
    scene.puppet.perform(Word::Event).await;
    plane.wait_for("events", 1).await;
    scene.puppet.perform(Word::Event).await;
    scene.puppet.say(Word::Complete);
    plane.wait_for("complete", 1).await;
    assert_eq!(plane.calls("events").len(), 1);
    scene.worker.stop().await;
}
