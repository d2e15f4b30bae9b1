//! The keys by which receivers recognise us.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// Where callbacks go, as far as pace and keys are concerned: scheme, host and port. Carries no path, query or user
/// info, so it may be shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination(String);

/// Why a text is no [`Destination`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected scheme, host and port only, as in https://example.com:8443")]
pub struct DestinationError;

impl Destination {
    /// The destination of a URL. The scheme's usual port is the same as none.
    #[must_use]
    pub fn of(url: &Url) -> Self {
        Self(url.origin().ascii_serialization())
    }
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| DestinationError)?;
        let bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if bare && matches!(url.scheme(), "http" | "https") { Ok(Self::of(&url)) } else { Err(DestinationError) }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Which destinations get a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyScope {
    /// All that have no key of their own; written `*`.
    Everywhere,
    /// One.
    Destination(Destination),
}

impl FromStr for KeyScope {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "*" => Ok(Self::Everywhere),
            other => other.parse().map(Self::Destination),
        }
    }
}

impl fmt::Display for KeyScope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere => formatter.write_str("*"),
            Self::Destination(destination) => fmt::Display::fmt(destination, formatter),
        }
    }
}

/// The `X-GH-Service-Key` of each destination. Its debug output shows no key.
#[derive(Clone, Debug, Default)]
pub struct ServiceKeys {
    by_scope: BTreeMap<KeyScope, HeaderValue>,
}

/// Why keys cannot be used. Holds no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceKeyError {
    /// Empty, or with characters that a header cannot carry.
    #[error("the service key for {0} must be visible ASCII characters")]
    Characters(KeyScope),
    /// Two keys for the same destinations.
    #[error("there are two service keys for {0}")]
    Twice(KeyScope),
}

impl ServiceKeys {
    /// Takes at most one key per scope.
    ///
    /// # Errors
    ///
    /// [`ServiceKeyError`] for a key that is no header value, and for a second key of a scope.
    pub fn new(keys: impl IntoIterator<Item = (KeyScope, SecretString)>) -> Result<Self, ServiceKeyError> {
        let mut by_scope = BTreeMap::new();
        for (scope, key) in keys {
            let key = key.expose_secret();
            if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(ServiceKeyError::Characters(scope));
            }
            let Ok(mut value) = HeaderValue::from_str(key) else {
                return Err(ServiceKeyError::Characters(scope));
            };
            value.set_sensitive(true);
            if by_scope.insert(scope.clone(), value).is_some() {
                return Err(ServiceKeyError::Twice(scope));
            }
        }
        Ok(Self { by_scope })
    }

    pub(super) fn key_for(&self, destination: &Destination) -> Option<&HeaderValue> {
        self.by_scope
            .get(&KeyScope::Destination(destination.clone()))
            .or_else(|| self.by_scope.get(&KeyScope::Everywhere))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(entries: &[(&str, &str)]) -> Result<ServiceKeys, ServiceKeyError> {
        ServiceKeys::new(entries.iter().map(|(scope, key)| (scope.parse().unwrap(), SecretString::from(*key))))
    }

    fn key_for(keys: &ServiceKeys, url: &str) -> Option<String> {
        let destination = Destination::of(&Url::parse(url).unwrap());
        keys.key_for(&destination).map(|key| key.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_key_goes_to_its_scheme_host_and_port_only() {
        let keys = keys(&[("https://example.com", "a"), ("http://example.com:8080", "b")]).unwrap();
        assert_eq!(key_for(&keys, "https://example.com/hook?x").as_deref(), Some("a"));
        assert_eq!(key_for(&keys, "https://EXAMPLE.com:443/").as_deref(), Some("a"));
        assert_eq!(key_for(&keys, "http://example.com:8080/").as_deref(), Some("b"));
        for other in [
            "http://example.com/",
            "https://example.com:8080/",
            "https://a.example.com/",
            "https://example.com.evil.example/",
        ] {
            assert_eq!(key_for(&keys, other), None, "{other}");
        }
    }

    #[test]
    fn the_key_for_all_gives_way_to_a_destinations_own() {
        let keys = keys(&[("*", "general"), ("https://example.com", "own")]).unwrap();
        assert_eq!(key_for(&keys, "https://example.com/").as_deref(), Some("own"));
        assert_eq!(key_for(&keys, "https://example.org/").as_deref(), Some("general"));
    }

    #[test]
    fn unusable_keys_are_refused_without_being_shown() {
        let scope = || KeyScope::Everywhere;
        for key in ["", "line\nbreak", "späce", "a b"] {
            assert_eq!(keys(&[("*", key)]).unwrap_err(), ServiceKeyError::Characters(scope()));
        }
        assert_eq!(keys(&[("*", "a"), ("*", "b")]).unwrap_err(), ServiceKeyError::Twice(scope()));
        assert!(!format!("{:?}", keys(&[("*", "hush-hush")]).unwrap()).contains("hush"));
    }

    #[test]
    fn a_destination_is_scheme_host_and_port_and_nothing_else() {
        assert_eq!("https://Example.com:443".parse(), Ok(Destination("https://example.com".to_owned())));
        for text in [
            "example.com",
            "https://example.com/hook",
            "https://u@example.com",
            "ftp://example.com",
            "https://example.com?x",
            "",
        ] {
            assert_eq!(text.parse::<Destination>(), Err(DestinationError), "{text}");
        }
    }
}
