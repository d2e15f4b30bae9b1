//! Names of things. Each kind has a type of its own, so that none is taken for another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::code::{CLIENT_PREFIX, SYSTEM};

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID.
            #[must_use]
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id! {
    /// One job, for its whole life.
    JobId
}
uuid_id! {
    /// One event of a job or of a worker.
    EventId
}
uuid_id! {
    /// One callback to one destination; also its `webhook-id` and `event_id`.
    DeliveryId
}
uuid_id! {
    /// One instruction of the server to a worker.
    DirectiveId
}
uuid_id! {
    /// One pause of a job for a person.
    InteractionId
}
uuid_id! {
    /// One deregistration: a record with a state of its own.
    DeregistrationId
}
uuid_id! {
    /// One waiting claim or open stream of a worker.
    ConnectionId
}
uuid_id! {
    /// One lease of a callback by a sender.
    SendLeaseId
}
uuid_id! {
    /// One process that runs a control plane, from its start to its end.
    ServerId
}

/// A name that somebody outside chose: 1–100 printable characters without `/`, opaque, never parsed.
///
/// Words that mean something else where names stand are none: `register` and `deregister` in paths, `system` and
/// `client:…` as the [`Actor`](super::code::Actor) of an event, which no worker may feign. Worker ids and target names share this form, because a target that no worker carries names the worker whose id
/// equals it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

/// Why a text is no [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than [`Name::MAX_CHARS`] characters.
    #[error("must have 1 to {} characters", Name::MAX_CHARS)]
    Length,
    /// Holds a control character or a slash.
    #[error("must hold printable characters only, and no '/'")]
    Characters,
    /// A word that means something else.
    #[error("'register', 'deregister', 'system' and what begins with 'client:' cannot be names")]
    Reserved,
}

impl Name {
    /// The greatest length, in characters.
    pub const MAX_CHARS: usize = 100;

    /// Takes a name as it is.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the text is not of the form above.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let length = text.chars().count();
        if length == 0 || length > Self::MAX_CHARS {
            return Err(NameError::Length);
        }
        if text.contains('/') || text.chars().any(char::is_control) {
            return Err(NameError::Characters);
        }
        if matches!(text, "register" | "deregister" | SYSTEM) || text.starts_with(CLIENT_PREFIX) {
            return Err(NameError::Reserved);
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The name of a worker: unique, chosen by the worker or minted when it registers.
pub type WorkerId = Name;

/// The client's routing key: any number of workers may carry the same.
pub type TargetName = Name;

/// Counts the boots of a worker id, and its returns after going offline; from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The generation of a first registration.
    pub const FIRST: Self = Self(1);

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// Counts the tries of a job, over all its runs; from 1. Every report of a worker names it: it is the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The first try of a job.
    pub const FIRST: Self = Self(1);

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// How often an aggregate was written; 0 for one that does not exist. A change made on an older one is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// Of an aggregate that does not exist.
    pub const ABSENT: Self = Self(0);

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_they_are_or_refused_with_a_reason() {
        assert_eq!(Name::parse("worker-production-1771386675208").unwrap().as_str(), "worker-production-1771386675208");
        assert_eq!(Name::parse("été 1").unwrap().as_str(), "été 1");
        assert_eq!(Name::parse(""), Err(NameError::Length));
        assert_eq!(Name::parse(&"x".repeat(101)), Err(NameError::Length));
        assert_eq!(Name::parse("a/b"), Err(NameError::Characters));
        assert_eq!(Name::parse("a\u{0}b"), Err(NameError::Characters));
        for word in ["register", "deregister", "system", "client:valet"] {
            assert_eq!(Name::parse(word), Err(NameError::Reserved), "{word}");
        }
    }
}
