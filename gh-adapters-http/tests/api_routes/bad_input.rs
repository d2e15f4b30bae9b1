//! Input that is wrong: each gets its status and code, names the field, and changes nothing.

use axum::body::Body;
use axum::http::{Method, Request};
use futures_util::stream;
use serde_json::{Value, json};

use crate::support::{Api, SERVICE_KEY, WORKER_KEY, named_fields, submission};

#[tokio::test]
async fn what_is_no_json_is_told_from_what_is_of_a_wrong_type() {
    let api = Api::new();
    for body in ["{", "{\"a\": 1,}", "not json", "{} {}", "{\"valet_task_id\": \"\\ud800\"}", &"[".repeat(9_000)] {
        let answer = api.call(Method::POST, "/api/v1/jobs", SERVICE_KEY, body).await;
        answer.problem(400, "MALFORMED_JSON");
    }
    for body in ["[]", "\"text\"", "1", "null"] {
        let answer = api.call(Method::POST, "/api/v1/jobs", SERVICE_KEY, body).await;
        let problem = answer.problem(422, "INVALID_REQUEST");
        assert_eq!(named_fields(&problem), ["body"], "{body}");
    }
    let not_utf8 = Request::post("/api/v1/jobs")
        .header("x-gh-service-key", SERVICE_KEY)
        .header("content-type", "application/json")
        .body(Body::from(vec![b'{', 0xff, b'}']))
        .unwrap();
    api.send(not_utf8).await.problem(400, "MALFORMED_JSON");
    nothing_was_stored(&api).await;
}

async fn nothing_was_stored(api: &Api) {
    assert_eq!(api.get("/jobs").await.expect(200)["jobs"], json!([]));
}

#[tokio::test]
async fn each_bad_field_of_a_submission_is_named() {
    let api = Api::new();
    let long = |length: usize| "x".repeat(length);
    let cases: Vec<(&str, Value)> = vec![
        ("valet_task_id", json!("")),
        ("valet_task_id", json!(7)),
        ("valet_task_id", json!(long(256))),
        ("valet_user_id", json!("me")),
        ("job_type", json!(long(101))),
        ("target_url", json!("ftp://example.com")),
        ("target_url", json!("javascript:alert(1)")),
        ("target_url", json!(format!("https://example.com/{}", long(2048)))),
        ("task_description", json!(long(10_001))),
        ("callback_url", json!("mailto:me@example.com")),
        ("worker_affinity", json!("sometimes")),
        ("priority", json!(11)),
        ("priority", json!(0)),
        ("priority", json!("high")),
        ("priority", json!(1.5)),
        ("timeout_seconds", json!(-1)),
        ("timeout_seconds", json!(86_401)),
        ("timeout_seconds", json!(1e30)),
        ("expires_in_seconds", json!(0)),
        ("affinity_wait_seconds", json!(3601)),
        ("max_attempts", json!(21)),
        ("budget_usd", json!(0)),
        ("budget_usd", json!("1")),
        ("metadata", json!("text")),
        ("metadata", json!({"a": long(9000)})),
        ("idempotency_key", json!(long(256))),
        ("target_worker_id", json!("a/b")),
        ("target_worker_id", json!("deregister")),
        ("job_type", json!("a\u{0}b")),
        ("profile.name", json!("x")),
    ];
    for (field, value) in cases {
        let (name, value, expected) = match field {
            "profile.name" => ("profile", json!({"name": "a\u{0}"}), "profile.name"),
            field => (field, value, field),
        };
        let answer = api.post("/jobs", &submission(json!({name: value}))).await;
        let problem = answer.problem(422, "INVALID_REQUEST");
        assert_eq!(named_fields(&problem), [expected], "{problem}");
    }
    let strict = submission(json!({"worker_affinity": "strict"}));
    let problem = api.post("/jobs", &strict).await.problem(422, "INVALID_REQUEST");
    assert_eq!(named_fields(&problem), ["target_worker_id"]);
    let empty = api.post("/jobs", &json!({})).await.problem(422, "INVALID_REQUEST");
    assert_eq!(named_fields(&empty), ["valet_task_id", "valet_user_id", "job_type", "target_url", "task_description"]);
    nothing_was_stored(&api).await;
}

#[tokio::test]
async fn errors_do_not_quote_what_was_sent() {
    let api = Api::new();
    let answer = api.post("/jobs", &submission(json!({"priority": "hunter2", "budget_usd": 1}))).await;
    answer.problem(422, "INVALID_REQUEST");
    assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    assert!(!answer.text.contains("i64"), "{}", answer.text);
}

#[tokio::test]
async fn a_body_must_say_that_it_is_json() {
    let api = Api::new();
    let body = submission(json!({})).to_string();
    for content_type in [Some("text/plain"), Some("application/x-www-form-urlencoded"), None] {
        let mut request = Request::post("/api/v1/jobs").header("x-gh-service-key", SERVICE_KEY);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = api.send(request.body(Body::from(body.clone())).unwrap()).await;
        answer.problem(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    for content_type in ["application/json; charset=utf-8", "application/merge+json"] {
        let request =
            Request::post("/api/v1/jobs").header("x-gh-service-key", SERVICE_KEY).header("content-type", content_type);
        let answer = api.send(request.body(Body::from(body.clone())).unwrap()).await;
        answer.expect(201);
    }
}

#[tokio::test]
async fn an_empty_body_is_an_empty_object() {
    let api = Api::new();
    let job_id = api.submit(json!({})).await;
    let path = format!("/api/v1/jobs/{job_id}/cancel");
    let answer = api.call(Method::POST, &path, SERVICE_KEY, "").await;
    assert_eq!(answer.expect(200)["status"], "cancelled");
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_and_read_all_the_same() {
    let api = Api::new();
    let long = submission(json!({"task_description": "x".repeat(1024 * 1024)}));
    let answer = api.post("/jobs", &long).await;
    answer.problem(413, "PAYLOAD_TOO_LARGE");
    // Without a length in advance; what is left is read to its end.
    let (told, mut counted) = tokio::sync::mpsc::unbounded_channel();
    let chunks = stream::iter((0..40).map(move |_| {
        told.send(()).unwrap();
        Ok::<_, std::io::Error>(vec![b' '; 64 * 1024])
    }));
    let request = Request::post("/api/v1/jobs")
        .header("x-gh-service-key", SERVICE_KEY)
        .header("content-type", "application/json")
        .body(Body::from_stream(chunks))
        .unwrap();
    api.send(request).await.problem(413, "PAYLOAD_TOO_LARGE");
    let mut chunks = 0;
    while counted.recv().await.is_some() {
        chunks += 1;
    }
    assert_eq!(chunks, 40);
    nothing_was_stored(&api).await;
}

#[tokio::test]
async fn a_batch_fails_item_by_item() {
    let api = Api::new();
    let jobs = json!({"jobs": [
        submission(json!({"budget_usd": 0.5})),
        submission(json!({"priority": 11})),
        submission(json!({"metadata": {"a": "\u{0}"}})),
        "no job",
        submission(json!({"worker_affinity": "strict", "target_worker_id": "nobody"})),
        submission(json!({"callback_url": "http://169.254.169.254/"})),
        submission(json!({"priority": 10})),
    ]});
    let results = api.post("/jobs/batch", &jobs).await.expect(200)["results"].clone();
    let statuses: Vec<&Value> = results.as_array().unwrap().iter().map(|item| &item["status"]).collect();
    assert_eq!(statuses, [201, 422, 422, 422, 409, 422, 201]);
    assert_eq!(named_fields(&results[1]["error"]), ["priority"]);
    assert_eq!(named_fields(&results[2]["error"]), ["metadata.a"]);
    assert_eq!(results[4]["error"]["code"], "WORKER_UNAVAILABLE");
    assert_eq!(results[4]["error"]["job"]["status"], "failed");
    assert_eq!(results[5]["error"]["code"], "CALLBACK_URL_REFUSED");
    assert_eq!(results[6]["index"], 6);
    assert_eq!(results[6]["job"]["priority"], 10);
    let stored = api.get("/jobs").await.expect(200);
    assert_eq!(stored["jobs"].as_array().unwrap().len(), 3);

    let missing = api.post("/jobs/batch", &json!({})).await;
    assert_eq!(named_fields(&missing.problem(422, "INVALID_REQUEST")), ["jobs"]);
}

#[tokio::test]
async fn callback_urls_that_may_not_be_called_are_refused() {
    let api = Api::new();
    for url in ["http://example.com/", "https://10.0.0.1/", "https://u:p@example.com/"] {
        let answer = api.post("/jobs", &submission(json!({"callback_url": url}))).await;
        let problem = answer.problem(422, "CALLBACK_URL_REFUSED");
        assert_eq!(named_fields(&problem), ["callback_url"]);
    }
    nothing_was_stored(&api).await;
}

#[tokio::test]
async fn ids_and_names_that_cannot_be_name_nothing() {
    let api = Api::new();
    let token = api.register("worker-a").await;
    for id in ["1", "no-uuid", "7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11", "%FF"] {
        for end in ["", "/events", "/placement", "/callbacks"] {
            let answer = api.get(&format!("/jobs/{id}{end}")).await;
            answer.problem(404, "JOB_NOT_FOUND");
        }
        for end in ["cancel", "retry"] {
            let answer = api.post(&format!("/jobs/{id}/{end}"), &json!({})).await;
            answer.problem(404, "JOB_NOT_FOUND");
        }
        let path = format!("/jobs/{id}/attempts/1/complete");
        api.post_as(&token, &path, &json!({})).await.problem(404, "JOB_NOT_FOUND");
    }
    let path = "/jobs/7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11/attempts/first/complete";
    api.post_as(&token, path, &json!({})).await.problem(404, "NOT_FOUND");
    for name in ["nobody", "a%00b", "a%2Fb"] {
        api.get(&format!("/workers/{name}")).await.problem(404, "WORKER_NOT_FOUND");
        api.get(&format!("/workers/{name}/events")).await.problem(404, "WORKER_NOT_FOUND");
        let body = json!({"reason": "x"});
        let path = format!("/workers/{name}/drain");
        api.post(&path, &body).await.problem(404, "WORKER_NOT_FOUND");
        let path = format!("/api/v1/targets/{name}/hold");
        let answer = api.call(Method::DELETE, &path, SERVICE_KEY, "").await;
        answer.problem(404, "NOT_FOUND");
    }
}

#[tokio::test]
async fn bad_queries_are_named_and_bad_cursors_have_their_code() {
    let api = Api::new();
    let job_id = api.submit(json!({})).await;
    for (path, field) in [
        ("/jobs?status=lost".to_owned(), "status"),
        ("/jobs?limit=0".to_owned(), "limit"),
        ("/jobs?limit=many".to_owned(), "limit"),
        ("/jobs?created_after=yesterday".to_owned(), "created_after"),
        ("/jobs?valet_user_id=me".to_owned(), "valet_user_id"),
        ("/jobs?worker_id=a%00".to_owned(), "worker_id"),
        ("/monitoring/workers?status=asleep".to_owned(), "status"),
        (format!("/jobs/{job_id}/events?event_type=Nope"), "event_type"),
    ] {
        let problem = api.get(&path).await.problem(422, "INVALID_REQUEST");
        assert_eq!(named_fields(&problem), [field], "{path}");
    }
    for path in [
        "/jobs?cursor=abc".to_owned(),
        "/monitoring/workers?cursor=!!".to_owned(),
        format!("/jobs/{job_id}/events?after_seq=x"),
        format!("/jobs/{job_id}/events?after_seq=-1"),
        format!("/jobs/{job_id}/callbacks?cursor=AAAA"),
    ] {
        api.get(&path).await.problem(400, "INVALID_CURSOR");
    }
}

#[tokio::test]
async fn bad_worker_calls_are_named() {
    let api = Api::new();
    for (body, field) in [
        (json!({}), "boot_id"),
        (json!({"boot_id": "b", "worker_id": "register"}), "worker_id"),
        (json!({"boot_id": "b", "worker_id": "a/b"}), "worker_id"),
        (json!({"boot_id": "b", "worker_id": 7}), "worker_id"),
        (json!({"boot_id": "b", "live_view_url": "javascript:x"}), "live_view_url"),
        (json!({"boot_id": "b", "metadata": [1]}), "metadata"),
    ] {
        let answer = api.post_as(WORKER_KEY, "/workers/register", &body).await;
        let problem = answer.problem(422, "INVALID_REQUEST");
        assert_eq!(named_fields(&problem), [field], "{problem}");
    }
    let (token, _, attempt) = api.running_job("worker-a", json!({})).await;
    for (path, body, field) in [
        ("/workers/worker-a/heartbeat", json!({"current_job_id": "x"}), "current_job_id"),
        ("/workers/worker-a/heartbeat", json!({"memory_usage": -1}), "memory_usage"),
        ("/workers/worker-a/heartbeat", json!({"draining": {}}), "draining.reason"),
        ("/workers/worker-a/heartbeat", json!({"acknowledged": ["x"]}), "acknowledged[0]"),
        ("/workers/worker-a/claim?wait=31", json!({}), "wait"),
        ("/workers/worker-a/deregister", json!({}), "reason"),
        ("events", json!({}), "events"),
        ("events", json!({"events": [{}]}), "events[0].event_type"),
        ("events", json!({"events": [{"event_type": "a_b", "metadata": 1}]}), "events[0].metadata"),
        ("events", json!({"events": [{"event_type": "a_b", "worker_seq": -1}]}), "events[0].worker_seq"),
        ("events", json!({"events": [{"event_type": "a_b", "occurred_at": "now"}]}), "events[0].occurred_at"),
        ("events", json!({"events": [{"event_type": "a_b", "message": "\u{0}"}]}), "events[0].message"),
        ("usage", json!({"calls": [{"provider": "p", "model": "m", "usage": {}}]}), "calls[0].call_id"),
        ("usage", json!({"calls": [{"call_id": "c", "provider": "p", "model": "m"}]}), "calls[0].usage"),
        (
            "usage",
            json!({"calls": [{"call_id": "c", "provider": "p", "model": "m", "usage": {"input": "1"}}]}),
            "calls[0].usage.input",
        ),
        (
            "usage",
            json!({"calls": [{"call_id": "c", "provider": "p", "model": "m", "usage": {},
                "occurred_at": "0000-01-01T00:00:00+01:00"}]}),
            "calls[0].occurred_at",
        ),
        ("side-effects-started", json!({"what": "x".repeat(501)}), "what"),
        ("fail", json!({"error_code": "a b", "error_message": "x", "retryable": true}), "error_code"),
        ("fail", json!({"error_code": "x", "error_message": "x"}), "retryable"),
        ("complete", json!({"action_count": -1}), "action_count"),
        ("complete", json!({"calls_in_flight": [""]}), "calls_in_flight[0]"),
        ("release", json!({}), "reason"),
    ] {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{attempt}/{path}") };
        let problem = api.post_as(&token, &path, &body).await.problem(422, "INVALID_REQUEST");
        assert_eq!(named_fields(&problem), [field], "{path} {body}");
    }
    for (end, list, item) in [
        ("events", "events", json!({"event_type": "a_b"})),
        ("usage", "calls", json!({"call_id": "c", "provider": "p", "model": "m", "usage": {}})),
    ] {
        let body = json!({list: vec![item; 501]});
        let path = format!("{attempt}/{end}");
        let answer = api.post_as(&token, &path, &body).await;
        answer.problem(413, "PAYLOAD_TOO_LARGE");
    }
}
