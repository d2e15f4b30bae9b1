//! The API: every route of the control plane, for clients and for workers.
//!
//! [`router`] serves it. Who calls is told by an [`Authenticate`]: the keys of a [`KeyRing`], or what an embedding service
//! has instead. Every error has a code of [`error_codes`], and every route declares which of them it answers.
//!
//! Handlers translate and decide nothing: each reads a request, calls one use case of the
//! [`ControlPlane`], and writes the answer. A route is declared together with its
//! description, so that [`openapi`] holds every route that [`router`] serves.

mod auth;
mod body;
mod codes;
mod context;
mod declared;
mod document;
mod fields;
mod keys;
mod metrics;
mod paths;
mod problem;
mod query;
mod routes;
mod scan;
mod tokens;
mod views;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use gh_core::application::ControlPlane;
use gh_core::ports::clock::Clock;
use gh_core::ports::ids::IdSource;
use tokio::sync::OnceCell;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;

pub use auth::{Authenticate, Door, Refusal};
pub use codes::{ErrorCode, error_codes};
pub use document::openapi;
pub use keys::{KeyRing, NamedKey};
pub use metrics::{MeasuredStore, Metrics};

use crate::callbacks::Guard;
use problem::Problem;
use tokens::TokenSeal;

/// What requests may hold at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Items of a batch of jobs, and of a worker's report.
    pub batch_items: usize,
}

impl Default for Limits {
    /// 1 MiB and 500 items.
    fn default() -> Self {
        Self { body_bytes: 1024 * 1024, batch_items: 500 }
    }
}

/// What the API needs beside the control plane.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Tells who calls: a [`KeyRing`], or what an embedding service has instead.
    pub auth: Arc<dyn Authenticate>,
    /// What requests may hold.
    pub limits: Limits,
    /// Whether `/metrics`, `/docs` and `/openapi.json` need no key: only where nobody else can reach them, on loopback.
    pub public_metrics: bool,
    /// Which callback URLs are accepted.
    pub callback_guard: Guard,
    /// Makes request ids.
    pub ids: Arc<dyn IdSource>,
    /// Measures how long requests take.
    pub clock: Arc<dyn Clock>,
    /// Where measures are kept; shared with a [`MeasuredStore`] if there is one.
    pub metrics: Arc<Metrics>,
}

/// What every handler sees.
#[derive(Debug)]
pub(crate) struct ApiState {
    control_plane: Arc<ControlPlane>,
    auth: Arc<dyn Authenticate>,
    seal: OnceCell<TokenSeal>,
    limits: Limits,
    callback_guard: Guard,
    ids: Arc<dyn IdSource>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl ApiState {
    /// What seals and opens worker tokens; its secret is asked from the store once.
    async fn token_seal(&self) -> Result<&TokenSeal, Problem> {
        let seal = async || {
            let key = self.control_plane.store().token_key().await?;
            Ok(TokenSeal::new(key))
        };
        self.seal.get_or_try_init(seal).await
    }
}

/// The whole API, ready to be served: at the root, or nested under a path of another axum service
/// (`Router::nest("/ghosthands", api::router(…))`). It needs no state and no layer of that service, brings its own
/// answers to unknown paths and methods, and measures and logs its own requests only. Layers that the service puts
/// around it run first, so that what they leave in a request's extensions is there for [`Authenticate`].
pub fn router(control_plane: Arc<ControlPlane>, config: ApiConfig) -> Router {
    let state = Arc::new(ApiState {
        control_plane,
        auth: config.auth,
        seal: OnceCell::new(),
        limits: config.limits,
        callback_guard: config.callback_guard,
        ids: config.ids,
        clock: config.clock,
        metrics: config.metrics,
    });
    let door = |door| from_fn_with_state((Arc::clone(&state), door), auth::door);
    let groups = routes::Groups::new();
    let (operators, documentation) = if config.public_metrics {
        (groups.operators, groups.documentation)
    } else {
        let documentation = groups.documentation.route_layer(door(Door::Documentation));
        (groups.operators.route_layer(door(Door::Operations)), documentation)
    };
    let groups = routes::Groups {
        clients: groups.clients.route_layer(door(Door::Clients)),
        registration: groups.registration.route_layer(door(Door::Registration)),
        workers: groups.workers.route_layer(from_fn_with_state(Arc::clone(&state), auth::workers)),
        operators,
        documentation,
        open: groups.open,
    };
    let (routes, _) = groups.merged().split_for_parts();
    routes
        .fallback(routes::unknown_path)
        .method_not_allowed_fallback(routes::unknown_method)
        .layer(CatchPanicLayer::custom(context::panicked))
        .layer(from_fn_with_state(Arc::clone(&state), context::surround))
        .with_state(state)
}

/// A group of routes and their descriptions.
type Routes = OpenApiRouter<Arc<ApiState>>;
