//! The public API of gh-core is a file that people review: `gh-core/public-api.txt`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p gh-core --all-features --test public_api` writes it anew after a wanted change.
//!
//! The list is made from what rustdoc knows, so it holds what macros and derives make and what is exported again. Rustdoc
//! tells it as JSON only where unstable options are allowed; they are allowed for this one crate and this one command.
//! The command has a target folder of its own: build scripts look at the variable that allows them, and would be built
//! anew with every change between the two.
#![expect(clippy::unwrap_used, reason = "a test may stop where its world is not as it made it")]

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use public_api::{Builder, PublicApi};
use regex_lite::Regex;

const HEADER: &str = "\
# The public API of gh-core with all features, one item a line; paths begin below the crate.
#
# Left out: blanket and automatic impls, functions of trait impls (the trait tells them), the insides of mocks. Derived
# traits stand in front of their type. Functions of `async_trait` are written as the `async fn` that they are.
#
# A test compares it with the code. After a wanted change:
# UPDATE_GOLDEN=1 cargo test -p gh-core --all-features --test public_api
";

/// Has rustdoc describe gh-core with all features.
fn describe() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("public-api");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["rustdoc", "--quiet", "--locked", "--offline", "--lib", "--all-features", "--target-dir"])
        .arg(&target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json", "--cap-lints", "allow"])
        .env("RUSTC_BOOTSTRAP", "gh_core")
        // Both would lead rustdoc's output elsewhere, or add options of their own to it.
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("RUSTDOCFLAGS")
        .output()
        .unwrap();
    assert!(output.status.success(), "rustdoc failed: {}", String::from_utf8_lossy(&output.stderr));
    target.join("doc/gh_core.json")
}

/// The version of rustdoc's format, for messages.
fn format_of(json: &str) -> &str {
    let pattern = Regex::new(r#""format_version":(\d+)"#).unwrap();
    pattern.captures(json).and_then(|found| found.get(1)).map_or("unknown", |version| version.as_str())
}

/// Reads the description, with the impls that derives made or without them.
fn read(path: &Path, derived: bool) -> PublicApi {
    Builder::from_rustdoc_json(path)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(!derived)
        .build()
        .unwrap_or_else(|error| {
            panic!(
                "this Rust's rustdoc writes format {}, which the crate `public-api` in Cargo.toml cannot read ({error}): \
                 take a release of `public-api` that can, or test with another stable Rust \
                 (`cargo +1.95 test …`)",
                format_of(&std::fs::read_to_string(path).unwrap_or_default()),
            )
        })
}

/// Shortens what a reader need not see to know what changed.
struct Abbreviation {
    replacements: Vec<(Regex, &'static str)>,
}

impl Abbreviation {
    fn new() -> Self {
        let boxed = r"core::pin::Pin<alloc::boxed::Box<\(dyn core::future::future::Future<Output = (.*)> \+ core::marker::Send \+ 'async_trait\)>>.*$";
        let replacements = [
            (boxed, "$1"),
            (r"<('life\d+, )*'async_trait>", ""),
            (r"'life\d+ ", ""),
            (r"\bgh_core::", ""),
            (r"\bcore::option::Option\b", "Option"),
            (r"\bcore::result::Result\b", "Result"),
            (r"\balloc::(?:boxed|string|sync|vec)::(Arc|Box|String|Vec)\b", "$1"),
            (r"\bcore::time::Duration\b", "Duration"),
        ];
        let replacements = replacements.into_iter().map(|(pattern, by)| (Regex::new(pattern).unwrap(), by)).collect();
        Self { replacements }
    }

    fn apply(&self, line: &str) -> String {
        let is_async = line.contains("'async_trait");
        let mut line = if is_async { line.replacen("pub fn ", "pub async fn ", 1) } else { line.to_owned() };
        for (pattern, by) in &self.replacements {
            line = pattern.replace_all(&line, *by).into_owned();
        }
        line
    }
}

/// The derived traits of each type.
fn derives(all: &PublicApi, written: &PublicApi) -> BTreeMap<String, Vec<String>> {
    let pattern = Regex::new(r"^impl(?:<.*?>)? ([\w:]+)(?:<[^ ]*>)? for ([\w:]+)").unwrap();
    let written: HashSet<String> = written.items().map(ToString::to_string).collect();
    let mut derives: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in all.items().map(ToString::to_string).filter(|line| !written.contains(line)) {
        let Some(found) = pattern.captures(&line) else { continue };
        let derived = found[1].rsplit("::").next().unwrap_or_default();
        // The compiler's own mark of a derived `PartialEq`.
        if derived != "StructuralPartialEq" {
            derives.entry(found[2].to_owned()).or_default().push(derived.to_owned());
        }
    }
    for traits in derives.values_mut() {
        traits.sort_unstable();
        traits.dedup();
    }
    derives
}

/// The list: one item a line.
fn list(path: &Path) -> String {
    let written = read(path, false);
    let derives = derives(&read(path, true), &written);
    let abbreviation = Abbreviation::new();
    let type_name = Regex::new(r"^(?:#\[.*\] )?pub (?:struct|enum|union) ([\w:]+)").unwrap();
    let trait_impls: HashSet<_> =
        written.items().filter(|item| item.to_string().contains(" for ")).map(public_api::PublicItem::id).collect();
    let mut page = HEADER.to_owned();
    let mut listed = HashSet::new();
    for item in written.items() {
        let line = item.to_string();
        let inherent = line.starts_with("impl ") && !line.contains(" for ");
        let told_by_trait = line.contains(" fn ") && item.parent_id().is_some_and(|id| trait_impls.contains(&id));
        // An impl of a trait of this crate is told twice: with the type and with the trait.
        if inherent || told_by_trait || line.contains("::__mock_") || !listed.insert(line.clone()) {
            continue;
        }
        let derived = type_name.captures(&line).and_then(|found| derives.get(&found[1]));
        if let Some(derived) = derived {
            write!(page, "#[derive({})] ", derived.join(", ")).unwrap();
        }
        writeln!(page, "{}", abbreviation.apply(&line)).unwrap();
    }
    page
}

#[test]
fn a_change_of_the_public_api_is_seen() {
    let described = describe();
    let made = list(&described);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("public-api.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(made.contains("pub trait ports::store::Store"), "the list lacks what it must have:\n{made}");
    let mut difference = String::new();
    for (sign, these, those) in [('-', &known, &made), ('+', &made, &known)] {
        let those: HashSet<_> = those.lines().collect();
        for line in these.lines().filter(|line| !those.contains(line)) {
            writeln!(difference, "{sign} {line}").unwrap();
        }
    }
    assert!(
        known == made,
        "gh-core's public API is not what gh-core/public-api.txt says (UPDATE_GOLDEN=1 writes it anew; rustdoc's format \
         is {}):\n{difference}",
        format_of(&std::fs::read_to_string(&described).unwrap()),
    );
}
