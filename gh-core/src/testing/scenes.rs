//! Every state of a job, and every command of its life, as lists: what a page shows and what a store is judged by.
//!
//! Nothing here stores or decides anything. A stage (aggregates in maps, or somebody's store) puts a [`Cast`] into a
//! state by performing its [`Act`]s one after the other, and then those of a command.

#![expect(clippy::unwrap_used, reason = "what is written here is valid")]

use std::time::Duration;

use uuid::Uuid;

use crate::domain::affinity::Routing;
use crate::domain::code::{Actor, ClientName, ErrorCode};
use crate::domain::commands::{
    Cancel, Claim, Command, Credential, Deregister, Draft, Drain, DrainWish, EventReport, FailureReport, Goodbye,
    Heartbeat, JobClaim, JobLeft, Register, Report, ReportEvents, ReportOutcome, ReportUsage, Retry, Selector,
    SideEffectsStarted, UsageClosing,
};
use crate::domain::cost::{CallReport, ReportedCall, UsageCounts};

use crate::domain::ids::{Attempt, ConnectionId, JobId, Name};
use crate::domain::job::Completion;
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;
use crate::domain::submission::SubmissionRequest;
use crate::domain::worker::{Beat, WorkerIdentity};
use crate::testing::{name, submission_to};

/// A command whose answer nobody reads, so that commands of all kinds fit into one list.
pub type Wish = Box<dyn Command<Answer = ()>>;

/// Makes a command one of a list.
pub fn wish(command: impl Command + 'static) -> Wish {
    struct Unread<C>(C);

    impl<C: Command> Command for Unread<C> {
        type Answer = ();

        fn keys(&self) -> Keys {
            self.0.keys()
        }

        fn decide(&self, draft: &mut Draft<'_>) -> Result<(), Rejection> {
            self.0.decide(draft).map(drop)
        }
    }

    Box::new(Unread(command))
}

/// One thing that happens on a stage.
#[expect(missing_debug_implementations, reason = "a command need not be printable")]
pub enum Act {
    /// Somebody wants something.
    Run(Wish),
    /// Time passes, in seconds, and nothing else happens.
    Pass(u64),
    /// Whatever is over is applied, in as many rounds as it takes.
    Sweep,
    /// The worker is heard from and waits for a job from now on, if it is still there.
    Listen,
    /// A second worker comes, without a target, and waits for a job.
    Newcomer,
    /// Waiting jobs are granted to both workers, as far as they wait.
    Dispatch,
}

/// A job for one target, and the worker that has, had or may have it.
#[derive(Clone, Debug)]
pub struct Cast {
    /// The target.
    pub target: Name,
    /// The job.
    pub job_id: JobId,
    /// The worker's first process.
    pub who: Credential,
}

/// A state that a job can be in, and how it comes there.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// What it is called.
    pub name: &'static str,
    /// How many attempts the job has.
    pub max_attempts: i64,
    /// What happens after the worker came and the job was submitted, which is then reserved for it.
    pub acts: fn(&Cast) -> Vec<Act>,
}

/// A command of a job's life, or time that passes.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is called.
    pub title: &'static str,
    /// What it means.
    pub sentence: &'static str,
    /// What happens first and is not what the case is about.
    pub before: fn(&Cast) -> Vec<Act>,
    /// What it is about.
    pub acts: fn(&Cast) -> Vec<Act>,
}

/// The states that commands lead into, in the order of a job's life.
pub const STATES: &[State] = &[
    State { name: "pending", max_attempts: 3, acts: |_| vec![Act::Pass(11), Act::Sweep, Act::Listen] },
    State { name: "queued", max_attempts: 3, acts: |_| Vec::new() },
    State { name: "running, not started", max_attempts: 3, acts: |cast| vec![Act::Run(wish(cast.claim()))] },
    State { name: "running", max_attempts: 3, acts: Cast::running },
    State { name: "running, last attempt", max_attempts: 1, acts: Cast::running },
    State {
        name: "running, past the point of no return",
        max_attempts: 3,
        acts: |cast| cast.running_and([Act::Run(wish(cast.side_effects()))]),
    },
    State {
        name: "in grace",
        max_attempts: 3,
        acts: |cast| cast.running_and([Act::Run(wish(cast.side_effects())), Act::Pass(21), Act::Sweep]),
    },
    State {
        name: "completed",
        max_attempts: 3,
        acts: |cast| cast.running_and([Act::Run(wish(cast.outcome(complete())))]),
    },
    State {
        name: "failed",
        max_attempts: 3,
        acts: |cast| cast.running_and([Act::Run(wish(cast.outcome(fail(false))))]),
    },
    State { name: "cancelled", max_attempts: 3, acts: |cast| cast.running_and([Act::Run(wish(cast.cancel()))]) },
    State {
        name: "expired",
        max_attempts: 3,
        acts: |_| vec![Act::Pass(11), Act::Sweep, Act::Listen, Act::Pass(3600), Act::Sweep],
    },
];

const fn nothing(_: &Cast) -> Vec<Act> {
    Vec::new()
}

/// Every command of a job's life.
pub const CASES: &[Case] = &[
    Case {
        title: "cancel",
        sentence: "A client ends the job.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.cancel()))],
    },
    Case {
        title: "retry",
        sentence: "A client opens a new run.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.retry(false)))],
    },
    Case {
        title: "retry, 20 s later",
        sentence: "The self-fence of a worker that had it has passed.",
        before: |_| vec![Act::Pass(20)],
        acts: |cast| vec![Act::Run(wish(cast.retry(false)))],
    },
    Case {
        title: "retry, side_effects_checked",
        sentence: "A client says that it has looked.",
        before: |_| vec![Act::Pass(20)],
        acts: |cast| vec![Act::Run(wish(cast.retry(true)))],
    },
    Case {
        title: "claim",
        sentence: "Its worker asks for a job.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.claim()))],
    },
    Case {
        title: "dispatch",
        sentence: "Waiting jobs are granted to a second worker that waits.",
        before: |_| vec![Act::Newcomer],
        acts: |_| vec![Act::Dispatch],
    },
    Case {
        title: "events",
        sentence: "Its worker reports a step.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.events()))],
    },
    Case {
        title: "usage",
        sentence: "Its worker reports an LLM call.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.usage()))],
    },
    Case {
        title: "side-effects-started",
        sentence: "Its worker is about to do what must not happen twice.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.side_effects()))],
    },
    Case {
        title: "complete",
        sentence: "Its worker says that it is done.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.outcome(complete())))],
    },
    Case {
        title: "complete, again",
        sentence: "The same report once more: its answer was lost.",
        before: |cast| vec![Act::Run(wish(cast.outcome(complete())))],
        acts: |cast| vec![Act::Run(wish(cast.outcome(complete())))],
    },
    Case {
        title: "fail, retryable",
        sentence: "Its worker says that another attempt may help.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.outcome(fail(true))))],
    },
    Case {
        title: "fail",
        sentence: "Its worker says that it cannot be done.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.outcome(fail(false))))],
    },
    Case {
        title: "release",
        sentence: "Its worker gives it back, since it shuts down.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.outcome(Report::Release(JobLeft { reason: "deploy".into() }))))],
    },
    Case {
        title: "heartbeat that names the job",
        sentence: "Its worker says that it has it.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.heartbeat(JobClaim::Job(cast.job_id))))],
    },
    Case {
        title: "two heartbeats without a job",
        sentence: "Its worker says twice that it has none.",
        before: nothing,
        acts: |cast| {
            let beat = || Act::Run(wish(cast.heartbeat(JobClaim::None)));
            vec![beat(), beat()]
        },
    },
    Case {
        title: "register, same boot",
        sentence: "The living process registers again.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.registration("boot-1")))],
    },
    Case {
        title: "register, new boot",
        sentence: "Its worker was restarted.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.registration("boot-2")))],
    },
    Case {
        title: "goodbye",
        sentence: "Its worker shuts down.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(Goodbye { who: cast.who.clone(), reason: "deploy".into() }))],
    },
    Case {
        title: "drain",
        sentence: "A client tells its worker to take no more jobs.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.drain(None)))],
    },
    Case {
        title: "drain, deadline over",
        sentence: "The same with 30 s, which pass.",
        before: |cast| vec![Act::Run(wish(cast.drain(Some(30)))), Act::Pass(31), Act::Listen],
        acts: |_| vec![Act::Sweep],
    },
    Case {
        title: "deregister, cancelling",
        sentence: "A client retires the workers of the target and cancels their jobs.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.deregister(true, 30)))],
    },
    Case {
        title: "deregister, draining",
        sentence: "The same, but running jobs may finish.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.deregister(false, 300)))],
    },
    Case {
        title: "deregister, at once",
        sentence: "The same, without any time to finish.",
        before: nothing,
        acts: |cast| vec![Act::Run(wish(cast.deregister(false, 0)))],
    },
    Case {
        title: "1 s passes",
        sentence: "Nothing is over.",
        before: |_| vec![Act::Pass(1), Act::Listen],
        acts: |_| vec![Act::Sweep],
    },
    Case {
        title: "11 s pass",
        sentence: "A reservation is over.",
        before: |_| vec![Act::Pass(11), Act::Listen],
        acts: |_| vec![Act::Sweep],
    },
    Case {
        title: "21 s pass in silence",
        sentence: "Its worker is given up.",
        before: |_| vec![Act::Pass(21)],
        acts: |_| vec![Act::Sweep],
    },
    Case {
        title: "301 s pass",
        sentence: "The attempt's time is over, or the grace of a lost worker.",
        before: |_| vec![Act::Pass(301), Act::Listen],
        acts: |_| vec![Act::Sweep],
    },
    Case {
        title: "3,700 s pass",
        sentence: "Everything is over.",
        before: |_| vec![Act::Pass(3700), Act::Listen],
        acts: |_| vec![Act::Sweep],
    },
];

impl State {
    /// The state of this name.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match STATES.iter().find(|state| state.name == name) {
            Some(state) => *state,
            None => panic!("no command leads into a state {name:?}"),
        }
    }

    /// The submission of a job that shall come into this state.
    #[must_use]
    pub fn submission(&self, target: &Name) -> SubmissionRequest {
        SubmissionRequest {
            max_attempts: Some(self.max_attempts),
            expires_in_seconds: Some(3600),
            ..submission_to(target.as_str(), "preferred")
        }
    }
}

/// The first registration of the worker of this target.
#[must_use]
pub fn registration(worker_id: &Name, target: &Name, boot: &str) -> Register {
    let identity = WorkerIdentity { target_worker_id: Some(target.clone()), ..WorkerIdentity::default() };
    Register { worker_id: worker_id.clone(), boot_id: name(boot), identity, metadata: None }
}

/// The client.
#[must_use]
pub fn client() -> Actor {
    Actor::Client(ClientName::new("valet"))
}

fn complete() -> Report {
    let completion = Completion { result_summary: Some("Application submitted".into()), ..Completion::default() };
    Report::Complete(completion, UsageClosing::default())
}

fn fail(retryable: bool) -> Report {
    let failure = FailureReport {
        error_code: ErrorCode::parse("network_error").unwrap(),
        error_message: "the page did not load".into(),
        retryable,
    };
    Report::Fail(failure, UsageClosing::default())
}

impl Cast {
    fn running(&self) -> Vec<Act> {
        vec![Act::Run(wish(self.claim())), Act::Run(wish(self.heartbeat(JobClaim::Job(self.job_id))))]
    }

    fn running_and(&self, more: impl IntoIterator<Item = Act>) -> Vec<Act> {
        self.running().into_iter().chain(more).collect()
    }

    /// Its worker's process says that it is there.
    #[must_use]
    pub fn registration(&self, boot: &str) -> Register {
        registration(&self.who.worker_id, &self.target, boot)
    }

    /// Its worker asks for a job and does not wait.
    #[must_use]
    pub fn claim(&self) -> Claim {
        Claim { who: self.who.clone(), connection: ConnectionId::new(Uuid::nil()), wait: Duration::ZERO, waited: false }
    }

    fn heartbeat(&self, job: JobClaim) -> Heartbeat {
        Heartbeat {
            who: self.who.clone(),
            beat: Beat::default(),
            job,
            drain: DrainWish::Silent,
            acknowledged: Vec::new(),
        }
    }

    fn side_effects(&self) -> SideEffectsStarted {
        SideEffectsStarted { who: self.who.clone(), job_id: self.job_id, attempt: Attempt::FIRST, what: None }
    }

    fn outcome(&self, report: Report) -> ReportOutcome {
        ReportOutcome { who: self.who.clone(), job_id: self.job_id, attempt: Attempt::FIRST, report }
    }

    /// A client ends the job.
    #[must_use]
    pub fn cancel(&self) -> Cancel {
        Cancel { job_id: self.job_id, actor: client(), reason: None }
    }

    fn retry(&self, side_effects_checked: bool) -> Retry {
        let routing = Routing::Preferred { target: self.target.clone(), wait: Duration::ZERO };
        Retry { job_id: self.job_id, routing, actor: client(), run: None, side_effects_checked }
    }

    fn events(&self) -> ReportEvents {
        let event = EventReport {
            event_type: "step_started".into(),
            message: None,
            metadata: None,
            occurred_at: None,
            worker_seq: None,
        };
        ReportEvents { who: self.who.clone(), job_id: self.job_id, attempt: Attempt::FIRST, events: vec![event] }
    }

    fn usage(&self) -> ReportUsage {
        let call = ReportedCall {
            call_id: "c1".into(),
            provider: "anthropic".into(),
            model: "claude-haiku-4-5-20251001".into(),
            usage: UsageCounts { input: Some(2100.into()), output: Some(1130.into()), ..UsageCounts::default() },
            occurred_at: None,
            service_tier: None,
            inference_geo: None,
            speed: None,
            web_searches: None,
            claimed_cost_usd: None,
        };
        let calls = vec![CallReport::new(call).unwrap()];
        ReportUsage { who: self.who.clone(), job_id: self.job_id, attempt: Attempt::FIRST, calls }
    }

    fn drain(&self, seconds: Option<u64>) -> Drain {
        Drain {
            worker_id: self.who.worker_id.clone(),
            actor: client(),
            reason: "scale-down".into(),
            timeout: seconds.map(Duration::from_secs),
        }
    }

    /// A client retires the workers of the target.
    #[must_use]
    pub fn deregister(&self, cancel_active_jobs: bool, drain_seconds: u64) -> Deregister {
        Deregister {
            selector: Selector::Target(self.target.clone()),
            actor: client(),
            reason: "sandbox_terminated".into(),
            cancel_active_jobs,
            drain_timeout: Some(Duration::from_secs(drain_seconds)),
            hold: None,
            dry_run: false,
        }
    }
}
