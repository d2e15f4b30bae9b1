//! Who calls: keys of clients, keys with which workers register, and tokens of registered workers.
//!
//! Each group of routes stands behind one of the three layers here; they leave the caller in the request's extensions.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use gh_core::domain::code::{Actor, ClientName};
use gh_core::domain::commands::Credential;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::ApiState;
use super::codes;
use super::problem::Problem;

/// A key and the name of whoever has it. Two keys may carry one name while one takes the other's place.
#[derive(Clone, Debug)]
pub struct NamedKey {
    /// The name that events show as the actor, `client:NAME`.
    pub name: String,
    /// The secret.
    pub key: SecretString,
}

/// Keys, as digests: what is compared has one length, whatever a caller sends.
#[derive(Debug)]
pub(super) struct KeyRing {
    keys: Vec<(ClientName, [u8; 32])>,
}

impl KeyRing {
    /// Takes the keys of the configuration.
    pub(super) fn new(keys: &[NamedKey]) -> Self {
        let digest = |named: &NamedKey| {
            let digest = Sha256::digest(named.key.expose_secret().as_bytes()).into();
            (ClientName::new(&named.name), digest)
        };
        Self { keys: keys.iter().map(digest).collect() }
    }

    /// Whose key it is. Looks at every key, so that the time tells nothing.
    fn owner(&self, digest: &[u8; 32]) -> Option<&ClientName> {
        let mut found = 0_u64;
        for (place, (_, known)) in (1_u64..).zip(&self.keys) {
            let same: Choice = known.as_slice().ct_eq(digest.as_slice());
            found.conditional_assign(&place, same);
        }
        let place = usize::try_from(found.checked_sub(1)?).ok()?;
        self.keys.get(place).map(|(name, _)| name)
    }
}

/// A client, known by its key.
#[derive(Clone, Debug)]
pub(super) struct Client(pub(super) ClientName);

impl Client {
    /// The client as the author of a change.
    pub(super) fn actor(&self) -> Actor {
        Actor::Client(self.0.clone())
    }
}

/// A registered worker's process, known by its token.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Credential);

/// What a presented secret is.
enum Identity {
    Client(ClientName),
    Registrar,
    Worker(Credential),
}

/// Lets clients in.
pub(super) async fn clients(
    State(state): State<Arc<ApiState>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let client = admit(&state, request.headers(), |identity| match identity {
        Identity::Client(name) => Some(Client(name)),
        Identity::Registrar | Identity::Worker(_) => None,
    })
    .await?;
    request.extensions_mut().insert(client);
    Ok(next.run(request).await)
}

/// Lets workers in that want to register.
pub(super) async fn registrars(
    State(state): State<Arc<ApiState>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    admit(&state, request.headers(), |identity| matches!(identity, Identity::Registrar).then_some(())).await?;
    Ok(next.run(request).await)
}

/// Lets registered workers in.
pub(super) async fn workers(
    State(state): State<Arc<ApiState>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = admit(&state, request.headers(), |identity| match identity {
        Identity::Worker(credential) => Some(Caller(credential)),
        Identity::Client(_) | Identity::Registrar => None,
    })
    .await?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The first secret of the request that `accept` takes; else why none was taken.
async fn admit<T>(state: &ApiState, headers: &HeaderMap, accept: impl Fn(Identity) -> Option<T>) -> Result<T, Problem> {
    let mut known = false;
    for secret in presented(headers) {
        if let Some(identity) = identify(state, secret).await? {
            known = true;
            if let Some(caller) = accept(identity) {
                return Ok(caller);
            }
        }
    }
    Err(if known {
        Problem::new(
            &codes::WRONG_KEY_KIND,
            "Clients use a service key, workers register with a worker key and then use the token they got.",
        )
    } else {
        Problem::new(&codes::UNAUTHENTICATED, "The request carries no key, or one that is not known.")
    })
}

/// The secrets that a request carries.
fn presented(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let service_keys = headers.get_all("x-gh-service-key").iter();
    let bearers = headers.get_all(AUTHORIZATION).iter();
    let service_keys = service_keys.filter_map(|value| value.to_str().ok());
    let bearers = bearers.filter_map(bearer);
    // More than a few are not worth looking at.
    service_keys.chain(bearers).take(4)
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, secret) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

async fn identify(state: &ApiState, secret: &str) -> Result<Option<Identity>, Problem> {
    let digest: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
    if let Some(name) = state.service_keys.owner(&digest) {
        return Ok(Some(Identity::Client(name.clone())));
    }
    if state.worker_keys.owner(&digest).is_some() {
        return Ok(Some(Identity::Registrar));
    }
    let seal = state.token_seal().await?;
    Ok(seal.open(secret).map(Identity::Worker))
}

macro_rules! from_extensions {
    ($caller:ty) => {
        impl<S: Sync> FromRequestParts<S> for $caller {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
                // A route outside its layer is a defect; nobody gets in through it.
                parts.extensions.get().cloned().ok_or_else(Problem::internal)
            }
        }
    };
}

from_extensions!(Client);
from_extensions!(Caller);
