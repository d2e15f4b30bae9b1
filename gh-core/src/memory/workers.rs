//! Workers by every name they carry, the jobs that occupy them, and when the sweeper has to look at them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::waiting::{insert_under, remove_under};
use crate::domain::event::WorkerEvent;
use crate::domain::ids::{Name, Version, WorkerId};
use crate::domain::time::Timestamp;
use crate::domain::watch::Headcount;
use crate::domain::worker::{Occupation, Vitals, VitalsChange, Worker, WorkerView};

#[derive(Debug)]
struct WorkerRow {
    worker: Arc<Worker>,
    vitals: Vitals,
    /// Its entry in `silent_since`: at most its last sign of life.
    silent_since: Option<Timestamp>,
    /// Its entry in `deadlines`.
    deadline: Option<Timestamp>,
}

/// All workers.
#[derive(Debug, Default)]
pub(super) struct WorkerTable {
    rows: HashMap<WorkerId, WorkerRow>,
    by_target: HashMap<Name, BTreeSet<WorkerId>>,
    by_instance: HashMap<Name, BTreeSet<WorkerId>>,
    occupants: HashMap<WorkerId, Occupation>,
    /// How many workers of each machine are occupied.
    loads: HashMap<Name, u32>,
    /// Workers that take part, by a time since when they may be silent. Signs of life do not move an entry: it is put
    /// right when the sweeper comes to it, so a heartbeat touches no index.
    silent_since: BTreeSet<(Timestamp, WorkerId)>,
    /// When something other than silence makes a worker due.
    deadlines: BTreeSet<(Timestamp, WorkerId)>,
    /// Events of each worker, and of the fleet. The event with number `n` is at `n - 1`.
    events: HashMap<Option<WorkerId>, Vec<WorkerEvent>>,
}

impl WorkerTable {
    pub(super) fn version(&self, id: &WorkerId) -> Version {
        self.rows.get(id).map_or(Version::ABSENT, |row| row.worker.version)
    }

    /// The last sign of life.
    pub(super) fn last_seen(&self, id: &WorkerId) -> Option<Timestamp> {
        self.rows.get(id).map(|row| row.vitals.last_seen)
    }

    pub(super) fn view(&self, id: &WorkerId) -> Option<WorkerView> {
        let row = self.rows.get(id)?;
        let instance = row.worker.identity.ec2_instance_id.as_ref();
        Some(WorkerView {
            worker: Arc::clone(&row.worker),
            vitals: row.vitals.clone(),
            occupied_by: self.occupants.get(id).copied(),
            id_is_a_target: self.by_target.contains_key(id),
            instance_load: instance.and_then(|instance| self.loads.get(instance)).copied().unwrap_or_default(),
        })
    }

    pub(super) fn occupant(&self, id: &WorkerId) -> Option<Occupation> {
        self.occupants.get(id).copied()
    }

    /// Workers that carry this name as their target, by id.
    pub(super) fn of_target(&self, name: &Name) -> impl Iterator<Item = &WorkerId> {
        self.by_target.get(name).into_iter().flatten()
    }

    /// Workers that carry this name as their instance id, by id.
    pub(super) fn of_instance(&self, name: &Name) -> impl Iterator<Item = &WorkerId> {
        self.by_instance.get(name).into_iter().flatten()
    }

    /// All workers, in no order.
    pub(super) fn ids(&self) -> impl Iterator<Item = &WorkerId> {
        self.rows.keys()
    }

    /// Writes a worker; one that is new is heard from now.
    pub(super) fn write(&mut self, worker: &Arc<Worker>, now: Timestamp) {
        let mut row = self.rows.remove(&worker.id).unwrap_or_else(|| {
            self.link(worker);
            WorkerRow { worker: Arc::clone(worker), vitals: Vitals::new(now), silent_since: None, deadline: None }
        });
        if row.worker.identity != worker.identity {
            self.unlink(&row.worker);
            self.link(worker);
        }
        row.worker = Arc::clone(worker);
        self.schedule(&mut row);
        self.rows.insert(worker.id.clone(), row);
    }

    /// Folds in what a call left behind; that of an unknown worker belongs nowhere.
    pub(super) fn apply(&mut self, change: &VitalsChange) {
        let Some(row) = self.rows.get_mut(&change.worker_id) else {
            return;
        };
        row.vitals.apply(change);
        // Only a clock that went back, or a new generation, makes a sign of life earlier than its entry.
        if row.silent_since.is_some_and(|since| since > row.vitals.last_seen) {
            move_entry(&mut self.silent_since, &mut row.silent_since, Some(row.vitals.last_seen), &change.worker_id);
        }
    }

    /// Appends an event of a worker, or of the fleet.
    pub(super) fn append(&mut self, event: WorkerEvent) {
        self.events.entry(event.worker_id.clone()).or_default().push(event);
    }

    /// The events of a worker with a number below `before`, oldest first.
    pub(super) fn events_before(&self, id: &WorkerId, before: u64) -> &[WorkerEvent] {
        let events = self.events.get(&Some(id.clone())).map(Vec::as_slice);
        let events = events.unwrap_or_default();
        let end = usize::try_from(before.saturating_sub(1)).unwrap_or(usize::MAX);
        &events[..end.min(events.len())]
    }

    /// Notes that this job does not occupy this worker any more.
    pub(super) fn vacate(&mut self, id: &WorkerId, occupation: Occupation) {
        if self.occupants.get(id) == Some(&occupation) {
            self.occupants.remove(id);
            let instance = self.instance_of(id);
            self.unload(instance.as_ref());
        }
    }

    /// Notes that this job occupies this worker.
    pub(super) fn occupy(&mut self, id: &WorkerId, occupation: Occupation) {
        if self.occupants.insert(id.clone(), occupation).is_none() {
            let instance = self.instance_of(id);
            self.load(instance.as_ref());
        }
    }

    /// How many workers take part, and how many of them were not heard from for `suspect_after`.
    pub(super) fn count(&self, now: Timestamp, suspect_after: Duration) -> Headcount {
        let since = now - suspect_after;
        let entries = self.silent_since.iter().take_while(|(entry, _)| *entry <= since);
        let silent = entries.filter(|(_, id)| self.last_seen(id).is_some_and(|seen| seen <= since)).count();
        Headcount { silent: silent as u64, workers: self.silent_since.len() as u64 }
    }

    /// At most `limit` workers that are due: not heard from since `silent_since`, where anybody is given up, or with
    /// another deadline that is over.
    pub(super) fn due(&mut self, now: Timestamp, silent_since: Option<Timestamp>, limit: usize) -> Vec<WorkerId> {
        let heard_too_long_ago = silent_since.unwrap_or(Timestamp::from_micros(i64::MIN));
        let mut due = Vec::new();
        let mut heard_since = Vec::new();
        for (since, id) in &self.silent_since {
            if *since > heard_too_long_ago || due.len() == limit {
                break;
            }
            match self.last_seen(id) {
                Some(seen) if seen > heard_too_long_ago => heard_since.push((id.clone(), seen)),
                _ => due.push(id.clone()),
            }
        }
        for (id, seen) in heard_since {
            if let Some(row) = self.rows.get_mut(&id) {
                move_entry(&mut self.silent_since, &mut row.silent_since, Some(seen), &id);
            }
        }
        let over = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, id)| id);
        for id in over {
            if due.len() >= limit {
                break;
            }
            if !due.contains(id) {
                due.push(id.clone());
            }
        }
        due
    }

    fn schedule(&mut self, row: &mut WorkerRow) {
        let worker = &row.worker;
        let silent_since = worker.is_present().then(|| row.silent_since.unwrap_or(row.vitals.last_seen));
        let drain = worker.drain().and_then(|drain| drain.deadline);
        let closing = worker.deregistration().and(worker.closing.as_ref()).map(|closing| closing.until);
        let deadline = [drain, closing].into_iter().flatten().min();
        move_entry(&mut self.silent_since, &mut row.silent_since, silent_since, &worker.id);
        move_entry(&mut self.deadlines, &mut row.deadline, deadline, &worker.id);
    }

    fn link(&mut self, worker: &Worker) {
        let identity = &worker.identity;
        if let Some(target) = &identity.target_worker_id {
            insert_under(&mut self.by_target, target.clone(), worker.id.clone());
        }
        if let Some(instance) = &identity.ec2_instance_id {
            insert_under(&mut self.by_instance, instance.clone(), worker.id.clone());
        }
        if self.occupants.contains_key(&worker.id) {
            self.load(identity.ec2_instance_id.as_ref());
        }
    }

    fn unlink(&mut self, worker: &Worker) {
        let identity = &worker.identity;
        if let Some(target) = &identity.target_worker_id {
            remove_under(&mut self.by_target, target, &worker.id);
        }
        if let Some(instance) = &identity.ec2_instance_id {
            remove_under(&mut self.by_instance, instance, &worker.id);
        }
        if self.occupants.contains_key(&worker.id) {
            self.unload(identity.ec2_instance_id.as_ref());
        }
    }

    fn instance_of(&self, id: &WorkerId) -> Option<Name> {
        self.rows.get(id)?.worker.identity.ec2_instance_id.clone()
    }

    fn load(&mut self, instance: Option<&Name>) {
        if let Some(instance) = instance {
            *self.loads.entry(instance.clone()).or_default() += 1;
        }
    }

    fn unload(&mut self, instance: Option<&Name>) {
        if let Some(instance) = instance
            && let Some(load) = self.loads.get_mut(instance)
        {
            *load -= 1;
            if *load == 0 {
                self.loads.remove(instance);
            }
        }
    }
}

/// Moves the entry of a worker in an index to another time, or out of it.
fn move_entry(
    index: &mut BTreeSet<(Timestamp, WorkerId)>,
    entry: &mut Option<Timestamp>,
    to: Option<Timestamp>,
    id: &WorkerId,
) {
    if *entry == to {
        return;
    }
    if let Some(from) = entry.take() {
        index.remove(&(from, id.clone()));
    }
    if let Some(to) = to {
        index.insert((to, id.clone()));
    }
    *entry = to;
}
