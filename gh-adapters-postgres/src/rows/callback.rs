//! Callbacks: the queue of a job, and deliveries that are through.

use std::collections::VecDeque;

use bytes::Bytes;
use gh_core::domain::callback::{
    CallbackFacts, CallbackKind, CallbackQueue, CallbackStatus, Delivery, DeliveryAttempt, DeliveryState, SendLease,
};
use gh_core::domain::ids::{DeliveryId, JobId};
use gh_core::domain::time::Timestamp;
use gh_core::ports::store::StoreError;
use serde::{Deserialize, Serialize};

use super::{from_json, to_json};
use crate::errors::{corrupt, internal};

/// A queue as JSON; its job is the row's key.
#[derive(Debug, Serialize, Deserialize)]
struct QueueBody {
    open: Vec<DeliveryBody>,
    lease: Option<SendLease>,
    cost_sent_at: Option<Timestamp>,
}

/// A delivery as JSON: its frozen bytes are text, since callbacks are JSON.
#[derive(Debug, Serialize, Deserialize)]
struct DeliveryBody {
    id: DeliveryId,
    sequence: u64,
    kind: CallbackKind,
    status: CallbackStatus,
    facts: Option<Box<CallbackFacts>>,
    body: Option<String>,
    state: DeliveryState,
    created_at: Timestamp,
    not_before: Timestamp,
    attempts: Vec<DeliveryAttempt>,
    refusals: u32,
    dead_reason: Option<Box<str>>,
}

impl DeliveryBody {
    fn of(delivery: &Delivery) -> Result<Self, StoreError> {
        let Delivery {
            id,
            sequence,
            kind,
            status,
            facts,
            body,
            state,
            created_at,
            not_before,
            attempts,
            refusals,
            dead_reason,
        } = delivery;
        let body = body.as_ref().map(|bytes| String::from_utf8(bytes.to_vec())).transpose();
        Ok(Self {
            id: *id,
            sequence: *sequence,
            kind: *kind,
            status: *status,
            facts: facts.clone(),
            body: body.map_err(internal)?,
            state: *state,
            created_at: *created_at,
            not_before: *not_before,
            attempts: attempts.clone(),
            refusals: *refusals,
            dead_reason: dead_reason.clone(),
        })
    }

    fn into_delivery(self) -> Delivery {
        let Self {
            id,
            sequence,
            kind,
            status,
            facts,
            body,
            state,
            created_at,
            not_before,
            attempts,
            refusals,
            dead_reason,
        } = self;
        Delivery {
            id,
            sequence,
            kind,
            status,
            facts,
            body: body.map(Bytes::from),
            state,
            created_at,
            not_before,
            attempts,
            refusals,
            dead_reason,
        }
    }
}

/// A queue as text.
pub(crate) fn queue_body(queue: &CallbackQueue) -> Result<String, StoreError> {
    let CallbackQueue { job_id: _, open, lease, cost_sent_at } = queue;
    let open = open.iter().map(DeliveryBody::of).collect::<Result<_, _>>()?;
    to_json(&QueueBody { open, lease: *lease, cost_sent_at: *cost_sent_at })
}

/// The queue of a job as it was read.
pub(crate) fn queue(job_id: JobId, body: &str) -> Result<CallbackQueue, StoreError> {
    let QueueBody { open, lease, cost_sent_at } = from_json("gh_callback_queues", job_id, body)?;
    let open: VecDeque<Delivery> = open.into_iter().map(DeliveryBody::into_delivery).collect();
    if open.is_empty() && lease.is_some() {
        return Err(corrupt("gh_callback_queues", job_id, "is leased and empty"));
    }
    Ok(CallbackQueue { job_id, open, lease, cost_sent_at })
}

/// A delivery that is through, as text.
pub(crate) fn delivery_body(delivery: &Delivery) -> Result<String, StoreError> {
    to_json(&DeliveryBody::of(delivery)?)
}

/// A delivery that is through, as it was read.
pub(crate) fn delivery(job_id: JobId, body: &str) -> Result<Delivery, StoreError> {
    from_json("gh_deliveries", job_id, body).map(DeliveryBody::into_delivery)
}

/// The word for where a delivery is.
pub(crate) const fn state_word(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending => "pending",
        DeliveryState::Sending => "sending",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Replaced => "replaced",
        DeliveryState::Dead => "dead",
    }
}
