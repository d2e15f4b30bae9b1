//! One typed call per worker route. A call is made once; who repeats it, and when, is the caller's business.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gh_core::domain::ids::{Attempt, Generation, JobId, WorkerId};
use gh_core::domain::time::Timestamp;
use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use url::Url;

use super::answer::Refusal;
use super::host::Host;
use super::wire::{
    Acknowledgement, ClaimedJob, CompleteRequest, EventsAnswer, FailRequest, HeartbeatAnswer, HeartbeatRequest,
    ReasonRequest, RegisterRequest, Registration, UsageAnswer,
};

/// The longest answer that is read. A job's own data is at most 1 MiB.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

/// The control plane before a worker has registered with it.
#[derive(Clone)]
pub struct ControlPlane {
    http: reqwest::Client,
    base_url: Url,
    host: Arc<dyn Host>,
    timeout: Duration,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ControlPlane").field("base_url", &self.base_url.as_str()).finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// The control plane at `base_url` (without `/api/v1`). `timeout` is for the answer to one ordinary call.
    #[must_use]
    pub fn new(http: reqwest::Client, base_url: Url, host: Arc<dyn Host>, timeout: Duration) -> Self {
        Self { http, base_url, host, timeout }
    }

    /// Registers a process. A repeat with the same `boot_id` has the same answer.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn register(&self, worker_key: &SecretString, body: &RegisterRequest) -> Result<Registration, Refusal> {
        let request = self
            .request(Method::POST, &["workers", "register"])
            .bearer_auth(worker_key.expose_secret())
            .timeout(self.timeout);
        self.decode(self.post(request, body).await?).await
    }

    /// The same control plane for a worker that has registered.
    #[must_use]
    pub fn connect(&self, registration: &Registration) -> WorkerLink {
        WorkerLink {
            plane: self.clone(),
            worker_id: registration.worker_id.clone(),
            generation: registration.generation,
            token: registration.token.clone(),
        }
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base_url.clone();
        // An opaque base such as `mailto:` has no path; the request then fails as one that cannot be built.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        self.http.request(method, url)
    }

    async fn post(&self, request: RequestBuilder, body: &impl Serialize) -> Result<Response, Refusal> {
        let body = serde_json::to_vec(body).map_err(|error| {
            tracing::error!(%error, "a report could not be encoded");
            Refusal::Rejected { status: 0, code: None }
        })?;
        self.send(request.header(CONTENT_TYPE, "application/json").body(body)).await
    }

    /// Sends a request and gives back a success; everything else is a refusal.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Refusal> {
        let response = request.send().await.map_err(|error| {
            let cannot_be_built = error.is_builder();
            let error = error.without_url();
            tracing::debug!(%error, "no answer from the control plane");
            if cannot_be_built {
                Refusal::Rejected { status: 0, code: None }
            } else {
                Refusal::Unanswered { retry_after: None }
            }
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let retry_after = self.retry_after(&response);
        let body = read(response).await.unwrap_or_default();
        Err(Refusal::of(status, retry_after, &body))
    }

    async fn decode<A: DeserializeOwned>(&self, response: Response) -> Result<A, Refusal> {
        let body = read(response).await?;
        serde_json::from_slice(&body).map_err(|error| {
            tracing::warn!(%error, "an answer of the control plane cannot be read");
            Refusal::Unanswered { retry_after: None }
        })
    }

    /// `Retry-After` in seconds or as a date.
    fn retry_after(&self, response: &Response) -> Option<Duration> {
        let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let date = httpdate::parse_http_date(text).ok()?;
        let since_epoch = date.duration_since(std::time::UNIX_EPOCH).ok()?;
        let date = Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).ok()?);
        Some(date.since(self.host.wall_clock()))
    }
}

/// Reads an answer's body, up to the limit.
async fn read(mut response: Response) -> Result<Bytes, Refusal> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= LONGEST_ANSWER => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.freeze()),
            Ok(Some(_)) => {
                tracing::warn!("an answer of the control plane is too long");
                return Err(Refusal::Unanswered { retry_after: None });
            }
            Err(_) => return Err(Refusal::Unanswered { retry_after: None }),
        }
    }
}

/// The control plane as one registered worker calls it: every call carries the token of its generation.
#[derive(Clone)]
pub struct WorkerLink {
    plane: ControlPlane,
    worker_id: WorkerId,
    generation: Generation,
    token: SecretString,
}

impl fmt::Debug for WorkerLink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WorkerLink")
            .field("worker_id", &self.worker_id)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// A list under one name: `{"events": [...]}`.
struct Listed<'a, T> {
    name: &'static str,
    items: &'a [T],
}

impl<T: Serialize> Serialize for Listed<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.name, self.items)?;
        map.end()
    }
}

impl WorkerLink {
    /// The worker's name.
    #[must_use]
    pub const fn worker_id(&self) -> &WorkerId {
        &self.worker_id
    }

    /// The registration that the token belongs to.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.plane.request(method, path).bearer_auth(self.token.expose_secret())
    }

    fn own(&self, method: Method, route: &str) -> RequestBuilder {
        self.request(method, &["workers", self.worker_id.as_str(), route])
    }

    async fn report<A: DeserializeOwned>(
        &self,
        job_id: JobId,
        attempt: Attempt,
        route: &str,
        body: &impl Serialize,
    ) -> Result<A, Refusal> {
        let (job_id, attempt) = (job_id.to_string(), attempt.to_string());
        let request =
            self.request(Method::POST, &["jobs", &job_id, "attempts", &attempt, route]).timeout(self.plane.timeout);
        self.plane.decode(self.plane.post(request, body).await?).await
    }

    /// A sign of life; `timeout` is for the answer.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn heartbeat(&self, body: &HeartbeatRequest, timeout: Duration) -> Result<HeartbeatAnswer, Refusal> {
        let request = self.own(Method::POST, "heartbeat").timeout(timeout);
        self.plane.decode(self.plane.post(request, body).await?).await
    }

    /// Waits up to `wait` (whole seconds, at most 30) for a job; none is `None`.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn claim(&self, wait: Duration) -> Result<Option<ClaimedJob>, Refusal> {
        let seconds = wait.as_secs().min(30);
        let (client, request) =
            self.own(Method::POST, "claim").timeout(Duration::from_secs(seconds) + self.plane.timeout).build_split();
        let mut request = request.map_err(|_| Refusal::Rejected { status: 0, code: None })?;
        request.url_mut().query_pairs_mut().append_pair("wait", &seconds.to_string());
        let response = self.plane.send(RequestBuilder::from_parts(client, request)).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        self.plane.decode(response).await.map(Some)
    }

    /// Opens the stream of directives. It has no time limit.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn directives(&self) -> Result<Response, Refusal> {
        let request = self.own(Method::GET, "directives").header(ACCEPT, "text/event-stream");
        match tokio::time::timeout(self.plane.timeout, self.plane.send(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::Unanswered { retry_after: None }),
        }
    }

    /// Says goodbye.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn goodbye(&self, reason: String) -> Result<(), Refusal> {
        let request = self.own(Method::POST, "deregister").timeout(self.plane.timeout);
        self.plane.post(request, &ReasonRequest { reason }).await.map(|_| ())
    }

    /// Reports events, which were encoded before.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn events(
        &self,
        job_id: JobId,
        attempt: Attempt,
        events: &[Arc<RawValue>],
    ) -> Result<EventsAnswer, Refusal> {
        let body = Listed { name: "events", items: events };
        self.report(job_id, attempt, "events", &body).await
    }

    /// Reports LLM calls, which were encoded before.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn usage(
        &self,
        job_id: JobId,
        attempt: Attempt,
        calls: &[Box<RawValue>],
    ) -> Result<UsageAnswer, Refusal> {
        let body = Listed { name: "calls", items: calls };
        self.report(job_id, attempt, "usage", &body).await
    }

    /// Asks to pass the point of no return.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn side_effects_started(
        &self,
        job_id: JobId,
        attempt: Attempt,
        what: Option<&str>,
    ) -> Result<(), Refusal> {
        let body: std::collections::BTreeMap<_, _> = what.map(|what| ("what", what)).into_iter().collect();
        let answer: Result<Acknowledgement, _> = self.report(job_id, attempt, "side-effects-started", &body).await;
        answer.map(|_| ())
    }

    /// Ends an attempt well.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn complete(&self, job_id: JobId, attempt: Attempt, body: &CompleteRequest) -> Result<(), Refusal> {
        let answer: Result<Acknowledgement, _> = self.report(job_id, attempt, "complete", body).await;
        answer.map(|_| ())
    }

    /// Ends an attempt badly.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn fail(&self, job_id: JobId, attempt: Attempt, body: &FailRequest) -> Result<(), Refusal> {
        let answer: Result<Acknowledgement, _> = self.report(job_id, attempt, "fail", body).await;
        answer.map(|_| ())
    }

    /// Gives an unfinished job back.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn release(&self, job_id: JobId, attempt: Attempt, reason: String) -> Result<(), Refusal> {
        let body = ReasonRequest { reason };
        let answer: Result<Acknowledgement, _> = self.report(job_id, attempt, "release", &body).await;
        answer.map(|_| ())
    }
}
