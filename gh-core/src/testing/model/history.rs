//! Histories: what is done, in which order, with which faults. Things are named by small numbers, which are read where
//! the history has come to, so that every part of a history is one, too: that is what makes shrinking work.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof};
use proptest_state_machine::ReferenceStateMachine;

/// One step of a history.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Somebody calls.
    Do(Action, Course),
    /// The call that is [late](Course::Late) arrives, through another handle; a conflict decides anew.
    LateArrives,
    /// Waiting jobs are granted; claims of these workers, maybe of stale processes, have just come and are taken along.
    Dispatch(Vec<(u8, bool)>),
    /// Deadlines are applied.
    Sweep,
    /// A sender takes what is due.
    LeaseDue,
    /// A receiver has answered a callback on its way with this status; with 0 it has not.
    Settle { nth: u8, status: u16 },
    /// Time passes; with `beats` all workers say in between that they live.
    Pass { millis: u32, beats: bool },
}

/// How a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// As it should.
    Once,
    /// The caller repeats it.
    Repeated,
    /// The answer is lost, and the caller repeats it through another handle.
    AnswerLost,
    /// It is decided now, but stored only when it [arrives](Step::LateArrives).
    Late,
    /// Between its decision and its commit waiting jobs are granted.
    AcrossDispatch,
}

/// A call. Numbers name workers (0 to 2), targets, and jobs (0 is the one that the call concerns most).
#[derive(Clone, Debug)]
pub(super) enum Action {
    Submit(Order),
    Cancel { job: u8 },
    Retry { job: u8, checked: bool, run: Option<bool> },
    Register { worker: u8, boot: Boot, target: Option<u8> },
    Claim { worker: u8, stale: bool },
    Connection { worker: u8, stale: bool, news: News },
    Heartbeat { worker: u8, stale: bool, job: Said, acknowledge: bool, drain: Option<bool> },
    Events { job: u8, from: From, count: u8 },
    SideEffects { job: u8, from: From },
    Usage { job: u8, from: From, calls: Vec<Tokens> },
    Outcome { job: u8, from: From, ends: Ends },
    Goodbye { worker: u8, stale: bool },
    Drain { worker: u8, timeout: Option<u8> },
    Undrain { worker: u8 },
    Deregister { of: Of, cancel: bool, drain: Option<u8>, hold: Option<u8>, dry_run: bool },
    LiftHold { of: Of },
}

/// What a submission says.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) key: Option<u8>,
    pub(super) wish: Wish,
    pub(super) waits: bool,
    pub(super) expires: bool,
    pub(super) attempts: u8,
    pub(super) budget: bool,
    pub(super) callback: bool,
}

/// For whom a job is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    Anyone,
    Only(u8),
    First(u8),
}

/// Which process registers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Boot {
    Same,
    New,
    First,
}

/// What becomes of a worker's stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    Opens,
    Closes,
    Breaks,
}

/// What a heartbeat says of a job.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    Nothing,
    NoJob,
    Held,
    Another,
}

/// Who reports on an attempt, and on which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// Whoever had the job last, on its last attempt.
    Holder,
    /// The same on the attempt before.
    EarlierAttempt,
    /// The process that had the holder's name before.
    EarlierGeneration,
    /// The process that has the holder's name after it.
    LaterGeneration,
    /// The present process of another worker.
    AnotherWorker,
}

/// One LLM call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens {
    pub(super) call: u8,
    pub(super) input: u8,
    pub(super) cache_read: u8,
    pub(super) output: u8,
    pub(super) priced: bool,
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    Completed,
    CompletedWithCallsOpen,
    FailedRetryable,
    Failed,
    Released,
}

/// Whom a deregistration or a hold is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    Target(u8),
    Machine(u8),
}

/// Generates histories. They need no state: what a step means is found out when it is taken.
#[derive(Debug)]
pub(super) struct Histories;

impl ReferenceStateMachine for Histories {
    type State = ();
    type Transition = Step;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Step> {
        step()
    }

    fn apply((): (), _: &Step) {}
}

fn step() -> BoxedStrategy<Step> {
    let status = prop_oneof![5 => Just(200), 2 => Just(500), 1 => Just(400), 1 => Just(0)];
    prop_oneof![
        56 => (action(), course()).prop_map(|(action, course)| Step::Do(action, course)),
        10 => Just(Step::LateArrives),
        14 => vec((0..3_u8, prop_oneof![7 => Just(false), 1 => Just(true)]), 0..3).prop_map(Step::Dispatch),
        6 => Just(Step::Sweep),
        6 => Just(Step::LeaseDue),
        6 => (0..3_u8, status).prop_map(|(nth, status)| Step::Settle { nth, status }),
        8 => pass(),
    ]
    .boxed()
}

fn pass() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..5_000_u32).prop_map(|millis| Step::Pass { millis, beats: false }),
        3 => (5_000..60_000_u32).prop_map(|millis| Step::Pass { millis, beats: true }),
        1 => (20_000..30_000_u32).prop_map(|millis| Step::Pass { millis, beats: false }),
        1 => (300_000..700_000_u32).prop_map(|millis| Step::Pass { millis, beats: true }),
    ]
}

fn course() -> impl Strategy<Value = Course> {
    prop_oneof![
        5 => Just(Course::Once),
        1 => Just(Course::Repeated),
        2 => Just(Course::AnswerLost),
        2 => Just(Course::Late),
        2 => Just(Course::AcrossDispatch),
    ]
}

fn action() -> BoxedStrategy<Action> {
    let worker = || 0..3_u8;
    let job = || prop_oneof![6 => Just(0), 2 => Just(1), 1 => 2..5_u8];
    let stale = || prop_oneof![7 => Just(false), 1 => Just(true)];
    let seconds = || option::of(prop_oneof![Just(0_u8), Just(5), Just(60)]);
    let register = (worker(), boot(), option::weighted(0.7, 0..2_u8));
    let beat = (worker(), stale(), said(), any::<bool>(), option::weighted(0.1, any::<bool>()));
    let deregister = (of(), any::<bool>(), seconds(), seconds(), option::weighted(0.1, Just(())));
    let retry = (job(), any::<bool>(), option::weighted(0.3, any::<bool>()));
    prop_oneof![
        16 => order().prop_map(Action::Submit),
        4 => job().prop_map(|job| Action::Cancel { job }),
        5 => retry.prop_map(|(job, checked, run)| Action::Retry { job, checked, run }),
        8 => register.prop_map(|(worker, boot, target)| Action::Register { worker, boot, target }),
        12 => (worker(), stale()).prop_map(|(worker, stale)| Action::Claim { worker, stale }),
        5 => (worker(), stale(), news()).prop_map(|(worker, stale, news)| Action::Connection { worker, stale, news }),
        8 => beat.prop_map(|(worker, stale, job, acknowledge, drain)| {
            Action::Heartbeat { worker, stale, job, acknowledge, drain }
        }),
        8 => (job(), from(), 1..3_u8).prop_map(|(job, from, count)| Action::Events { job, from, count }),
        5 => (job(), from()).prop_map(|(job, from)| Action::SideEffects { job, from }),
        10 => (job(), from(), vec(tokens(), 1..4)).prop_map(|(job, from, calls)| Action::Usage { job, from, calls }),
        14 => (job(), from(), ends()).prop_map(|(job, from, ends)| Action::Outcome { job, from, ends }),
        2 => (worker(), stale()).prop_map(|(worker, stale)| Action::Goodbye { worker, stale }),
        3 => (worker(), seconds()).prop_map(|(worker, timeout)| Action::Drain { worker, timeout }),
        2 => worker().prop_map(|worker| Action::Undrain { worker }),
        5 => deregister.prop_map(|(of, cancel, drain, hold, dry)| {
            Action::Deregister { of, cancel, drain, hold, dry_run: dry.is_some() }
        }),
        2 => of().prop_map(|of| Action::LiftHold { of }),
    ]
    .boxed()
}

fn order() -> impl Strategy<Value = Order> {
    let wish =
        prop_oneof![3 => Just(Wish::Anyone), 3 => (0..4_u8).prop_map(Wish::Only), 2 => (0..4_u8).prop_map(Wish::First)];
    let rarely = || prop_oneof![4 => Just(false), 1 => Just(true)];
    (option::of(0..3_u8), wish, any::<bool>(), rarely(), 1..4_u8, rarely(), any::<bool>()).prop_map(
        |(key, wish, waits, expires, attempts, budget, callback)| Order {
            key,
            wish,
            waits,
            expires,
            attempts,
            budget,
            callback,
        },
    )
}

fn boot() -> impl Strategy<Value = Boot> {
    prop_oneof![3 => Just(Boot::New), 2 => Just(Boot::Same), 1 => Just(Boot::First)]
}

fn news() -> impl Strategy<Value = News> {
    prop_oneof![4 => Just(News::Opens), 1 => Just(News::Closes), 1 => Just(News::Breaks)]
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![3 => Just(Said::Nothing), 2 => Just(Said::NoJob), 4 => Just(Said::Held), 1 => Just(Said::Another)]
}

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        7 => Just(From::Holder),
        1 => Just(From::EarlierAttempt),
        1 => Just(From::EarlierGeneration),
        1 => Just(From::LaterGeneration),
        1 => Just(From::AnotherWorker),
    ]
}

fn tokens() -> impl Strategy<Value = Tokens> {
    let priced = prop_oneof![6 => Just(true), 1 => Just(false)];
    (0..3_u8, 0..9_u8, 0..3_u8, 0..9_u8, priced).prop_map(|(call, input, cache_read, output, priced)| Tokens {
        call,
        input,
        cache_read,
        output,
        priced,
    })
}

fn ends() -> impl Strategy<Value = Ends> {
    prop_oneof![
        3 => Just(Ends::Completed),
        1 => Just(Ends::CompletedWithCallsOpen),
        3 => Just(Ends::FailedRetryable),
        1 => Just(Ends::Failed),
        1 => Just(Ends::Released),
    ]
}

fn of() -> impl Strategy<Value = Of> {
    prop_oneof![4 => (0..4_u8).prop_map(Of::Target), 1 => (0..2_u8).prop_map(Of::Machine)]
}
