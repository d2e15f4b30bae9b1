//! The pages of the error codes: each code that a route declares has one, and it shows what is really answered.
//!
//! What a page says between its first line and `## Example` is written by hand. The rest is written by
//! `UPDATE_GOLDEN=1 cargo test -p gh-adapters-http --test api_routes`, and so is the table of the index.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use gh_adapters_http::api::{ErrorCode, error_codes, openapi};
use serde_json::Value;

use crate::provocations::PROVOKED;

const UPDATE: &str = "UPDATE_GOLDEN=1 cargo test -p gh-adapters-http --test api_routes";

/// Where the index's table begins and ends.
const TABLE: [&str; 2] = ["<!-- codes: written by a test -->\n", "<!-- end of codes -->\n"];

pub(crate) fn updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// A path from the root of the repository.
pub(crate) fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// One operation of the document.
struct Route {
    name: String,
    asks_for_a_key: bool,
    takes_a_body: bool,
    codes: BTreeSet<String>,
    item_codes: BTreeSet<String>,
}

fn strings(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().map(|code| code.as_str().unwrap().to_owned()).collect()
}

/// Every route, and the codes that any path answers.
fn declared() -> (Vec<Route>, BTreeSet<String>) {
    let document: Value = serde_json::from_str(&openapi().to_json().unwrap()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            routes.push(Route {
                name: format!("{} {path}", method.to_uppercase()),
                asks_for_a_key: operation["security"].as_array().is_some_and(|keys| !keys.is_empty()),
                takes_a_body: operation.get("requestBody").is_some(),
                codes: strings(&operation["x-error-codes"]),
                item_codes: strings(&operation["x-item-error-codes"]),
            });
        }
    }
    (routes, strings(&document["x-error-codes"]))
}

/// Compares the page of a code with the answer of the route that provoked it, or writes it anew.
#[track_caller]
pub(crate) fn check(small_code: &str, route: &str, answer: &Value) {
    let name = small_code.to_uppercase();
    let code = error_codes().find(|known| known.as_str() == name).unwrap();
    let (routes, of_any_path) = declared();
    let declares = match routes.iter().find(|known| known.name == route) {
        Some(known) => known.codes.contains(&name) || known.item_codes.contains(&name),
        None => of_any_path.contains(&name),
    };
    assert!(declares, "{route} does not declare {name}");
    let path = in_repository(&code.page());
    let page = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: write what {name} means and what to do about it", code.page()));
    let (written, example) = by_hand(&page, &name);
    let expected = |example: &str| {
        let head = heading(code);
        let by = answered_by(&name, &routes, &of_any_path);
        format!("{head}{written}## Example\n\n`{route}` answers:\n\n```json\n{example}\n```\n\n## Answered by\n\n{by}")
    };
    if updating() {
        let example = serde_json::to_string_pretty(answer).unwrap();
        std::fs::write(&path, expected(&example)).unwrap();
        return;
    }
    let example = example.unwrap_or_else(|| panic!("{} has no example: {UPDATE}", code.page()));
    let shown: Value = serde_json::from_str(example).unwrap();
    assert_eq!(shape(&shown), shape(answer), "{} shows another answer than the real one: {UPDATE}", code.page());
    assert_eq!(page, expected(example), "{} is not up to date: {UPDATE}", code.page());
}

fn heading(code: &ErrorCode) -> String {
    let status = code.status();
    let status = match status.as_u16() {
        200 => "In the items of a `200`".to_owned(),
        number => format!("`{number}` {}", status.canonical_reason().unwrap_or_default()),
    };
    format!("# {}\n\n{status} · {}\n\n", code.as_str(), code.title())
}

/// The part of a page that people write, and the example if there is one.
fn by_hand<'p>(page: &'p str, name: &str) -> (&'p str, Option<&'p str>) {
    let (head, rest) = page.split_once("## Example\n").unwrap_or((page, ""));
    let (_, written) = head.split_once(" · ").and_then(|(_, rest)| rest.split_once("\n\n")).unwrap_or(("", ""));
    for section in ["**When.** ", "**What to do.** "] {
        let begins = written.find(section).unwrap_or_else(|| panic!("the page of {name} has no {section}"));
        assert!(written[begins + section.len()..].trim().len() > 20, "the page of {name} says nothing at {section}");
    }
    let example = rest.split_once("```json\n").and_then(|(_, rest)| rest.split_once("\n```\n"));
    (written, example.map(|(example, _)| example))
}

/// Which routes declare a code: the widest kind of which all do, and the others one by one.
fn answered_by(code: &str, routes: &[Route], of_any_path: &BTreeSet<String>) -> String {
    type Kind = (&'static str, fn(&Route) -> bool);
    let kinds: [Kind; 3] = [
        ("every route", |_| true),
        ("every route that asks for a key", |route| route.asks_for_a_key),
        ("every route that takes a body", |route| route.takes_a_body),
    ];
    let mut text = String::new();
    if of_any_path.contains(code) {
        text.push_str("- any path\n");
    }
    let answers = |route: &&Route| route.codes.contains(code);
    let all_answer = |(_, is_one): &Kind| routes.iter().filter(|route| is_one(route)).all(|route| answers(&route));
    let kind = kinds.into_iter().find(all_answer);
    if let Some((kind, _)) = kind {
        writeln!(text, "- {kind}").unwrap();
    }
    for route in routes.iter().filter(answers).filter(|route| kind.is_none_or(|(_, is_one)| !is_one(route))) {
        writeln!(text, "- `{}`", route.name).unwrap();
    }
    for route in routes.iter().filter(|route| route.item_codes.contains(code)) {
        writeln!(text, "- `{}`, in its `results`", route.name).unwrap();
    }
    text
}

/// An answer without its values: keys, and kinds of values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), shape(value))).collect(),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::String(_) => "a text".into(),
        Value::Number(_) => "a number".into(),
        Value::Bool(_) => "true or false".into(),
        Value::Null => Value::Null,
    }
}

#[test]
fn every_declared_code_has_a_page_and_a_provocation() {
    let (routes, of_any_path) = declared();
    let declared: BTreeSet<String> = routes
        .into_iter()
        .flat_map(|route| route.codes.into_iter().chain(route.item_codes))
        .chain(of_any_path)
        .collect();
    let provoked: BTreeSet<String> = PROVOKED.iter().map(|(code, _)| code.to_uppercase()).collect();
    assert_eq!(provoked.len(), PROVOKED.len(), "a code is provoked twice");
    let known: BTreeSet<String> = error_codes().map(|code| code.as_str().to_owned()).collect();
    let pages: BTreeSet<String> = std::fs::read_dir(in_repository("docs/errors"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".md").map(ToOwned::to_owned))
        .filter(|name| name != "README")
        .collect();
    let lists = [("a route declares", &declared), ("a provocation has", &provoked), ("a page has", &pages)];
    let mut wrong = BTreeMap::new();
    for (who, list) in lists {
        for code in known.symmetric_difference(list) {
            wrong.entry(code).or_insert_with(Vec::new).push(if list.contains(code) {
                format!("{who} it, and the table of codes has not")
            } else {
                format!("not what {who}")
            });
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_index_lists_every_code() {
    let path = in_repository("docs/errors/README.md");
    let index = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = index.split_once(TABLE[0]).unwrap();
    let (_, after) = rest.split_once(TABLE[1]).unwrap();
    let mut codes: Vec<&ErrorCode> = error_codes().collect();
    codes.sort_unstable();
    let mut table = String::from("\n| code | HTTP | in short |\n| --- | --- | --- |\n");
    for code in codes {
        let status = match code.status().as_u16() {
            200 => "in `results`".to_owned(),
            status => status.to_string(),
        };
        writeln!(table, "| [`{0}`]({0}.md) | {status} | {1} |", code.as_str(), code.title()).unwrap();
    }
    let expected = format!("{before}{}{table}\n{}{after}", TABLE[0], TABLE[1]);
    if updating() {
        std::fs::write(path, expected).unwrap();
    } else {
        assert_eq!(index, expected, "docs/errors/README.md is not up to date: {UPDATE}");
    }
}
