//! Registering, claiming, directives and stopping.

use std::sync::atomic::Ordering;
use std::time::Duration;

use gh_adapters_http::worker::{Completion, WorkerExit};
use gh_core::domain::ids::Name;
use serde_json::{Value, json};

use crate::control_plane::{Odd, directive, job_id, start};
use crate::worker::{Handler, Word, config, puppet, run};

#[tokio::test]
async fn a_worker_says_who_it_is_and_keeps_the_name_that_it_is_given() {
    let server = start().await;
    let mut config = config(&server);
    config.worker_id = None;
    config.target_worker_id = Some(Name::parse("sandbox-1").unwrap());
    config.ec2_instance_id = Some("i-0abc".into());
    config.ec2_ip = Some("10.0.0.1".into());
    config.version = Some("1.2.3".into());
    let worker = run(config, Handler::quick());
    let register = server.plane.wait_for("register", 1).await.remove(0);
    assert_eq!(register.path, "/api/v1/workers/register");
    assert_eq!(register.token, "worker-key");
    assert_eq!(register.body["target_worker_id"], "sandbox-1");
    assert_eq!(register.body["ec2_instance_id"], "i-0abc");
    assert_eq!(register.body["version"], "1.2.3");
    assert!(register.body.get("worker_id").is_none());
    let heartbeat = server.plane.wait_for("heartbeat", 1).await.remove(0);
    assert_eq!(heartbeat.path, "/api/v1/workers/minted-1/heartbeat");
    assert_eq!(heartbeat.token, "token-1");
    worker.stop().await;
}

#[tokio::test]
async fn two_processes_have_two_boots() {
    let server = start().await;
    let first = run(config(&server), Handler::quick());
    let second = run(config(&server), Handler::quick());
    let boots = server.plane.wait_for("register", 2).await;
    assert_ne!(boots[0].body["boot_id"], boots[1].body["boot_id"]);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn jobs_are_performed_one_after_the_other_and_named_in_heartbeats() {
    let server = start().await;
    server.plane.offer_job(1, json!({}));
    server.plane.offer_job(2, json!({}));
    let mut puppet = puppet();
    let worker = run(config(&server), puppet.handler.clone());
    server.plane.wait_for_call("heartbeat", |call| call.body["current_job_id"] == job_id(1)).await;
    puppet.perform(Word::Checkpoint).await;
    assert_eq!(*puppet.handler.started.borrow(), 1);
    puppet.say(Word::Complete);
    puppet.handler.wait_started(2).await;
    let complete = server.plane.wait_for("complete", 1).await.remove(0);
    assert_eq!(complete.path, format!("/api/v1/jobs/{}/attempts/1/complete", job_id(1)));
    puppet.say(Word::Complete);
    server.plane.wait_for("complete", 2).await;
    assert_eq!(worker.stop().await, WorkerExit::Stopped);
}

#[tokio::test]
async fn a_heartbeat_says_nothing_about_a_job_while_a_claim_may_have_been_granted() {
    let server = start().await;
    let worker = run(config(&server), Handler::quick());
    server.plane.wait_for("claim", 1).await;
    server.plane.wait_for_more("heartbeat", 3).await;
    let last = server.plane.calls("heartbeat").pop().unwrap();
    assert!(last.body.get("current_job_id").is_none());
    worker.stop().await;
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_repeated() {
    let server = start().await;
    let mut config = config(&server);
    config.limits.request_timeout = Duration::from_millis(200);
    config.limits.claim_wait = Duration::ZERO;
    config.limits.stop_grace = Duration::ZERO;
    server.plane.next("claim", [Odd::LoseAnswer]);
    server.plane.offer_job(1, json!({}));
    let handler = Handler::endless();
    let worker = run(config, handler.clone());
    handler.wait_started(1).await;
    assert!(server.plane.calls("claim").len() >= 2);
    worker.stop().await;
}

#[tokio::test]
async fn a_cancellation_is_acknowledged_when_the_handler_has_ended_and_cleaned_up() {
    for by_stream in [true, false] {
        let server = start().await;
        let handler = Handler::endless();
        server.plane.offer_job(1, json!({}));
        let worker = run(config(&server), handler.clone());
        handler.wait_started(1).await;
        handler.may_clean_up.send_replace(false);
        let cancel = directive(1, "cancel_job", 1, Some(1));
        if by_stream {
            server.plane.stream(cancel.clone()).await;
        } else {
            server.plane.direct(cancel.clone());
        }
        let acknowledges = |body: &Value| {
            let ids = body["acknowledged"].as_array();
            ids.is_some_and(|ids| ids.contains(&cancel["id"]))
        };
        handler.wait_dropped(1).await;
        server.plane.wait_for_more("heartbeat", 3).await;
        let early = server.plane.calls("heartbeat");
        assert!(!early.iter().any(|call| acknowledges(&call.body)));
        handler.may_clean_up.send_replace(true);
        let acknowledgement = server.plane.wait_for_call("heartbeat", |call| acknowledges(&call.body)).await;
        assert_eq!(handler.cleaned_up.load(Ordering::SeqCst), 1);
        assert_ne!(acknowledgement.body["current_job_id"], job_id(1));
        for outcome in ["complete", "fail", "release"] {
            assert!(server.plane.calls(outcome).is_empty(), "{outcome}");
        }
        server.plane.wait_for("claim", 2).await;
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_cancellation_of_another_job_is_acknowledged_and_ignored() {
    let server = start().await;
    let mut puppet = puppet();
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), puppet.handler.clone());
    puppet.perform(Word::Checkpoint).await;
    server.plane.direct(directive(1, "cancel_job", 1, Some(2)));
    server
        .plane
        .wait_for_call("heartbeat", |call| call.body["acknowledged"].as_array().is_some_and(|ids| ids.len() == 1))
        .await;
    puppet.perform(Word::Checkpoint).await;
    puppet.say(Word::Complete);
    server.plane.wait_for("complete", 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_drain_lets_the_job_finish_and_then_no_further_is_claimed() {
    let server = start().await;
    let mut puppet = puppet();
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), puppet.handler.clone());
    puppet.perform(Word::Checkpoint).await;
    server.plane.set_draining(true);
    server.plane.stream(directive(1, "drain", 1, None)).await;
    puppet.say(Word::Complete);
    server.plane.wait_for("complete", 1).await;
    server.plane.wait_for_more("heartbeat", 4).await;
    assert_eq!(server.plane.calls("claim").len(), 1);
    worker.stop().await;
}

#[tokio::test]
async fn the_shutdown_directive_ends_the_process_for_good() {
    let server = start().await;
    let handler = Handler::endless();
    server.plane.offer_job(1, json!({}));
    let worker = run(config(&server), handler.clone());
    handler.wait_started(1).await;
    let shutdown = directive(1, "shutdown", 1, None);
    server.plane.stream(shutdown.clone()).await;
    assert_eq!(worker.exit().await, WorkerExit::Retired);
    assert_eq!(*handler.dropped.borrow(), 1);
    let last = server.plane.calls("heartbeat").pop().unwrap();
    assert_eq!(last.body["current_job_id"], Value::Null);
    assert_eq!(last.body["acknowledged"], json!([shutdown["id"]]));
}

#[tokio::test]
async fn a_stop_lets_a_short_job_finish_tells_the_server_and_says_goodbye() {
    let server = start().await;
    let mut puppet = puppet();
    server.plane.offer_job(1, json!({}));
    let mut config = config(&server);
    config.stop_reason = "deploy".into();
    let worker = run(config, puppet.handler.clone());
    puppet.perform(Word::Checkpoint).await;
    worker.shutdown.cancel();
    let draining = server.plane.wait_for_call("heartbeat", |call| call.body.get("draining").is_some()).await;
    assert_eq!(draining.body["draining"], json!({"reason": "deploy"}));
    puppet.say(Word::Complete);
    assert_eq!(worker.exit().await, WorkerExit::Stopped);
    assert_eq!(server.plane.calls("complete").len(), 1);
    assert!(server.plane.calls("release").is_empty());
    let last = server.plane.all_calls().pop().unwrap();
    assert_eq!(last.path, "/api/v1/workers/worker-1/deregister");
    assert_eq!(last.body, json!({"reason": "deploy"}));
}

#[tokio::test]
async fn a_stop_gives_a_long_job_back_and_says_goodbye() {
    let server = start().await;
    let handler = Handler::endless();
    server.plane.offer_job(1, json!({}));
    let mut config = config(&server);
    config.limits.stop_grace = Duration::from_millis(50);
    let worker = run(config, handler.clone());
    handler.wait_started(1).await;
    assert_eq!(worker.stop().await, WorkerExit::Stopped);
    assert_eq!(*handler.dropped.borrow(), 1);
    let release = server.plane.calls("release").remove(0);
    assert_eq!(release.body, json!({"reason": "shutdown"}));
    assert_eq!(server.plane.calls("deregister").len(), 1);
}

#[tokio::test]
async fn a_stop_is_obeyed_while_the_control_plane_is_away() {
    let server = start().await;
    server.plane.always("register", Some(Odd::Say(503, json!({"code": "UNAVAILABLE"}))));
    let worker = run(config(&server), Handler::quick());
    server.plane.wait_for("register", 3).await;
    assert_eq!(worker.stop().await, WorkerExit::Stopped);
}

#[tokio::test]
async fn a_registration_that_can_never_be_taken_is_not_repeated() {
    let server = start().await;
    server.plane.always("register", Some(Odd::Say(422, json!({"code": "INVALID_REQUEST"}))));
    let exit = run(config(&server), Handler::quick()).exit().await;
    assert!(matches!(exit, WorkerExit::Misconfigured(_)), "{exit}");
    assert_eq!(exit.code(), 78);
}

#[tokio::test]
async fn a_panic_of_the_handler_fails_the_job_and_the_worker_lives_on() {
    let server = start().await;
    let handler = Handler::new(|job, _| async move {
        assert_ne!(job.job.job_id.to_string(), job_id(1), "a secret of the handler");
        Ok(Completion::new("done"))
    });
    server.plane.offer_job(1, json!({}));
    server.plane.offer_job(2, json!({}));
    let worker = run(config(&server), handler.clone());
    let fail = server.plane.wait_for("fail", 1).await.remove(0);
    assert_eq!(fail.body["error_code"], "internal_error");
    assert!(!fail.body.to_string().contains("secret"));
    server.plane.wait_for("complete", 1).await;
    assert_eq!(handler.cleaned_up.load(Ordering::SeqCst), 1);
    worker.stop().await;
}
