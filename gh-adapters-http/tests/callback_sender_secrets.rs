//! Secrets of a callback's URL and the service key reach no log, no debug output and no excerpt.
//!
//! A test program of its own, because it listens to everything the process logs.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gh_adapters_http::callbacks::{CallbackAllow, Guard, HttpCallbackSender, KeyScope, SendLimits, ServiceKeys};
use gh_core::domain::ids::DeliveryId;
use gh_core::ports::callback_sender::{CallbackSender, OutgoingCallback, SendOutcome};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tracing_subscriber::fmt::MakeWriter;
use url::Url;
use uuid::Uuid;
use wiremock::matchers::{any, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no writer panicked")).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Tells the caller what it sent, as careless receivers do.
fn echo(request: &Request) -> ResponseTemplate {
    let key = request.headers["x-gh-service-key"].to_str().expect("the key is text");
    ResponseTemplate::new(404).set_body_string(format!(
        "Cannot POST {}?{} for {key}",
        request.url.path(),
        request.url.query().unwrap_or_default()
    ))
}

#[tokio::test]
async fn secrets_are_neither_logged_nor_shown_nor_kept() {
    const SECRETS: [&str; 3] = ["tok3n-s3cret", "passw0rd", "serv1ce-key"];
    let log = Log::default();
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(log.clone()).init();
    let server = MockServer::start().await;
    Mock::given(path("/echo")).respond_with(echo).mount(&server).await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    let keys = ServiceKeys::new([(KeyScope::Everywhere, SecretString::from("serv1ce-key"))]).unwrap();
    let guard = Guard::new(CallbackAllow::loopback());
    let sender = HttpCallbackSender::new(guard, keys, SendLimits::default(), Arc::new(|| 0)).unwrap();

    let mut outcomes = Vec::new();
    for url in [
        format!("{}/?token=tok3n-s3cret", server.uri()),
        format!("{}/echo?token=tok3n-s3cret", server.uri()),
        format!("http://{nobody}/?token=tok3n-s3cret"),
        format!("https://{}/?token=tok3n-s3cret", server.address()),
        "https://10.0.0.1/?token=tok3n-s3cret".to_owned(),
        "https://nobody.invalid/?token=tok3n-s3cret".to_owned(),
        "https://user:passw0rd@example.com/".to_owned(),
    ] {
        let callback = OutgoingCallback {
            webhook_id: DeliveryId::new(Uuid::nil()),
            url: Url::parse(&url).unwrap(),
            body: Bytes::from_static(b"{}"),
            attempt: 1,
        };
        outcomes.push(sender.send(callback).await);
    }

    let SendOutcome::Answered { excerpt, .. } = &outcomes[1] else {
        panic!("no answer: {outcomes:?}");
    };
    assert_eq!(excerpt, "Cannot POST /echo?[redacted] for [redacted]");
    let log = log.text();
    assert!(log.contains("callback attempted"), "our own words are heard: {log}");
    assert!(log.contains("starting new connection"), "the client's are, too: {log}");
    let shown = format!("{sender:?} {outcomes:?}");
    for secret in SECRETS {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
    }
}
