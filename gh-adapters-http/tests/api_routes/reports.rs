//! What workers report of their jobs.

use serde_json::{Value, json};

use crate::support::Api;

#[tokio::test]
async fn each_event_gets_its_outcome() {
    let api = Api::new();
    let (token, _, attempt) = api.running_job("worker-a", json!({})).await;
    let report = json!({"events": [
        {"event_type": "step_started", "worker_seq": 1},
        {"event_type": "step_started", "worker_seq": 1},
        {"event_type": "job_completed"},
        {"event_type": "No Type"},
    ]});
    let answer = api.post_as(&token, &format!("{attempt}/events"), &report).await.expect(200);
    assert_eq!(
        answer["results"],
        json!([
            {"index": 0, "outcome": "accepted", "seq": 3},
            {"index": 1, "outcome": "duplicate"},
            {"index": 2, "outcome": "refused", "code": "INVALID_REQUEST"},
            {"index": 3, "outcome": "refused", "code": "INVALID_REQUEST"},
        ])
    );
}

#[tokio::test]
async fn each_call_is_booked_or_refused_alone_and_in_order() {
    let api = Api::new();
    let (token, job_id, attempt) = api.running_job("worker-a", json!({})).await;
    let call = |id: &str, usage: Value| json!({"call_id": id, "provider": "anthropic", "model": "claude-haiku-4-5-20251001", "usage": usage});
    let report = json!({"calls": [
        call("impossible", json!({"input": -1})),
        call("c1", json!({"input": 2463, "cache_read": 20, "output": 747})),
        call("c1", json!({"input": 2463, "cache_read": 20, "output": 747})),
        call("reasoning", json!({"output": 1, "reasoning": 2})),
        {"call_id": "x".repeat(256), "provider": "p", "model": "m", "usage": {}},
        {"call_id": "new", "provider": "nobody", "model": "model-of-tomorrow", "usage": {"input": 5}},
        {"call_id": "own", "provider": "openai", "model": "model-of-tomorrow",
            "provider_usage": {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}},
        {"call_id": "odd", "provider": "openai", "model": "m", "provider_usage": {"what": 1}},
    ]});
    let answer = api.post_as(&token, &format!("{attempt}/usage"), &report).await;
    let body = answer.expect(200);
    let outcomes: Vec<(&str, &str)> = body["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| (result["outcome"].as_str().unwrap(), result["code"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("refused", "USAGE_IMPOSSIBLE"),
            ("recorded", ""),
            ("unchanged", ""),
            ("refused", "USAGE_IMPOSSIBLE"),
            ("refused", "INVALID_REQUEST"),
            ("unpriced", ""),
            ("unpriced", ""),
            ("refused", "INVALID_REQUEST"),
        ]
    );
    assert!(answer.text.contains(r#""cost_usd":0.0062"#), "{}", answer.text);
    assert_eq!(body["cost"]["total_cost_usd"], 0.0062);
    assert_eq!(body["cost"]["total_tokens"], 3230 + 5 + 12);
    assert_eq!(body["cost"]["complete"], false);
    assert_eq!(body["cost"]["unpriced_models"], json!(["model-of-tomorrow"]));
    assert_eq!(body["stop"], false);
    let job = api.get(&format!("/jobs/{job_id}")).await.expect(200);
    assert_eq!(job["cost"]["total_cost_usd"], 0.0062);
}

#[tokio::test]
async fn a_repeated_outcome_gets_the_first_answer_and_another_is_stale() {
    let api = Api::new();
    let (token, job_id, attempt) = api.running_job("worker-a", json!({})).await;
    let fail = json!({"error_code": "network_error", "error_message": "no route", "retryable": true});
    let path = format!("{attempt}/fail");
    for _ in 0..2 {
        let answer = api.post_as(&token, &path, &fail).await;
        assert_eq!(
            answer.expect(200),
            json!({"job_id": job_id, "status": "pending", "attempt": 1, "will_retry": true})
        );
    }
    let other = api.post_as(&token, &format!("{attempt}/complete"), &json!({})).await;
    other.problem(409, "STALE_LEASE");
}

#[tokio::test]
async fn the_point_of_no_return_is_answered_while_the_lease_lives() {
    let api = Api::new();
    let (token, job_id, attempt) = api.running_job("worker-a", json!({})).await;
    let path = format!("{attempt}/side-effects-started");
    for _ in 0..2 {
        let answer = api.post_as(&token, &path, &json!({"what": "press Submit"})).await;
        assert_eq!(answer.expect(200), json!({"job_id": job_id, "attempt": 1, "side_effects_started": true}));
    }
    let job = api.get(&format!("/jobs/{job_id}")).await.expect(200);
    assert_eq!(job["side_effects_started"], true);
    let left = api.post_as(&token, &format!("{attempt}/release"), &json!({"reason": "shutdown"})).await;
    assert_eq!(left.expect(200)["status"], "failed");
    api.post_as(&token, &path, &json!({})).await.problem(409, "STALE_LEASE");
    let retry = format!("/jobs/{job_id}/retry");
    api.post(&retry, &json!({})).await.problem(409, "SIDE_EFFECTS_STARTED");
    let retried = api.post(&retry, &json!({"side_effects_checked": true})).await;
    assert_eq!(retried.expect(200)["run"], 2);
}
