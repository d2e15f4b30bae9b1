//! The port [`Outbox`].

use async_trait::async_trait;

use super::MemoryStore;
use crate::domain::callback::LeasedDelivery;
use crate::domain::commands::dead_letter;
use crate::domain::ids::SendLeaseId;
use crate::domain::rules::Rules;
use crate::domain::time::Timestamp;
use crate::ports::outbox::{Outbox, Settlement};
use crate::ports::store::StoreError;

#[async_trait]
impl Outbox for MemoryStore {
    async fn lease_due(&self, limit: usize, rules: &Rules) -> Result<Vec<LeasedDelivery>, StoreError> {
        let (mut state, now) = self.lock()?;
        let due: Vec<_> = state.callbacks.due(now).take(limit).collect();
        let leased = due.into_iter().filter_map(|id| {
            let job = state.jobs.get(id).cloned()?;
            let lease_id = SendLeaseId::new(rules.ids.uuid());
            state.change(|state| state.callbacks.lease(&job, lease_id, now, &rules.policy))
        });
        Ok(leased.collect())
    }

    async fn settle(&self, settlements: Vec<Settlement>, rules: &Rules) -> Result<(), StoreError> {
        let (mut state, now) = self.lock()?;
        for settlement in &settlements {
            let dead = state.change(|state| state.callbacks.settle(settlement, now));
            if dead.is_empty() {
                continue;
            }
            if let Some(job) = state.jobs.get(settlement.job_id) {
                let told = dead_letter(job, &dead, now, rules);
                // Nothing moved since the job was read: the lock is the same.
                state.commit(&told, now, rules).map_err(|conflict| StoreError::Internal(Box::new(conflict)))?;
            }
        }
        Ok(())
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let (state, _) = self.lock()?;
        Ok(state.callbacks.next_due())
    }
}
