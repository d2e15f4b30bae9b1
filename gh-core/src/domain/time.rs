//! Instants, with the precision every store can keep.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant in UTC with microsecond precision: PostgreSQL's, so that every store gives back what it took.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The instant `micros` microseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).try_into().unwrap_or(0))
    }

    /// The same instant as chrono's type, for calendars and formats.
    ///
    /// Instants beyond chrono's range (years ±262,000) become its nearest limit.
    #[must_use]
    pub fn to_datetime(self) -> DateTime<Utc> {
        let nearest = if self.0 < 0 { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
        DateTime::from_timestamp_micros(self.0).unwrap_or(nearest)
    }

    /// Parses RFC 3339 text; digits beyond the microsecond are cut.
    ///
    /// # Errors
    ///
    /// [`TimestampError`]: text that is not RFC 3339, or an instant that could not be read back from what is written of
    /// it.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let parsed = DateTime::parse_from_rfc3339(text).map_err(|_| TimestampError::Form)?;
        let instant = Self(parsed.timestamp_micros());
        // RFC 3339 has four digits for a year; offsets and leap seconds lead beyond them.
        if (1..=9999).contains(&instant.to_datetime().year()) { Ok(instant) } else { Err(TimestampError::Year) }
    }
}

/// Why text is no [`Timestamp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// It is not RFC 3339.
    #[error("must be an RFC 3339 timestamp")]
    Form,
    /// Its year in UTC does not have the four digits that RFC 3339 can write, or is the year 0.
    #[error("must be within the years 1 to 9999 in UTC")]
    Year,
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(value: DateTime<Utc>) -> Self {
        Self(value.timestamp_micros())
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_datetime().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_value_round_trip_to_the_microsecond() {
        let instant = Timestamp::parse("2026-02-18T09:30:00.1234569+01:00").unwrap();
        assert_eq!(instant.to_string(), "2026-02-18T08:30:00.123456Z");
        assert_eq!(Timestamp::parse(&instant.to_string()).unwrap(), instant);
        assert_eq!(Timestamp::from_micros(instant.as_micros()), instant);
    }

    #[test]
    fn an_instant_that_could_not_be_read_back_is_refused() {
        let beyond = ["9999-12-31T23:59:59-00:01", "9999-12-31T23:59:60Z"];
        for text in beyond.into_iter().chain(["0001-01-01T00:00:00+00:01", "0000-06-01T00:00:00Z"]) {
            assert_eq!(Timestamp::parse(text), Err(TimestampError::Year), "{text}");
        }
        for text in ["10000-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "2026-02-18", ""] {
            assert_eq!(Timestamp::parse(text), Err(TimestampError::Form), "{text}");
        }
        for text in ["9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+00:01"] {
            let instant = Timestamp::parse(text).unwrap();
            assert_eq!(Timestamp::parse(&instant.to_string()), Ok(instant), "{text}");
        }
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        let last = Timestamp::from_micros(i64::MAX);
        assert_eq!(last + Duration::from_secs(1), last);
        assert_eq!(Timestamp::from_micros(5).since(last), Duration::ZERO);
    }
}
