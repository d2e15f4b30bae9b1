//! The API inside another service: nested under a path, behind that service's own way of telling who calls.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request};
use axum::middleware::{Next, from_fn};
use axum::routing::get;
use gh_adapters_http::api::{Authenticate, Door, Refusal};
use gh_core::domain::code::ClientName;
use serde_json::{Value, json};

use crate::support::{Api, SERVICE_KEY, submission, text};

/// A user of the embedding service, known by that service's own means.
#[derive(Clone)]
struct User(String);

/// The embedding service's middleware, inserting whom it knows.
async fn session(mut request: HttpRequest, next: Next) -> axum::response::Response {
    let user = request.headers().get("x-session").map(|user| User(user.to_str().unwrap().to_owned()));
    if let Some(user) = user {
        request.extensions_mut().insert(user);
    }
    next.run(request).await
}

/// Users are clients; the one called `fleet` runs the workers; one is never let in.
#[derive(Debug)]
struct Users;

#[async_trait]
impl Authenticate for Users {
    async fn authenticate(&self, request: &Parts, door: Door) -> Result<ClientName, Refusal> {
        assert!(!request.uri.path().starts_with("/ghosthands"), "the path is as the API sees it");
        let User(name) = request.extensions.get().ok_or(Refusal::Unknown)?;
        match (name.as_str(), door) {
            ("nobody-knows", _) => Err(Refusal::Unavailable),
            ("fleet", Door::Registration) => Ok(ClientName::new(name)),
            ("fleet", _) | (_, Door::Registration) => Err(Refusal::WrongKind),
            _ => Ok(ClientName::new(name)),
        }
    }

    fn challenge(&self, _: Door) -> HeaderValue {
        HeaderValue::from_static("Session")
    }
}

/// The API under `/ghosthands` of a service that has a route of its own.
fn nested(api: Api) -> Api {
    let service =
        Router::new().route("/own", get(async || "own")).nest("/ghosthands", api.router).layer(from_fn(session));
    Api { router: service, ..api }
}

fn embedded() -> Api {
    nested(Api::with(|_| {}, |config| config.auth = Arc::new(Users)))
}

fn request(method: Method, path: &str, user: &str, body: &Value) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = if user.is_empty() { request } else { request.header("x-session", user) };
    request.body(Body::from(body.to_string())).unwrap()
}

#[tokio::test]
async fn an_embedding_service_says_who_calls() {
    let api = embedded();
    let jobs = "/ghosthands/api/v1/jobs";
    let ask = |user: &'static str| api.send(request(Method::POST, jobs, user, &submission(json!({}))));
    let job_id = text(&ask("ada").await.expect(201)["job_id"]);
    let events = request(Method::GET, &format!("{jobs}/{job_id}/events"), "ada", &json!({}));
    assert_eq!(api.send(events).await.expect(200)["events"][0]["actor"], "client:ada");
    let stranger = ask("").await;
    stranger.problem(401, "UNAUTHENTICATED");
    assert_eq!(stranger.header("www-authenticate"), "Session");
    ask("fleet").await.problem(403, "WRONG_KEY_KIND");
    let away = ask("nobody-knows").await;
    away.problem(503, "UNAVAILABLE");
    assert_eq!(away.header("retry-after"), "1");
    // A key that the default would have known opens nothing.
    api.call(Method::GET, jobs, SERVICE_KEY, "").await.problem(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn workers_that_an_embedding_service_let_register_go_on_with_our_token() {
    let api = embedded();
    let workers = "/ghosthands/api/v1/workers";
    let register = format!("{workers}/register");
    let body = json!({"worker_id": "worker-a", "boot_id": "boot-1"});
    let ask = |user: &'static str| api.send(request(Method::POST, &register, user, &body));
    ask("ada").await.problem(403, "WRONG_KEY_KIND");
    ask("").await.problem(401, "UNAUTHENTICATED");
    let token = text(&ask("fleet").await.expect(201)["token"]);
    let beat = format!("{workers}/worker-a/heartbeat");
    let heard = api.call(Method::POST, &beat, &token, "{}").await;
    assert_eq!(heard.expect(200)["status"], "idle");
    // The session of a client or of the fleet is no token, and the token is no client.
    for user in ["ada", "fleet"] {
        let answer = api.send(request(Method::POST, &beat, user, &json!({}))).await;
        answer.problem(403, "WRONG_KEY_KIND");
    }
    let answer = api.send(request(Method::POST, &beat, "", &json!({}))).await;
    answer.problem(401, "UNAUTHENTICATED");
    let jobs = api.call(Method::GET, "/ghosthands/api/v1/jobs", &token, "").await;
    jobs.problem(403, "WRONG_KEY_KIND");
}

#[tokio::test]
async fn nested_under_a_path_everything_answers_as_at_the_root() {
    let api = nested(Api::new());
    let ask = |method: Method, path: &'static str| api.call(method, path, SERVICE_KEY, "");
    let own = ask(Method::GET, "/own").await;
    assert_eq!((own.status.as_u16(), own.text.as_str()), (200, "own"));
    ask(Method::GET, "/ghosthands/health").await.expect(200);
    ask(Method::GET, "/ghosthands/api/v1/jobs/7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11")
        .await
        .problem(404, "JOB_NOT_FOUND");
    for path in ["/ghosthands/api/v1/nothing", "/ghosthands/api", "/ghosthands/nothing/at/all"] {
        ask(Method::GET, path).await.problem(404, "NOT_FOUND");
    }
    let refused = ask(Method::PUT, "/ghosthands/api/v1/jobs").await;
    refused.problem(405, "METHOD_NOT_ALLOWED");
    assert!(refused.header("allow").contains("POST"), "{refused:?}");
    let document = ask(Method::GET, "/ghosthands/openapi.json").await.expect(200);
    assert_eq!(document["servers"], json!([{"url": "/ghosthands"}]));
    for path in ["/ghosthands/docs", "/ghosthands/docs/start.js", "/ghosthands/docs/swagger-ui-bundle.js"] {
        let answer = ask(Method::HEAD, path).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    let metrics = ask(Method::GET, "/ghosthands/metrics").await;
    for line in [
        r#"gh_http_requests_total{method="GET",route="/ghosthands/api/v1/jobs/{job_id}",status="404"} 1"#,
        r#"gh_http_requests_total{method="GET",route="unmatched",status="404"} 3"#,
        r#"gh_http_requests_total{method="PUT",route="/ghosthands/api/v1/jobs",status="405"} 1"#,
    ] {
        assert!(metrics.text.lines().any(|known| known == line), "{line}\n{}", metrics.text);
    }
    assert!(!metrics.text.contains("/own"), "the service's own routes are its own business");
}

#[tokio::test]
async fn at_the_root_the_document_names_no_server() {
    let api = Api::new();
    let document = api.call(Method::GET, "/openapi.json", SERVICE_KEY, "").await.expect(200);
    assert_eq!(document.get("servers"), None);
}
