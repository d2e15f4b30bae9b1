//! The API's own description, for programs.

use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Components, Content, Info, OpenApi, OpenApiBuilder, Ref, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::Routes;
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
    OpenApiBuilder::new().info(info).components(Some(components)).build()
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

/// Says of every route of a group which kinds of keys open it, and how its errors look.
pub(super) fn describe(mut routes: Routes, keys: &[&str]) -> Routes {
    for item in routes.get_openapi_mut().paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            describe_operation(operation, keys);
        }
    }
    routes
}

fn describe_operation(operation: &mut Operation, keys: &[&str]) {
    let requirement = |key: &&str| SecurityRequirement::new::<_, [&str; 0], &str>(*key, []);
    operation.security = Some(keys.iter().map(requirement).collect());
    let problem = ResponseBuilder::new()
        .description("What went wrong; `code` says it for programs.")
        .content("application/problem+json", Content::new(Some(Ref::from_schema_name(PROBLEM))));
    operation.responses.responses.insert("default".to_owned(), problem.build().into());
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
