//! One attempt to deliver one callback over HTTP.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use gh_core::ports::callback_sender::{CallbackSender, OutgoingCallback, SendError, SendOutcome};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::redirect::Policy;
use tokio::time::Instant;

use super::errors::classify;
use super::excerpt::{Secrets, excerpt};
use super::guard::{Guard, Requirement};
use super::resolver::VettingResolver;
use super::retry_after;
use super::service_keys::{Destination, ServiceKeys};
use crate::tls::{TlsError, client_builder};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SERVICE_KEY: HeaderName = HeaderName::from_static("x-gh-service-key");
const USER_AGENT: &str = concat!("gh-server/", env!("CARGO_PKG_VERSION"));

/// Common receivers close an idle connection after 5 s; one that is dropped earlier is never used just as it closes.
const KEEP_IDLE_CONNECTIONS: Duration = Duration::from_secs(4);
const IDLE_CONNECTIONS_PER_HOST: usize = 8;

/// Tells the time: whole seconds since 1970-01-01T00:00:00Z.
pub type UnixSeconds = Arc<dyn Fn() -> i64 + Send + Sync>;

/// How far one attempt may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendLimits {
    /// For resolving the host's name; part of `connect`.
    pub resolve: Duration,
    /// For resolving, connecting and securing the connection together; part of `total`.
    pub connect: Duration,
    /// For the whole attempt, the body of the answer included; at most [`SendLimits::LONGEST`].
    pub total: Duration,
    /// How many bytes of the answer's body are read.
    pub body_bytes: usize,
    /// How many characters of the answer's body are kept; at most 1,000 by the port's promise.
    pub excerpt_chars: usize,
}

impl SendLimits {
    /// The longest time an attempt may take: well below the lease of a delivery.
    pub const LONGEST: Duration = Duration::from_secs(25);
    /// The longest excerpt, in characters.
    pub const LONGEST_EXCERPT: usize = 1_000;
}

impl Default for SendLimits {
    /// 4 s, 5 s and 15 s; 64 KiB; 1,000 characters.
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(4),
            connect: Duration::from_secs(5),
            total: Duration::from_secs(15),
            body_bytes: 64 * 1024,
            excerpt_chars: Self::LONGEST_EXCERPT,
        }
    }
}

/// Why there is no sender.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// A limit is greater than the port promises.
    #[error("an attempt may take at most 25 s and keep at most 1,000 characters")]
    Limits,
    /// No TLS.
    #[error("tls cannot be set up")]
    Tls(#[from] TlsError),
    /// The HTTP client refused its settings.
    #[error("the http client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// Sends callbacks by `POST`, without redirects and without proxies of the environment.
///
/// Connections are kept and used again for a few seconds. Destinations that the [`Guard`] refuses end as
/// [`SendError::BlockedAddress`]. An answer counts only when its body arrived, or as much of it as is read.
pub struct HttpCallbackSender {
    guard: Guard,
    service_keys: ServiceKeys,
    limits: SendLimits,
    unix_seconds: UnixSeconds,
    // Two clients, because what a name may stand for depends on the scheme, which a resolver does not learn.
    https: reqwest::Client,
    http: reqwest::Client,
}

impl HttpCallbackSender {
    /// Builds a sender. Reads the root certificates of the system.
    ///
    /// # Errors
    ///
    /// [`SenderError`] for limits beyond the port's promises, and when no HTTP client can be built.
    pub fn new(
        guard: Guard,
        service_keys: ServiceKeys,
        limits: SendLimits,
        unix_seconds: UnixSeconds,
    ) -> Result<Self, SenderError> {
        if limits.total > SendLimits::LONGEST || limits.excerpt_chars > SendLimits::LONGEST_EXCERPT {
            return Err(SenderError::Limits);
        }
        let client = |requirement| -> Result<reqwest::Client, SenderError> {
            client_builder()?
                .no_proxy()
                .redirect(Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .https_only(requirement == Requirement::PublicOrAllowed)
                .user_agent(USER_AGENT)
                .connect_timeout(limits.connect)
                .pool_idle_timeout(KEEP_IDLE_CONNECTIONS)
                .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST)
                .dns_resolver(VettingResolver { guard: guard.clone(), requirement, limit: limits.resolve })
                .build()
                .map_err(SenderError::Client)
        };
        Ok(Self {
            https: client(Requirement::PublicOrAllowed)?,
            http: client(Requirement::Allowed)?,
            guard,
            service_keys,
            limits,
            unix_seconds,
        })
    }

    async fn exchange(&self, callback: &OutgoingCallback, destination: &Destination) -> Result<Answer, SendError> {
        if let Err(refused) = self.guard.permits(&callback.url) {
            tracing::debug!(reason = %refused, "callback refused");
            return Err(SendError::BlockedAddress);
        }
        let client = if callback.url.scheme() == "https" { &self.https } else { &self.http };
        let service_key = self.service_keys.key_for(destination);
        let mut request = client
            .post(callback.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(WEBHOOK_ID, callback.webhook_id.to_string())
            .header(WEBHOOK_TIMESTAMP, (self.unix_seconds)())
            .body(callback.body.clone());
        if let Some(key) = service_key {
            request = request.header(SERVICE_KEY, key.clone());
        }
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let retry_after = self.retry_after(response.headers());
        let body = read_at_most(&mut response, self.limits.body_bytes).await.map_err(failed)?;
        let secrets = Secrets::of(&callback.url, service_key.and_then(|key| key.to_str().ok()));
        Ok(Answer { status, retry_after, excerpt: excerpt(&body, self.limits.excerpt_chars, &secrets) })
    }

    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
        retry_after::parse(value, (self.unix_seconds)())
    }
}

struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    excerpt: String,
}

/// Classifies a failure and tells the log its causes; the URL, which the client adds, may hold secrets and is taken out.
fn failed(error: reqwest::Error) -> SendError {
    let class = classify(&error);
    let error = error.without_url();
    tracing::debug!(class = %class, cause = ?error, "callback got no answer");
    class
}

/// Reads until the body ends or the limit is reached; the rest is left, and the connection with it.
async fn read_at_most(response: &mut reqwest::Response, limit: usize) -> Result<Bytes, reqwest::Error> {
    let mut body = BytesMut::new();
    while body.len() < limit {
        let Some(chunk) = response.chunk().await? else {
            break;
        };
        body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]);
    }
    Ok(body.freeze())
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long an exchange took is measured on the monotonic clock and decides nothing"
)]
fn monotonic_now() -> Instant {
    Instant::now()
}

#[async_trait]
impl CallbackSender for HttpCallbackSender {
    async fn send(&self, callback: OutgoingCallback) -> SendOutcome {
        let started = monotonic_now();
        let destination = Destination::of(&callback.url);
        let result = tokio::time::timeout(self.limits.total, self.exchange(&callback, &destination))
            .await
            .unwrap_or(Err(SendError::Timeout));
        let took = started.elapsed();
        tracing::debug!(
            webhook_id = %callback.webhook_id,
            attempt = callback.attempt,
            destination = %destination,
            status = result.as_ref().ok().map(|answer| answer.status),
            error = result.as_ref().err().map(tracing::field::display),
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "callback attempted"
        );
        match result {
            Ok(Answer { status, retry_after, excerpt }) => SendOutcome::Answered { status, retry_after, excerpt, took },
            Err(error) => SendOutcome::Unanswered { error, took },
        }
    }
}

impl fmt::Debug for HttpCallbackSender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HttpCallbackSender")
            .field("guard", &self.guard)
            .field("service_keys", &self.service_keys)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
