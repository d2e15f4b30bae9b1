//! Takes the steps of a history on a store, with nothing between the rules and the ports, and has the
//! [`Reference`] judge each.

use std::cmp::Reverse;
use std::fmt::{Debug, Write};
use std::sync::Arc;
use std::time::Duration;

use super::call::{Answer, Call};
use super::history::{Action, Boot, Course, From, News, Of, Said, Step};
use super::reference::{Cause, Reference};
use super::repetition::judge_repetition;
use super::requests::{heartbeat, machine_name, report, submit, target_name, usage, worker_index, worker_name};
use super::seen::{Record, Seen};
use crate::domain::callback::LeasedDelivery;
use crate::domain::changeset::Changeset;
use crate::domain::code::{Actor, ClientName};
use crate::domain::commands::{
    Cancel, Claim, ConnectionNews, Credential, Deregister, Drain, DrainWish, EventReport, Goodbye, Heartbeat, JobClaim,
    LiftHold, Register, ReportEvents, ReportOutcome, ReportUsage, Retry, Selector, SideEffectsStarted, Undrain,
};
use crate::domain::ids::{Attempt, ConnectionId, Generation, JobId, Name, ServerId};
use crate::domain::rejection::Rejection;
use crate::domain::rules::Rules;
use crate::domain::watch::Lookout;
use crate::domain::worker::{ConnectionKind, WorkerIdentity};
use crate::ports::callback_sender::{SendError, SendOutcome};
use crate::ports::clock::Clock;
use crate::ports::outbox::Settlement;
use crate::ports::store::{ClaimRequest, Dispatched, StoreError, SweepRequest};
use crate::testing::conformance::{Handle, TestBed};
use crate::testing::{ManualClock, name, rules};

/// Why a history failed.
pub(super) type Failure = String;

fn broken(error: StoreError) -> Failure {
    format!("the store failed: {error}, {error:?}")
}

/// A call that was decided and is not stored yet.
struct LateCall {
    call: Call,
    answer: Result<Answer, Rejection>,
    changes: Changeset,
}

/// A store with two handles, those who use it, and what they remember.
pub(super) struct Driver<B> {
    _bed: B,
    handles: [Handle; 2],
    clock: Arc<ManualClock>,
    rules: Rules,
    reference: Reference,
    seen: Seen,
    late: Option<LateCall>,
    on_their_way: Vec<LeasedDelivery>,
    /// Every process of each worker, the present one last: its boot, and its credential.
    processes: Vec<Vec<(Name, Credential)>>,
    streams: Vec<ConnectionId>,
    boots: u32,
    worker_seq: u64,
    /// How many calls were performed: every other one through the other handle.
    performed: usize,
    /// What happened, for people.
    pub(super) log: String,
}

impl<B: TestBed> Driver<B> {
    /// An empty store, on which two workers with a target of their own are there and listen; one has restarted before.
    pub(super) async fn new() -> Result<Self, Failure> {
        let clock = Arc::new(ManualClock::default());
        let bed = B::create(Arc::clone(&clock) as Arc<dyn Clock>).await;
        let handles = [bed.open().await, bed.open().await];
        let seen = Seen::look(handles[0].reader.as_ref(), std::iter::empty()).await.map_err(broken)?;
        let rules = rules();
        let streams = (0..3).map(|_| ConnectionId::new(rules.ids.uuid())).collect();
        let mut driver = Self {
            _bed: bed,
            handles,
            clock,
            rules,
            reference: Reference::default(),
            seen,
            late: None,
            on_their_way: Vec::new(),
            processes: vec![Vec::new(); 3],
            streams,
            boots: 0,
            worker_seq: 0,
            performed: 0,
            log: String::new(),
        };
        for worker in [0, 0, 1] {
            let register = Action::Register { worker, boot: Boot::New, target: Some(worker) };
            driver.step(&Step::Do(register, Course::Once)).await?;
            let listen = Action::Connection { worker, stale: false, news: News::Opens };
            driver.step(&Step::Do(listen, Course::Once)).await?;
        }
        Ok(driver)
    }

    /// Takes one step.
    ///
    /// # Errors
    ///
    /// What does not hold any more.
    pub(super) async fn step(&mut self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Do(action, course) => {
                if let Some(call) = self.meant(action) {
                    self.take_course(call, *course).await?;
                }
            }
            Step::LateArrives => self.late_arrives().await?,
            Step::Dispatch(claims) => self.dispatch(claims).await?,
            Step::Sweep => self.sweep().await?,
            Step::LeaseDue => {
                let leased = self.handles[1].outbox.lease_due(3, &self.rules).await.map_err(broken)?;
                self.note(&format_args!("leased {:?}", leased.iter().map(|lease| lease.job_id).collect::<Vec<_>>()));
                let before = self.look().await?;
                self.judge(&before, &Cause::Lease(&leased))?;
                self.on_their_way.extend(leased);
            }
            Step::Settle { nth, status } => self.settle(usize::from(*nth), *status).await?,
            Step::Pass { millis, beats } => self.pass(Duration::from_millis(u64::from(*millis)), *beats).await?,
        }
        Ok(())
    }

    fn note(&mut self, what: &dyn Debug) {
        // Writing to a string cannot fail.
        let _written = writeln!(self.log, "    {} {what:?}", self.clock.now());
    }

    /// Looks again; gives back what was seen before.
    async fn look(&mut self) -> Result<Seen, Failure> {
        let known = self.reference.deregistrations();
        let seen = Seen::look(self.handles[0].reader.as_ref(), known).await.map_err(broken)?;
        Ok(std::mem::replace(&mut self.seen, seen))
    }

    fn judge(&mut self, before: &Seen, cause: &Cause<'_>) -> Result<(), Failure> {
        self.reference.judge(before, &self.seen, cause)
    }

    async fn take_course(&mut self, call: Call, course: Course) -> Result<(), Failure> {
        if matches!(course, Course::Late | Course::AcrossDispatch) {
            let snapshot = self.handles[0].store.load(&call.keys()).await.map_err(broken)?;
            let (answer, changes) = call.decide(&snapshot, &self.rules);
            self.note(&format_args!("decided, late: {call:?}"));
            self.late = (!changes.is_empty()).then_some(LateCall { call, answer, changes });
            if course == Course::AcrossDispatch {
                self.dispatch(&[]).await?;
                self.late_arrives().await?;
            }
            return Ok(());
        }
        self.performed += 1;
        let handle = self.performed % 2;
        let first = self.perform(&call, handle).await?;
        let again = match course {
            Course::Once | Course::Late | Course::AcrossDispatch => return Ok(()),
            Course::Repeated => handle,
            Course::AnswerLost => 1 - handle,
        };
        let untouched = self.seen.text_of_jobs();
        let second = self.perform(&call, again).await?;
        let changed = untouched != self.seen.text_of_jobs();
        judge_repetition(&call, &first, &second, changed)
    }

    /// Decides and stores.
    async fn perform(&mut self, call: &Call, handle: usize) -> Result<Result<Answer, Rejection>, Failure> {
        let answer = self.decide_and_store(call, handle).await?;
        self.happened(call, &answer).await?;
        Ok(answer)
    }

    /// On what the handle remembers, where that can do, else on what it loads: as the application does.
    async fn decide_and_store(&self, call: &Call, handle: usize) -> Result<Result<Answer, Rejection>, Failure> {
        let store = self.handles[handle].store.as_ref();
        let recalled = store.recall(&call.keys());
        if let Some((answer, changes)) = recalled.and_then(|recalled| call.decide_recalled(&recalled, &self.rules))
            && store.commit(vec![changes], &self.rules).await.map_err(broken)? == [Ok(())]
        {
            return Ok(answer);
        }
        let snapshot = store.load(&call.keys()).await.map_err(broken)?;
        let (answer, changes) = call.decide(&snapshot, &self.rules);
        if !changes.is_empty() {
            let stored = store.commit(vec![changes], &self.rules).await.map_err(broken)?;
            if stored != [Ok(())] {
                return Err(format!("refused although nobody interfered: {call:?}"));
            }
        }
        Ok(answer)
    }

    /// A call was stored and answered.
    async fn happened(&mut self, call: &Call, answer: &Result<Answer, Rejection>) -> Result<(), Failure> {
        match answer {
            Ok(answer) => self.note(&format_args!("{call:?} → {}", brief(answer))),
            Err(rejection) => self.note(&format_args!("{call:?} → {}", rejection.code())),
        }
        if let (Call::Register(register), Ok(Answer::Register(registered))) = (call, answer)
            && let Some(index) = worker_index(&register.worker_id)
        {
            let process = (register.boot_id.clone(), registered.credential.clone());
            self.processes[index].retain(|known| *known != process);
            self.processes[index].push(process);
        }
        if let Ok(Answer::Deregister(answer)) = answer {
            self.reference.will_see(answer);
        }
        let before = self.look().await?;
        self.judge(&before, &Cause::Call(call, answer))
    }

    async fn late_arrives(&mut self) -> Result<(), Failure> {
        let Some(LateCall { call, answer, changes }) = self.late.take() else { return Ok(()) };
        let stored = self.handles[1].store.commit(vec![changes], &self.rules).await.map_err(broken)?;
        if stored == [Ok(())] {
            self.note(&"arrived late, and was stored:");
            return self.happened(&call, &answer).await;
        }
        self.note(&format_args!("arrived too late: {call:?}"));
        let before = self.look().await?;
        self.judge(&before, &Cause::Conflict)?;
        self.perform(&call, 1).await.map(drop)
    }

    async fn dispatch(&mut self, come: &[(u8, bool)]) -> Result<(), Failure> {
        let workers = self.seen.workers.keys().cloned().collect();
        let claims: Vec<Claim> = come.iter().map(|(worker, stale)| self.claim_of(*worker, *stale)).collect();
        let request = ClaimRequest { workers, claims: claims.clone() };
        let Dispatched { committed, answers } =
            self.handles[1].store.claim(request, &self.rules).await.map_err(broken)?;
        let jobs = committed.iter().flat_map(Changeset::jobs);
        let granted: Vec<_> = jobs.map(|write| (write.job.id, write.job.occupies())).collect();
        self.note(&format_args!("granted {granted:?}; {claims:?} → {answers:?}"));
        let before = self.look().await?;
        self.judge(&before, &Cause::Dispatch(&committed, &claims, &answers))
    }

    async fn sweep(&mut self) -> Result<(), Failure> {
        loop {
            let lookout = Lookout::by_hand(ServerId::new(uuid::Uuid::nil()));
            let sight = self.handles[0].store.watch(lookout, &self.rules).await.map_err(broken)?.sight;
            let request = SweepRequest { limit: 100, sight };
            let swept = self.handles[0].store.sweep(request, &self.rules).await.map_err(broken)?;
            self.note(&format_args!("swept {}", swept.committed.len()));
            let before = self.look().await?;
            self.judge(&before, &Cause::Sweep)?;
            if !swept.more || swept.committed.is_empty() {
                return Ok(());
            }
        }
    }

    async fn settle(&mut self, nth: usize, status: u16) -> Result<(), Failure> {
        if self.on_their_way.is_empty() {
            return Ok(());
        }
        let LeasedDelivery { job_id, lease_id, delivery_id, .. } =
            self.on_their_way.remove(nth % self.on_their_way.len());
        let took = Duration::from_millis(3);
        let outcome = match status {
            0 => SendOutcome::Unanswered { error: SendError::Timeout, took },
            status => SendOutcome::Answered { status, retry_after: None, excerpt: String::new(), took },
        };
        let settlement = Settlement { job_id, lease_id, delivery_id, outcome, jitter: 0.5 };
        self.note(&format_args!("settled {job_id} with {status}"));
        self.handles[1].outbox.settle(vec![settlement.clone()], &self.rules).await.map_err(broken)?;
        let before = self.look().await?;
        self.judge(&before, &Cause::Settle(&settlement))
    }

    async fn pass(&mut self, mut time: Duration, beats: bool) -> Result<(), Failure> {
        while !time.is_zero() {
            let moment = if beats { time.min(self.rules.policy.heartbeat_interval) } else { time };
            self.clock.advance(moment);
            time -= moment;
            for worker in 0..3 {
                if let Some((_, who)) = self.processes[worker].last().filter(|_| beats) {
                    let call = Call::Heartbeat(heartbeat(who.clone()));
                    // Only to live: whatever else it may bring about is judged with the next step.
                    let _answer = self.decide_and_store(&call, worker % 2).await?;
                }
            }
        }
        self.note(&if beats { "later, all alive" } else { "later" });
        let before = self.look().await?;
        self.judge(&before, &Cause::Time)
    }

    /// The call that an action means here and now; none where there is nothing to act on.
    fn meant(&mut self, action: &Action) -> Option<Call> {
        let client = || Actor::Client(ClientName::new("valet"));
        Some(match action {
            Action::Submit(order) => Call::Submit(submit(order)?),
            Action::Cancel { job } => {
                let job_id = self.job(*job, |record| record.job.ending().is_some())?.job.id;
                Call::Cancel(Cancel { job_id, actor: client(), reason: None })
            }
            Action::Retry { job, checked, run } => {
                let job = Arc::clone(&self.job(*job, |record| record.job.ending().is_none())?.job);
                let run = run.map(|right| if right { job.run } else { job.run + 1 });
                let routing = job.spec.routing.clone();
                Call::Retry(Retry { job_id: job.id, routing, actor: client(), run, side_effects_checked: *checked })
            }
            Action::Register { worker, boot, target } => Call::Register(self.register(*worker, *boot, *target)),
            Action::Claim { worker, stale } => Call::Claim(self.claim_of(*worker, *stale)),
            Action::Connection { worker, stale, news } => Call::ConnectionNews(ConnectionNews {
                who: self.process(*worker, *stale),
                connection: self.streams[usize::from(*worker)],
                kind: ConnectionKind::Stream,
                open_for: matches!(news, News::Opens).then_some(Duration::from_secs(3600)),
                broken: matches!(news, News::Breaks),
            }),
            Action::Heartbeat { worker, stale, job, acknowledge, drain } => {
                let who = self.process(*worker, *stale);
                let view = self.seen.workers.get(&who.worker_id);
                let held = view.and_then(|view| view.live_job());
                let job = match job {
                    Said::Nothing => JobClaim::Silent,
                    Said::NoJob => JobClaim::None,
                    Said::Held => held.map_or(JobClaim::None, JobClaim::Job),
                    Said::Another => JobClaim::Job(self.job(1, |record| Some(record.job.id) == held)?.job.id),
                };
                let directives = view.map(|view| view.worker.directives.as_slice()).unwrap_or_default();
                let acknowledged = directives.iter().filter(|_| *acknowledge).map(|directive| directive.id).collect();
                let drain = match drain {
                    None => DrainWish::Silent,
                    Some(false) => DrainWish::Undo,
                    Some(true) => DrainWish::Drain { reason: "deploy".into(), timeout: None },
                };
                Call::Heartbeat(Heartbeat { job, acknowledged, drain, ..heartbeat(who) })
            }
            Action::Events { job, from, count } => {
                let (who, job_id, attempt) = self.reporter(*job, *from)?;
                let events = (0..*count).map(|_| self.event()).collect();
                Call::ReportEvents(ReportEvents { who, job_id, attempt, events })
            }
            Action::SideEffects { job, from } => {
                let (who, job_id, attempt) = self.reporter(*job, *from)?;
                Call::SideEffectsStarted(SideEffectsStarted { who, job_id, attempt, what: None })
            }
            Action::Usage { job, from, calls } => {
                let (who, job_id, attempt) = self.reporter(*job, *from)?;
                let calls = calls.iter().filter_map(|tokens| usage(*tokens)).collect();
                Call::ReportUsage(ReportUsage { who, job_id, attempt, calls })
            }
            Action::Outcome { job, from, ends } => {
                let (who, job_id, attempt) = self.reporter(*job, *from)?;
                Call::ReportOutcome(ReportOutcome { who, job_id, attempt, report: report(*ends)? })
            }
            Action::Goodbye { worker, stale } => {
                Call::Goodbye(Goodbye { who: self.process(*worker, *stale), reason: "shutdown".into() })
            }
            Action::Drain { worker, timeout } => Call::Drain(Drain {
                worker_id: worker_name(*worker),
                actor: client(),
                reason: "deploy".into(),
                timeout: timeout.map(|seconds| Duration::from_secs(u64::from(seconds))),
            }),
            Action::Undrain { worker } => Call::Undrain(Undrain { worker_id: worker_name(*worker) }),
            Action::Deregister { of, cancel, drain, hold, dry_run } => Call::Deregister(Deregister {
                selector: match of {
                    Of::Target(target) => Selector::Target(target_name(*target)),
                    Of::Machine(machine) => Selector::Instance(machine_name(*machine)),
                },
                actor: client(),
                reason: "sandbox_terminated".into(),
                cancel_active_jobs: *cancel,
                drain_timeout: drain.map(|seconds| Duration::from_secs(u64::from(seconds))),
                hold: hold.map(|seconds| Duration::from_secs(u64::from(seconds))),
                dry_run: *dry_run,
            }),
            Action::LiftHold { of } => Call::LiftHold(LiftHold {
                name: match of {
                    Of::Target(target) => target_name(*target),
                    Of::Machine(machine) => machine_name(*machine),
                },
            }),
        })
    }

    /// The nth job: first those that do not have to come last, the newest first.
    fn job(&self, nth: u8, last: impl Fn(&Record) -> bool) -> Option<&Record> {
        let mut jobs: Vec<&Record> = self.seen.jobs.values().collect();
        jobs.sort_by_key(|record| (last(record), Reverse(record.job.id)));
        let count = jobs.len().max(1);
        jobs.get(usize::from(nth) % count).copied()
    }

    /// Who reports on which attempt of the nth job that somebody has, or had.
    fn reporter(&self, nth: u8, from: From) -> Option<(Credential, JobId, Attempt)> {
        let mut jobs: Vec<&Record> = self.seen.jobs.values().filter(|record| !record.job.holdings.is_empty()).collect();
        jobs.sort_by_key(|record| (record.job.lease().is_none(), Reverse(record.job.id)));
        let job = &jobs.get(usize::from(nth) % jobs.len().max(1))?.job;
        let holding = job.holdings.last()?;
        let mut who = Credential { worker_id: holding.worker_id.clone(), generation: holding.generation };
        let mut attempt = holding.attempt;
        match from {
            From::Holder => {}
            From::EarlierAttempt => attempt = Attempt(attempt.0.checked_sub(1).filter(|earlier| *earlier > 0)?),
            From::EarlierGeneration => {
                who.generation = Generation(who.generation.0.checked_sub(1).filter(|earlier| *earlier > 0)?);
            }
            From::LaterGeneration => who.generation = who.generation.next(),
            From::AnotherWorker => {
                let index = worker_index(&who.worker_id)?;
                who = self.processes[(index + 1) % 3].last()?.1.clone();
            }
        }
        Some((who, job.id, attempt))
    }

    /// What a worker's process calls with; that of the process before when stale.
    fn process(&self, worker: u8, stale: bool) -> Credential {
        let known = &self.processes[usize::from(worker)];
        let index = if stale { known.len().checked_sub(2) } else { known.len().checked_sub(1) };
        let unknown = Credential { worker_id: worker_name(worker), generation: Generation::FIRST };
        index.map_or(unknown, |index| known[index].1.clone())
    }

    fn claim_of(&self, worker: u8, stale: bool) -> Claim {
        Claim {
            who: self.process(worker, stale),
            connection: ConnectionId::new(self.rules.ids.uuid()),
            wait: Duration::from_secs(30),
            waited: false,
        }
    }

    fn register(&mut self, worker: u8, boot: Boot, target: Option<u8>) -> Register {
        let known = &self.processes[usize::from(worker)];
        let boot_id = match boot {
            Boot::Same => known.last().map(|(boot, _)| boot.clone()),
            Boot::First => known.first().map(|(boot, _)| boot.clone()),
            Boot::New => None,
        };
        let boot_id = boot_id.unwrap_or_else(|| {
            self.boots += 1;
            name(&format!("boot-{}", self.boots))
        });
        let identity = WorkerIdentity {
            target_worker_id: target.map(target_name),
            ec2_instance_id: Some(machine_name(worker % 2)),
            ..WorkerIdentity::default()
        };
        Register { worker_id: worker_name(worker), boot_id, identity, metadata: None }
    }

    fn event(&mut self) -> EventReport {
        self.worker_seq += 1;
        EventReport {
            event_type: "step_completed".into(),
            message: None,
            metadata: None,
            occurred_at: None,
            worker_seq: Some(self.worker_seq),
        }
    }
}

fn brief(answer: &Answer) -> String {
    match answer {
        Answer::Submit(answer) => {
            format!("{} {:?}, duplicate: {}", answer.job.id, answer.job.state, answer.duplicate)
        }
        Answer::Cancel(job) | Answer::Retry(job) => format!("{:?}", job.state),
        answer => format!("{answer:?}"),
    }
}
