//! A changeset in the making: reads the snapshot through what was changed so far, and notes what was relied on.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::callback::{CallbackFacts, CallbackKind, NewCallback};
use super::changeset::{AggregateId, Changeset, JobWrite};
use super::code::{Actor, ClientName};
use super::cost::LedgerEntry;
use super::event::{EventType, JobEvent, JobEventMetadata, MAX_MESSAGE_CHARS, WorkerEvent};
use super::ids::{
    Attempt, DeliveryId, DeregistrationId, DirectiveId, EventId, InteractionId, JobId, Name, Version, WorkerId,
};
use super::job::{IdempotencyRecord, Job, JobState, JobStatus, Outcome};
use super::policy::Policy;
use super::rejection::Rejection;
use super::rules::Rules;
use super::snapshot::Snapshot;
use super::time::Timestamp;
use super::worker::{
    Deregistration, Directive, DirectiveType, NameRecord, Occupation, VitalsChange, Worker, WorkerView,
};

/// A changeset in the making.
#[derive(Debug)]
pub struct Draft<'d> {
    snapshot: &'d Snapshot,
    rules: &'d Rules,
    changes: Changeset,
    keep_on_rejection: bool,
}

/// What an event of a job says, beside what every event says.
#[derive(Debug)]
pub(super) struct EventDraft {
    pub(super) event_type: EventType,
    pub(super) message: String,
    pub(super) actor: Actor,
    pub(super) extra: Option<Box<RawValue>>,
    pub(super) from: Option<JobStatus>,
    pub(super) to: Option<JobStatus>,
}

impl EventDraft {
    pub(super) fn new(event_type: EventType, message: impl Into<String>) -> Self {
        Self { event_type, message: message.into(), actor: Actor::System, extra: None, from: None, to: None }
    }

    pub(super) fn by(self, actor: Actor) -> Self {
        Self { actor, ..self }
    }

    pub(super) fn with(self, extra: &impl Serialize) -> Self {
        Self { extra: extra_of(extra), ..self }
    }

    pub(super) fn moved(self, from: JobStatus, to: JobStatus) -> Self {
        Self { from: Some(from), to: Some(to), ..self }
    }
}

/// Facts of an event as JSON text.
pub(super) fn extra_of(extra: &impl Serialize) -> Option<Box<RawValue>> {
    let raw = serde_json::value::to_raw_value(extra);
    debug_assert!(raw.is_ok(), "{:?}", raw.as_ref().err());
    raw.ok()
}

impl<'d> Draft<'d> {
    pub(super) fn new(snapshot: &'d Snapshot, rules: &'d Rules) -> Self {
        Self { snapshot, rules, changes: Changeset::default(), keep_on_rejection: false }
    }

    /// The changes, and whether they are to be stored although the command was refused.
    pub(super) fn finish(self) -> (Changeset, bool) {
        (self.changes, self.keep_on_rejection)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.snapshot.now
    }

    pub(super) fn policy(&self) -> &'d Policy {
        &self.rules.policy
    }

    pub(super) fn rules(&self) -> &'d Rules {
        self.rules
    }

    pub(super) fn snapshot(&self) -> &'d Snapshot {
        self.snapshot
    }

    pub(super) fn new_job_id(&self) -> JobId {
        JobId::new(self.rules.ids.uuid())
    }

    pub(super) fn new_deregistration_id(&self) -> DeregistrationId {
        DeregistrationId::new(self.rules.ids.uuid())
    }

    fn rely(&mut self, id: AggregateId, version: Version) {
        if !self.changes.relied_on.iter().any(|(known, _)| *known == id) {
            self.changes.relied_on.push((id, version));
        }
    }

    /// The job as it is after what was changed so far; its version is relied on.
    pub(super) fn job(&mut self, id: JobId) -> Result<Arc<Job>, Rejection> {
        if let Some(written) = self.changes.jobs.iter().find(|write| write.job.id == id) {
            return Ok(Arc::clone(&written.job));
        }
        let job = self.snapshot.jobs.get(&id).ok_or(Rejection::JobNotFound)?;
        self.rely(AggregateId::Job(id), job.version);
        Ok(Arc::clone(job))
    }

    /// The worker as it is after what was changed so far; its version is relied on.
    pub(super) fn worker(&mut self, id: &WorkerId) -> Option<WorkerView> {
        let mut view = self.snapshot.workers.get(id)?.clone();
        self.rely(AggregateId::Worker(id.clone()), view.worker.version);
        if let Some(written) = self.changes.workers.iter().find(|worker| worker.id == *id) {
            view.worker = Arc::clone(written);
        }
        let left = view
            .occupied_by
            .is_some_and(|occupation| self.changes.jobs.iter().any(|write| write.job.id == occupation.job_id));
        if left {
            view.occupied_by = None;
        }
        if let Some(write) = self.changes.jobs.iter().find(|write| write.job.occupies() == Some(id)) {
            let reserved = matches!(write.job.state, JobState::Queued(..));
            view.occupied_by = Some(Occupation { job_id: write.job.id, reserved });
        }
        Some(view)
    }

    /// The worker as the snapshot has it, for an explanation: nothing is decided by it.
    pub(super) fn peek_worker(&self, id: &WorkerId) -> Option<&'d WorkerView> {
        self.snapshot.workers.get(id)
    }

    /// The record of a name; its version is relied on.
    pub(super) fn name(&mut self, name: &Name) -> NameRecord {
        if let Some(written) = self.changes.names.iter().find(|record| record.name == *name) {
            return written.clone();
        }
        let known = self.snapshot.names.get(name).and_then(|view| view.record.clone());
        let record = known.unwrap_or(NameRecord { name: name.clone(), version: Version::ABSENT, held_by: None });
        self.rely(AggregateId::Name(name.clone()), record.version);
        record
    }

    /// The deregistration that holds `name` now; the name's version is relied on.
    pub(super) fn hold_on(&mut self, name: &Name) -> Option<Arc<Deregistration>> {
        let held_by = self.name(name).held_by?;
        self.deregistration(held_by).filter(|deregistration| deregistration.holds(self.now()))
    }

    /// The deregistration as it is after what was changed so far; its version is relied on.
    pub(super) fn deregistration(&mut self, id: DeregistrationId) -> Option<Arc<Deregistration>> {
        if let Some(written) = self.changes.deregistrations.iter().find(|known| known.id == id) {
            return Some(Arc::clone(written));
        }
        let known = self.snapshot.deregistrations.get(&id)?;
        self.rely(AggregateId::Deregistration(id), known.version);
        Some(Arc::clone(known))
    }

    /// Only stored while the worker has not been heard from since `last_seen`.
    pub(super) fn rely_on_silence(&mut self, worker_id: &WorkerId, last_seen: Timestamp) {
        self.changes.silent.push((worker_id.clone(), last_seen));
    }

    /// Writes a job: new, or read through this draft before.
    pub(super) fn save_job(&mut self, mut job: Job) {
        let next_deadline = job.next_deadline(self.policy());
        if let Some(written) = self.changes.jobs.iter_mut().find(|write| write.job.id == job.id) {
            job.version = written.job.version;
            *written = JobWrite { job: Arc::new(job), next_deadline };
        } else {
            self.rely(AggregateId::Job(job.id), job.version);
            job.version = job.version.next();
            self.changes.jobs.push(JobWrite { job: Arc::new(job), next_deadline });
        }
    }

    /// Writes a worker: new, or read through this draft before. That a job occupies it, or none does, is relied on:
    /// whoever retires a worker must know what it has.
    pub(super) fn save_worker(&mut self, mut worker: Worker) {
        if let Some(written) = self.changes.workers.iter_mut().find(|known| known.id == worker.id) {
            worker.version = written.version;
            *written = Arc::new(worker);
        } else {
            self.rely(AggregateId::Worker(worker.id.clone()), worker.version);
            if let Some(view) = self.snapshot.workers.get(&worker.id) {
                let occupant = view.occupied_by.map(|occupation| occupation.job_id);
                self.changes.occupants.push((worker.id.clone(), occupant));
            }
            worker.version = worker.version.next();
            self.changes.workers.push(Arc::new(worker));
        }
    }

    /// Writes a name that was read through this draft before.
    pub(super) fn save_name(&mut self, mut record: NameRecord) {
        if let Some(written) = self.changes.names.iter_mut().find(|known| known.name == record.name) {
            record.version = written.version;
            *written = record;
        } else {
            self.rely(AggregateId::Name(record.name.clone()), record.version);
            record.version = record.version.next();
            self.changes.names.push(record);
        }
    }

    /// Writes a deregistration: new, or read through this draft before.
    pub(super) fn save_deregistration(&mut self, mut deregistration: Deregistration) {
        if let Some(written) = self.changes.deregistrations.iter_mut().find(|known| known.id == deregistration.id) {
            deregistration.version = written.version;
            *written = Arc::new(deregistration);
        } else {
            self.rely(AggregateId::Deregistration(deregistration.id), deregistration.version);
            deregistration.version = deregistration.version.next();
            self.changes.deregistrations.push(Arc::new(deregistration));
        }
    }

    /// What a call of a worker leaves behind; differences of one worker are gathered in one.
    pub(super) fn vitals(&mut self, worker_id: &WorkerId) -> &mut VitalsChange {
        let known = self.changes.vitals.iter().position(|change| change.worker_id == *worker_id);
        let index = known.unwrap_or_else(|| {
            self.changes.vitals.push(VitalsChange::of(worker_id.clone()));
            self.changes.vitals.len() - 1
        });
        &mut self.changes.vitals[index]
    }

    /// Notes a sign of life.
    pub(super) fn seen(&mut self, worker_id: &WorkerId) {
        let now = self.now();
        self.vitals(worker_id).seen = Some(now);
    }

    /// Drops every change: nothing is stored.
    pub(super) fn discard(&mut self) {
        self.changes = Changeset::default();
    }

    /// Drops every change so far; what follows is stored although the command is refused.
    pub(super) fn keep_only_what_follows(&mut self) {
        self.changes = Changeset::default();
        self.keep_on_rejection = true;
    }

    /// Stores the changes although the command is refused.
    pub(super) fn keep_on_rejection(&mut self) {
        self.keep_on_rejection = true;
    }

    /// Appends an event to a job that is saved afterwards; gives back its number.
    pub(super) fn job_event(&mut self, job: &mut Job, event: EventDraft) -> u64 {
        let now = self.now();
        self.job_event_at(job, event, now, None)
    }

    /// The same for an event with a time and a place among the steps of its own.
    pub(super) fn job_event_at(
        &mut self,
        job: &mut Job,
        event: EventDraft,
        occurred_at: Timestamp,
        step: Option<(Option<u32>, Option<u32>)>,
    ) -> u64 {
        job.event_seq += 1;
        let began = job.lease().map(|lease| lease.granted_at);
        let (step_index, total_steps) = step.unwrap_or((job.progress.step_index, job.progress.total_steps));
        let elapsed_ms = began.map(|began| u64::try_from(occurred_at.since(began).as_millis()).unwrap_or(u64::MAX));
        self.changes.job_events.push(JobEvent {
            id: EventId::new(self.rules.ids.uuid()),
            job_id: job.id,
            seq: job.event_seq,
            event_type: event.event_type,
            from_status: event.from,
            to_status: event.to,
            message: cut(&event.message, MAX_MESSAGE_CHARS).into(),
            metadata: JobEventMetadata {
                worker_id: job.last_holder().cloned(),
                elapsed_ms,
                step_index,
                total_steps,
                extra: event.extra,
            },
            actor: event.actor,
            run: job.run,
            attempt: job.attempt,
            occurred_at,
            created_at: self.now(),
        });
        job.event_seq
    }

    /// Appends an event to a worker that is saved afterwards.
    pub(super) fn worker_event(
        &mut self,
        worker: &mut Worker,
        event_type: EventType,
        message: impl Into<String>,
        actor: Actor,
        metadata: &impl Serialize,
    ) {
        worker.event_seq += 1;
        let message: String = message.into();
        self.changes.worker_events.push(WorkerEvent {
            id: EventId::new(self.rules.ids.uuid()),
            worker_id: Some(worker.id.clone()),
            generation: Some(worker.generation),
            seq: worker.event_seq,
            event_type,
            message: cut(&message, MAX_MESSAGE_CHARS).into(),
            metadata: extra_of(metadata),
            actor,
            created_at: self.now(),
        });
    }

    /// Enqueues a callback that tells the present state of a job that is saved afterwards; none without an address.
    pub(super) fn callback(&mut self, job: &mut Job, kind: CallbackKind) {
        let facts = self.facts(job);
        self.callback_with(job, kind, facts);
    }

    /// What a callback says of the present state of a job.
    pub(super) fn facts(&self, job: &Job) -> CallbackFacts {
        let ending = job.ending();
        let worker_id = job.last_holder().cloned();
        let view = worker_id.as_ref().and_then(|id| self.snapshot.workers.get(id));
        let live_view_url = view
            .filter(|_| job.lease().is_some())
            .and_then(|view| view.vitals.live_view_url.clone().or_else(|| view.worker.identity.live_view_url.clone()));
        let outcome = ending.map(|ending| &ending.outcome);
        let completion = match outcome {
            Some(Outcome::Completed(completion)) => Some(Arc::new(completion.clone())),
            _ => None,
        };
        let error = outcome.and_then(Outcome::error).map(|(code, message)| (code.clone(), message.into()));
        CallbackFacts {
            status: job.status().into(),
            run: job.run,
            attempt: job.attempt,
            worker_id,
            side_effects_started: job.side_effects_started(),
            timestamp: self.now(),
            live_view_url,
            resolved_by: None,
            interaction_id: None,
            completion,
            error,
            completed_at: ending.map(|ending| ending.at),
        }
    }

    /// Enqueues a callback with these facts.
    pub(super) fn callback_with(&mut self, job: &mut Job, kind: CallbackKind, facts: CallbackFacts) {
        if job.spec.callback_url.is_none() {
            return;
        }
        job.callback_sequence += 1;
        let held = kind == CallbackKind::Terminal && !job.announced_calls_settled();
        let wait = if held { self.policy().announced_calls_wait } else { std::time::Duration::ZERO };
        self.changes.callbacks.push(NewCallback {
            id: DeliveryId::new(self.rules.ids.uuid()),
            job_id: job.id,
            sequence: job.callback_sequence,
            kind,
            facts,
            not_before: self.now() + wait,
        });
    }

    /// Lets the terminal callback of a job go that was held for announced calls.
    pub(super) fn release_callback(&mut self, job_id: JobId) {
        self.changes.released_callbacks.push(job_id);
    }

    /// Writes an LLM call.
    pub(super) fn record_call(&mut self, job_id: JobId, entry: LedgerEntry) {
        self.changes.ledger.push((job_id, entry));
    }

    /// Keeps a key against double submission.
    pub(super) fn keep_idempotency_key(&mut self, client: ClientName, key: Box<str>, record: IdempotencyRecord) {
        self.changes.idempotency_keys.push(((client, key), record));
    }

    /// Tells a worker that is saved afterwards something, until it acknowledges it.
    pub(super) fn direct(
        &mut self,
        worker: &mut Worker,
        directive_type: DirectiveType,
        job: Option<(JobId, Attempt, Option<InteractionId>)>,
        reason: Option<&str>,
        deadline: Option<Timestamp>,
    ) {
        let directive = Directive {
            id: DirectiveId::new(self.rules.ids.uuid()),
            directive_type,
            generation: worker.generation,
            job_id: job.map(|(id, _, _)| id),
            attempt: job.map(|(_, attempt, _)| attempt),
            interaction_id: job.and_then(|(_, _, interaction)| interaction),
            reason: reason.map(Into::into),
            deadline,
            issued_at: self.now(),
        };
        // A directive dies with what it names: a newer one of its type takes its place.
        worker.directives.retain(|known| known.directive_type != directive_type);
        worker.directives.push(directive);
    }
}

/// The first `max` characters of a text; the last of them is an ellipsis where it was longer.
pub(super) fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}
