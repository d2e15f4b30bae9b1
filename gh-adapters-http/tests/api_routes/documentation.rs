//! The API's description, for programs and in a browser.

use std::io::Read;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gh_adapters_http::api::openapi;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::pages::{in_repository, updating};
use crate::support::{Api, SERVICE_KEY, WORKER_KEY};

const SNAPSHOT: &str = "docs/openapi.json";

#[test]
fn the_document_in_the_repository_is_the_one_that_is_served() {
    let document = serde_json::to_value(openapi()).unwrap();
    let path = in_repository(SNAPSHOT);
    if updating() {
        std::fs::write(&path, serde_json::to_string_pretty(&document).unwrap() + "\n").unwrap();
        return;
    }
    let known: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let mut changed = Vec::new();
    differences(&known, &document, String::new(), &mut changed);
    assert!(
        changed.is_empty(),
        "the API is not what {SNAPSHOT} says: {changed:#?}\nIf that is wanted: \
         UPDATE_GOLDEN=1 cargo test -p gh-adapters-http --test api_routes"
    );
}

/// Where two documents differ, as pointers.
fn differences(known: &Value, present: &Value, place: String, found: &mut Vec<String>) {
    match (known, present) {
        (Value::Object(known), Value::Object(present)) => {
            for key in known.keys().chain(present.keys().filter(|key| !known.contains_key(*key))) {
                let place = format!("{place}/{}", key.replace('/', "~1"));
                match (known.get(key), present.get(key)) {
                    (Some(known), Some(present)) => differences(known, present, place, found),
                    (Some(_), None) => found.push(format!("{place} is gone")),
                    (None, _) => found.push(format!("{place} is new")),
                }
            }
        }
        (known, present) if known == present => {}
        (known, present) => found.push(format!("{place} was {known} and is {present}")),
    }
}

/// An answer as a browser reads it: with its content decoded.
struct Page {
    status: StatusCode,
    content_type: String,
    policy: String,
    text: String,
}

async fn open(api: &Api, path: &str, authorization: &str) -> Page {
    let request = Request::get(path).header("authorization", authorization).body(Body::empty()).unwrap();
    let response = api.router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let header = |name: &str| parts.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = if header("content-encoding") == "gzip" {
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut text).unwrap();
        text
    } else {
        bytes.to_vec()
    };
    Page {
        status: parts.status,
        content_type: header("content-type"),
        policy: header("content-security-policy"),
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// What an attribute of the page's elements names, each time it is there.
fn named<'p>(page: &'p str, attribute: &str) -> Vec<&'p str> {
    let begins = format!("{attribute}=\"");
    page.split(&begins).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

#[tokio::test]
async fn the_page_loads_only_what_this_server_serves() {
    let api = Api::new();
    let me = basic("", SERVICE_KEY);
    let page = open(&api, "/docs", &me).await;
    assert_eq!((page.status, page.content_type.as_str()), (StatusCode::OK, "text/html; charset=utf-8"));
    // The browser is told to load nothing from elsewhere, and no script or style stands in the page itself.
    let policy: Vec<&str> = page.policy.split("; ").collect();
    for directive in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"] {
        assert!(policy.contains(&directive), "{policy:?}");
    }
    assert!(!page.policy.contains("unsafe") && !page.policy.contains("http"), "{policy:?}");
    assert!(!page.text.contains("<style") && !page.text.contains("<script>"), "{}", page.text);
    let files: Vec<&str> = [named(&page.text, "src"), named(&page.text, "href")].concat();
    assert_eq!(files.len(), 5, "{files:?}");
    for file in files {
        // Relative to /docs, so that it also works where the API is nested under a path.
        assert!(!file.starts_with('/') && !file.contains(':'), "{file}");
        let found = open(&api, &format!("/{file}"), &me).await;
        let expected = match file.rsplit('.').next().unwrap() {
            "js" => "text/javascript",
            "css" => "text/css",
            "png" => "image/png",
            "json" => "application/json",
            other => panic!("{other}"),
        };
        assert_eq!(found.status, 200, "{file}");
        assert!(found.content_type.starts_with(expected), "{file}: {}", found.content_type);
        assert!(found.text.len() > 100, "{file}");
        if expected == "text/css" {
            let urls = found.text.split("url(").skip(1).map(|rest| rest.trim_start_matches(['"', '\'']));
            let outside: Vec<&str> = urls.filter(|url| !url.starts_with("data:")).collect();
            assert!(outside.is_empty() && !found.text.contains("@import"), "{outside:?}");
        }
    }
    let start = open(&api, "/docs/start.js", &me).await.text;
    assert!(start.contains("url: \"openapi.json\"") && start.contains("validatorUrl: null"), "{start}");
    assert!(!start.contains("http"), "{start}");
}

#[tokio::test]
async fn a_browser_sends_the_service_key_as_a_password_and_only_to_the_documentation() {
    let api = Api::new();
    for path in ["/docs", "/docs/start.js", "/openapi.json"] {
        for user in ["", "anybody"] {
            assert_eq!(open(&api, path, &basic(user, SERVICE_KEY)).await.status, 200, "{path}");
        }
        assert_eq!(open(&api, path, &format!("Bearer {SERVICE_KEY}")).await.status, 200, "{path}");
        let refused = [basic("", "no-key"), basic(SERVICE_KEY, ""), "Basic !!".to_owned(), "Basic".to_owned()];
        for authorization in refused {
            assert_eq!(open(&api, path, &authorization).await.status, 401, "{path} {authorization}");
        }
        assert_eq!(open(&api, path, &basic("", WORKER_KEY)).await.status, 403, "{path}");
    }
    for path in ["/metrics", "/api/v1/jobs", "/api/v1/monitoring/workers"] {
        assert_eq!(open(&api, path, &basic("", SERVICE_KEY)).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn the_renderers_other_files_are_not_served() {
    let api = Api::new();
    for file in ["index.html", "swagger-initializer.js", "oauth2-redirect.html", "..%2Fdocs", "nothing"] {
        api.call(Method::GET, &format!("/docs/{file}"), SERVICE_KEY, "").await.problem(404, "NOT_FOUND");
    }
}
