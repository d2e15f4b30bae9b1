//! The routes, in groups by who may call them.

mod claims;
mod deregistration;
mod documentation;
mod job_queries;
mod jobs;
mod operations;
mod outcomes;
mod presence;
mod registry;
mod reports;
mod usage;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Routes;
use super::codes;
use super::document::{self, Key};
use super::problem::Problem;

/// Where all routes lie that are not at the root.
const BASE: &str = "/api/v1";

/// All routes. Each group stands behind one layer that lets its callers in.
pub(super) struct Groups {
    /// For clients.
    pub(super) clients: Routes,
    /// For workers that are not registered yet.
    pub(super) registration: Routes,
    /// For registered workers.
    pub(super) workers: Routes,
    /// For whoever runs this: a client's key, or none on loopback.
    pub(super) operators: Routes,
    /// For people with a browser: as for operators.
    pub(super) documentation: Routes,
    /// For everybody.
    pub(super) open: Routes,
}

impl Groups {
    /// Every route there is.
    pub(super) fn new() -> Self {
        let service_keys = [Key::SERVICE_HEADER, Key::SERVICE_BEARER];
        let browser_keys = [Key::SERVICE_HEADER, Key::SERVICE_BEARER, Key::SERVICE_BASIC];
        let known = &document::OF_KNOWN_CALLERS;
        Self {
            clients: document::describe(clients(), &service_keys, known),
            registration: document::describe(registration(), &[Key::WORKER_KEY], known),
            workers: document::describe(workers(), &[Key::WORKER_TOKEN], known),
            operators: document::describe(operators(), &service_keys, known),
            documentation: document::describe(documentation(), &browser_keys, known),
            open: document::describe(open(), &[], &document::OF_ANYBODY),
        }
    }

    /// All groups, each under its path.
    pub(super) fn merged(self) -> Routes {
        let versioned = self.clients.merge(self.registration).merge(self.workers);
        OpenApiRouter::with_openapi(document::frame())
            .nest(BASE, versioned)
            .merge(self.operators)
            .merge(self.documentation)
            .merge(self.open)
    }
}

fn clients() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(jobs::submit, job_queries::list))
        .routes(routes!(jobs::submit_batch))
        .routes(routes!(job_queries::job))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(job_queries::events))
        .routes(routes!(job_queries::placement))
        .routes(routes!(job_queries::callbacks))
        .routes(routes!(registry::workers))
        .routes(routes!(registry::worker))
        .routes(routes!(registry::events))
        .routes(routes!(registry::drain))
        .routes(routes!(registry::undrain))
        .routes(routes!(deregistration::deregister))
        .routes(routes!(deregistration::lift_hold))
}

fn registration() -> Routes {
    OpenApiRouter::new().routes(routes!(presence::register))
}

fn workers() -> Routes {
    let own = OpenApiRouter::new()
        .routes(routes!(presence::heartbeat))
        .routes(routes!(presence::goodbye))
        .routes(routes!(claims::claim))
        .routes(routes!(claims::directives));
    let living = [&codes::STALE_GENERATION, &codes::WORKER_DEREGISTERED, &codes::WORKER_NOT_FOUND];
    let attempts = OpenApiRouter::new()
        .routes(routes!(reports::events))
        .routes(routes!(reports::side_effects_started))
        .routes(routes!(outcomes::complete))
        .routes(routes!(outcomes::fail))
        .routes(routes!(outcomes::release));
    let attempts = document::sharing(document::sharing(attempts, &[&codes::STALE_LEASE]), &living);
    // Usage is taken from whoever held the attempt, alive or not.
    let attempts = attempts.routes(routes!(usage::usage));
    let attempts = document::sharing(attempts, &[&codes::JOB_NOT_FOUND, &codes::NOT_FOUND]);
    document::sharing(document::sharing(own, &[&codes::NOT_YOUR_WORKER]), &living).merge(attempts)
}

fn operators() -> Routes {
    OpenApiRouter::new().routes(routes!(operations::metrics))
}

fn documentation() -> Routes {
    OpenApiRouter::new()
        .routes(routes!(documentation::openapi))
        .routes(routes!(documentation::page))
        .routes(routes!(documentation::file))
}

fn open() -> Routes {
    OpenApiRouter::new().routes(routes!(operations::health)).routes(routes!(operations::ready))
}

/// What a path gets that no route has.
pub(super) async fn unknown_path() -> Problem {
    Problem::new(&codes::NOT_FOUND, "No route has this path.")
}

/// What a path gets whose routes have other methods.
pub(super) async fn unknown_method() -> Problem {
    Problem::new(
        &codes::METHOD_NOT_ALLOWED,
        "The path does not take this method; the Allow header names those that it takes.",
    )
}
