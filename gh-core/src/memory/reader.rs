//! The port [`Reader`].

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use super::MemoryStore;
use crate::domain::callback::Delivery;
use crate::domain::event::{JobEvent, WorkerEvent};
use crate::domain::ids::{DeregistrationId, JobId, WorkerId};
use crate::domain::job::Job;
use crate::domain::time::Timestamp;
use crate::domain::watch::FleetWatch;
use crate::domain::worker::{Deregistration, WorkerView};
use crate::ports::reader::{Figures, JobEventQuery, JobPosition, JobQuery, Reader, WorkerQuery};
use crate::ports::store::StoreError;

#[async_trait]
impl Reader for MemoryStore {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        let (state, now) = self.lock()?;
        drop(state);
        Ok(now)
    }

    async fn job(&self, id: JobId) -> Result<Option<Arc<Job>>, StoreError> {
        let (state, _) = self.lock()?;
        Ok(state.jobs.get(id).cloned())
    }

    async fn jobs(&self, query: &JobQuery) -> Result<Vec<Arc<Job>>, StoreError> {
        let (state, _) = self.lock()?;
        let jobs = state
            .jobs
            .newest_first(query.status, upper_bound(query))
            .take_while(|job| query.created_after.is_none_or(|after| job.created_at >= after))
            .filter(|job| query.accepts(job))
            .take(query.limit)
            .cloned();
        Ok(jobs.collect())
    }

    async fn job_events(&self, query: &JobEventQuery) -> Result<Vec<JobEvent>, StoreError> {
        let (state, _) = self.lock()?;
        let events = state
            .jobs
            .events(query.job_id, query.after_seq)
            .iter()
            .filter(|event| query.accepts(event))
            .take(query.limit)
            .cloned();
        Ok(events.collect())
    }

    async fn deliveries(
        &self,
        job_id: JobId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Arc<Delivery>>, StoreError> {
        let (state, _) = self.lock()?;
        Ok(state.callbacks.deliveries(job_id, before, limit))
    }

    async fn workers(&self, query: &WorkerQuery) -> Result<(Timestamp, Vec<WorkerView>), StoreError> {
        let (state, now) = self.lock()?;
        let workers = &state.workers;
        let of_target = query.target_worker_id.as_ref().map(|name| workers.of_target(name));
        let of_instance = query.ec2_instance_id.as_ref().map(|name| workers.of_instance(name));
        let ids: BTreeSet<&WorkerId> = match (of_target, of_instance) {
            (Some(of_target), Some(of_instance)) => {
                let on_instance: BTreeSet<_> = of_instance.collect();
                of_target.filter(|id| on_instance.contains(id)).collect()
            }
            (Some(of_target), None) => of_target.collect(),
            (None, Some(of_instance)) => of_instance.collect(),
            (None, None) => workers.ids().collect(),
        };
        Ok((now, ids.into_iter().filter_map(|id| workers.view(id)).collect()))
    }

    async fn worker(&self, id: &WorkerId) -> Result<(Timestamp, Option<WorkerView>), StoreError> {
        let (state, now) = self.lock()?;
        Ok((now, state.workers.view(id)))
    }

    async fn worker_events(
        &self,
        id: &WorkerId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<WorkerEvent>, StoreError> {
        let (state, _) = self.lock()?;
        let events = state.workers.events_before(id, before.unwrap_or(u64::MAX)).iter().rev().take(limit).cloned();
        Ok(events.collect())
    }

    async fn deregistration(&self, id: DeregistrationId) -> Result<Option<Arc<Deregistration>>, StoreError> {
        let (state, _) = self.lock()?;
        Ok(state.deregistrations.get(&id).cloned())
    }

    async fn fleet_watch(&self) -> Result<Arc<FleetWatch>, StoreError> {
        let (state, _) = self.lock()?;
        Ok(Arc::clone(&state.watch))
    }

    async fn figures(&self) -> Result<Figures, StoreError> {
        let (mut state, now) = self.lock()?;
        state.change(|state| state.jobs.take_turns(now));
        Ok(Figures {
            jobs: state.jobs.counts(),
            waiting: state.jobs.waiting().groups(),
            callbacks_open: state.callbacks.open(),
            callbacks_due: state.callbacks.due(now).count() as u64,
        })
    }
}

/// The place in the list before which everything wanted lies.
fn upper_bound(query: &JobQuery) -> JobPosition {
    let unbounded = JobPosition { created_at: Timestamp::from_micros(i64::MAX), id: JobId::new(Uuid::max()) };
    let by_time = query.created_before.map(|created_at| JobPosition { created_at, id: JobId::new(Uuid::nil()) });
    [query.after, by_time].into_iter().flatten().fold(unbounded, Ord::min)
}
