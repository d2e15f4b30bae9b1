//! Jobs, as clients see them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Api, submission, text};

#[tokio::test]
async fn a_fresh_job_shows_what_was_asked_for_and_leaves_out_what_is_not_known() {
    let api = Api::new();
    let body = submission(json!({
        "target_worker_id": "sandbox-1", "priority": 7, "metadata": {"a": 1.10},
        "an_unknown_field": true
    }));
    let job = api.post("/jobs", &body).await.expect(201);
    let created_at = "2026-01-01T00:00:00Z";
    let expected = json!({
        "job_id": job["job_id"],
        "valet_task_id": "task-1",
        "valet_user_id": "7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11",
        "job_type": "apply",
        "status": "pending",
        "run": 1,
        "attempt": 1,
        "target_url": "https://jobs.example.com/1",
        "target_worker_id": "sandbox-1",
        "worker_affinity": "any",
        "priority": 7,
        "max_attempts": 3,
        "waiting": {"code": "no_worker_registered", "since": created_at},
        "side_effects_started": false,
        "metadata": {"a": 1.1},
        "timestamps": {"created_at": created_at, "queued_at": created_at},
    });
    assert_eq!(job, expected);
    let path = format!("/jobs/{}", text(&job["job_id"]));
    assert_eq!(api.get(&path).await.expect(200), expected);
}

#[tokio::test]
async fn opaque_json_and_money_keep_every_digit() {
    let api = Api::new();
    let mut body = submission(json!({})).to_string();
    body.pop();
    body.push_str(r#", "input_data": {"n": 1.10000000000000000001, "big": 123456789012345678901234567890}, "metadata": {"x": 0.10}, "budget_usd": 0.30000000000000000004}"#);
    let answer = api.call(axum::http::Method::POST, "/api/v1/jobs", crate::support::SERVICE_KEY, &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(answer.text.contains(r#""metadata":{"x": 0.10}"#), "{}", answer.text);
    let token = api.register("worker-a").await;
    let claimed = api.post_as(&token, "/workers/worker-a/claim", &json!({})).await;
    for exact in [
        r#""n": 1.10000000000000000001"#,
        r#""big": 123456789012345678901234567890"#,
        r#""budget_usd":0.30000000000000000004"#,
    ] {
        assert!(claimed.text.contains(exact), "{exact}: {}", claimed.text);
    }
}

#[tokio::test]
async fn a_finished_job_shows_worker_result_cost_and_times() {
    let api = Api::new();
    let (token, job_id, attempt) = api.running_job("worker-a", json!({})).await;
    let call = json!({"call_id": "c1", "provider": "anthropic", "model": "claude-haiku-4-5-20251001",
        "usage": {"input": 2463, "cache_read": 20, "output": 747}});
    api.post_as(&token, &format!("{attempt}/usage"), &json!({"calls": [call]})).await.expect(200);
    let event = json!({"event_type": "progress_update", "metadata": {"progress_pct": 40}});
    api.post_as(&token, &format!("{attempt}/events"), &json!({"events": [event]})).await.expect(200);
    api.clock.advance(Duration::from_secs(3));
    let done = json!({"result_data": {"confirmation": "A-1"}, "result_summary": "Applied",
        "screenshot_artifact_id": "art-1", "action_count": 4});
    let answer = api.post_as(&token, &format!("{attempt}/complete"), &done).await;
    assert_eq!(answer.expect(200), json!({"job_id": job_id, "status": "completed", "attempt": 1, "will_retry": false}));
    let job = api.get(&format!("/jobs/{job_id}")).await.expect(200);
    assert_eq!(job["status"], "completed");
    assert_eq!(job["worker_id"], "worker-a");
    assert_eq!(job["progress"], 40);
    assert_eq!(
        job["result"],
        json!({"data": {"confirmation": "A-1"}, "summary": "Applied", "screenshot_artifact_id": "art-1"})
    );
    assert_eq!(job["cost"]["total_cost_usd"], 0.0062);
    assert_eq!(job["cost"]["action_count"], 4);
    assert_eq!(job["cost"]["final"], true);
    assert_eq!(
        job["timestamps"],
        json!({"created_at": "2026-01-01T00:00:00Z", "queued_at": "2026-01-01T00:00:00Z",
            "started_at": "2026-01-01T00:00:00Z", "completed_at": "2026-01-01T00:00:03Z"})
    );
    for absent in ["error", "waiting", "interaction", "target_worker_id", "duplicate"] {
        assert_eq!(job.get(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn the_same_key_and_body_answer_with_the_first_job() {
    let api = Api::new();
    let body = submission(json!({"idempotency_key": "k"}));
    let first = api.post("/jobs", &body).await.expect(201);
    let again = api.post("/jobs", &body).await.expect(200);
    assert_eq!(again["job_id"], first["job_id"]);
    assert_eq!(again["duplicate"], true);
    let other = submission(json!({"idempotency_key": "k", "priority": 9}));
    api.post("/jobs", &other).await.problem(422, "IDEMPOTENCY_KEY_REUSED");
}

#[tokio::test]
async fn a_strict_refusal_carries_the_failed_job_and_says_why() {
    let api = Api::new();
    let body = submission(json!({
        "worker_affinity": "strict", "target_worker_id": "sandbox-1", "idempotency_key": "k",
    }));
    let problem = api.post("/jobs", &body).await.problem(409, "WORKER_UNAVAILABLE");
    assert_eq!(problem["job_status"], "failed");
    assert_eq!(problem["worker_status"], "unknown");
    assert_eq!(problem["valet_task_id"], "task-1");
    assert_eq!(problem["job"]["job_id"], problem["job_id"]);
    assert_eq!(problem["job"]["error"]["code"], "WORKER_UNAVAILABLE");
    assert_eq!(problem.get("duplicate"), None);
    let again = api.post("/jobs", &body).await.problem(409, "WORKER_UNAVAILABLE");
    assert_eq!(again["duplicate"], true);
    assert_eq!(again["worker_status"], "unknown");
    let job_id = text(&problem["job_id"]);
    let retried = api.post(&format!("/jobs/{job_id}/retry"), &json!({})).await;
    let problem = retried.problem(409, "WORKER_UNAVAILABLE");
    assert_eq!(problem["worker_status"], "unknown");
}

#[tokio::test]
async fn a_cancelled_job_may_be_retried_and_a_run_be_named() {
    let api = Api::new();
    let job_id = api.submit(json!({})).await;
    let cancel = format!("/jobs/{job_id}/cancel");
    for _ in 0..2 {
        let job = api.post(&cancel, &json!({"reason": "changed my mind"})).await;
        assert_eq!(job.expect(200)["status"], "cancelled");
    }
    let retry = format!("/jobs/{job_id}/retry");
    let wrong_run = api.post(&retry, &json!({"run": 2})).await;
    wrong_run.problem(409, "JOB_NOT_RETRYABLE");
    let job = api.post(&retry, &json!({"run": 1})).await.expect(200);
    assert_eq!((&job["run"], &job["status"]), (&json!(2), &json!("pending")));
    assert_eq!(job["waiting"]["code"], "no_worker_registered");
}

#[tokio::test]
async fn jobs_are_listed_newest_first_page_by_page() {
    let api = Api::new();
    let mut ids = Vec::new();
    for number in 0..7 {
        ids.push(api.submit(json!({"valet_task_id": format!("task-{number}")})).await);
        api.clock.advance(Duration::from_secs(1));
    }
    ids.reverse();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    let mut pages = 0;
    loop {
        let page = api.get(&format!("/jobs?limit=3&cursor={cursor}")).await.expect(200);
        seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| text(&job["job_id"])));
        pages += 1;
        if pages == 1 {
            // A job that arrives meanwhile moves nothing.
            api.submit(json!({})).await;
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!((seen, pages), (ids.clone(), 3));

    let found = async |query: &str| {
        let page = api.get(&format!("/jobs?{query}")).await.expect(200);
        page["jobs"].as_array().unwrap().len()
    };
    assert_eq!(found("valet_task_id=task-3").await, 1);
    assert_eq!(found("status=pending&status=").await, 8);
    assert_eq!(found("status=running").await, 0);
    assert_eq!(found("created_after=2026-01-01T00:00:05Z").await, 3);
    assert_eq!(found("created_before=2026-01-01T01:00:01+01:00").await, 1);
    assert_eq!(found("limit=100000").await, 8);
}

#[tokio::test]
async fn events_page_by_number_and_carry_the_four_keys() {
    let api = Api::new();
    let (token, job_id, attempt) = api.running_job("worker-a", json!({})).await;
    let steps: Vec<Value> = (1..=3)
        .map(|step| json!({"event_type": "step_started", "metadata": {"step_index": step, "total_steps": 3}}))
        .collect();
    let report = json!({"events": steps});
    api.post_as(&token, &format!("{attempt}/events"), &report).await.expect(200);
    let path = format!("/jobs/{job_id}/events");
    let all = api.get(&path).await.expect(200);
    assert_eq!(all["next_cursor"], Value::Null);
    let events = all["events"].as_array().unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["job_queued", "job_started", "step_started", "step_started", "step_started"]);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], index + 1);
        for key in ["worker_id", "elapsed_ms", "step_index", "total_steps"] {
            assert!(event["metadata"].get(key).is_some(), "{key}: {event}");
        }
    }
    let expected = [
        "actor",
        "attempt",
        "created_at",
        "event_type",
        "from_status",
        "id",
        "job_id",
        "message",
        "metadata",
        "occurred_at",
        "run",
        "seq",
        "to_status",
    ];
    let mut keys: Vec<&String> = events[1].as_object().unwrap().keys().collect();
    keys.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(events[0]["actor"], "client:valet");

    let first = api.get(&format!("{path}?limit=2")).await.expect(200);
    assert_eq!(first["next_cursor"], 2);
    let rest = api.get(&format!("{path}?after_seq=2")).await.expect(200);
    assert_eq!(rest["events"][0]["seq"], 3);
    let chosen = format!("{path}?event_type=job_queued,job_started&event_type=step_done");
    let chosen = api.get(&chosen).await.expect(200);
    assert_eq!(chosen["events"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn placement_says_why_a_job_waits_and_who_could_take_it() {
    let api = Api::new();
    let token = api.register("worker-a").await;
    let job_id = api.submit(json!({})).await;
    let path = format!("/jobs/{job_id}/placement");
    let placement = api.get(&path).await.expect(200);
    assert_eq!(placement["decision"], "waiting");
    assert_eq!(placement["reason"], "none_waiting");
    assert_eq!(placement["candidates"][0]["worker_id"], "worker-a");
    assert_eq!(placement["candidates"][0]["code"], "not_waiting");
    api.claim("worker-a", &token).await;
    let placement = api.get(&path).await.expect(200);
    assert_eq!(placement["decision"], "running");
}

#[tokio::test]
async fn the_callbacks_of_a_job_show_their_attempts() {
    let api = Api::new();
    let url = json!({"callback_url": "https://valet.example.com/hook?secret=1"});
    let (token, job_id, attempt) = api.running_job("worker-a", url).await;
    let path = format!("/jobs/{job_id}/callbacks");
    let waiting = api.get(&path).await.expect(200);
    assert_eq!(waiting["callbacks"][0]["state"], "pending");
    assert!(waiting["callbacks"][0]["next_attempt_at"].is_string());
    api.control_plane.deliver_once().await.unwrap();
    api.post_as(&token, &format!("{attempt}/complete"), &json!({})).await.expect(200);
    let all = api.get(&path).await.expect(200);
    let callbacks = all["callbacks"].as_array().unwrap();
    let told: Vec<&Value> = callbacks.iter().map(|callback| &callback["status"]).collect();
    assert_eq!(told, ["completed", "running"]);
    let delivered = &callbacks[1];
    assert_eq!(delivered["state"], "delivered");
    assert_eq!(delivered["destination"], "https://valet.example.com");
    assert_eq!(delivered["webhook_id"], delivered["delivery_id"]);
    assert_eq!(delivered["job_id"], job_id.as_str());
    assert_eq!(
        delivered["attempts"],
        json!([{"at": "2026-01-01T00:00:00Z", "trigger": "first", "http_status": 200, "duration_ms": 12,
            "response_excerpt": "taken"}])
    );
    assert_eq!(delivered.get("next_attempt_at"), None);
    let first = api.get(&format!("{path}?limit=1")).await.expect(200);
    let cursor = text(&first["next_cursor"]);
    let rest = api.get(&format!("{path}?limit=1&cursor={cursor}")).await.expect(200);
    assert_eq!(rest["callbacks"], json!([delivered]));
    assert_eq!(rest["next_cursor"], Value::Null);
}

#[tokio::test]
async fn a_job_that_waits_for_the_brake_says_so() {
    let api = Api::new();
    for number in 0..9 {
        api.register(&format!("worker-{number}")).await;
    }
    let (_, running, _) = api.running_job("worker-9", json!({})).await;
    let waiting = api.submit(json!({})).await;
    let reason = async |job_id: &str| {
        let placement = api.get(&format!("/jobs/{job_id}/placement")).await.expect(200);
        text(&placement["reason"])
    };
    assert_eq!(reason(&waiting).await, "none_waiting");
    api.control_plane.sweep_once().await.unwrap();
    api.clock.advance(Duration::from_secs(10));
    assert_eq!(reason(&waiting).await, "none_responsive");
    api.control_plane.sweep_once().await.unwrap();
    assert_eq!(reason(&waiting).await, "brake");
    let explained = api.get(&format!("/jobs/{waiting}/placement")).await.expect(200);
    assert_eq!(explained["candidates"][0]["code"], "suspect");
    let answered = api.get(&format!("/jobs/{waiting}")).await.expect(200);
    assert_eq!(answered["waiting"]["code"], "brake");
    assert_eq!(reason(&running).await, "assigned");
    // A worker that could take it speaks for itself, silent ones or not.
    api.register("worker-new").await;
    assert_eq!(reason(&waiting).await, "none_waiting");
}

#[tokio::test]
async fn candidates_of_a_placement_come_the_most_able_first() {
    let api = Api::new();
    api.register("worker-a-silent").await;
    api.clock.advance(Duration::from_secs(10));
    api.running_job("worker-b-busy", json!({})).await;
    api.register("worker-c-idle").await;
    let waiting = api.submit(json!({})).await;
    let placement = api.get(&format!("/jobs/{waiting}/placement")).await.expect(200);
    let codes: Vec<String> = placement["candidates"].as_array().unwrap().iter().map(|one| text(&one["code"])).collect();
    assert_eq!(codes, ["not_waiting", "busy", "suspect"]);
}
