//! The API's description: for programs, and as a page for people that loads nothing from anywhere else.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, RawPathParams};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::Server;
use utoipa_swagger_ui::Config;

use super::super::body::json_answer;
use super::super::codes::NOT_FOUND;
use super::super::document;
use super::super::problem::Problem;

/// Only what this server serves runs, styles or is asked; nobody frames the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The renderer's files that the page uses; its crate brings more.
const RENDERER: [&str; 3] = ["swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"];

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", responses((status = OK, body = Object)))]
pub(super) async fn openapi(OriginalUri(asked): OriginalUri, own: Uri) -> Response {
    let mut document = document::openapi();
    // Where this API is nested in another service, paths begin behind its prefix.
    let prefix = asked.path().strip_suffix(own.path()).filter(|prefix| !prefix.is_empty());
    document.servers = prefix.map(|prefix| vec![Server::new(prefix)]);
    json_answer(StatusCode::OK, &document)
}

/// This description as a page for a browser.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "operations",
    responses((status = OK, body = String, content_type = "text/html"))
)]
pub(super) async fn page() -> Response {
    shown("text/html; charset=utf-8", include_str!("../browser/page.html").into())
}

/// A file of that page.
#[utoipa::path(
    get,
    path = "/docs/{file}",
    tag = "operations",
    params(("file" = String, Path)),
    responses((status = OK, description = "A script, a style sheet or a picture.")),
    extensions(("x-error-codes" = json!([NOT_FOUND])))
)]
pub(super) async fn file(params: RawPathParams) -> Result<Response, Problem> {
    let missing = || Problem::new(&NOT_FOUND, "The page has no such file.");
    let (_, name) = params.iter().find(|(name, _)| *name == "file").ok_or_else(missing)?;
    if name == "start.js" {
        return Ok(shown("text/javascript; charset=utf-8", include_str!("../browser/start.js").into()));
    }
    let name = RENDERER.into_iter().find(|known| *known == name).ok_or_else(missing)?;
    // The settings go into a script of the renderer's own, which is not served.
    let unused = Arc::new(Config::from(""));
    let found = utoipa_swagger_ui::serve(name, unused).map_err(|error| {
        tracing::error!(error = error.as_ref() as &dyn std::error::Error, "a file of the documentation cannot be read");
        Problem::internal()
    })?;
    let found = found.ok_or_else(missing)?;
    let body = match found.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    let mut response = shown(&found.content_type, body.into());
    if found.gzpipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn shown(content_type: &str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // A new build may bring new files under the same names.
        (header::CACHE_CONTROL, "private, max-age=300"),
    ];
    (headers, body).into_response()
}
