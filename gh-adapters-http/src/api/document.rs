//! The API's own description, for programs.

use std::collections::{BTreeMap, BTreeSet};

use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Components, Content, Info, OpenApi, OpenApiBuilder, Ref, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::Routes;
use super::codes::{self, ErrorCode};
use super::declared::{self, ERROR_CODES};
use super::routes::Groups;

/// The name of the problem's schema.
const PROBLEM: &str = "Problem";

/// The description of every route that [`router`](super::router) serves.
#[must_use]
pub fn openapi() -> OpenApi {
    Groups::new().merged().into_openapi()
}

/// An empty description with all that routes refer to.
pub(super) fn frame() -> OpenApi {
    let mut info = Info::new("GhostHands control plane", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Submits, routes, watches and ends browser automation jobs, and is what the workers that run them talk to."
            .to_owned(),
    );
    let bearer = |description: &str| {
        let http = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description));
        SecurityScheme::Http(http.build())
    };
    let mut components = Components::new();
    components.add_security_scheme(
        Key::SERVICE_HEADER,
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-GH-Service-Key"))),
    );
    components.add_security_scheme(Key::SERVICE_BEARER, bearer("A client's service key."));
    let basic = HttpBuilder::new().scheme(HttpAuthScheme::Basic);
    let basic = basic.description(Some("For browsers: a service key as the password, any user name."));
    components.add_security_scheme(Key::SERVICE_BASIC, SecurityScheme::Http(basic.build()));
    components.add_security_scheme(Key::WORKER_KEY, bearer("The key with which workers register."));
    components.add_security_scheme(Key::WORKER_TOKEN, bearer("The token that a worker got when it registered."));
    let mut schemas = Vec::new();
    ProblemSchema::schemas(&mut schemas);
    components.schemas.extend(schemas);
    components.schemas.insert(PROBLEM.to_owned(), ProblemSchema::schema());
    let extensions: Extensions = [(ERROR_CODES, listed(declared::OF_ANY_PATH))].into_iter().collect();
    let mut document = OpenApiBuilder::new().info(info).components(Some(components)).build();
    document.extensions = Some(extensions);
    document
}

/// The names of the kinds of keys in the description.
pub(super) struct Key;

impl Key {
    pub(super) const SERVICE_HEADER: &str = "service_key";
    pub(super) const SERVICE_BEARER: &str = "service_key_bearer";
    pub(super) const SERVICE_BASIC: &str = "service_key_basic";
    pub(super) const WORKER_KEY: &str = "worker_key";
    pub(super) const WORKER_TOKEN: &str = "worker_token";
}

/// What every route with a body answers to bodies that it cannot take.
static OF_BODIES: [&ErrorCode; 5] = [
    &codes::MALFORMED_JSON,
    &codes::REQUEST_TIMEOUT,
    &codes::PAYLOAD_TOO_LARGE,
    &codes::UNSUPPORTED_MEDIA_TYPE,
    &codes::INVALID_REQUEST,
];

/// What every route that asks who calls may answer.
pub(super) static OF_KNOWN_CALLERS: [&ErrorCode; 4] =
    [&codes::UNAUTHENTICATED, &codes::WRONG_KEY_KIND, &codes::INTERNAL_ERROR, &codes::UNAVAILABLE];

/// What every route that is open to everybody may answer.
pub(super) static OF_ANYBODY: [&ErrorCode; 1] = [&codes::INTERNAL_ERROR];

/// Adds codes that all routes of a group can answer, beside those that each names itself.
pub(super) fn sharing(mut routes: Routes, codes: &[&'static ErrorCode]) -> Routes {
    for operation in operations(&mut routes) {
        declare(operation, codes.iter().copied());
    }
    routes
}

/// Says of every route of a group which kinds of keys open it, what all of them can answer, and how errors look.
pub(super) fn describe(mut routes: Routes, keys: &[&str], codes: &[&'static ErrorCode]) -> Routes {
    for operation in operations(&mut routes) {
        let requirement = |key: &&str| SecurityRequirement::new::<_, [&str; 0], &str>(*key, []);
        operation.security = Some(keys.iter().map(requirement).collect());
        let of_bodies = operation.request_body.is_some().then_some(OF_BODIES).into_iter().flatten();
        let codes = declare(operation, codes.iter().copied().chain(of_bodies));
        let mut by_status = BTreeMap::<u16, Vec<&ErrorCode>>::new();
        for code in codes {
            by_status.entry(code.status().as_u16()).or_default().push(code);
        }
        for (status, codes) in by_status {
            let lines: Vec<String> =
                codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.title())).collect();
            let problem = ResponseBuilder::new()
                .description(lines.join(". "))
                .content("application/problem+json", Content::new(Some(Ref::from_schema_name(PROBLEM))))
                .extensions(Some([(ERROR_CODES, listed(codes))].into_iter().collect()));
            operation.responses.responses.insert(status.to_string(), problem.build().into());
        }
    }
    routes
}

fn operations(routes: &mut Routes) -> impl Iterator<Item = &mut Operation> {
    let items = routes.get_openapi_mut().paths.paths.values_mut();
    items.flat_map(|item| {
        [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
    })
}

/// Adds codes to those of an operation; gives back all.
fn declare(operation: &mut Operation, more: impl Iterator<Item = &'static ErrorCode>) -> BTreeSet<&'static ErrorCode> {
    let mut codes = declared::codes_of(operation, ERROR_CODES);
    codes.extend(more);
    let extensions = operation.extensions.get_or_insert_default();
    extensions.insert(ERROR_CODES.to_owned(), listed(codes.iter().copied()));
    codes
}

fn listed(codes: impl IntoIterator<Item = &'static ErrorCode>) -> serde_json::Value {
    codes.into_iter().map(ErrorCode::as_str).collect()
}

/// How errors look (RFC 9457).
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `problem` writes by hand")]
struct ProblemSchema {
    /// `urn:ghosthands:error:CODE`
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    /// A stable word; see the table of error codes.
    code: String,
    /// With `INVALID_REQUEST`: each field that is missing or out of range.
    errors: Option<Vec<FieldErrorSchema>>,
    /// Finds the request in the log.
    request_id: String,
}

/// One field that is missing or out of range.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `problem` writes by hand")]
struct FieldErrorSchema {
    field: String,
    message: String,
}
