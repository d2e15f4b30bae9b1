//! Keys of the configuration, and the requests that they let in.

use async_trait::async_trait;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gh_core::domain::code::ClientName;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::auth::{Authenticate, Door, Refusal};

/// More secrets in one request than these are not worth looking at.
const MAX_SECRETS: usize = 4;

/// A key and the name of whoever has it. Two keys may carry one name while one takes the other's place.
#[derive(Clone, Debug)]
pub struct NamedKey {
    /// The name that events show as the actor, `client:NAME`.
    pub name: String,
    /// The secret.
    pub key: SecretString,
}

/// Lets in whoever presents a key of the configuration: clients and operators a service key, workers that want to
/// register a worker key.
///
/// A key comes as `X-GH-Service-Key: KEY` or `Authorization: Bearer KEY`. Where a person's browser asks, at
/// [`Door::Documentation`], it may also be the password of `Authorization: Basic`, with any user name.
#[derive(Debug)]
pub struct KeyRing {
    service_keys: Digests,
    worker_keys: Digests,
}

impl KeyRing {
    /// Knows these keys, as digests.
    #[must_use]
    pub fn new(service_keys: &[NamedKey], worker_keys: &[NamedKey]) -> Self {
        Self { service_keys: Digests::of(service_keys), worker_keys: Digests::of(worker_keys) }
    }
}

#[async_trait]
impl Authenticate for KeyRing {
    async fn authenticate(&self, request: &Parts, door: Door) -> Result<ClientName, Refusal> {
        let mut refusal = Refusal::Unknown;
        for secret in secrets(&request.headers, door) {
            let digest = Sha256::digest(secret.expose_secret().as_bytes()).into();
            let service_key = self.service_keys.owner(&digest);
            let worker_key = self.worker_keys.owner(&digest);
            let (accepted, other) = match door {
                Door::Registration => (worker_key, service_key),
                Door::Clients | Door::Operations | Door::Documentation => (service_key, worker_key),
            };
            if let Some(name) = accepted {
                return Ok(name.clone());
            }
            if other.is_some() {
                refusal = Refusal::WrongKind;
            }
        }
        Err(refusal)
    }

    fn challenge(&self, door: Door) -> HeaderValue {
        HeaderValue::from_static(match door {
            Door::Documentation => r#"Basic realm="GhostHands", charset="UTF-8""#,
            Door::Clients | Door::Registration | Door::Operations => "Bearer",
        })
    }
}

/// Keys, as digests: what is compared has one length, whatever a caller sends.
#[derive(Debug)]
struct Digests(Vec<(ClientName, [u8; 32])>);

impl Digests {
    fn of(keys: &[NamedKey]) -> Self {
        let digest = |named: &NamedKey| {
            let digest = Sha256::digest(named.key.expose_secret().as_bytes()).into();
            (ClientName::new(&named.name), digest)
        };
        Self(keys.iter().map(digest).collect())
    }

    /// Whose key it is. Looks at every key, so that the time tells nothing.
    fn owner(&self, digest: &[u8; 32]) -> Option<&ClientName> {
        let mut found = 0_u64;
        for (place, (_, known)) in (1_u64..).zip(&self.0) {
            let same: Choice = known.as_slice().ct_eq(digest.as_slice());
            found.conditional_assign(&place, same);
        }
        let place = usize::try_from(found.checked_sub(1)?).ok()?;
        self.0.get(place).map(|(name, _)| name)
    }
}

/// The secrets that a request carries.
fn secrets(headers: &HeaderMap, door: Door) -> impl Iterator<Item = SecretString> {
    let service_keys = headers.get_all("x-gh-service-key").iter().filter_map(|value| value.to_str().ok());
    let passwords = headers.get_all(AUTHORIZATION).iter().filter(move |_| door == Door::Documentation);
    let passwords = passwords.filter_map(basic_password);
    service_keys.chain(bearers(headers)).map(SecretString::from).chain(passwords).take(MAX_SECRETS)
}

/// What follows `Authorization: Bearer`, as often as a request has it, up to a limit.
pub(super) fn bearers(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(AUTHORIZATION).iter().filter_map(|value| credentials(value, "bearer")).take(MAX_SECRETS)
}

fn credentials<'v>(value: &'v HeaderValue, wanted: &str) -> Option<&'v str> {
    let (scheme, credentials) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case(wanted).then_some(credentials.trim())
}

/// The password of `Authorization: Basic` (RFC 7617).
fn basic_password(value: &HeaderValue) -> Option<SecretString> {
    let pair = STANDARD.decode(credentials(value, "basic")?).ok()?;
    let pair = String::from_utf8(pair).ok()?;
    pair.split_once(':').map(|(_, password)| SecretString::from(password))
}
