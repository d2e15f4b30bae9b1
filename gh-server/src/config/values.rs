//! How a setting is read from text (environment, flag, default) and from TOML, and how it is shown.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use toml::Value;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::suggest::nearest;

/// Milliseconds of one second.
pub(super) const SECOND: u64 = 1000;
/// Milliseconds of one hour.
pub(super) const HOUR: u64 = 3600 * SECOND;
/// Milliseconds of one day.
pub(super) const DAY: u64 = 24 * HOUR;

/// Why a value is refused. The message never repeats a secret; `at` says where inside a list or table it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Invalid {
    /// A suffix to the setting's key, such as `[1].name`; empty for the whole value.
    pub(super) at: String,
    /// What is wrong and what would be right.
    pub(super) message: String,
}

impl Invalid {
    /// The whole value is refused.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { at: String::new(), message: message.into() }
    }

    /// The same refusal, of a part of the value.
    pub(super) fn within(self, at: &str) -> Self {
        Self { at: format!("{at}{}", self.at), ..self }
    }

    /// The value has another type than `expected` names.
    pub(super) fn wrong_type(expected: &str, found: &Value) -> Self {
        Self::new(format!("expected {expected}, found {}", type_name(found)))
    }
}

/// A TOML type in words.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date or time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// A way to read one sort of value.
pub(super) trait Kind {
    /// What is read.
    type Value;

    /// Reads the form of the environment, of flags and of defaults.
    fn parse_text(&self, text: &str) -> Result<Self::Value, Invalid>;

    /// Reads the form of the file; a string means the same as in the environment.
    fn parse_toml(&self, value: &Value) -> Result<Self::Value, Invalid> {
        match value {
            Value::String(text) => self.parse_text(text),
            other => Err(Invalid::wrong_type("a string", other)),
        }
    }
}

/// A kind whose values may be printed. Kinds of secrets do not have it.
pub(super) trait Show: Kind {
    /// The value as it would stand in the file; `None` if there is nothing to write.
    fn show(&self, value: &Self::Value) -> Option<Value>;
}

/// A setting that may be absent: empty text means so.
pub(super) struct Optional<K>(pub(super) K);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn parse_text(&self, text: &str) -> Result<Self::Value, Invalid> {
        if text.is_empty() { Ok(None) } else { self.0.parse_text(text).map(Some) }
    }

    fn parse_toml(&self, value: &Value) -> Result<Self::Value, Invalid> {
        match value {
            Value::String(text) => self.parse_text(text),
            other => self.0.parse_toml(other).map(Some),
        }
    }
}

impl<K: Show> Show for Optional<K> {
    fn show(&self, value: &Self::Value) -> Option<Value> {
        value.as_ref().and_then(|value| self.0.show(value))
    }
}

/// An IP address with a port.
pub(super) struct Address;

impl Kind for Address {
    type Value = SocketAddr;

    fn parse_text(&self, text: &str) -> Result<SocketAddr, Invalid> {
        text.parse().map_err(|_| {
            Invalid::new(format!("{text:?} is not an IP address and port such as `127.0.0.1:3100` or `[::1]:3100`"))
        })
    }
}

impl Show for Address {
    fn show(&self, value: &SocketAddr) -> Option<Value> {
        Some(Value::String(value.to_string()))
    }
}

/// An http or https URL to put paths behind. A refused one is not repeated: it may carry credentials.
pub(super) struct BaseUrl;

impl Kind for BaseUrl {
    type Value = Url;

    fn parse_text(&self, text: &str) -> Result<Url, Invalid> {
        let url = Url::parse(text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| Invalid::new("not a URL such as `https://ghosthands.example`"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Invalid::new("the URL must not carry a user name or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Invalid::new("the URL must not have a query or a fragment"));
        }
        Ok(url)
    }
}

impl Show for BaseUrl {
    fn show(&self, value: &Url) -> Option<Value> {
        Some(Value::String(value.to_string()))
    }
}

/// Any text that must stay secret.
pub(super) struct SecretText;

impl Kind for SecretText {
    type Value = SecretString;

    fn parse_text(&self, text: &str) -> Result<SecretString, Invalid> {
        Ok(SecretString::from(text))
    }
}

/// A whole number between `least` and `most`.
pub(super) struct Number {
    pub(super) least: usize,
    pub(super) most: usize,
}

impl Number {
    fn check(&self, number: Option<usize>) -> Result<usize, Invalid> {
        number.filter(|number| (self.least..=self.most).contains(number)).ok_or_else(|| {
            Invalid::new(format!("must be a whole number from {} to {}, without a unit", self.least, self.most))
        })
    }
}

impl Kind for Number {
    type Value = usize;

    fn parse_text(&self, text: &str) -> Result<usize, Invalid> {
        self.check(text.parse().ok())
    }

    fn parse_toml(&self, value: &Value) -> Result<usize, Invalid> {
        match value {
            Value::Integer(number) => self.check(usize::try_from(*number).ok()),
            other => Err(Invalid::wrong_type("an integer", other)),
        }
    }
}

impl Show for Number {
    fn show(&self, value: &usize) -> Option<Value> {
        i64::try_from(*value).ok().map(Value::Integer)
    }
}

/// Yes or no.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn parse_text(&self, text: &str) -> Result<bool, Invalid> {
        text.parse().map_err(|_| Invalid::new(format!("{text:?} is neither `true` nor `false`")))
    }

    fn parse_toml(&self, value: &Value) -> Result<bool, Invalid> {
        match value {
            Value::Boolean(value) => Ok(*value),
            other => Err(Invalid::wrong_type("a boolean", other)),
        }
    }
}

impl Show for Switch {
    fn show(&self, value: &bool) -> Option<Value> {
        Some(Value::Boolean(*value))
    }
}

/// A length of time with its unit (`500ms`, `5s`, `2m`, `1h`, `90d`), between two bounds in milliseconds.
pub(super) struct Span {
    pub(super) least_ms: u64,
    pub(super) most_ms: u64,
}

const UNITS: [(&str, u64); 5] = [("d", DAY), ("h", HOUR), ("m", 60 * SECOND), ("s", SECOND), ("ms", 1)];

/// A span in the greatest unit that divides it.
pub(super) fn show_span(span: Duration) -> String {
    let milliseconds = span.as_millis();
    UNITS
        .iter()
        .find(|(_, length)| milliseconds.is_multiple_of(u128::from(*length)))
        .map_or_else(String::new, |(unit, length)| format!("{}{unit}", milliseconds / u128::from(*length)))
}

impl Kind for Span {
    type Value = Duration;

    fn parse_text(&self, text: &str) -> Result<Duration, Invalid> {
        let unit_start = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(unit_start);
        let length = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, length)| *length);
        let milliseconds = match (digits.parse::<u64>(), length) {
            (Ok(count), Some(length)) => count.checked_mul(length),
            _ => {
                return Err(Invalid::new(format!(
                    "{text:?} is not a time with its unit such as `500ms`, `5s`, `2m`, `1h` or `90d`"
                )));
            }
        };
        milliseconds
            .filter(|milliseconds| (self.least_ms..=self.most_ms).contains(milliseconds))
            .map(Duration::from_millis)
            .ok_or_else(|| {
                let [least, most] = [self.least_ms, self.most_ms].map(|ms| show_span(Duration::from_millis(ms)));
                Invalid::new(format!("must be from {least} to {most}"))
            })
    }

    fn parse_toml(&self, value: &Value) -> Result<Duration, Invalid> {
        match value {
            Value::String(text) => self.parse_text(text),
            other => Err(Invalid::wrong_type("a time as a string with its unit, such as \"5s\"", other)),
        }
    }
}

impl Show for Span {
    fn show(&self, value: &Duration) -> Option<Value> {
        Some(Value::String(show_span(*value)))
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Reads a [`LogFormat`].
pub(super) struct Format;

impl Kind for Format {
    type Value = LogFormat;

    fn parse_text(&self, text: &str) -> Result<LogFormat, Invalid> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(Invalid::new(format!("{text:?} is neither `text` nor `json`"))),
        }
    }
}

impl Show for Format {
    fn show(&self, value: &LogFormat) -> Option<Value> {
        let name = match value {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        Some(Value::String(name.into()))
    }
}

/// A filter in the syntax of `tracing`: a level, or `target=level` pairs separated by commas.
pub(super) struct LogFilter;

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

impl Kind for LogFilter {
    type Value = String;

    fn parse_text(&self, text: &str) -> Result<String, Invalid> {
        // The library takes a misspelt level for the name of a target, which would silence everything else.
        for word in text.split(',').map(str::trim) {
            let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
            if let Some(level) = nearest(word, LEVELS).filter(|_| !is_level) {
                return Err(Invalid::new(format!(
                    "{word:?} is not a level; did you mean `{level}`? A target is written `{word}=trace`"
                )));
            }
        }
        EnvFilter::try_new(text)
            .map(|_| text.to_owned())
            .map_err(|_| Invalid::new(format!("{text:?} is not a log filter such as `info` or `info,gh_core=debug`")))
    }
}

impl Show for LogFilter {
    fn show(&self, value: &String) -> Option<Value> {
        Some(Value::String(value.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { least_ms: 10, most_ms: HOUR };

    #[test]
    fn a_time_needs_its_unit_and_stays_in_its_bounds() {
        for (text, milliseconds) in [("10ms", 10), ("5s", 5_000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(SPAN.parse_text(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
            assert_eq!(SPAN.show(&SPAN.parse_text(text).unwrap()), Some(Value::String(text.into())));
        }
        for text in
            ["", "5", "s", "5 s", "-5s", "5.5s", "5d", "9ms", "61m", "99999999999999999999s", "6000000000000000h"]
        {
            assert!(SPAN.parse_text(text).is_err(), "{text}");
        }
        assert!(SPAN.parse_toml(&Value::Integer(5)).unwrap_err().message.contains("found an integer"));
    }

    #[test]
    fn days_are_the_greatest_unit() {
        let kept = Span { least_ms: DAY, most_ms: 3650 * DAY };
        assert_eq!(kept.parse_text("90d").unwrap(), kept.parse_text("2160h").unwrap());
        assert_eq!(kept.show(&kept.parse_text("2160h").unwrap()), Some(Value::String("90d".into())));
        assert_eq!(kept.parse_text("23h").unwrap_err().message, "must be from 1d to 3650d");
    }

    #[test]
    fn a_switch_is_on_or_off() {
        assert!(Switch.parse_text("true").unwrap() && !Switch.parse_toml(&Value::Boolean(false)).unwrap());
        for text in ["", "yes", "1", "TRUE"] {
            assert!(Switch.parse_text(text).is_err(), "{text}");
        }
        assert!(Switch.parse_toml(&Value::Integer(1)).is_err());
    }

    #[test]
    fn a_number_stays_in_its_bounds() {
        let number = Number { least: 1, most: 500 };
        assert_eq!(number.parse_text("1").unwrap(), 1);
        assert_eq!(number.parse_toml(&Value::Integer(500)).unwrap(), 500);
        for text in ["0", "501", "-1", "1.0", "1k", ""] {
            assert!(number.parse_text(text).is_err(), "{text}");
        }
        assert!(number.parse_toml(&Value::Integer(-1)).is_err());
        assert!(number.parse_toml(&Value::String("7".into())).is_err());
    }

    #[test]
    fn a_misspelt_log_level_is_refused_with_the_right_one() {
        assert!(LogFilter.parse_text("inof").unwrap_err().message.contains("`info`"));
        assert!(LogFilter.parse_text("info,debgu").unwrap_err().message.contains("`debug`"));
        assert!(LogFilter.parse_text("info,gh_core=loud").is_err());
        for text in ["info", "WARN", "off", "info,gh_core=debug", "warn,gh_adapters_http"] {
            assert!(LogFilter.parse_text(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn urls_that_could_hold_a_secret_are_refused_without_repeating_them() {
        for text in ["https://user:hunter2@host", "ftp://hunter2", "https://host/?token=hunter2", "hunter2"] {
            assert!(!BaseUrl.parse_text(text).unwrap_err().message.contains("hunter2"), "{text}");
        }
        assert_eq!(BaseUrl.parse_text("https://gh.example/base").unwrap().path(), "/base");
    }
}
