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

/// The route under which everything is measured that no route has.
pub(super) const UNMATCHED: &str = "unmatched";

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

/// Looks whether a route declares the codes that it answers: `code` its own, the others in the answer's extensions.
pub(super) fn check(
    metrics: &Metrics,
    method: &str,
    route: &str,
    code: Option<&'static ErrorCode>,
    response: &mut Response,
) {
    let declared = declaration(method, route);
    let is_declared = |code: &&'static ErrorCode| {
        let of_any_path = route == UNMATCHED || **code == codes::METHOD_NOT_ALLOWED;
        (of_any_path && (OF_ANY_PATH.contains(code) || **code == codes::INTERNAL_ERROR))
            || declared.is_some_and(|declared| declared.codes.contains(code))
    };
    let own = code.filter(|code| !is_declared(code));
    let items = response.extensions_mut().remove::<ItemCodes>();
    let items = items.into_iter().flat_map(|items| items.0);
    let items = items.filter(|code| !declared.is_some_and(|declared| declared.items.contains(code)));
    for code in own.into_iter().chain(items) {
        metrics.undeclared_code(route, code);
        tracing::error!(code = code.as_str(), method, route, "a route answered a code that it does not declare");
        debug_assert!(false, "{method} {route} does not declare {}", code.as_str());
    }
}
