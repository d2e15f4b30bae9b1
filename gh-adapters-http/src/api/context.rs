//! What surrounds every request: its id, its log line, its measure, and its problem written out.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use gh_core::domain::time::Timestamp;
use tracing::{Instrument, info, info_span};

use super::ApiState;
use super::body::BodySlot;
use super::declared;
use super::problem::{Problem, RetryAfter};

const REQUEST_ID: &str = "x-request-id";

/// The longest request id that is taken from a caller, in characters.
const MAX_REQUEST_ID: usize = 128;

/// By which an answer and the log lines of its request find each other.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    /// The id as text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The caller's, if it is short and printable; else a fresh one.
    fn of(headers: &HeaderMap, state: &ApiState) -> Self {
        let theirs = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let printable =
            |id: &&str| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        Self(match theirs.filter(printable) {
            Some(id) => id.into(),
            None => state.ids.uuid().to_string().into(),
        })
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// The outermost layer of the API.
pub(super) async fn surround(State(state): State<Arc<ApiState>>, mut request: Request, next: Next) -> Response {
    let started = state.clock.now();
    let request_id = RequestId::of(request.headers(), &state);
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let method = method_name(request.method());
    let body = BodySlot::new(std::mem::take(request.body_mut()));
    request.extensions_mut().insert(request_id.clone());
    request.extensions_mut().insert(body.clone());
    let span = info_span!("request", request_id = request_id.as_str(), method, route);
    async {
        let response = next.run(request).await;
        body.drain().await;
        let code = response.extensions().get::<Problem>().map(Problem::code);
        let mut response = write_problem(&state, &request_id, response).await;
        declared::check(&state.metrics, method, &route, code, &mut response);
        if let Ok(id) = HeaderValue::from_str(request_id.as_str()) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        let took = state.clock.now().since(started);
        let status = response.status().as_u16();
        info!(status, duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "answered");
        state.metrics.request(method, route, status, took);
        response
    }
    .instrument(span)
    .await
}

/// Known methods only: labels must not be the caller's to invent.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// Writes out the problem that an answer carries, if it carries one.
async fn write_problem(state: &ApiState, request_id: &RequestId, mut response: Response) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    let mut written = problem.render(request_id.as_str());
    if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
        written.headers_mut().insert(header::ALLOW, allow);
    }
    let wait = match problem.retry() {
        None => None,
        Some(RetryAfter::In(wait)) => Some(wait),
        Some(RetryAfter::At(time)) => until(state, time).await,
    };
    if let Some(wait) = wait {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        written.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    written
}

/// How long it is until `time` by the store's clock; none while the store is away.
async fn until(state: &ApiState, time: Timestamp) -> Option<Duration> {
    let now = state.control_plane.reader().now().await.ok()?;
    Some(time.since(now))
}

/// What is answered when a handler panicked: the server lives on.
pub(super) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    // The payload may hold anything; the panic hook has written it to where panics go.
    tracing::error!("a handler panicked");
    Problem::internal().into_response()
}
