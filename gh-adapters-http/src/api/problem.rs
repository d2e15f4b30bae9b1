//! Errors as clients and workers see them: RFC 9457, with a stable code.

use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use gh_core::application::UseCaseError;
use gh_core::domain::field::FieldError;
use gh_core::domain::rejection::Rejection;
use gh_core::domain::time::Timestamp;
use gh_core::ports::store::StoreError;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::codes::{self, ErrorCode};

/// How long a caller is asked to wait when the store is away or too many change the same.
const UNAVAILABLE_FOR: Duration = Duration::from_secs(1);

/// Why a call was not answered as asked. It is written out where the request's id is known: see
/// [`context`](super::context).
#[derive(Clone, Debug)]
pub(super) struct Problem {
    code: &'static ErrorCode,
    detail: String,
    errors: Vec<FieldError>,
    members: Vec<(&'static str, Box<RawValue>)>,
    retry: Option<RetryAfter>,
    /// Boxed, because few problems have one and all are moved around.
    challenge: Option<Box<HeaderValue>>,
}

/// When it is worth trying again.
#[derive(Clone, Copy, Debug)]
pub(super) enum RetryAfter {
    /// After so long.
    In(Duration),
    /// At this time of the store's clock.
    At(Timestamp),
}

impl Problem {
    /// A problem; `detail` is shown to the caller and holds nothing internal.
    pub(super) fn new(code: &'static ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), members: Vec::new(), retry: None, challenge: None }
    }

    /// Fields that are missing, of a wrong type or out of range.
    pub(super) fn invalid(errors: Vec<FieldError>) -> Self {
        Rejection::Invalid(errors).into()
    }

    /// One such field.
    pub(super) fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(field.into(), message)])
    }

    /// Names a field beside the problem.
    pub(super) fn naming(mut self, field: &'static str, message: impl Into<String>) -> Self {
        self.errors.push(FieldError::new(field, message));
        self
    }

    /// Adds a member of its own to the answer.
    pub(super) fn with(mut self, name: &'static str, value: &impl Serialize) -> Self {
        // Views of the core's types serialise without fail; a member that did not would only be missing.
        if let Ok(value) = serde_json::value::to_raw_value(value) {
            self.members.push((name, value));
        }
        self
    }

    /// Says how a caller makes itself known.
    pub(super) fn challenging(self, challenge: HeaderValue) -> Self {
        Self { challenge: Some(Box::new(challenge)), ..self }
    }

    /// The code.
    pub(super) const fn code(&self) -> &'static ErrorCode {
        self.code
    }

    /// When it is worth trying again, where that is known.
    pub(super) const fn retry(&self) -> Option<RetryAfter> {
        self.retry
    }

    /// The problem as it goes over the wire.
    pub(super) const fn body<'p>(&'p self, request_id: &'p str) -> ProblemBody<'p> {
        ProblemBody { problem: self, request_id }
    }

    /// The answer, without `Retry-After` where that hangs on the store's time.
    pub(super) fn render(&self, request_id: &str) -> Response {
        let body = serde_json::to_vec(&self.body(request_id)).unwrap_or_default();
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(challenge) = &self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::clone(challenge));
        }
        response
    }
}

/// See [`Problem::body`].
#[derive(Debug)]
pub(super) struct ProblemBody<'p> {
    problem: &'p Problem,
    request_id: &'p str,
}

impl Serialize for ProblemBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let problem = self.problem;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &problem.code.type_uri())?;
        map.serialize_entry("title", problem.code.title())?;
        map.serialize_entry("status", &problem.code.status().as_u16())?;
        map.serialize_entry("detail", &problem.detail)?;
        map.serialize_entry("code", problem.code.as_str())?;
        if !problem.errors.is_empty() {
            map.serialize_entry("errors", &problem.errors)?;
        }
        for (name, value) in &problem.members {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("request_id", self.request_id)?;
        map.end()
    }
}

impl IntoResponse for Problem {
    /// Leaves the problem to the layer that knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// An error is a fragment, to be put behind others; a detail stands alone.
fn sentence(rejection: &Rejection) -> String {
    let fragment = rejection.to_string();
    let mut letters = fragment.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).chain(['.']).collect()
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let problem = Self {
            retry: rejection.retry_at().map(RetryAfter::At),
            ..Self::new(ErrorCode::named(rejection.code()), sentence(&rejection))
        };
        match rejection {
            Rejection::Invalid(errors) => {
                let detail = errors.iter().take(3).map(|error| {
                    let FieldError { field, message } = error;
                    format!("{field} {message}")
                });
                Self { detail: format!("{}.", detail.collect::<Vec<_>>().join("; ")), errors, ..problem }
            }
            Rejection::WorkerUnavailable { worker_status } => problem.with("worker_status", &worker_status),
            Rejection::LeaseHeld { job_id, attempt } => problem.with("job_id", &job_id).with("attempt", &attempt),
            _ => problem,
        }
    }
}

impl From<UseCaseError> for Problem {
    fn from(error: UseCaseError) -> Self {
        match error {
            UseCaseError::Rejected(rejection) => rejection.into(),
            UseCaseError::Unavailable(source) => Self::unavailable(source.as_ref()),
            UseCaseError::Internal(source) => {
                tracing::error!(error = &source as &dyn std::error::Error, "a use case failed");
                Self::internal()
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        UseCaseError::from(error).into()
    }
}

impl Problem {
    /// Our fault; what it was is in the log only.
    pub(super) fn internal() -> Self {
        Self::new(&codes::INTERNAL_ERROR, "Something went wrong on our side; the request_id finds it in the log.")
    }

    /// Somebody who must be asked cannot be asked now, for this reason where it is known.
    pub(super) fn unavailable(source: Option<&StoreError>) -> Self {
        tracing::warn!(
            error = source.map(|error| error as &dyn std::error::Error),
            "the store, or whoever else must be asked, is away or too busy"
        );
        Self {
            retry: Some(RetryAfter::In(UNAVAILABLE_FOR)),
            ..Self::new(&codes::UNAVAILABLE, "The control plane cannot answer now; try again in a moment.")
        }
    }
}
