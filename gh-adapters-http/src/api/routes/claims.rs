//! Workers ask for jobs and listen to what they are told.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use gh_core::application::{DirectiveStream, StreamItem};
use gh_core::domain::ids::Attempt;
use gh_core::domain::time::Timestamp;
use gh_core::domain::worker::Directive;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::body::json_answer;
use super::super::codes::{INVALID_REQUEST, LEASE_HELD, WORKER_DRAINING};
use super::super::paths::OwnWorker;
use super::super::problem::Problem;
use super::super::query::Query;
use super::super::views::ClaimedJobView;

/// The longest that a claim waits, in seconds.
const LONGEST_WAIT: u64 = 30;

#[derive(Serialize, ToSchema)]
struct ClaimView<'j> {
    job: ClaimedJobView<'j>,
    #[schema(value_type = u32)]
    attempt: Attempt,
    /// For information: when the worker counts as lost without a further sign of life.
    #[schema(value_type = String, format = DateTime)]
    lease_expires_at: Timestamp,
}

/// A worker is free and asks for a job.
#[utoipa::path(
    post,
    path = "/workers/{worker_id}/claim",
    tag = "worker",
    params(
        ("worker_id" = String, Path),
        ("wait" = Option<u32>, Query, description = "Seconds to wait for a job, 0 to 30; default 0."),
    ),
    responses(
        (status = OK, body = ClaimView),
        (status = NO_CONTENT, description = "There was none in that time."),
    ),
    extensions(("x-error-codes" = json!([LEASE_HELD, WORKER_DRAINING, INVALID_REQUEST]))),
)]
pub(in super::super) async fn claim(
    State(state): State<Arc<ApiState>>,
    OwnWorker(who): OwnWorker,
    mut query: Query,
) -> Result<Response, Problem> {
    let wait = query.parsed("wait", |text| match text.parse::<u64>() {
        Ok(seconds) if seconds <= LONGEST_WAIT => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("must be between 0 and {LONGEST_WAIT}")),
    });
    query.finish()?;
    let claimed = state.control_plane.claim(&who, wait.unwrap_or_default()).await?;
    let Some(claimed) = claimed else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let view = ClaimView {
        job: ClaimedJobView::new(&claimed.job),
        attempt: claimed.job.attempt,
        lease_expires_at: claimed.lease_expires_at,
    };
    Ok(json_answer(StatusCode::OK, &view))
}

/// A worker listens to what it is told, as server-sent events.
#[utoipa::path(
    get,
    path = "/workers/{worker_id}/directives",
    tag = "worker",
    params(("worker_id" = String, Path)),
    responses((status = OK, body = String, content_type = "text/event-stream"))
)]
pub(in super::super) async fn directives(
    State(state): State<Arc<ApiState>>,
    OwnWorker(who): OwnWorker,
) -> Result<Response, Problem> {
    let open = state.control_plane.directives(who).await?;
    let frames = stream::unfold(open, |mut open: DirectiveStream| async {
        let item = open.next().await?;
        Some((Ok::<Event, Infallible>(frame(&item)), open))
    });
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(([unbuffered], Sse::new(frames)).into_response())
}

fn frame(item: &StreamItem) -> Event {
    match item {
        StreamItem::Quiet => Event::default().comment("quiet"),
        StreamItem::Directive(directive) => directive_frame(directive),
    }
}

fn directive_frame(directive: &Directive) -> Event {
    let data = serde_json::to_string(directive).unwrap_or_default();
    Event::default().id(directive.id.to_string()).event(directive.directive_type.as_str()).data(data)
}
