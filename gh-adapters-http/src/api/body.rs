//! Request bodies: read within their limits, and taken apart with an error that names the field.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, MatchedPath, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use gh_core::domain::field::FieldError;
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ApiState;
use super::codes;
use super::problem::Problem;
use super::scan;

/// How long a body may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

/// How much of a refused body is still read, so that its sender gets to read the answer.
const DRAINED_UP_TO: usize = 8 * 1024 * 1024;

/// The longest message about one field, in characters.
const MAX_MESSAGE_CHARS: usize = 200;

/// What is left of a request's body, shared with the layer that reads what nobody wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct BodySlot(Arc<Mutex<Option<Body>>>);

impl BodySlot {
    /// Holds a body.
    pub(super) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put_back(&self, body: Body) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    /// Reads what nobody has read, up to a limit of size and time.
    pub(super) async fn drain(&self) {
        let Some(mut body) = self.take() else { return };
        let rest = async {
            let mut size = 0;
            while size <= DRAINED_UP_TO
                && let Some(Ok(frame)) = body.frame().await
            {
                size += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        // Whoever sends slower than this does not get the answer; there is nobody else to tell.
        let _in_time = tokio::time::timeout(ARRIVES_WITHIN, rest).await;
    }

    async fn read(&self, headers: &HeaderMap, limit: usize) -> Result<Bytes, Problem> {
        let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|length| length > limit as u64) {
            return Err(too_large(limit));
        }
        let Some(mut body) = self.take() else {
            return Ok(Bytes::new());
        };
        let mut read = Vec::new();
        let arrival = async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| Problem::new(&codes::MALFORMED_JSON, "The body broke off."))?;
                if let Some(data) = frame.data_ref() {
                    if read.len() + data.len() > limit {
                        return Err(too_large(limit));
                    }
                    read.extend_from_slice(data);
                }
            }
            Ok(())
        };
        match tokio::time::timeout(ARRIVES_WITHIN, arrival).await {
            Ok(Ok(())) => Ok(read.into()),
            Ok(Err(problem)) => {
                self.put_back(body);
                Err(problem)
            }
            Err(_elapsed) => Err(Problem::new(
                &codes::REQUEST_TIMEOUT,
                format!("The body did not arrive within {} s.", ARRIVES_WITHIN.as_secs()),
            )),
        }
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(&codes::PAYLOAD_TOO_LARGE, format!("The body may have at most {limit} bytes."))
}

/// The JSON object in a request's body; an empty body is an empty object.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<ApiState>> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<ApiState>) -> Result<Self, Problem> {
        let (text, route) = read_json(request, state).await?;
        refuse_nul(&text)?;
        parse(&text, state, &route).map(Self)
    }
}

/// Like [`JsonBody`], for bodies whose items are judged one by one: the text of each is looked at on its own.
#[derive(Debug)]
pub(super) struct ItemsBody<T> {
    pub(super) body: T,
    /// The route, under which unknown fields of the items are counted.
    pub(super) route: String,
}

impl<T: DeserializeOwned> FromRequest<Arc<ApiState>> for ItemsBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<ApiState>) -> Result<Self, Problem> {
        let (text, route) = read_json(request, state).await?;
        places_of_nul(&text)?;
        let body = parse(&text, state, &route)?;
        Ok(Self { body, route })
    }
}

async fn read_json(request: Request, state: &ApiState) -> Result<(String, String), Problem> {
    let (parts, _) = request.into_parts();
    let slot = parts.extensions.get::<BodySlot>().cloned().unwrap_or_default();
    let is_json = content_type_is_json(&parts.headers);
    if is_json == Some(false) {
        return Err(not_json());
    }
    let bytes = slot.read(&parts.headers, state.limits.body_bytes).await?;
    // Without a body there is nothing whose type could be missing.
    if is_json.is_none() && !bytes.is_empty() {
        return Err(not_json());
    }
    let route = parts.extensions.get::<MatchedPath>();
    let route = route.map_or_else(String::new, |path| path.as_str().to_owned());
    let text =
        String::from_utf8(bytes.into()).map_err(|_| Problem::new(&codes::MALFORMED_JSON, "The body is not UTF-8."))?;
    let text = if text.trim().is_empty() { "{}".to_owned() } else { text };
    Ok((text, route))
}

fn not_json() -> Problem {
    Problem::new(&codes::UNSUPPORTED_MEDIA_TYPE, "The body must be sent as Content-Type: application/json.")
}

/// None without a content type.
fn content_type_is_json(headers: &HeaderMap) -> Option<bool> {
    let content_type = headers.get(CONTENT_TYPE)?;
    let Ok(text) = content_type.to_str() else {
        return Some(false);
    };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    Some(json)
}

fn places_of_nul(text: &str) -> Result<Vec<String>, Problem> {
    scan::places_of_nul(text)
        .map_err(|error| Problem::new(&codes::MALFORMED_JSON, format!("The body is not JSON: {error}.")))
}

/// Refuses text that is not JSON, or that holds U+0000 anywhere.
pub(super) fn refuse_nul(text: &str) -> Result<(), Problem> {
    let places = places_of_nul(text)?;
    if places.is_empty() {
        return Ok(());
    }
    let refuse = |place: String| FieldError::new(place, "must not contain U+0000");
    Err(Problem::invalid(places.into_iter().map(refuse).collect()))
}

/// Reads text that is known to be JSON into a type; counts the fields that the type does not know.
pub(super) fn parse<T: DeserializeOwned>(text: &str, state: &ApiState, route: &str) -> Result<T, Problem> {
    if !text.trim_start().starts_with('{') {
        return Err(Problem::field("body", "must be a JSON object"));
    }
    let mut unknown = 0_u64;
    let mut json = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let read = {
        let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
        serde_ignored::deserialize(tracked, |_| unknown += 1)
    };
    state.metrics.unknown_fields(route, unknown);
    read.map_err(|error| {
        let (child, message) = describe(&error.to_string());
        let path = track.path().to_string();
        let field = match (path.as_str(), child) {
            ("." | "", Some(child)) => child,
            ("." | "", None) => "body".to_owned(),
            (path, Some(child)) => format!("{path}.{child}"),
            (path, None) => path.to_owned(),
        };
        Problem::field(cut(&field), message)
    })
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_MESSAGE_CHARS).collect()
}

/// What a deserialisation error says, without the value that it quotes and without words of the implementation: the
/// field it names, if it does, and what must be.
fn describe(error: &str) -> (Option<String>, String) {
    let error = error.rfind(" at line ").map_or(error, |end| &error[..end]);
    let named = |prefix: &str| {
        let name = error.strip_prefix(prefix)?.split('`').next()?;
        Some(name.to_owned())
    };
    if let Some(field) = named("missing field `") {
        return (Some(field), "is required".to_owned());
    }
    if let Some(field) = named("duplicate field `") {
        return (Some(field), "must be given once".to_owned());
    }
    if error.starts_with("UUID parsing failed") {
        return (None, "must be a UUID".to_owned());
    }
    let message = match error.rfind("expected ") {
        Some(start) => {
            let expected = &error[start + "expected ".len()..];
            let expected = match expected {
                "i8" | "i16" | "i32" | "i64" => "a whole number",
                "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
                "f32" | "f64" => "a number",
                "a sequence" => "a list",
                "a map" => "an object",
                "a formatted UUID string" => "a UUID",
                other if other.starts_with("struct ") => "an object",
                other => other,
            };
            format!("must be {expected}")
        }
        None => error.to_owned(),
    };
    (None, cut(&message))
}

/// An answer with a JSON body, written straight to text: numbers keep their digits.
pub(super) fn json_answer(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(text) => (status, [(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "an answer cannot be written");
            Problem::internal().into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_what_must_be_and_quote_nothing() {
        let cases = [
            ("missing field `reason` at line 1 column 2", Some("reason"), "is required"),
            (
                "invalid type: string \"expected to be secret\", expected i64 at line 1 column 9",
                None,
                "must be a whole number",
            ),
            ("invalid value: integer `-1`, expected u32", None, "must be a whole number, 0 or more"),
            ("invalid type: integer `1`, expected a string", None, "must be a string"),
            ("unknown variant `sometimes`, expected `batch` or `flex`", None, "must be `batch` or `flex`"),
            ("must be an RFC 3339 timestamp at line 1 column 9", None, "must be an RFC 3339 timestamp"),
            ("must have 1 to 100 characters", None, "must have 1 to 100 characters"),
        ];
        for (error, field, message) in cases {
            let (named, said) = describe(error);
            assert_eq!((named.as_deref(), said.as_str()), (field, message), "{error}");
        }
    }
}
