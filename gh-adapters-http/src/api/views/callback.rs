//! A callback and the attempts to deliver it.

use gh_core::domain::callback::{CallbackStatus, Delivery, DeliveryAttempt, DeliveryState};
use gh_core::domain::ids::{DeliveryId, JobId};
use gh_core::domain::time::Timestamp;
use serde::Serialize;
use url::Url;
use utoipa::ToSchema;

use crate::callbacks::Destination;

/// One callback to one destination. Fields that have no value are left out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Callback)]
pub(crate) struct CallbackView<'c> {
    #[schema(value_type = Uuid)]
    delivery_id: DeliveryId,
    /// The `webhook-id` header, and `event_id` in the body.
    #[schema(value_type = Uuid)]
    webhook_id: DeliveryId,
    #[schema(value_type = Uuid)]
    job_id: JobId,
    /// Grows within a job, and may skip.
    sequence: u64,
    /// The status that it tells.
    #[schema(value_type = String)]
    status: CallbackStatus,
    /// `pending`, `sending`, `delivered`, `replaced` or `dead`.
    #[schema(value_type = String)]
    state: DeliveryState,
    /// Scheme, host and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    attempts: Vec<AttemptView<'c>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
}

/// One attempt at a delivery.
#[derive(Debug, Serialize, ToSchema)]
struct AttemptView<'c> {
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Why it was made: `first` or `retry`.
    trigger: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_class: Option<&'c str>,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_excerpt: Option<&'c str>,
}

impl<'c> CallbackView<'c> {
    /// A delivery of a job; `url` is where its callbacks go.
    pub(crate) fn new(job_id: JobId, url: Option<&str>, delivery: &'c Delivery) -> Self {
        let destination = url.and_then(|url| Url::parse(url).ok());
        let is_pending = delivery.state == DeliveryState::Pending;
        Self {
            delivery_id: delivery.id,
            webhook_id: delivery.id,
            job_id,
            sequence: delivery.sequence,
            status: delivery.status,
            state: delivery.state,
            destination: destination.map(|url| Destination::of(&url).to_string()),
            attempts: (0..).zip(&delivery.attempts).map(AttemptView::new).collect(),
            next_attempt_at: Some(delivery.not_before).filter(|_| is_pending),
        }
    }
}

impl<'c> AttemptView<'c> {
    fn new((index, attempt): (usize, &'c DeliveryAttempt)) -> Self {
        Self {
            at: attempt.at,
            trigger: if index == 0 { "first" } else { "retry" },
            http_status: attempt.http_status,
            error_class: attempt.error_class.as_deref(),
            duration_ms: attempt.duration_ms,
            response_excerpt: attempt.response_excerpt.as_deref(),
        }
    }
}
