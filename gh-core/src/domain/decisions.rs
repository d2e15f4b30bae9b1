//! What a batch decided, and which of its decisions stand or fall together.

use std::collections::{HashMap, HashSet};

use super::changeset::{AggregateId, Changeset};
use super::ids::WorkerId;
use super::snapshot::{Keys, Snapshot};

/// The decisions of a batch so far, by their place in it.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    all: Vec<Decided>,
    /// Who changed this last.
    changed_by: HashMap<AggregateId, usize>,
    /// Whose job is another than the one that was loaded, or was for a while.
    reoccupied: HashSet<WorkerId>,
}

#[derive(Debug)]
struct Decided {
    changes: Changeset,
    /// One that it stands or falls with: itself, or a step towards the one that speaks for all of them.
    with: usize,
    /// Where it changes nothing: those whose changes it saw.
    saw: Vec<usize>,
}

/// What is to be stored, and what each answer has to wait for.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Changesets that have nothing to do with each other.
    pub(crate) changesets: Vec<Changeset>,
    /// For each command, in order, the changesets that must be stored before it may be answered.
    pub(crate) conditions: Vec<Vec<usize>>,
}

impl Decisions {
    /// Adds the next decision, which asked for `keys`; the snapshot is changed to what it leaves.
    pub(crate) fn add(&mut self, keys: &Keys, mut changes: Changeset, snapshot: &mut Snapshot) {
        let index = self.all.len();
        let touched = touched(&changes, snapshot);
        let saw = self.changers_in_sight(keys, &changes, &touched, snapshot);
        if changes.is_empty() {
            self.all.push(Decided { changes, with: index, saw });
            return;
        }
        changes.trust_occupants_of(&self.reoccupied);
        self.reoccupied.extend(occupied(&changes, snapshot));
        snapshot.apply(&changes);
        self.all.push(Decided { changes, with: index, saw: Vec::new() });
        for earlier in saw {
            self.join(earlier, index);
        }
        for id in touched {
            self.changed_by.insert(id, index);
        }
    }

    /// Those of this batch whose changes a decision can have seen, or changes itself.
    fn changers_in_sight(
        &self,
        keys: &Keys,
        changes: &Changeset,
        touched: &[AggregateId],
        snapshot: &Snapshot,
    ) -> Vec<usize> {
        if self.changed_by.is_empty() {
            return Vec::new();
        }
        let mut sight = snapshot.in_sight(keys);
        sight.extend(changes.relied_on().iter().map(|(id, _)| id.clone()));
        sight.extend(touched.iter().cloned());
        let mut changers: Vec<usize> = sight.iter().filter_map(|id| self.changed_by.get(id)).copied().collect();
        changers.sort_unstable();
        changers.dedup();
        changers
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.speaker(one), self.speaker(other));
        self.all[one.max(other)].with = one.min(other);
    }

    /// Who speaks for all that this one stands or falls with: the first of them.
    fn speaker(&mut self, mut index: usize) -> usize {
        while self.all[index].with != index {
            let next = self.all[index].with;
            self.all[index].with = self.all[next].with;
            index = next;
        }
        index
    }

    /// What to store.
    pub(crate) fn finish(mut self) -> Plan {
        let speakers: Vec<usize> = (0..self.all.len()).map(|index| self.speaker(index)).collect();
        let mut places: HashMap<usize, usize> = HashMap::new();
        let mut together: Vec<Vec<Changeset>> = Vec::new();
        let mut conditions = Vec::with_capacity(self.all.len());
        for (index, decided) in self.all.into_iter().enumerate() {
            if decided.changes.is_empty() {
                // Those that it saw come before it, so they have their places.
                let mut places: Vec<usize> =
                    decided.saw.iter().filter_map(|seen| places.get(&speakers[*seen])).copied().collect();
                places.sort_unstable();
                places.dedup();
                conditions.push(places);
                continue;
            }
            let place = *places.entry(speakers[index]).or_insert(together.len());
            if place == together.len() {
                together.push(Vec::new());
            }
            together[place].push(decided.changes);
            conditions.push(vec![place]);
        }
        Plan { changesets: together.into_iter().map(Changeset::in_sequence).collect(), conditions }
    }
}

/// The workers whose job these changes, not applied yet, write.
fn occupied(changes: &Changeset, snapshot: &Snapshot) -> Vec<WorkerId> {
    let mut workers = Vec::new();
    for write in changes.jobs() {
        let before = snapshot.jobs.get(&write.job.id).and_then(|job| job.occupies());
        workers.extend(before.into_iter().chain(write.job.occupies()).cloned());
    }
    workers
}

/// Everything in sight of others that these changes, not applied yet, change.
fn touched(changes: &Changeset, snapshot: &Snapshot) -> Vec<AggregateId> {
    let mut touched: Vec<AggregateId> = occupied(changes, snapshot).into_iter().map(AggregateId::Worker).collect();
    touched.extend(changes.jobs().iter().map(|write| AggregateId::Job(write.job.id)));
    touched.extend(changes.workers().iter().map(|worker| AggregateId::Worker(worker.id.clone())));
    touched.extend(changes.vitals().iter().map(|change| AggregateId::Worker(change.worker_id.clone())));
    touched.extend(changes.names().iter().map(|record| AggregateId::Name(record.name.clone())));
    touched.extend(changes.deregistrations().iter().map(|known| AggregateId::Deregistration(known.id)));
    touched
}
