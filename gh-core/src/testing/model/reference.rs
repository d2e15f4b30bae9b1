//! The reference model: it remembers what was asked and answered, and says of each step what must hold of it.
//!
//! It is a specification, not a second implementation: it does not say what happens, only what may not. What it
//! judges by are the answers, what readers saw before and after, and its own memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;

use super::call::{Answer, Call};
use super::driver::Failure;
use super::seen::{Record, Seen};
use crate::domain::affinity::Routing;
use crate::domain::callback::{DeliveryState, LeasedDelivery};
use crate::domain::changeset::Changeset;
use crate::domain::code::Fingerprint;
use crate::domain::commands::{
    Claim, ClaimAnswer, Credential, Deregister, DeregistrationAnswer, EventOutcome, Granted, Register, Report,
    ReportUsage, Selector, Submit,
};
use crate::domain::cost::CallReport;
use crate::domain::ids::{Attempt, DeliveryId, DeregistrationId, Generation, JobId, Name, SendLeaseId, WorkerId};
use crate::domain::job::{JobState, JobStatus, OutcomeAnswer};
use crate::domain::rejection::Rejection;
use crate::domain::submission::JobSpec;
use crate::domain::time::Timestamp;
use crate::domain::worker::{Worker, WorkerState};
use crate::ports::callback_sender::SendOutcome;
use crate::ports::outbox::Settlement;
use crate::ports::store::Conflict;

/// Fails with a sentence, unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($sentence:tt)+) => {
        if !$condition {
            return Err(format!($($sentence)+));
        }
    };
}
pub(super) use ensure;

/// What happened between two looks.
pub(super) enum Cause<'c> {
    Call(&'c Call, &'c Result<Answer, Rejection>),
    /// A changeset was refused.
    Conflict,
    Dispatch(&'c [Changeset], &'c [Claim], &'c [Result<Result<ClaimAnswer, Rejection>, Conflict>]),
    Sweep,
    Lease(&'c [LeasedDelivery]),
    Settle(&'c Settlement),
    Time,
}

/// The greatest report of a call: its sum, the counts that decide between equal sums, and whether it has a price.
type Booked = ([u64; 4], bool);

/// Workers that a client retired.
struct Retirement {
    id: DeregistrationId,
    names: Vec<Name>,
    hold: Duration,
    lifted: bool,
}

/// What is remembered of everything that was asked and answered.
#[derive(Default)]
pub(super) struct Reference {
    pub(super) accepted: BTreeSet<JobId>,
    keys: BTreeMap<Box<str>, (Fingerprint, JobId)>,
    /// How each run ended.
    pub(super) ended: BTreeMap<(JobId, u32), JobStatus>,
    /// Runs past their point of no return.
    pub(super) acted: BTreeSet<(JobId, u32)>,
    outcomes: HashMap<(JobId, Attempt, Credential), (Fingerprint, OutcomeAnswer)>,
    /// The calls of each job.
    pub(super) ledger: BTreeMap<JobId, BTreeMap<Box<str>, Booked>>,
    awaited: BTreeSet<DeregistrationId>,
    retirements: Vec<Retirement>,
    /// Processes that never come back.
    pub(super) gone: BTreeSet<(WorkerId, Name)>,
    bodies: HashMap<DeliveryId, Bytes>,
    sending: HashMap<JobId, (SendLeaseId, Timestamp)>,
}

impl Reference {
    /// The deregistrations that were answered.
    pub(super) fn deregistrations(&self) -> impl Iterator<Item = DeregistrationId> {
        self.awaited.iter().copied()
    }

    /// From now on the record of this deregistration is looked at.
    pub(super) fn will_see(&mut self, answer: &DeregistrationAnswer) {
        if !answer.dry_run {
            self.awaited.insert(answer.deregistration.id);
        }
    }

    /// Whether a step may have done what it did.
    pub(super) fn judge(&mut self, before: &Seen, after: &Seen, cause: &Cause<'_>) -> Result<(), Failure> {
        match cause {
            Cause::Call(call, answer) => self.call(before, after, call, answer.as_ref())?,
            Cause::Conflict => {
                untouched(before, after, "a refused changeset")?;
                ensure!(before.text_of_workers() == after.text_of_workers(), "a refused changeset changed a worker");
            }
            Cause::Dispatch(granted, claims, answers) => {
                for write in granted.iter().flat_map(|changes| changes.jobs()) {
                    let stored = after.jobs.get(&write.job.id).and_then(|record| record.job.live_lease());
                    ensure!(
                        stored == write.job.live_lease(),
                        "a grant was answered and is not there: {}",
                        write.job.id
                    );
                }
                ensure!(answers.len() == claims.len(), "{} claims have {} answers", claims.len(), answers.len());
                for (claim, answer) in claims.iter().zip(*answers) {
                    ensure!(answer.is_ok(), "refused although nobody interfered: {claim:?}");
                    if let Ok(Ok(ClaimAnswer::Granted(granted))) = answer {
                        claimed(after, claim, granted)?;
                    }
                }
            }
            Cause::Lease(leased) => self.leased(after, leased)?,
            Cause::Settle(settlement) => self.settled(before, after, settlement)?,
            Cause::Sweep | Cause::Time => {}
        }
        for (id, record) in &after.jobs {
            self.movement(before, after.now, before.jobs.get(id), record, cause)?;
        }
        self.check(after)
    }

    /// What may become of one job in one step: I1, I4, I5 and I9.
    fn movement(
        &self,
        before: &Seen,
        now: Timestamp,
        old: Option<&Record>,
        new: &Record,
        cause: &Cause<'_>,
    ) -> Result<(), Failure> {
        let job = &new.job;
        let id = job.id;
        if let Some(old) = old {
            let same = old.events.iter().zip(new.events.iter()).all(|(old, new)| old.id == new.id);
            ensure!(same && old.events.len() <= new.events.len(), "I10: the record of {id} was rewritten");
            let retried = matches!(cause, Cause::Call(Call::Retry(retry), Ok(_)) if retry.job_id == id);
            let run = old.job.run + u32::from(retried);
            ensure!(job.run == run, "I1: {id} is in run {} instead of {run}", job.run);
            let kept = old.job.holdings.iter().zip(&job.holdings).all(|(old, new)| old.attempt == new.attempt);
            ensure!(kept, "{id}: attempts were forgotten");
        }
        let held_before = old.map_or(0, |old| old.job.holdings.len());
        for holding in job.holdings.iter().skip(held_before) {
            let granted = matches!(cause, Cause::Dispatch(..) | Cause::Call(Call::Claim(_), Ok(_)));
            ensure!(granted, "{id} was granted without a claim");
            ensure!(!self.acted.contains(&(id, job.run)), "I5: {id} is past its point of no return and granted again");
            self.place(before, now, new, &holding.worker_id, holding.generation)?;
        }
        if let JobState::Queued(_, reservation) = &job.state
            && old.is_none_or(|old| !matches!(&old.job.state, JobState::Queued(_, known) if known == reservation))
        {
            self.place(before, now, new, &reservation.worker_id, reservation.generation)?;
        }
        Ok(())
    }

    /// Whether a job may be placed on a worker.
    fn place(
        &self,
        before: &Seen,
        now: Timestamp,
        record: &Record,
        worker_id: &WorkerId,
        generation: Generation,
    ) -> Result<(), Failure> {
        let (id, spec) = (record.job.id, &record.job.spec);
        let view = before.workers.get(worker_id).ok_or_else(|| format!("{id} was placed on nobody"))?;
        let worker = &view.worker;
        let takes = matches!(worker.state, WorkerState::Active) && worker.generation == generation;
        ensure!(takes, "I9: {id} was placed on {worker_id}, generation {generation}: {:?}", worker.state);
        let free = view.occupied_by.is_none_or(|occupation| occupation.job_id == id);
        ensure!(free, "I2: {id} was placed on {worker_id}, which has {:?}", view.occupied_by);
        if let Routing::Strict { target, .. } = &spec.routing {
            let reserved = view.occupied_by.is_some();
            ensure!(reserved || view.answers_to(target), "I4: {id} is for {target} only, and went to {worker_id}");
        }
        for name in names_of(worker) {
            ensure!(self.held(before, name, now).is_none(), "I9: {id} went to {worker_id} although {name} is held");
        }
        let boot = (worker_id.clone(), worker.boot_id.clone());
        ensure!(!self.gone.contains(&boot), "I9: {id} went to a process that was deregistered: {boot:?}");
        Ok(())
    }

    /// The deregistration because of which nobody under this name gets a job.
    fn held(&self, seen: &Seen, name: &Name, now: Timestamp) -> Option<DeregistrationId> {
        let holds = |known: &&Retirement| {
            let finished = seen.deregistrations.get(&known.id).map(|record| record.finished_at);
            known.names.contains(name)
                && finished.is_some_and(|at| at.is_none_or(|at| !known.lifted && now < at + known.hold))
        };
        self.retirements.iter().find(holds).map(|known| known.id)
    }

    fn call(
        &mut self,
        before: &Seen,
        after: &Seen,
        call: &Call,
        answer: Result<&Answer, &Rejection>,
    ) -> Result<(), Failure> {
        if answer.is_err() {
            untouched(before, after, "a call that was refused")?;
        }
        self.fence(before, after, call, answer)?;
        match (call, answer) {
            (Call::Submit(submit), _) => self.submitted(before, after, submit, answer)?,
            (Call::Cancel(cancel), Ok(_)) => {
                let status = after.jobs.get(&cancel.job_id).map(|record| record.job.status());
                ensure!(status == Some(JobStatus::Cancelled), "a cancelled job is {status:?}");
            }
            (Call::Retry(retry), Ok(_)) => {
                let known = before.jobs.get(&retry.job_id).ok_or("an unknown job was retried")?;
                let status = known.job.status();
                ensure!(matches!(status, JobStatus::Failed | JobStatus::Cancelled), "a {status:?} job was retried");
                let looked = retry.side_effects_checked || !self.acted.contains(&(known.job.id, known.job.run));
                ensure!(looked, "I5: {} was retried although nobody looked", known.job.id);
                ensure!(retry.run.is_none_or(|run| run == known.job.run), "another run was retried than was named");
            }
            (Call::Register(register), Ok(Answer::Register(registered))) => {
                self.registered(before, after, register, registered.created)?;
            }
            (Call::Deregister(deregister), Ok(Answer::Deregister(answer))) => {
                self.deregistered(before, after, deregister, answer)?;
            }
            (Call::LiftHold(lift), Ok(Answer::LiftHold(answer))) => {
                let of_name = |known: &&mut Retirement| known.names.contains(&lift.name);
                self.retirements.iter_mut().filter(of_name).for_each(|known| known.lifted = true);
                let held = self.held(after, &lift.name, after.now);
                ensure!(!answer.held || held.is_some(), "I9: {} is said to be held by nobody", lift.name);
            }
            (Call::Goodbye(goodbye), Ok(Answer::Goodbye(answer))) => {
                let view = before.workers.get(&goodbye.who.worker_id).ok_or("nobody said goodbye")?;
                let told = answer.job_outcome.is_some() == view.occupied_by.is_some();
                ensure!(told, "a goodbye with {:?} was told {answer:?}", view.occupied_by);
                self.gone.insert((view.worker.id.clone(), view.worker.boot_id.clone()));
            }
            (Call::Claim(claim), Ok(Answer::Claim(ClaimAnswer::Granted(granted)))) => {
                claimed(after, claim, granted)?;
            }
            (Call::ReportUsage(report), Ok(Answer::ReportUsage(answer))) => {
                self.used(before, after, report)?;
                let told = after.jobs.get(&report.job_id).map(|record| record.job.cost.total_cost_usd());
                ensure!(told == Some(answer.cost.total_cost_usd), "I8: {told:?} is stored, {:?} answered", answer.cost);
            }
            (Call::ReportEvents(report), Ok(Answer::ReportEvents(outcomes))) => {
                let events = after.jobs.get(&report.job_id).map(|record| record.events.len() as u64);
                let last = outcomes.iter().rev().find_map(|outcome| match outcome {
                    EventOutcome::Accepted(seq) => Some(*seq),
                    EventOutcome::Duplicate | EventOutcome::Refused => None,
                });
                ensure!(last.is_none() || last == events, "I10: event {last:?} was accepted as the last of {events:?}");
            }
            (Call::Heartbeat(beat), Ok(Answer::Heartbeat(answer))) => {
                // What it was told of it relied on; that there is nothing may have been true only a moment ago.
                let held = after.workers.get(&beat.who.worker_id).and_then(|view| view.live_job());
                let told = answer.held.map(|(id, _)| id);
                ensure!(told.is_none() || told == held, "a heartbeat was told of {told:?}, not {held:?}");
            }
            _ => {}
        }
        Ok(())
    }

    /// I3: what a process may do that is not the living one, or does not hold the attempt.
    fn fence(
        &mut self,
        before: &Seen,
        after: &Seen,
        call: &Call,
        answer: Result<&Answer, &Rejection>,
    ) -> Result<(), Failure> {
        let Some(who) = call.process() else { return Ok(()) };
        let view = before.workers.get(&who.worker_id).filter(|view| view.worker.generation == who.generation);
        let living = view.is_some_and(|view| view.worker.is_present());
        let Some((_, job_id, attempt)) = call.report() else {
            let said_before = view.is_some() && matches!(call, Call::Goodbye(_));
            let leaves = matches!(call, Call::ConnectionNews(news) if news.open_for.is_none());
            let exempt = said_before || leaves || matches!(call, Call::ReportUsage(_));
            ensure!(living || exempt || answer.is_err(), "I3: a retired process was heard: {call:?}");
            if !living && !matches!(call, Call::ReportUsage(_)) {
                untouched(before, after, "I3: a retired process")?;
                ensure!(before.text_of_workers() == after.text_of_workers(), "I3: a retired process changed a worker");
            }
            return Ok(());
        };
        let known = before.jobs.get(&job_id).ok_or("a report on an unknown job")?;
        let lease = known.job.lease().filter(|lease| {
            (&lease.worker_id, lease.generation, known.job.attempt) == (&who.worker_id, who.generation, attempt)
        });
        let outcome = match call {
            Call::ReportOutcome(outcome) => Some(outcome),
            _ => None,
        };
        let in_grace = lease.is_some_and(|lease| lease.grace.is_some());
        let ends = outcome.is_some_and(|outcome| !matches!(outcome.report, Report::Release(_)));
        let may = lease.is_some_and(|lease| lease.grace.is_none() && living) || (in_grace && ends);
        let key = (job_id, attempt, who.clone());
        if may {
            ensure!(answer.is_ok(), "the holder of {job_id} was refused: {answer:?}");
            if let (Some(outcome), Ok(Answer::ReportOutcome(answer))) = (outcome, answer) {
                self.outcomes.insert(key, (Fingerprint::of(&outcome.report), *answer));
            }
            if matches!(call, Call::SideEffectsStarted(_)) {
                self.acted.insert((job_id, known.job.run));
            }
            return Ok(());
        }
        untouched(before, after, "I3: a report of somebody who does not hold the attempt")?;
        if let (Some(outcome), Ok(Answer::ReportOutcome(answer))) = (outcome, answer) {
            let first = self.outcomes.get(&key);
            let repeated =
                first.is_some_and(|(first, known)| *first == Fingerprint::of(&outcome.report) && known == answer);
            ensure!(repeated, "I3: an outcome of {job_id} was taken from somebody who does not hold it: {who:?}");
            return Ok(());
        }
        ensure!(answer.is_err(), "I3: a report of somebody was taken who does not hold {job_id}: {who:?}, {attempt}");
        Ok(())
    }

    /// One job for one key; none for another body.
    fn submitted(
        &mut self,
        before: &Seen,
        after: &Seen,
        submit: &Submit,
        answer: Result<&Answer, &Rejection>,
    ) -> Result<(), Failure> {
        let first = submit.idempotency_key.as_ref().and_then(|key| self.keys.get(key));
        match (first, answer) {
            (Some((fingerprint, _)), Err(Rejection::IdempotencyKeyReused)) if *fingerprint != submit.fingerprint => {}
            (Some((fingerprint, id)), Ok(Answer::Submit(answer))) if *fingerprint == submit.fingerprint => {
                ensure!(answer.duplicate && answer.job.id == *id, "one key made two jobs: {id} and {}", answer.job.id);
                untouched(before, after, "a submission that had been made before")?;
            }
            (None, Ok(Answer::Submit(answer))) => {
                ensure!(!answer.duplicate, "a first submission is called a duplicate");
                let id = answer.job.id;
                let stored = after.jobs.get(&id).map(|record| as_text(&record.job.spec));
                ensure!(
                    stored.as_deref() == Some(&*as_text(&submit.spec)),
                    "I1: {id} was accepted otherwise than stored"
                );
                self.accepted.insert(id);
                if let Some(key) = &submit.idempotency_key {
                    self.keys.insert(key.clone(), (submit.fingerprint, id));
                }
            }
            (first, answer) => return Err(format!("a submission whose key had {first:?} was answered {answer:?}")),
        }
        Ok(())
    }

    fn registered(&self, before: &Seen, after: &Seen, register: &Register, created: bool) -> Result<(), Failure> {
        let boot = (register.worker_id.clone(), register.boot_id.clone());
        let known = before.workers.get(&register.worker_id);
        if !created {
            let living = known.is_some_and(|view| view.worker.is_present() && view.worker.boot_id == register.boot_id);
            ensure!(living, "a process was called known that is not the living one: {boot:?}");
            return untouched(before, after, "a registration that was made before");
        }
        ensure!(!self.gone.contains(&boot), "I9: a deregistered process came back: {boot:?}");
        let view = after.workers.get(&register.worker_id).ok_or("a registered worker is not there")?;
        for name in names_of(&view.worker) {
            let held = self.held(before, name, after.now);
            ensure!(held.is_none(), "I9: {} registered although {name} is held by {held:?}", register.worker_id);
        }
        let generation = known.map_or(Generation::FIRST, |view| view.worker.generation.next());
        ensure!(view.worker.generation == generation, "generation {} instead of {generation}", view.worker.generation);
        Ok(())
    }

    fn deregistered(
        &mut self,
        before: &Seen,
        after: &Seen,
        deregister: &Deregister,
        answer: &DeregistrationAnswer,
    ) -> Result<(), Failure> {
        if answer.dry_run {
            untouched(before, after, "a dry run")?;
            ensure!(before.text_of_workers() == after.text_of_workers(), "a dry run changed a worker");
            return Ok(());
        }
        let id = answer.deregistration.id;
        if self.retirements.iter().any(|known| known.id == id) {
            return Ok(());
        }
        let name = deregister.selector.name();
        let workers = || before.workers.values().map(|view| view.worker.as_ref());
        let by_target = workers().any(|worker| worker.identity.target_worker_id.as_ref() == Some(name));
        let meant = |worker: &&Worker| match &deregister.selector {
            Selector::Target(_) if by_target => worker.identity.target_worker_id.as_ref() == Some(name),
            Selector::Target(_) => worker.id == *name,
            Selector::Instance(_) => worker.identity.ec2_instance_id.as_ref() == Some(name),
        };
        let there = |worker: &&Worker| !matches!(worker.state, WorkerState::Deregistered { .. });
        let retired: Vec<&Worker> = workers().filter(meant).filter(there).collect();
        let by_target = by_target && matches!(deregister.selector, Selector::Target(_));
        let names = retired.iter().map(|worker| worker.id.clone()).chain([name.clone()]).collect();
        let hold = deregister.hold.unwrap_or(Duration::from_secs(if by_target { 3600 } else { 0 }));
        self.gone.extend(retired.iter().map(|worker| (worker.id.clone(), worker.boot_id.clone())));
        self.retirements.push(Retirement { id, names, hold, lifted: false });
        Ok(())
    }

    /// I8: whoever held the attempt adds to the ledger, and of each call the greatest report counts.
    fn used(&mut self, before: &Seen, after: &Seen, report: &ReportUsage) -> Result<(), Failure> {
        let known = before.jobs.get(&report.job_id).ok_or("usage of an unknown job")?;
        let held = |attempt, worker_id: &WorkerId, generation| {
            (attempt, worker_id, generation) == (report.attempt, &report.who.worker_id, report.who.generation)
        };
        if !known.job.holdings.iter().any(|known| held(known.attempt, &known.worker_id, known.generation)) {
            return untouched(before, after, "I3: usage of somebody who never held the attempt");
        }
        let ledger = self.ledger.entry(report.job_id).or_default();
        for call in &report.calls {
            let greatest = (size(call), &**call.model() == "claude-haiku-4-5");
            let entry = ledger.entry((&**call.call_id()).into()).or_insert(greatest);
            if greatest.0 > entry.0 {
                *entry = greatest;
            }
        }
        Ok(())
    }

    /// I7: one request at a time, after all earlier ones are through, with the same bytes each time.
    fn leased(&mut self, after: &Seen, leased: &[LeasedDelivery]) -> Result<(), Failure> {
        for LeasedDelivery { job_id, lease_id, delivery_id, body, .. } in leased {
            let deliveries = after.jobs.get(job_id).map(|record| record.deliveries.as_ref()).unwrap_or_default();
            let earlier = deliveries.iter().take_while(|delivery| delivery.id != *delivery_id);
            let open = |state| matches!(state, DeliveryState::Pending | DeliveryState::Sending);
            ensure!(
                !earlier.into_iter().any(|delivery| open(delivery.state)),
                "I7: {job_id}: a callback overtook another"
            );
            let first = self.bodies.entry(*delivery_id).or_insert_with(|| body.clone());
            ensure!(first == body, "I7: {job_id}: a repeated callback has other bytes");
            let until = after.now + Duration::from_secs(30);
            let other = self.sending.insert(*job_id, (*lease_id, until));
            ensure!(other.is_none_or(|(_, until)| until <= after.now), "I7: {job_id}: two requests at a time");
        }
        Ok(())
    }

    fn settled(&mut self, before: &Seen, after: &Seen, settlement: &Settlement) -> Result<(), Failure> {
        let Settlement { job_id, lease_id, delivery_id, outcome, .. } = settlement;
        if self.sending.get(job_id).is_none_or(|(known, _)| known != lease_id) {
            return untouched(before, after, "I7: a settlement that came too late");
        }
        self.sending.remove(job_id);
        let mut deliveries = after.jobs.get(job_id).into_iter().flat_map(|record| record.deliveries.iter());
        let state = deliveries.find(|delivery| delivery.id == *delivery_id).map(|delivery| delivery.state);
        let taken = matches!(outcome, SendOutcome::Answered { status: 200, .. });
        ensure!(taken == (state == Some(DeliveryState::Delivered)), "I7: {outcome:?} made a callback {state:?}");
        Ok(())
    }
}

/// No job, no event and no callback changed.
fn untouched(before: &Seen, after: &Seen, who: &str) -> Result<(), Failure> {
    let (before, after) = (before.text_of_jobs(), after.text_of_jobs());
    let changed = || after.iter().find(|text| !before.contains(text));
    ensure!(before == after, "{who} changed something: {:?}", changed());
    Ok(())
}

fn names_of(worker: &Worker) -> impl Iterator<Item = &Name> {
    let identity = &worker.identity;
    [Some(&worker.id), identity.target_worker_id.as_ref(), identity.ec2_instance_id.as_ref()].into_iter().flatten()
}

fn as_text(spec: &JobSpec) -> String {
    serde_json::to_string(spec).unwrap_or_default()
}

/// What makes one report of a call greater than another.
const fn size(call: &CallReport) -> [u64; 4] {
    let usage = call.usage();
    [usage.input() + usage.cache_read() + usage.output(), usage.input(), usage.cache_read(), usage.output()]
}

/// A claim was answered with a job of its own.
fn claimed(after: &Seen, claim: &Claim, granted: &Granted) -> Result<(), Failure> {
    let lease = after.jobs.get(&granted.job.id).and_then(|record| record.job.live_lease());
    let his =
        lease.is_some_and(|lease| (&lease.worker_id, lease.generation) == (&claim.who.worker_id, claim.who.generation));
    ensure!(his, "a claim was answered with a job of somebody else: {lease:?}");
    Ok(())
}
