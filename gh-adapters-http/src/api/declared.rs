//! Which codes each route declares, and whether what it answers is among them.
//!
//! A route names its codes in its description, beside its handler:
//! `extensions(("x-error-codes" = json!([JOB_NOT_FOUND])))`, and those of the items of its answer likewise under
//! `x-item-error-codes`. Codes that many routes share are added where the routes are grouped. An answer with another
//! code is a defect: it is logged and counted, and where debug assertions are on, as in tests, it panics.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use axum::response::Response;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{Operation, PathItem};

use super::codes::{self, ErrorCode};
use super::document;
use super::metrics::Metrics;

/// The codes of a route's own answer, as an array.
pub(super) const ERROR_CODES: &str = "x-error-codes";

/// The codes of single items in a route's answer, as an array.
pub(super) const ITEM_ERROR_CODES: &str = "x-item-error-codes";

/// What every path answers to a method that it does not have, and every other path to any method.
pub(super) static OF_ANY_PATH: [&ErrorCode; 2] = [&codes::NOT_FOUND, &codes::METHOD_NOT_ALLOWED];

/// The codes of the items of an answer, left in its extensions for the layer that looks at them.
#[derive(Clone, Debug)]
struct ItemCodes(Vec<&'static ErrorCode>);

/// Tells which codes the items of an answer carry.
pub(super) fn with_items(mut response: Response, codes: impl IntoIterator<Item = &'static ErrorCode>) -> Response {
    response.extensions_mut().insert(ItemCodes(codes.into_iter().collect()));
    response
}

/// The operations of a path, with their methods.
pub(super) fn operations(item: &PathItem) -> impl Iterator<Item = (&'static str, &Operation)> {
    let operations = [
        ("GET", &item.get),
        ("PUT", &item.put),
        ("POST", &item.post),
        ("DELETE", &item.delete),
        ("PATCH", &item.patch),
    ];
    operations.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

/// The codes of an operation under one of the two names.
pub(super) fn codes_of(operation: &Operation, name: &str) -> BTreeSet<&'static ErrorCode> {
    let listed = operation.extensions.as_ref().and_then(|extensions: &Extensions| extensions.get(name)?.as_array());
    let listed = listed.into_iter().flatten().filter_map(|code| code.as_str());
    listed.map(ErrorCode::named).collect()
}

/// What one route and method declares.
#[derive(Debug)]
struct Declared {
    codes: BTreeSet<&'static ErrorCode>,
    items: BTreeSet<&'static ErrorCode>,
}

/// By path and method.
static DECLARED: LazyLock<HashMap<String, HashMap<&'static str, Declared>>> = LazyLock::new(|| {
    let paths = document::openapi().paths.paths.into_iter();
    let declared = |operation: &Operation| Declared {
        codes: codes_of(operation, ERROR_CODES),
        items: codes_of(operation, ITEM_ERROR_CODES),
    };
    let methods = |item: &PathItem| operations(item).map(|(method, known)| (method, declared(known))).collect();
    paths.map(|(path, item)| (path, methods(&item))).collect()
});

/// The declaration for a matched path, which may begin with the path under which the API is nested.
fn declaration(method: &str, route: &str) -> Option<&'static Declared> {
    let method = if method == "HEAD" { "GET" } else { method };
    let ends = route.match_indices('/').find_map(|(start, _)| DECLARED.get(&route[start..]));
    ends?.get(method)
}

/// The codes of an answer that its route does not declare: `code` is its own, those of its items are in its extensions.
fn undeclared(
    method: &str,
    route: &str,
    code: Option<&'static ErrorCode>,
    response: &mut Response,
) -> Vec<&'static ErrorCode> {
    let declared = declaration(method, route);
    let is_declared = |code: &&'static ErrorCode| match declared {
        Some(declared) => declared.codes.contains(code) || **code == codes::METHOD_NOT_ALLOWED,
        None => OF_ANY_PATH.contains(code),
    };
    let own = code.filter(|code| !is_declared(code));
    let items = response.extensions_mut().remove::<ItemCodes>();
    let items = items.into_iter().flat_map(|items| items.0);
    let items = items.filter(|code| !declared.is_some_and(|declared| declared.items.contains(code)));
    own.into_iter().chain(items).collect()
}

/// Sees to it that an answer with a code that its route does not declare is noticed.
///
/// # Panics
///
/// There is one, and debug assertions are on.
pub(super) fn check(
    metrics: &Metrics,
    method: &str,
    route: &str,
    code: Option<&'static ErrorCode>,
    response: &mut Response,
) {
    for code in undeclared(method, route, code, response) {
        metrics.undeclared_code(route, code);
        tracing::error!(code = code.as_str(), method, route, "a route answered a code that it does not declare");
        debug_assert!(false, "{method} {route} does not declare {}", code.as_str());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gh_core::application::FleetFigures;

    use super::*;

    fn is_let_through(method: &str, route: &str, code: &'static ErrorCode) -> bool {
        undeclared(method, route, Some(code), &mut Response::default()).is_empty()
    }

    fn item_is_let_through(route: &str, code: &'static ErrorCode) -> bool {
        undeclared("POST", route, None, &mut with_items(Response::default(), [code])).is_empty()
    }

    #[test]
    fn what_a_route_declares_passes_and_nothing_else() {
        let cancel = "/api/v1/jobs/{job_id}/cancel";
        for prefix in ["", "/ghosthands", "/{tenant}/x"] {
            let route = format!("{prefix}{cancel}");
            assert!(is_let_through("POST", &route, &codes::JOB_NOT_CANCELLABLE), "{route}");
            assert!(is_let_through("POST", &route, &codes::MALFORMED_JSON), "{route}");
            assert!(is_let_through("POST", &route, &codes::UNAVAILABLE), "{route}");
            assert!(!is_let_through("POST", &route, &codes::JOB_NOT_RETRYABLE), "{route}");
            assert!(!is_let_through("POST", &route, &codes::NOT_FOUND), "{route}");
        }
        assert!(is_let_through("HEAD", "/api/v1/jobs/{job_id}", &codes::JOB_NOT_FOUND));
        assert!(!is_let_through("GET", "/health", &codes::UNAUTHENTICATED));
    }

    #[test]
    fn any_path_may_say_that_it_has_no_such_route_or_method() {
        assert!(is_let_through("PATCH", "/api/v1/jobs", &codes::METHOD_NOT_ALLOWED));
        assert!(is_let_through("GET", "unmatched", &codes::NOT_FOUND));
        assert!(!is_let_through("GET", "unmatched", &codes::JOB_NOT_FOUND));
    }

    #[test]
    fn items_have_declarations_of_their_own() {
        let usage = "/api/v1/jobs/{job_id}/attempts/{attempt}/usage";
        assert!(item_is_let_through(usage, &codes::USAGE_SHRANK));
        assert!(!item_is_let_through(usage, &codes::STALE_LEASE));
        assert!(!item_is_let_through("/api/v1/jobs", &codes::INVALID_REQUEST), "only as its own answer");
    }

    #[test]
    fn what_is_not_declared_is_counted() {
        let metrics = Metrics::new();
        metrics.undeclared_code("/health", &codes::JOB_PAUSED);
        let counted = r#"gh_http_undeclared_codes_total{route="/health",code="JOB_PAUSED"} 1"#;
        let nothing = FleetFigures {
            jobs: Vec::new(),
            workers: Vec::new(),
            waiting: BTreeMap::new(),
            brake: false,
            blind_time: std::time::Duration::ZERO,
            callbacks_open: 0,
            callbacks_due: 0,
        };
        let text = metrics.render(&nothing);
        assert!(text.lines().any(|line| line == counted), "{text}");
    }
}
