//! Everything that is stored of some aggregates, read through the ports, and what a changeset makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::world::World;
use crate::domain::callback::{CallbackQueue, Delivery, DeliveryState};
use crate::domain::changeset::Changeset;
use crate::domain::code::ClientName;
use crate::domain::commands::decide;
use crate::domain::cost::LedgerEntry;
use crate::domain::event::{JobEvent, WorkerEvent};
use crate::domain::ids::{DeregistrationId, JobId, Name, WorkerId};
use crate::domain::job::{IdempotencyRecord, Job};
use crate::domain::policy::Policy;
use crate::domain::snapshot::Keys;
use crate::domain::time::Timestamp;
use crate::domain::worker::{Deregistration, NameRecord, Occupation, Vitals, Worker};
use crate::ports::clock::Clock;
use crate::ports::reader::JobEventQuery;
use crate::testing::scenes::Wish;

/// What is looked at.
#[derive(Clone, Debug, Default)]
struct Watch {
    jobs: BTreeSet<JobId>,
    workers: BTreeSet<WorkerId>,
    names: BTreeSet<Name>,
    deregistrations: BTreeSet<DeregistrationId>,
    calls: BTreeSet<(JobId, Box<str>)>,
    keys: BTreeSet<(ClientName, Box<str>)>,
}

impl Watch {
    /// Looks also at everything that this changes.
    fn note(&mut self, changes: &Changeset) {
        self.jobs.extend(changes.jobs().iter().map(|write| write.job.id));
        self.workers.extend(changes.workers().iter().map(|worker| worker.id.clone()));
        self.workers.extend(changes.vitals().iter().map(|change| change.worker_id.clone()));
        self.names.extend(changes.names().iter().map(|record| record.name.clone()));
        self.deregistrations.extend(changes.deregistrations().iter().map(|known| known.id));
        self.calls.extend(changes.ledger().iter().map(|(job_id, entry)| (*job_id, call_id(entry))));
        self.keys.extend(changes.idempotency_keys().iter().map(|(key, _)| key.clone()));
    }
}

fn call_id(entry: &LedgerEntry) -> Box<str> {
    (&**entry.report.call_id()).into()
}

/// Everything that is stored of what is watched.
#[derive(Clone, Debug, Default)]
struct Dump {
    jobs: BTreeMap<JobId, Arc<Job>>,
    job_events: BTreeMap<(JobId, u64), JobEvent>,
    deliveries: BTreeMap<(JobId, u64), Delivery>,
    workers: BTreeMap<WorkerId, Arc<Worker>>,
    vitals: BTreeMap<WorkerId, Vitals>,
    occupations: BTreeMap<WorkerId, Occupation>,
    worker_events: BTreeMap<(WorkerId, u64), WorkerEvent>,
    names: BTreeMap<Name, NameRecord>,
    deregistrations: BTreeMap<DeregistrationId, Arc<Deregistration>>,
    calls: BTreeMap<(JobId, Box<str>), LedgerEntry>,
    keys: BTreeMap<(ClientName, Box<str>), IdempotencyRecord>,
}

/// Reads all that is watched through this handle.
async fn dump(world: &World, watch: &Watch) -> Dump {
    const PAGE: usize = 1000;
    let mut dump = Dump::default();
    let keys = Keys {
        jobs: watch.jobs.iter().copied().collect(),
        workers: watch.workers.iter().cloned().collect(),
        names: watch.names.iter().cloned().collect(),
        idempotency_keys: watch.keys.iter().cloned().collect(),
        calls: watch.calls.iter().cloned().collect(),
        ..Keys::default()
    };
    let loaded = world.snapshot(&keys).await;
    for id in &watch.jobs {
        let read = world.reader.job(*id).await.unwrap();
        assert_eq!(read.as_ref().map(text), loaded.jobs.get(id).map(text), "read and loaded");
        dump.jobs.extend(read.map(|job| (*id, job)));
        let mut query = JobEventQuery { job_id: *id, after_seq: 0, event_types: Vec::new(), limit: PAGE };
        loop {
            let page = world.reader.job_events(&query).await.unwrap();
            let Some(last) = page.last() else { break };
            query.after_seq = last.seq;
            let whole = page.len() == PAGE;
            dump.job_events.extend(page.into_iter().map(|event| ((*id, event.seq), event)));
            if !whole {
                break;
            }
        }
        let listed = world.reader.deliveries(*id, None, PAGE).await.unwrap();
        dump.deliveries.extend(listed.iter().map(|known| ((*id, known.sequence), known.as_ref().clone())));
    }
    for id in &watch.workers {
        let (_, view) = world.reader.worker(id).await.unwrap();
        let loaded = loaded.workers.get(id);
        assert_eq!(view.as_ref().map(|view| text(&view.worker)), loaded.map(|view| text(&view.worker)));
        assert_eq!(view.as_ref().map(|view| text(&view.vitals)), loaded.map(|view| text(&view.vitals)));
        let events = world.reader.worker_events(id, None, PAGE).await.unwrap();
        dump.worker_events.extend(events.into_iter().map(|event| ((id.clone(), event.seq), event)));
        let Some(view) = view else { continue };
        dump.workers.insert(id.clone(), view.worker);
        dump.vitals.insert(id.clone(), view.vitals);
        dump.occupations.extend(view.occupied_by.map(|occupation| (id.clone(), occupation)));
    }
    for id in &watch.deregistrations {
        let known = world.reader.deregistration(*id).await.unwrap();
        dump.deregistrations.extend(known.map(|known| (*id, known)));
    }
    let records = loaded.names.into_values().filter_map(|view| view.record);
    dump.names.extend(
        records.filter(|record| watch.names.contains(&record.name)).map(|record| (record.name.clone(), record)),
    );
    dump.calls.extend(loaded.calls.into_iter().filter(|(key, _)| watch.calls.contains(key)));
    dump.keys.extend(loaded.idempotency_keys.into_iter().filter(|(key, _)| watch.keys.contains(key)));
    dump
}

impl Dump {
    /// What is to be found after this was stored at that time, as far as no callback was ever sent.
    fn expect(&mut self, changes: &Changeset, now: Timestamp, policy: &Policy) {
        for worker in changes.workers() {
            self.workers.insert(worker.id.clone(), Arc::clone(worker));
            self.vitals.entry(worker.id.clone()).or_insert_with(|| Vitals::new(now));
        }
        for change in changes.vitals() {
            if let Some(vitals) = self.vitals.get_mut(&change.worker_id) {
                vitals.apply(change);
            }
        }
        for write in changes.jobs() {
            self.jobs.insert(write.job.id, Arc::clone(&write.job));
            self.occupations.retain(|_, occupation| occupation.job_id != write.job.id);
        }
        let occupations = changes.jobs().iter().filter_map(|write| write.job.occupation());
        self.occupations.extend(occupations.map(|(id, occupation)| (id.clone(), occupation)));
        let events = changes.job_events().iter().cloned();
        self.job_events.extend(events.map(|event| ((event.job_id, event.seq), event)));
        for event in changes.worker_events() {
            if let Some(id) = &event.worker_id {
                self.worker_events.insert((id.clone(), event.seq), event.clone());
            }
        }
        self.names.extend(changes.names().iter().map(|record| (record.name.clone(), record.clone())));
        self.deregistrations.extend(changes.deregistrations().iter().map(|known| (known.id, Arc::clone(known))));
        let calls = changes.ledger().iter().cloned();
        self.calls.extend(calls.map(|(job_id, entry)| ((job_id, call_id(&entry)), entry)));
        self.keys.extend(changes.idempotency_keys().iter().cloned());
        for callback in changes.callbacks() {
            self.change_queue(callback.job_id, |queue| queue.enqueue(callback.clone(), now, policy));
        }
        for id in changes.released_callbacks() {
            self.change_queue(*id, |queue| {
                queue.release_held(now);
                Vec::new()
            });
        }
    }

    /// Changes the open deliveries of a job as the rules do it; gives back what is through to the list.
    fn change_queue(&mut self, id: JobId, change: impl FnOnce(&mut CallbackQueue) -> Vec<Delivery>) {
        let mut queue = CallbackQueue::new(id);
        let all = (id, 0)..=(id, u64::MAX);
        let open = |known: &&Delivery| matches!(known.state, DeliveryState::Pending | DeliveryState::Sending);
        queue.open = self.deliveries.range(all).map(|(_, known)| known).filter(open).cloned().collect();
        let through = change(&mut queue);
        let changed = queue.open.into_iter().chain(through);
        self.deliveries.extend(changed.map(|known| ((id, known.sequence), known)));
    }

    /// One line for each thing that is stored, in a stable order.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |what: &str, text: String| lines.push(format!("{what} {text}"));
        self.jobs.values().for_each(|job| line("job", text(job)));
        self.job_events.values().for_each(|event| line("event", canonical(&text(event))));
        self.deliveries.values().for_each(|delivery| line("delivery", text(delivery)));
        self.workers.values().for_each(|worker| line("worker", text(worker)));
        self.vitals.iter().for_each(|(id, vitals)| line("vitals of", format!("{id}: {}", text(vitals))));
        self.occupations.iter().for_each(|(id, what)| line("occupation of", format!("{id}: {}", text(what))));
        self.worker_events.values().for_each(|event| line("event", canonical(&text(event))));
        self.names.values().for_each(|record| line("name", text(record)));
        self.deregistrations.values().for_each(|known| line("deregistration", text(known)));
        self.calls.iter().for_each(|((id, _), entry)| line("call of", format!("{id}: {}", text(entry))));
        self.keys.iter().for_each(|(key, record)| line("key", text(&(key, record))));
        lines
    }

    /// Fails and shows where they begin to differ.
    ///
    /// # Panics
    ///
    /// When another thing is stored than expected.
    fn assert_is(&self, expected: &Self, when: &str) {
        let (found, expected) = (self.lines(), expected.lines());
        if found == expected {
            return;
        }
        let mut difference = format!("{when}: what is stored is not what was said\n");
        for missing in expected.iter().filter(|line| !found.contains(line)).take(3) {
            let _infallible = writeln!(difference, "  missing: {missing}");
        }
        for surplus in found.iter().filter(|line| !expected.contains(line)).take(3) {
            let _infallible = writeln!(difference, "  instead: {surplus}");
        }
        panic!("{difference}");
    }
}

/// Everything that a store was told, and whether it knows it.
#[derive(Default)]
pub(super) struct Record {
    watch: Watch,
    expected: Dump,
}

impl Record {
    /// These were stored, just now.
    pub(super) fn stored<'c>(&mut self, world: &World, changes: impl IntoIterator<Item = &'c Changeset>) {
        for changes in changes {
            self.watch.note(changes);
            self.expected.expect(changes, world.clock.now(), &world.rules.policy);
        }
    }

    /// Reads everything back through this handle and compares.
    pub(super) async fn check(&self, handle: &World, when: &str) {
        dump(handle, &self.watch).await.assert_is(&self.expected, when);
    }
}

/// Decides commands that do not meet each other on one snapshot, and stores them in one call.
pub(super) async fn commit_all(world: &World, wishes: &[Wish]) -> Vec<Changeset> {
    let mut keys = Keys::default();
    for wish in wishes {
        let more = wish.keys();
        keys.jobs.extend(more.jobs);
        keys.workers.extend(more.workers);
        keys.names.extend(more.names);
        keys.waiting_for.extend(more.waiting_for);
        keys.idempotency_keys.extend(more.idempotency_keys);
        keys.calls.extend(more.calls);
    }
    let snapshot = world.snapshot(&keys).await;
    let decide = |wish: &Wish| {
        let decision = decide(&snapshot, &**wish, &world.rules);
        assert!(decision.answer.is_ok(), "{:?}", decision.answer.err());
        decision.changes
    };
    let decided: Vec<Changeset> = wishes.iter().map(decide).collect();
    let stored = world.commit(decided.clone()).await;
    assert!(stored.iter().all(Result::is_ok), "none stands in another's way: {stored:?}");
    decided
}

/// The JSON text of a value: exact to the digit.
pub(super) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

/// The same JSON with the keys of every object sorted. Numbers keep their text.
fn canonical(json: &str) -> String {
    match json.trim_start().as_bytes().first() {
        Some(b'{') => {
            let entries: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).unwrap();
            let entries = entries.iter().map(|(key, value)| format!("{}:{}", text(key), canonical(value.get())));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        Some(b'[') => {
            let values: Vec<Box<RawValue>> = serde_json::from_str(json).unwrap();
            format!("[{}]", values.iter().map(|value| canonical(value.get())).collect::<Vec<_>>().join(","))
        }
        Some(b'"') => text(&serde_json::from_str::<String>(json).unwrap()),
        _ => json.trim().to_owned(),
    }
}
