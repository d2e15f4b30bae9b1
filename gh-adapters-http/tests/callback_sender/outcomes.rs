//! What a receiver gets from the callback sender, and what becomes of its answer.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::{NOW, WEBHOOK_ID, callback, error_of, loopback_sender, send, sender};
use gh_adapters_http::callbacks::{CallbackAllow, Guard, HttpCallbackSender, SendLimits, ServiceKeys};
use gh_core::ports::callback_sender::{CallbackSender, SendError, SendOutcome};
use secrecy::SecretString;
use tokio::net::TcpListener;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

async fn receiver(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

async fn the_request(server: &MockServer) -> Request {
    let mut requests = server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 1, "one send is one request");
    requests.remove(0)
}

fn status_of(outcome: &SendOutcome) -> u16 {
    match outcome {
        SendOutcome::Answered { status, .. } => *status,
        SendOutcome::Unanswered { .. } => panic!("no answer: {outcome:?}"),
    }
}

fn service_key(scope: &str, key: &str) -> ServiceKeys {
    ServiceKeys::new([(scope.parse().unwrap(), SecretString::from(key))]).unwrap()
}

#[tokio::test]
async fn headers_and_bytes_arrive_unchanged() {
    let server = receiver(ResponseTemplate::new(200)).await;
    // Odd spacing, key order and number forms: nothing on the way may parse and write the body anew.
    let body: &[u8] = b"{ \"b\":1.50,\t\"a\" : \"\xc3\xa9\", \"n\": 1e2 }\n";
    let url = format!("{}/hook?token=t%2B1&x", server.uri());

    let outcome = loopback_sender(SendLimits::default()).send(callback(&url, body)).await;

    assert_eq!(status_of(&outcome), 200);
    let request = the_request(&server).await;
    assert_eq!(request.method.as_str(), "POST");
    assert_eq!(request.url.path(), "/hook");
    assert_eq!(request.url.query(), Some("token=t%2B1&x"));
    assert_eq!(request.body, body);
    let header = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("webhook-id"), Some(WEBHOOK_ID));
    assert_eq!(header("webhook-timestamp"), Some(NOW.to_string().as_str()));
    assert_eq!(header("user-agent"), Some(concat!("gh-server/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(header("x-gh-service-key"), None);
}

#[tokio::test]
async fn the_service_key_goes_to_its_destination_and_to_no_other() {
    let own = receiver(ResponseTemplate::new(200)).await;
    let other = receiver(ResponseTemplate::new(200)).await;
    let sender = sender(CallbackAllow::loopback(), service_key(&own.uri(), "the-key"), SendLimits::default());

    send(&sender, &own.uri()).await;
    send(&sender, &other.uri()).await;

    assert_eq!(the_request(&own).await.headers["x-gh-service-key"], "the-key");
    assert!(!the_request(&other).await.headers.contains_key("x-gh-service-key"));
}

#[tokio::test]
async fn every_status_is_an_answer_with_an_excerpt() {
    for status in [200, 204, 302, 400, 410, 429, 500, 503] {
        let text = if status == 204 { "" } else { "what\nhappened" };
        let server = receiver(ResponseTemplate::new(status).set_body_string(text)).await;

        let outcome = send(&loopback_sender(SendLimits::default()), &server.uri()).await;

        let SendOutcome::Answered { status: seen, retry_after, excerpt, .. } = outcome else {
            panic!("no answer: {outcome:?}");
        };
        assert_eq!(seen, status);
        assert_eq!(retry_after, None);
        assert_eq!(excerpt, text.replace('\n', " "));
    }
}

#[tokio::test]
async fn retry_after_is_understood_as_seconds_and_as_a_date() {
    for (value, expected) in [
        ("120", Some(Duration::from_secs(120))),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(Duration::from_secs(60))),
        ("later", None),
    ] {
        let server = receiver(ResponseTemplate::new(503).insert_header("retry-after", value)).await;

        let outcome = send(&loopback_sender(SendLimits::default()), &server.uri()).await;

        let SendOutcome::Answered { retry_after, .. } = outcome else {
            panic!("no answer: {outcome:?}");
        };
        assert_eq!(retry_after, expected, "{value}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let target = receiver(ResponseTemplate::new(200)).await;
    for status in [301, 302, 303, 307, 308] {
        let server = receiver(ResponseTemplate::new(status).insert_header("location", target.uri())).await;

        let outcome = send(&loopback_sender(SendLimits::default()), &server.uri()).await;

        assert_eq!(status_of(&outcome), status);
    }
    assert!(target.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_allowed_address_may_be_called_by_name_over_http() {
    let server = receiver(ResponseTemplate::new(200)).await;
    let url = format!("http://localhost:{}/", server.address().port());

    for allow in [CallbackAllow::loopback(), "localhost".parse().unwrap()] {
        let sender = sender(allow, ServiceKeys::default(), SendLimits::default());
        assert_eq!(status_of(&send(&sender, &url).await), 200);
    }
}

#[tokio::test]
async fn a_blocked_destination_is_never_connected_to() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let nothing_allowed = sender(CallbackAllow::default(), ServiceKeys::default(), SendLimits::default());
    let other_allowed = sender("10.0.0.0/8".parse().unwrap(), ServiceKeys::default(), SendLimits::default());

    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("https://127.0.0.1:{port}/"),
        format!("https://2130706433:{port}/"),
        format!("https://[::ffff:7f00:1]:{port}/"),
        format!("http://localhost:{port}/"),
        format!("https://localhost:{port}/"),
        format!("https://user:word@localhost:{port}/"),
        format!("ftp://localhost:{port}/"),
    ] {
        for sender in [&nothing_allowed, &other_allowed] {
            assert_eq!(error_of(&send(sender, &url).await), SendError::BlockedAddress, "{url}");
        }
    }

    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_refused_connection_is_a_connect_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);

    let outcome = send(&loopback_sender(SendLimits::default()), &url).await;

    assert_eq!(error_of(&outcome), SendError::Connect);
}

#[tokio::test]
async fn a_name_without_addresses_is_a_dns_error() {
    let outcome = send(&loopback_sender(SendLimits::default()), "https://nobody.invalid/").await;

    assert_eq!(error_of(&outcome), SendError::Dns);
}

/// Runs itself again in a process whose environment names a proxy that nothing listens at.
#[tokio::test]
async fn a_proxy_of_the_environment_is_not_used() {
    const CHILD: &str = "CALLBACK_SENDER_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let server = receiver(ResponseTemplate::new(200)).await;
        let outcome = send(&loopback_sender(SendLimits::default()), &server.uri()).await;
        assert_eq!(status_of(&outcome), 200);
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "outcomes::a_proxy_of_the_environment_is_not_used"])
        .env(CHILD, "1")
        .env("HTTP_PROXY", &proxy)
        .env("http_proxy", &proxy)
        .env("ALL_PROXY", &proxy)
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn limits_beyond_the_ports_promise_are_refused() {
    let build = |limits| HttpCallbackSender::new(Guard::default(), ServiceKeys::default(), limits, Arc::new(|| NOW));
    let default = SendLimits::default();
    assert!(build(default).is_ok());
    assert!(build(SendLimits { total: Duration::from_secs(26), ..default }).is_err());
    assert!(build(SendLimits { excerpt_chars: 1_001, ..default }).is_err());
}
