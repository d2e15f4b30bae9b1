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
///
/// # Example
///
/// What [`deliver_once`](crate::application::ControlPlane::deliver_once) does with it: lease, send with no lock held,
/// settle.
///
/// ```
/// # use std::sync::Arc;
/// use std::time::Duration;
///
/// # use gh_core::domain::commands::{Submit, decide};
/// # use gh_core::domain::code::ClientName;
/// # use gh_core::memory::MemoryStore;
/// use gh_core::ports::callback_sender::SendOutcome;
/// use gh_core::ports::outbox::{Outbox, Settlement};
/// # use gh_core::ports::store::Store;
/// # use gh_core::testing::{ManualClock, rules, submission_to};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let rules = rules();
/// # let store = MemoryStore::new(Arc::new(ManualClock::default()), [7; 32]);
/// # let submission = submission_to("sandbox-nowhere", "strict").validate().expect("in order");
/// # let submit = Submit::new(ClientName::new("valet"), submission);
/// # let snapshot = store.load(&gh_core::domain::commands::Command::keys(&submit)).await?;
/// # store.commit(vec![decide(&snapshot, &submit, &rules).changes], &rules).await?;
/// let outbox: &dyn Outbox = &store;
///
/// // The store holds a job whose client is to hear that it failed.
/// let due = outbox.lease_due(10, &rules).await?;
/// assert_eq!((due.len(), due[0].attempt), (1, 1));
/// // Nobody else can send it meanwhile.
/// assert!(outbox.lease_due(10, &rules).await?.is_empty());
///
/// let outcome = SendOutcome::Answered {
///     status: 204,
///     retry_after: None,
///     excerpt: String::new(),
///     took: Duration::from_millis(12),
/// };
/// let settlement = Settlement {
///     job_id: due[0].job_id,
///     lease_id: due[0].lease_id,
///     delivery_id: due[0].delivery_id,
///     outcome,
///     jitter: 0.5,
/// };
/// outbox.settle(vec![settlement], &rules).await?;
/// assert_eq!(outbox.next_due().await?, None);
/// # Ok(())
/// # }
/// ```
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
