//! Short words with a form: error codes of jobs, actors, names of clients.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::ids::{NameError, WorkerId};

/// The text of [`Actor::System`].
pub(super) const SYSTEM: &str = "system";

/// How the text of an [`Actor::Client`] begins.
pub(super) const CLIENT_PREFIX: &str = "client:";

/// Why a job failed: `^[A-Za-z0-9_]{1,64}$`. The control plane's own codes are the constants; workers add theirs.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ErrorCode(Cow<'static, str>);

impl ErrorCode {
    /// A strict job whose target could not take it.
    pub const WORKER_UNAVAILABLE: Self = Self(Cow::Borrowed("WORKER_UNAVAILABLE"));
    /// The worker that had the job is gone, and no attempt is left or nobody may repeat it.
    pub const WORKER_LOST: Self = Self(Cow::Borrowed("WORKER_LOST"));
    /// The attempt took longer than the job's `timeout_seconds`.
    pub const TIMEOUT: Self = Self(Cow::Borrowed("timeout"));
    /// It waited longer than `expires_in_seconds`.
    pub const EXPIRED: Self = Self(Cow::Borrowed("expired"));
    /// Nobody resolved the blocker in time.
    pub const HITL_TIMEOUT: Self = Self(Cow::Borrowed("hitl_timeout"));
    /// The job cost more than its budget.
    pub const BUDGET_EXCEEDED: Self = Self(Cow::Borrowed("budget_exceeded"));

    /// Takes a worker's own code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits =
            (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        fits.then(|| Self(Cow::Owned(text.to_owned())))
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected an error code"))
    }
}

/// The name of a configured client: what its keys are called in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientName(Arc<str>);

impl ClientName {
    /// Takes the name from the configuration.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who made a change. Its text is `system`, `client:NAME` or a `worker_id`, which is never one of the former two
/// ([`Name`](super::ids::Name)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The control plane itself.
    System,
    /// A client, by the name of its key.
    Client(ClientName),
    /// A worker.
    Worker(WorkerId),
}

impl fmt::Display for Actor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => formatter.write_str(SYSTEM),
            Self::Client(name) => write!(formatter, "{CLIENT_PREFIX}{}", name.as_str()),
            Self::Worker(id) => fmt::Display::fmt(id, formatter),
        }
    }
}

impl FromStr for Actor {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == SYSTEM {
            return Ok(Self::System);
        }
        match text.strip_prefix(CLIENT_PREFIX) {
            Some(name) => Ok(Self::Client(ClientName::new(name))),
            None => WorkerId::parse(text).map(Self::Worker),
        }
    }
}

impl Serialize for Actor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A digest by which a repeated request is known as the same; stable across versions and machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Digests the JSON of `value`; equal values have equal digests.
    #[must_use]
    pub fn of(value: &impl Serialize) -> Self {
        struct Sink(Sha256);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.update(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut sink = Sink(Sha256::new());
        // Writing into a digest cannot fail, and no fingerprinted type refuses to be written as JSON.
        let written = serde_json::to_writer(&mut sink, value);
        debug_assert!(written.is_ok(), "{written:?}");
        Self(sink.0.finalize().into())
    }

    /// The digest's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest from stored bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_have_a_form() {
        assert_eq!(ErrorCode::parse("network_error").unwrap().as_str(), "network_error");
        for text in ["", "two words", "ümlaut", &"x".repeat(65)] {
            assert_eq!(ErrorCode::parse(text), None, "{text}");
        }
    }

    #[test]
    fn equal_values_have_equal_fingerprints() {
        assert_eq!(Fingerprint::of(&("a", 1)), Fingerprint::of(&("a", 1)));
        assert_ne!(Fingerprint::of(&("a", 1)), Fingerprint::of(&("a", 2)));
    }
}
