//! A store whose calls go wrong, before or after they were carried out.

mod plan;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

pub use self::plan::{Fault, FaultPlan, Heard, StoreCall};
use super::conformance::Handle;
use crate::domain::callback::{Delivery, LeasedDelivery};
use crate::domain::changeset::Changeset;
use crate::domain::commands::Watched;
use crate::domain::event::{JobEvent, WorkerEvent};
use crate::domain::ids::{DeregistrationId, JobId, WorkerId};
use crate::domain::job::Job;
use crate::domain::rules::Rules;
use crate::domain::snapshot::{Keys, Snapshot};
use crate::domain::time::Timestamp;
use crate::domain::watch::{FleetWatch, Lookout};
use crate::domain::worker::{Deregistration, WorkerView};
use crate::ports::outbox::{Outbox, Settlement};
use crate::ports::reader::{Figures, JobEventQuery, JobQuery, Reader, WorkerQuery};
use crate::ports::store::{ClaimRequest, Conflict, Dispatched, Store, StoreError, SweepRequest, Swept};

/// A decorator of all three storage ports whose calls go wrong as a [`FaultPlan`] says: for tests of what is built on a
/// store, and of clients that repeat what was not answered.
///
/// The store behind it stays as it is: what a call did that was carried out can be seen through its own handle.
///
/// ```
/// use std::sync::Arc;
///
/// use gh_core::domain::snapshot::Keys;
/// use gh_core::memory::MemoryStore;
/// use gh_core::ports::store::{Store, StoreError};
/// use gh_core::testing::conformance::Handle;
/// use gh_core::testing::{Fault, FlakyStore, ManualClock, StoreCall};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let memory = Arc::new(MemoryStore::new(Arc::new(ManualClock::default()), [7; 32]));
/// let flaky = FlakyStore::new(Handle::of(memory));
/// flaky.next(StoreCall::Load, [Some(Fault::Before), None]);
/// let first = flaky.load(&Keys::default()).await;
/// assert!(matches!(first, Err(StoreError::Unavailable(_))));
/// assert!(flaky.load(&Keys::default()).await.is_ok());
/// assert_eq!(flaky.faults(), 1);
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct FlakyStore {
    inner: Handle,
    plan: Mutex<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    faults: FaultPlan,
    met: usize,
}

impl FlakyStore {
    /// Nothing goes wrong yet.
    #[must_use]
    pub fn new(inner: Handle) -> Self {
        Self { inner, plan: Mutex::default() }
    }

    /// From now on calls go wrong as this plan says.
    pub fn follow(&self, faults: FaultPlan) {
        self.plan().faults = faults;
    }

    /// What goes wrong with the next calls of this kind, in order, and with none after them. A plan by chance ends.
    pub fn next(&self, call: StoreCall, faults: impl IntoIterator<Item = Option<Fault>>) {
        let mut plan = self.plan();
        let mut script = match std::mem::take(&mut plan.faults) {
            FaultPlan::Scripted(script) => script,
            FaultPlan::Seeded { .. } => std::collections::HashMap::new(),
        };
        script.insert(call, faults.into_iter().collect::<VecDeque<_>>());
        plan.faults = FaultPlan::Scripted(script);
    }

    /// How many calls have gone wrong so far.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.plan().met
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a call as often as its fault says.
    async fn suffer<T, F>(&self, call: StoreCall, carry_out: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let fault = {
            let mut plan = self.plan();
            let fault = plan.faults.next(call);
            plan.met += usize::from(fault.is_some());
            fault
        };
        match fault {
            None => carry_out().await,
            Some(Fault::Before) => Err(StoreError::Unavailable(None)),
            Some(Fault::After) => {
                carry_out().await?;
                Err(StoreError::Unavailable(None))
            }
            Some(Fault::Delay(turns)) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                carry_out().await
            }
            Some(Fault::Repeat(heard)) => {
                let first = carry_out().await?;
                let second = carry_out().await?;
                Ok(if heard == Heard::First { first } else { second })
            }
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Store for FlakyStore {
    async fn load(&self, keys: &Keys) -> Result<Snapshot, StoreError> {
        self.suffer(StoreCall::Load, || self.inner.store.load(keys)).await
    }

    fn recall(&self, keys: &Keys) -> Option<Snapshot> {
        self.inner.store.recall(keys)
    }

    async fn commit(&self, changes: Vec<Changeset>, rules: &Rules) -> Result<Vec<Result<(), Conflict>>, StoreError> {
        self.suffer(StoreCall::Commit, || self.inner.store.commit(changes.clone(), rules)).await
    }

    async fn claim(&self, request: ClaimRequest, rules: &Rules) -> Result<Dispatched, StoreError> {
        self.suffer(StoreCall::Claim, || self.inner.store.claim(request.clone(), rules)).await
    }

    async fn watch(&self, lookout: Lookout, rules: &Rules) -> Result<Watched, StoreError> {
        self.suffer(StoreCall::Watch, || self.inner.store.watch(lookout.clone(), rules)).await
    }

    async fn sweep(&self, request: SweepRequest, rules: &Rules) -> Result<Swept, StoreError> {
        self.suffer(StoreCall::Sweep, || self.inner.store.sweep(request.clone(), rules)).await
    }

    async fn token_key(&self) -> Result<[u8; 32], StoreError> {
        self.suffer(StoreCall::TokenKey, || self.inner.store.token_key()).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Outbox for FlakyStore {
    async fn lease_due(&self, limit: usize, rules: &Rules) -> Result<Vec<LeasedDelivery>, StoreError> {
        self.suffer(StoreCall::LeaseDue, || self.inner.outbox.lease_due(limit, rules)).await
    }

    async fn settle(&self, settlements: Vec<Settlement>, rules: &Rules) -> Result<(), StoreError> {
        self.suffer(StoreCall::Settle, || self.inner.outbox.settle(settlements.clone(), rules)).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.suffer(StoreCall::NextDue, || self.inner.outbox.next_due()).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Reader for FlakyStore {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.now()).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Arc<Job>>, StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.job(id)).await
    }

    async fn jobs(&self, query: &JobQuery) -> Result<Vec<Arc<Job>>, StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.jobs(query)).await
    }

    async fn job_events(&self, query: &JobEventQuery) -> Result<Vec<JobEvent>, StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.job_events(query)).await
    }

    async fn deliveries(
        &self,
        job_id: JobId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Arc<Delivery>>, StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.deliveries(job_id, before, limit)).await
    }

    async fn workers(&self, query: &WorkerQuery) -> Result<(Timestamp, Vec<WorkerView>), StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.workers(query)).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.ready()).await
    }

    async fn glance(&self) -> Result<(Timestamp, Arc<Vec<WorkerView>>), StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.glance()).await
    }

    async fn worker(&self, id: &WorkerId) -> Result<(Timestamp, Option<WorkerView>), StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.worker(id)).await
    }

    async fn worker_events(
        &self,
        id: &WorkerId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<WorkerEvent>, StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.worker_events(id, before, limit)).await
    }

    async fn deregistration(&self, id: DeregistrationId) -> Result<Option<Arc<Deregistration>>, StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.deregistration(id)).await
    }

    async fn fleet_watch(&self) -> Result<Arc<FleetWatch>, StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.fleet_watch()).await
    }

    async fn figures(&self) -> Result<Figures, StoreError> {
        self.suffer(StoreCall::Read, || self.inner.reader.figures()).await
    }
}
