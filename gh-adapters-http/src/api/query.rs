//! Query parameters, pages and cursors.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gh_core::domain::field::FieldError;
use gh_core::domain::ids::Name;
use gh_core::domain::time::Timestamp;

use super::codes;
use super::problem::Problem;

/// How many entries a page has when the caller does not say.
const DEFAULT_LIMIT: usize = 50;

/// How many entries a page has at most.
const MAX_LIMIT: usize = 200;

/// The query of a request. Parameters that nobody asks for are ignored, an empty one counts as absent.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self {
            pairs: url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .filter(|(_, value)| !value.is_empty())
                .collect(),
            errors: Vec::new(),
        })
    }
}

impl Query {
    fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    fn all<'q>(&'q self, name: &str) -> impl Iterator<Item = &'q str> {
        self.pairs.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter, parsed; what cannot be parsed is remembered until [`Self::finish`].
    pub(super) fn parsed<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let parsed = match self.first(name)? {
            text if text.contains('\0') => Err("must not contain U+0000".to_owned()),
            text => parse(text),
        };
        parsed.map_err(|message| self.errors.push(FieldError::new(name, message))).ok()
    }

    /// A text of at most 255 characters.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.parsed(name, |text| {
            if text.chars().count() > 255 {
                Err("must have at most 255 characters".into())
            } else {
                Ok(text.to_owned())
            }
        })
    }

    /// The name of a worker, target or machine.
    pub(super) fn name(&mut self, name: &'static str) -> Option<Name> {
        self.parsed(name, |text| Name::parse(text).map_err(|error| error.to_string()))
    }

    /// A time; a `+` that was not escaped is taken as it was meant.
    pub(super) fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        self.parsed(name, |text| Timestamp::parse(&text.replace(' ', "+")).map_err(|error| error.to_string()))
    }

    /// A yes or no; absent is no.
    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        self.parsed(name, |text| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("must be true or false".into()),
        })
        .unwrap_or(false)
    }

    /// The values of a parameter that may be repeated or hold a list with commas.
    pub(super) fn list<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut values = Vec::new();
        let mut refused = Vec::new();
        for text in self.all(name).flat_map(|value| value.split(',')) {
            match parse(text.trim()) {
                Ok(value) => values.push(value),
                Err(message) => refused.push(FieldError::new(name, message)),
            }
        }
        self.errors.append(&mut refused);
        values
    }

    /// How many entries the page may have; none when the caller does not say.
    pub(super) fn limit_if_sent(&mut self) -> Option<usize> {
        self.parsed("limit", |text| match text.parse::<u64>() {
            Ok(limit) if limit > 0 => Ok(usize::try_from(limit).unwrap_or(MAX_LIMIT).min(MAX_LIMIT)),
            _ => Err("must be a whole number, 1 or more".into()),
        })
    }

    /// How many entries the page may have.
    pub(super) fn limit(&mut self) -> usize {
        self.limit_if_sent().unwrap_or(DEFAULT_LIMIT)
    }

    /// Where the page begins, as an earlier answer's `next_cursor` says.
    pub(super) fn cursor<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        let Some(cursor) = self.first("cursor") else {
            return Ok(None);
        };
        let position = URL_SAFE_NO_PAD.decode(cursor).ok();
        let position = position.and_then(|position| String::from_utf8(position).ok());
        match position.as_deref().and_then(parse) {
            Some(position) => Ok(Some(position)),
            None => Err(invalid_cursor("cursor")),
        }
    }

    /// Where a page of events begins: `after_seq`, or the same as `cursor`.
    pub(super) fn after_seq(&self) -> Result<u64, Problem> {
        match ["after_seq", "cursor"].iter().find_map(|name| Some((name, self.first(name)?))) {
            None => Ok(0),
            Some((name, text)) => text.parse().map_err(|_| invalid_cursor(name)),
        }
    }

    /// Ends the reading: everything that could not be parsed is refused at once.
    pub(super) fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

fn invalid_cursor(name: &str) -> Problem {
    Problem::new(&codes::INVALID_CURSOR, format!("{name} must be the next_cursor of an earlier answer."))
}

/// Cuts a page from rows of which one more than the page holds was asked for, and says where the next begins.
pub(super) fn page<T>(mut rows: Vec<T>, limit: usize, position: impl FnOnce(&T) -> String) -> (Vec<T>, Option<String>) {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().filter(|_| more);
    let next = last.map(|last| URL_SAFE_NO_PAD.encode(position(last)));
    (rows, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_has_no_cursor_even_when_it_is_full() {
        let position = |row: &u32| row.to_string();
        let (rows, next) = page(vec![1, 2, 3], 2, position);
        assert_eq!((rows, next), (vec![1, 2], Some(URL_SAFE_NO_PAD.encode("2"))));
        assert_eq!(page(vec![1, 2], 2, position), (vec![1, 2], None));
        assert_eq!(page(Vec::new(), 2, position), (Vec::new(), None));
    }
}
