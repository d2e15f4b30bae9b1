//! Rows and what they mean: each conversion is total, and names every field of what it converts.

pub(crate) mod callback;
pub(crate) mod event;
pub(crate) mod job;
pub(crate) mod jsonb;
pub(crate) mod ledger;
pub(crate) mod worker;

use chrono::{DateTime, Utc};
use gh_core::domain::ids::Version;
use gh_core::domain::time::Timestamp;
use gh_core::ports::store::StoreError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::errors::{corrupt, internal};

/// A column of many rows.
pub(crate) fn column<'r, R, T>(rows: impl IntoIterator<Item = &'r R>, value: impl FnMut(&'r R) -> T) -> Vec<T>
where
    R: 'r,
{
    rows.into_iter().map(value).collect()
}

/// The instant as PostgreSQL takes it: years before −4712 become that year.
pub(crate) fn instant(time: Timestamp) -> DateTime<Utc> {
    const EARLIEST: Timestamp = Timestamp::from_micros(-210_800_000_000_000_000);
    time.max(EARLIEST).to_datetime()
}

/// A number as PostgreSQL's widest integer takes it: beyond it, its greatest.
pub(crate) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number as PostgreSQL's integer takes it: beyond it, its greatest.
pub(crate) fn integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A version as it was stored.
pub(crate) fn version(table: &str, key: impl std::fmt::Display, number: i64) -> Result<Version, StoreError> {
    unsigned(table, key, number).map(Version)
}

/// A number that cannot be negative.
pub(crate) fn unsigned(table: &str, key: impl std::fmt::Display, number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| corrupt(table, key, "a number is negative"))
}

/// A value as JSON text.
pub(crate) fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    // Most of what is stored so takes more than half of this.
    let mut text = Vec::with_capacity(1024);
    serde_json::to_writer(&mut text, value).map_err(internal)?;
    String::from_utf8(text).map_err(internal)
}

/// A value from JSON text. What the text holds is not told.
pub(crate) fn from_json<T: DeserializeOwned>(
    table: &str,
    key: impl std::fmt::Display,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| {
        let place = format!("unreadable at line {} column {}", error.line(), error.column());
        corrupt(table, key, &place)
    })
}
