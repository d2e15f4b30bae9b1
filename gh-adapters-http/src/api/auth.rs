//! Who calls: [`Authenticate`] tells clients and registering workers, tokens tell registered workers.
//!
//! Each group of routes stands behind one of the layers here; they leave the caller in the request's extensions.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderValue;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use gh_core::domain::code::{Actor, ClientName};
use gh_core::domain::commands::Credential;

use super::ApiState;
use super::codes;
use super::keys::bearers;
use super::problem::Problem;

/// Which routes a request asks to be let in to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Door {
    /// Routes of clients: jobs, the registry, deregistration.
    Clients,
    /// The route at which a worker registers. What it answers with is the token for all other routes of workers.
    Registration,
    /// Routes of whoever runs the control plane: `/metrics`.
    Operations,
    /// What a person reads in a browser, which cannot be told to send headers: `/docs` and `/openapi.json`.
    Documentation,
}

/// Why a request is not let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The request does not say who calls, or says it wrongly: `401 UNAUTHENTICATED`.
    Unknown,
    /// The caller is known and may not use these routes: `403 WRONG_KEY_KIND`.
    WrongKind,
    /// Whoever knows the callers cannot be asked now: `503 UNAVAILABLE`. The reason belongs into the log of whoever
    /// refuses.
    Unavailable,
}

/// Tells who makes a request. [`KeyRing`](super::KeyRing) does it with the keys of a configuration; a service that
/// has its own users brings its own.
///
/// Registered workers are not asked about here: they carry a token that the API made itself, which names the worker
/// and its generation.
///
/// ```
/// use async_trait::async_trait;
/// use axum::http::request::Parts;
/// use gh_adapters_http::api::{Authenticate, Door, Refusal};
/// use gh_core::domain::code::ClientName;
///
/// /// Left in the request's extensions by the service's own middleware.
/// #[derive(Clone)]
/// struct User {
///     name: String,
///     may_run_workers: bool,
/// }
///
/// #[derive(Debug)]
/// struct OwnUsers;
///
/// #[async_trait]
/// impl Authenticate for OwnUsers {
///     async fn authenticate(&self, request: &Parts, door: Door) -> Result<ClientName, Refusal> {
///         let user = request.extensions.get::<User>().ok_or(Refusal::Unknown)?;
///         if door == Door::Registration && !user.may_run_workers {
///             return Err(Refusal::WrongKind);
///         }
///         Ok(ClientName::new(&user.name))
///     }
/// }
/// ```
#[async_trait]
pub trait Authenticate: fmt::Debug + Send + Sync {
    /// Who makes the request. The name is what events show as the actor, `client:NAME`, of what is done at
    /// [`Door::Clients`]. The request is as the API sees it: nested under a path, its URI is without that path.
    ///
    /// # Errors
    ///
    /// The request is not let in at this door.
    async fn authenticate(&self, request: &Parts, door: Door) -> Result<ClientName, Refusal>;

    /// The `WWW-Authenticate` header of a `401` at this door: how to say who calls.
    fn challenge(&self, door: Door) -> HeaderValue {
        let _same_at_every_door = door;
        HeaderValue::from_static("Bearer")
    }
}

/// A client.
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

/// Lets in whom [`Authenticate`] lets in.
pub(super) async fn door(
    State((state, door)): State<(Arc<ApiState>, Door)>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let name = let_in(&state, &parts, door).await?;
    parts.extensions.insert(Client(name));
    Ok(next.run(Request::from_parts(parts, body)).await)
}

async fn let_in(state: &ApiState, request: &Parts, door: Door) -> Result<ClientName, Problem> {
    match state.auth.authenticate(request, door).await {
        Ok(name) => Ok(name),
        Err(Refusal::Unknown) if token(state, request).await?.is_none() => {
            Err(unauthenticated(state.auth.challenge(door)))
        }
        Err(Refusal::Unknown | Refusal::WrongKind) => Err(wrong_kind()),
        Err(Refusal::Unavailable) => Err(Problem::unavailable(None)),
    }
}

/// Lets registered workers in.
pub(super) async fn workers(
    State(state): State<Arc<ApiState>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let Some(credential) = token(&state, &parts).await? else {
        // Only to tell a client that took the wrong route from a stranger; it does not get in either way.
        return Err(match state.auth.authenticate(&parts, Door::Clients).await {
            Ok(_) | Err(Refusal::WrongKind) => wrong_kind(),
            Err(Refusal::Unknown | Refusal::Unavailable) => unauthenticated(HeaderValue::from_static("Bearer")),
        });
    };
    parts.extensions.insert(Caller(credential));
    Ok(next.run(Request::from_parts(parts, body)).await)
}

/// The worker whose token the request carries.
async fn token(state: &ApiState, request: &Parts) -> Result<Option<Credential>, Problem> {
    let mut bearers = bearers(&request.headers).peekable();
    if bearers.peek().is_none() {
        return Ok(None);
    }
    let seal = state.token_seal().await?;
    Ok(bearers.find_map(|token| seal.open(token)))
}

fn unauthenticated(challenge: HeaderValue) -> Problem {
    Problem::new(&codes::UNAUTHENTICATED, "The request carries no key, or one that is not known.")
        .challenging(challenge)
}

fn wrong_kind() -> Problem {
    Problem::new(
        &codes::WRONG_KEY_KIND,
        "Clients use a service key, workers register with a worker key and then use the token they got.",
    )
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
