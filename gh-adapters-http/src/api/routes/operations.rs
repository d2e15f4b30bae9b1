//! Whether it lives, whether it can serve, what it measures.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::body::json_answer;
use super::super::problem::Problem;

#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`
    status: &'static str,
    version: &'static str,
}

/// Whether the process lives.
#[utoipa::path(get, path = "/health", tag = "operations", responses((status = OK, body = Health)))]
pub(super) async fn health() -> Response {
    let health = Health { status: "ok", version: env!("CARGO_PKG_VERSION") };
    json_answer(StatusCode::OK, &health)
}

#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready` or `unavailable`
    status: &'static str,
    checks: Checks,
}

#[derive(Serialize, ToSchema)]
struct Checks {
    /// `ok` or `unavailable`
    store: &'static str,
}

/// Whoever asks does not wait long either.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// Whether it can serve: the store answers, and takes changes.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "operations",
    responses((status = OK, body = Readiness), (status = SERVICE_UNAVAILABLE, body = Readiness))
)]
pub(super) async fn ready(State(state): State<Arc<ApiState>>) -> Response {
    let looked = tokio::time::timeout(READY_WITHIN, state.control_plane.reader().ready()).await;
    let is_ready = match looked {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "not ready");
            false
        }
        Err(_) => {
            tracing::warn!("not ready: the store does not answer");
            false
        }
    };
    let (code, status, store) = if is_ready {
        (StatusCode::OK, "ready", "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "unavailable")
    };
    let checks = Checks { store };
    json_answer(code, &Readiness { status, checks })
}

/// Figures for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((status = OK, body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(state): State<Arc<ApiState>>) -> Result<Response, Problem> {
    let figures = state.control_plane.figures().await?;
    let text = state.metrics.render(&figures);
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, text).into_response())
}
