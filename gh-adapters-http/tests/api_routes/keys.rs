//! Who gets in where.

use axum::body::Body;
use axum::http::{Method, Request};
use gh_adapters_http::api::openapi;
use serde_json::{Value, json};

use crate::support::{Api, SERVICE_KEY, WORKER_KEY};

/// The only routes that need no key.
const OPEN: [&str; 2] = ["/health", "/ready"];

/// Every route of the API: method, path with its parameters filled in, and the kind of key that opens it.
fn every_route() -> Vec<(Method, String, Option<String>)> {
    let document: Value = serde_json::from_str(&openapi().to_json().unwrap()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            let kind = operation["security"].get(0).and_then(|known| known.as_object()?.keys().next().cloned());
            let path = path
                .replace("{job_id}", "7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11")
                .replace("{attempt}", "1")
                .replace("{worker_id}", "worker-a")
                .replace("{name}", "target-a")
                .replace("{file}", "start.js");
            assert!(!path.contains('{'), "{path}");
            routes.push((method, path, kind));
        }
    }
    routes
}

#[test]
fn the_document_holds_the_routes_of_this_api() {
    let mut routes: Vec<String> =
        every_route().into_iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    routes.sort_unstable();
    let job = "/api/v1/jobs/7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11";
    let mut expected: Vec<String> = [
        "GET /health",
        "GET /ready",
        "GET /metrics",
        "GET /openapi.json",
        "GET /docs",
        "GET /docs/start.js",
        "POST /api/v1/jobs",
        "GET /api/v1/jobs",
        "POST /api/v1/jobs/batch",
        "GET /api/v1/monitoring/workers",
        "GET /api/v1/workers/worker-a",
        "GET /api/v1/workers/worker-a/events",
        "POST /api/v1/workers/worker-a/drain",
        "POST /api/v1/workers/worker-a/undrain",
        "POST /api/v1/workers/deregister",
        "DELETE /api/v1/targets/target-a/hold",
        "POST /api/v1/workers/register",
        "POST /api/v1/workers/worker-a/heartbeat",
        "POST /api/v1/workers/worker-a/claim",
        "GET /api/v1/workers/worker-a/directives",
        "POST /api/v1/workers/worker-a/deregister",
    ]
    .map(ToOwned::to_owned)
    .to_vec();
    expected.push(format!("GET {job}"));
    expected.extend(["events", "placement", "callbacks"].map(|end| format!("GET {job}/{end}")));
    expected.extend(["cancel", "retry"].map(|end| format!("POST {job}/{end}")));
    let reports = ["events", "usage", "side-effects-started", "complete", "fail", "release"];
    expected.extend(reports.map(|end| format!("POST {job}/attempts/1/{end}")));
    expected.sort_unstable();
    assert_eq!(routes, expected);
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                let reference = members.get("$ref").and_then(Value::as_str);
                found.extend(reference.map(ToOwned::to_owned));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(&openapi().to_json().unwrap()).unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn every_route_refuses_a_missing_an_unknown_and_a_wrong_kind_of_key() {
    let api = Api::new();
    let token = api.register("worker-a").await;
    for (method, path, kind) in every_route() {
        let call = |key: &'static str| api.call(method.clone(), &path, key, "{}");
        if OPEN.contains(&path.as_str()) {
            assert_eq!(kind, None, "{path}");
            assert_eq!(call("").await.status, 200, "{path}");
            continue;
        }
        let bare = Request::builder().method(method.clone()).uri(&path);
        let bare = api.send(bare.body(Body::empty()).unwrap()).await;
        bare.problem(401, "UNAUTHENTICATED");
        let challenge = match path.as_str() {
            "/docs" | "/docs/start.js" | "/openapi.json" => r#"Basic realm="GhostHands", charset="UTF-8""#,
            _ => "Bearer",
        };
        assert_eq!(bare.header("www-authenticate"), challenge, "{path}");
        for unknown in ["", "service-key", "ghw_d29ya2VyLWE.1.AAAA", "service-key-1x"] {
            call(unknown).await.problem(401, "UNAUTHENTICATED");
        }
        let with_token = || api.call(method.clone(), &path, &token, "{}");
        match kind.as_deref() {
            Some("service_key") => {
                call(WORKER_KEY).await.problem(403, "WRONG_KEY_KIND");
                with_token().await.problem(403, "WRONG_KEY_KIND");
            }
            Some("worker_key") => {
                call(SERVICE_KEY).await.problem(403, "WRONG_KEY_KIND");
                with_token().await.problem(403, "WRONG_KEY_KIND");
            }
            Some("worker_token") => {
                call(SERVICE_KEY).await.problem(403, "WRONG_KEY_KIND");
                call(WORKER_KEY).await.problem(403, "WRONG_KEY_KIND");
            }
            other => panic!("{path} is opened by {other:?}"),
        }
    }
}

#[tokio::test]
async fn every_configured_key_opens_by_either_header() {
    let api = Api::new();
    for key in [SERVICE_KEY, "service-key-2"] {
        for (header, value) in [("x-gh-service-key", key.to_owned()), ("authorization", format!("bearer {key}"))] {
            let request = Request::builder().uri("/api/v1/jobs").header(header, value);
            let answer = api.send(request.body(Body::empty()).unwrap()).await;
            answer.expect(200);
        }
    }
}

#[tokio::test]
async fn a_token_opens_the_routes_of_its_own_worker_only() {
    let api = Api::new();
    let token = api.register("worker-a").await;
    api.register("worker-b").await;
    for end in ["heartbeat", "claim", "deregister"] {
        let path = format!("/workers/worker-b/{end}");
        let answer = api.post_as(&token, &path, &json!({"reason": "x"})).await;
        answer.problem(403, "NOT_YOUR_WORKER");
    }
    let own = api.post_as(&token, "/workers/worker-a/heartbeat", &json!({})).await;
    assert_eq!(own.expect(200)["status"], "idle");
}

#[tokio::test]
async fn on_loopback_the_operators_routes_are_open() {
    let api = Api::with(|_| {}, |config| config.public_metrics = true);
    for path in ["/metrics", "/openapi.json", "/docs", "/docs/start.js"] {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        assert_eq!(api.send(request).await.status, 200, "{path}");
    }
}
