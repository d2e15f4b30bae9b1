//! Callbacks on their way.

use async_trait::async_trait;

use super::callback_sender::SendOutcome;
use super::store::StoreError;
use crate::domain::callback::LeasedDelivery;
use crate::domain::ids::{DeliveryId, JobId, SendLeaseId};
use crate::domain::rules::Rules;
use crate::domain::time::Timestamp;

/// What came of one attempt.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The job.
    pub job_id: JobId,
    /// The sender's hold.
    pub lease_id: SendLeaseId,
    /// The delivery.
    pub delivery_id: DeliveryId,
    /// What the receiver answered, or did not.
    pub outcome: SendOutcome,
    /// A random number from 0 to 1, to spread retries.
    pub jitter: f64,
}

/// Hands out callbacks that are due, each to one sender at a time, and records what came of them.
///
/// Each job has one [`CallbackQueue`](crate::domain::callback::CallbackQueue); its rules are the core's, the store
/// only keeps it and finds the ones that are due. Different jobs never wait for each other.
#[async_trait]
pub trait Outbox: Send + Sync + std::fmt::Debug {
    /// Leases the heads of at most `limit` queues that are due, longest due first.
    async fn lease_due(&self, limit: usize, rules: &Rules) -> Result<Vec<LeasedDelivery>, StoreError>;

    /// Records outcomes. One whose lease is over changes nothing. A dead letter leaves an event
    /// ([`dead_letter`](crate::domain::commands::dead_letter)) in the same transaction.
    async fn settle(&self, settlements: Vec<Settlement>, rules: &Rules) -> Result<(), StoreError>;

    /// When the next queue is due, if any is; the past when one is due now.
    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError>;
}
