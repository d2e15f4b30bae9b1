//! Checking the fields of a request, all of them, before anything is refused.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

/// One field that is missing, of a wrong type or out of range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where it is: `priority`, `calls[2].usage.input`.
    pub field: Cow<'static, str>,
    /// What it must be.
    pub message: String,
}

impl FieldError {
    /// Names a field and what it must be.
    #[must_use]
    pub fn new(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Collects what is wrong with the fields of one request.
#[derive(Debug, Default)]
pub struct Fields {
    errors: Vec<FieldError>,
}

impl Fields {
    /// Refuses a field.
    pub fn refuse(&mut self, field: &'static str, message: &str) {
        self.errors.push(FieldError::new(field, message));
    }

    /// All that was refused.
    #[must_use]
    pub fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    /// Ends the check.
    ///
    /// # Errors
    ///
    /// What was refused, if anything was.
    pub fn finish(self) -> Result<(), Vec<FieldError>> {
        if self.errors.is_empty() { Ok(()) } else { Err(self.errors) }
    }

    /// A field that may be absent, parsed by `parse`.
    pub fn optional<T>(
        &mut self,
        field: &'static str,
        text: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = text?;
        if text.contains('\0') {
            self.refuse(field, NUL);
            return None;
        }
        parse(text).map_err(|message| self.refuse(field, &message)).ok()
    }

    /// A field that must be there, parsed by `parse`.
    pub fn required<T>(
        &mut self,
        field: &'static str,
        text: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if text.is_none() {
            self.refuse(field, "is required");
        }
        self.optional(field, text, parse)
    }

    /// Text of 1 to `max` characters that must be there.
    pub fn required_text(&mut self, field: &'static str, text: Option<&str>, max: usize) -> Option<Box<str>> {
        self.required(field, text, |text| bounded(text, max))
    }

    /// Text of 1 to `max` characters that may be absent.
    pub fn optional_text(&mut self, field: &'static str, text: Option<&str>, max: usize) -> Option<Box<str>> {
        self.optional(field, text, |text| bounded(text, max))
    }

    /// Opaque JSON: only U+0000 is looked for, which PostgreSQL cannot store.
    pub fn json(&mut self, field: &'static str, json: Option<&RawValue>) {
        if json.is_some_and(|json| contains_nul(json.get())) {
            self.refuse(field, NUL);
        }
    }

    /// A whole number within `range`.
    pub fn number(&mut self, field: &'static str, number: Option<i64>, range: RangeInclusive<i64>) -> Option<i64> {
        let number = number?;
        if range.contains(&number) {
            return Some(number);
        }
        self.refuse(field, &format!("must be between {} and {}", range.start(), range.end()));
        None
    }

    /// Whole seconds within `range`.
    pub fn seconds(
        &mut self,
        field: &'static str,
        seconds: Option<i64>,
        range: RangeInclusive<i64>,
    ) -> Option<Duration> {
        self.number(field, seconds, range).map(|seconds| Duration::from_secs(seconds.unsigned_abs()))
    }
}

const NUL: &str = "must not contain U+0000";

fn bounded(text: &str, max: usize) -> Result<Box<str>, String> {
    let length = text.chars().count();
    if (1..=max).contains(&length) { Ok(text.into()) } else { Err(format!("must have 1 to {max} characters")) }
}

/// Whether valid JSON text holds the character U+0000 in any of its strings or keys.
#[must_use]
pub fn contains_nul(json: &str) -> bool {
    // JSON can only write it as an escape; a backslash before the escape may itself be escaped.
    json.match_indices("\\u0000").any(|(at, _)| {
        let backslashes_before = json[..at].bytes().rev().take_while(|byte| *byte == b'\\').count();
        backslashes_before % 2 == 0
    })
}
