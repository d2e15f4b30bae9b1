//! What holds of everything that readers see, whatever happened.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::driver::Failure;
use super::reference::{Reference, ensure};
use super::seen::{Record, Seen};
use crate::domain::callback::{CallbackKind, CallbackStatus};
use crate::domain::event::{EventType, JobEvent};
use crate::domain::ids::{JobId, WorkerId};
use crate::domain::job::JobState;
use crate::domain::placement::{self, FleetView};
use crate::domain::policy::Policy;
use crate::domain::usd::Usd;
use crate::domain::worker::{WorkerState, WorkerView};

impl Reference {
    /// I1, I2, I5, I6, I8, I9 and I10 on what is stored now.
    pub(super) fn check(&mut self, seen: &Seen) -> Result<(), Failure> {
        let listed = seen.jobs.keys().copied();
        ensure!(listed.eq(self.accepted.iter().copied()), "I1: the jobs are not those that were accepted");
        let workers: Vec<WorkerView> = seen.workers.values().cloned().collect();
        let mut occupants: BTreeMap<&WorkerId, JobId> = BTreeMap::new();
        for (id, record) in &seen.jobs {
            self.run_ends_once(seen, record, &workers)?;
            leases_agree(record)?;
            events_are_whole(record)?;
            callbacks_follow_events(record)?;
            self.cost_is_exact(record)?;
            let acted = self.acted.contains(&(*id, record.job.run));
            ensure!(acted == record.job.side_effects_started(), "I5: {id}: the point of no return is forgotten");
            if let Some(worker) = record.job.occupies() {
                let generation = match &record.job.state {
                    JobState::Queued(_, reservation) => Some(reservation.generation),
                    _ => record.job.live_lease().map(|lease| lease.generation),
                };
                let view = seen.workers.get(worker).filter(|view| view.worker.is_present());
                let living = view.is_some_and(|view| Some(view.worker.generation) == generation);
                ensure!(living, "I3: {id} is held by {worker}, generation {generation:?}, which is retired");
                let other = occupants.insert(worker, *id);
                ensure!(other.is_none(), "I2: {worker} has two jobs: {id} and {other:?}");
            }
        }
        for (id, view) in &seen.workers {
            let occupant = view.occupied_by.map(|occupation| occupation.job_id);
            ensure!(occupant == occupants.get(id).copied(), "I2: {id} is said to have {occupant:?}");
            let gone = self.gone.contains(&(id.clone(), view.worker.boot_id.clone()));
            ensure!(!gone || !matches!(view.worker.state, WorkerState::Active), "I9: {id} was retired and is active");
        }
        for (id, record) in &seen.deregistrations {
            let waits = |worker: &WorkerId| {
                let view = seen.workers.get(worker);
                view.is_some_and(|view| view.worker.deregistration() == Some(*id))
            };
            ensure!(
                record.draining.iter().all(waits),
                "I9: deregistration {id} waits for workers that it does not drain"
            );
            ensure!(record.draining.is_empty() == record.finished_at.is_some(), "I9: deregistration {id} does not end");
        }
        Ok(())
    }

    /// I1: exactly one end for each run, or a wait with a reason.
    fn run_ends_once(&mut self, seen: &Seen, record: &Record, workers: &[WorkerView]) -> Result<(), Failure> {
        let job = &record.job;
        let (id, status) = (job.id, job.status());
        if status.is_terminal() {
            let first = *self.ended.entry((id, job.run)).or_insert(status);
            ensure!(first == status, "I1: {id} ended {first:?}, then {status:?}");
        } else {
            ensure!(!self.ended.contains_key(&(id, job.run)), "I1: {id} had ended and is {status:?}");
        }
        if job.wait().is_some() {
            let waiting = placement::waiting(
                job,
                &FleetView { now: seen.now, workers, brake: false, policy: &Policy::default() },
            );
            ensure!(waiting.is_some(), "I1: {id} waits for no reason");
        }
        Ok(())
    }

    /// I8: the exact sum over distinct calls, at the list prices of Claude Haiku 4.5.
    fn cost_is_exact(&self, record: &Record) -> Result<(), Failure> {
        let calls = self.ledger.get(&record.job.id).into_iter().flat_map(BTreeMap::values);
        let (mut tokens, mut tenths) = (0, 0);
        for ([sum, input, cache_read, output], priced) in calls {
            tokens += sum;
            if *priced {
                tenths += input * 10 + cache_read + output * 50;
            }
        }
        // A tenth of a dollar for a million tokens.
        let cost = Usd::new(Decimal::new(i64::try_from(tenths).unwrap_or(i64::MAX), 7));
        let told = &record.job.cost;
        ensure!(
            (told.total_cost_usd(), told.total_tokens()) == (cost, tokens),
            "I8: {} cost {cost} for {tokens} tokens, and {} for {} are told",
            record.job.id,
            told.total_cost_usd(),
            told.total_tokens()
        );
        Ok(())
    }
}

/// I2: the live lease is the one attempt that has not ended, and each attempt began once.
fn leases_agree(record: &Record) -> Result<(), Failure> {
    let job = &record.job;
    let id = job.id;
    let open: Vec<_> = job.holdings.iter().filter(|holding| holding.ended_at.is_none()).collect();
    let held = job.live_lease().map(|lease| (&lease.worker_id, lease.generation, job.attempt));
    let same = open.iter().map(|holding| (&holding.worker_id, holding.generation, holding.attempt)).eq(held);
    ensure!(same, "I2: {id}: the lease is {held:?}, the attempts that have not ended are {open:?}");
    let ascending = job.holdings.windows(2).all(|pair| pair[0].attempt < pair[1].attempt);
    ensure!(ascending, "I2: {id}: an attempt was granted twice");
    let started = record.events.iter().filter(|event| event.event_type == EventType::JOB_STARTED);
    let same = started.map(|event| event.attempt).eq(job.holdings.iter().map(|holding| holding.attempt));
    ensure!(same, "I6: {id}: not every attempt has its job_started");
    Ok(())
}

/// I6 and I10: no gap, the status by the events is the status, and each event says what every event says.
fn events_are_whole(record: &Record) -> Result<(), Failure> {
    let id = record.job.id;
    let mut status = None;
    let mut held = false;
    for (event, seq) in record.events.iter().zip(1..) {
        ensure!(event.seq == seq, "I10: {id}: event {seq} has number {}", event.seq);
        if event.to_status.is_some() {
            ensure!(event.from_status == status, "I6: {id}: {status:?} became {:?}", event.from_status);
            status = event.to_status;
        }
        held |= event.event_type == EventType::JOB_STARTED;
        ensure!(event.metadata.worker_id.is_some() == held, "I10: {id}: event {seq} has a wrong worker_id");
        common_keys(event)?;
    }
    ensure!(record.events.len() as u64 == record.job.event_seq, "I6: {id}: events are missing");
    ensure!(status == Some(record.job.status()), "I6: {id} is {:?}, its events say {status:?}", record.job.status());
    let in_order = record.events.windows(2).all(|pair| pair[0].created_at <= pair[1].created_at);
    ensure!(in_order, "I10: {id}: events are out of order");
    Ok(())
}

fn common_keys(event: &JobEvent) -> Result<(), Failure> {
    let metadata = serde_json::to_value(&event.metadata).map_err(|error| error.to_string())?;
    for key in ["worker_id", "elapsed_ms", "step_index", "total_steps"] {
        ensure!(metadata.get(key).is_some(), "I10: {}: event {} says nothing of {key}", event.job_id, event.seq);
    }
    ensure!(!event.actor.to_string().is_empty(), "I10: {}: event {} has no actor", event.job_id, event.seq);
    Ok(())
}

/// I6: each start of an attempt and each end has its callback, in order; all others only tell a cost.
fn callbacks_follow_events(record: &Record) -> Result<(), Failure> {
    let id = record.job.id;
    let told: Vec<CallbackStatus> = record
        .deliveries
        .iter()
        .filter(|delivery| matches!(delivery.kind, CallbackKind::Transition | CallbackKind::Terminal))
        .map(|delivery| delivery.status)
        .collect();
    let tells = |event: &&JobEvent| {
        event.event_type == EventType::JOB_STARTED || event.to_status.is_some_and(|status| status.is_terminal())
    };
    let wanted = record.job.spec.callback_url.is_some();
    let events = record.events.iter().filter(tells).filter_map(|event| event.to_status).filter(|_| wanted);
    let happened: Vec<CallbackStatus> = events.map(CallbackStatus::from).collect();
    ensure!(told == happened, "I6: {id}: callbacks tell {told:?}, and it happened {happened:?}");
    ensure!(wanted || record.deliveries.is_empty(), "I6: {id}: callbacks without an address");
    let ascending = record.deliveries.windows(2).all(|pair| pair[0].sequence < pair[1].sequence);
    ensure!(ascending, "I7: {id}: two callbacks have one place");
    Ok(())
}
