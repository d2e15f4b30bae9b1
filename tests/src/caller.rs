//! Calling whichever server answers, as clients and workers have to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use gh_adapters_http::tls;
use reqwest::Method;
use serde_json::Value;

use crate::client::Answer;

/// After so long without an answer a call is repeated, at another server.
const NO_ANSWER: Duration = Duration::from_secs(8);

/// The pause before a call is repeated.
const PAUSE: Duration = Duration::from_millis(50);

/// The addresses of the servers that there are. They come and go.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<RwLock<Vec<String>>>);

impl Addresses {
    /// These are the servers from now on.
    pub fn set(&self, base_urls: impl IntoIterator<Item = String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = base_urls.into_iter().collect();
    }

    fn nth(&self, turn: usize) -> Option<String> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(turn.checked_rem(all.len())?).cloned()
    }
}

/// Calls with one key or token, another server with each call.
#[derive(Clone, Debug)]
pub struct Caller {
    http: reqwest::Client,
    addresses: Addresses,
    key: String,
    turn: Arc<AtomicUsize>,
}

impl Caller {
    /// A caller of these servers.
    ///
    /// # Panics
    ///
    /// When no HTTP client can be made.
    #[must_use]
    pub fn new(addresses: &Addresses, key: &str) -> Self {
        let http = tls::client_builder().expect("TLS is set up").no_proxy().build().expect("a client");
        Self { http, addresses: addresses.clone(), key: key.to_owned(), turn: Arc::default() }
    }

    /// The same with another key or token.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// `POST` under `/api/v1`, once; nothing when there was no answer.
    pub async fn post_once(&self, path: &str, body: &Value) -> Option<Answer> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// `POST` under `/api/v1`, repeated until there is an answer that is one.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.repeat(Method::POST, path, Some(body)).await
    }

    /// `GET` under `/api/v1`, repeated in the same way.
    pub async fn get(&self, path: &str) -> Answer {
        self.repeat(Method::GET, path, None).await
    }

    async fn repeat(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        loop {
            match self.send(method.clone(), path, body).await {
                // 500 is told as a defect, which nothing here provokes.
                Some(answer) if !matches!(answer.status, 408 | 429 | 502..=504) => return answer,
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Option<Answer> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let url = format!("{}/api/v1{path}", self.addresses.nth(turn)?);
        let mut request = self.http.request(method, url).bearer_auth(&self.key).timeout(NO_ANSWER);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let retry_after =
            answer.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        Some(Answer { status, retry_after, text: answer.text().await.ok()? })
    }
}
