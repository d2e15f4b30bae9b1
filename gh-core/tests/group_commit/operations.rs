//! Operations of clients and workers in any order, as data.

use std::sync::Arc;
use std::time::Duration;

use gh_core::domain::code::ErrorCode;
use gh_core::domain::commands::{
    Command, ConnectionNews, Credential, Deregister, Drain, DrainWish, FailureReport, Goodbye, Heartbeat, JobLeft,
    LiftHold, Register, Report, ReportOutcome, ReportUsage, Retry, Selector, SideEffectsStarted, Submit, Undrain,
    UsageClosing,
};
use gh_core::domain::cost::{CallReport, ReportedCall};
use gh_core::domain::ids::{Attempt, ConnectionId, JobId, Name};
use gh_core::domain::job::{Completion, Job};
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::worker::ConnectionKind;
use gh_core::testing::{name, registration, submission, submission_to};
use proptest::prelude::*;
use uuid::Uuid;

use crate::stage::{actor, cancel, claim, client, heartbeat, report};

pub(crate) const TARGETS: [&str; 3] = ["sandbox-a", "sandbox-b", "worker-3"];
pub(crate) const MACHINES: [&str; 2] = ["machine-1", "machine-2"];
pub(crate) const KEYS: [&str; 2] = ["k-0", "k-1"];
pub(crate) const CALLS: [&str; 2] = ["call-0", "call-1"];

/// How a command is run; gives back what came of it.
pub(crate) trait Run {
    async fn run<C: Command<Answer: std::fmt::Debug> + Clone>(&mut self, command: C) -> String;
}

/// What there is before the operations: workers `worker-0` and so on, and some jobs.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    pub(crate) workers: Vec<Credential>,
    pub(crate) jobs: Vec<Arc<Job>>,
}

impl Cast {
    fn job(&self, number: usize) -> JobId {
        self.jobs[number % self.jobs.len()].id
    }

    /// The worker that has this job, if one does; else any.
    fn worker_of(&self, number: usize, or: usize) -> &Credential {
        let holder = self.jobs[number % self.jobs.len()].worker_id().cloned();
        let known = self.workers.iter().find(|who| Some(&who.worker_id) == holder.as_ref());
        known.unwrap_or_else(|| self.worker(or))
    }

    fn worker(&self, number: usize) -> &Credential {
        &self.workers[number % self.workers.len()]
    }
}

/// One operation; numbers lead to workers, jobs, targets and keys.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Submit { target: Option<usize>, strict: bool, key: Option<usize>, other_text: bool },
    Cancel(usize),
    Retry(usize),
    Report(usize, usize),
    SideEffects(usize, usize),
    Outcome { job: usize, worker: usize, how: u8 },
    Usage { job: usize, worker: usize, call: usize, tokens: u64 },
    Claim(usize, u8),
    Drain(usize),
    Heartbeat(usize, u8),
    Connection(usize, bool),
    Undrain(usize),
    Register { worker: usize, target: Option<usize>, machine: Option<usize>, boot: u8 },
    Goodbye(usize),
    Deregister { name: usize, by_machine: bool, cancel: bool },
    LiftHold(usize),
}

/// What shares the ordinary lane.
pub(crate) fn ordinary() -> impl Strategy<Value = Operation> {
    let (job, worker) = (0_usize..8, 0_usize..4);
    prop_oneof![
        4 => (prop::option::of(0_usize..3), any::<bool>(), prop::option::of(0_usize..2), any::<bool>()).prop_map(
            |(target, strict, key, other_text)| Operation::Submit { target, strict, key, other_text }
        ),
        2 => job.clone().prop_map(Operation::Cancel),
        2 => job.clone().prop_map(Operation::Retry),
        3 => (job.clone(), worker.clone()).prop_map(|(job, worker)| Operation::Report(job, worker)),
        1 => (job.clone(), worker.clone()).prop_map(|(job, worker)| Operation::SideEffects(job, worker)),
        3 => (job.clone(), worker.clone(), 0_u8..4)
            .prop_map(|(job, worker, how)| Operation::Outcome { job, worker, how }),
        2 => (job, worker.clone(), 0_usize..2, 0_u64..1_000_000)
            .prop_map(|(job, worker, call, tokens)| Operation::Usage { job, worker, call, tokens }),
        3 => (worker.clone(), 0_u8..3).prop_map(|(worker, connection)| Operation::Claim(worker, connection)),
        1 => worker.prop_map(Operation::Drain),
    ]
}

/// Everything there is.
pub(crate) fn any_operation() -> impl Strategy<Value = Operation> {
    let worker = 0_usize..4;
    let identity = (0_usize..6, prop::option::of(0_usize..3), prop::option::of(0_usize..2), 0_u8..3);
    prop_oneof![
        6 => ordinary(),
        1 => (worker.clone(), 0_u8..4).prop_map(|(worker, how)| Operation::Heartbeat(worker, how)),
        1 => (worker.clone(), any::<bool>()).prop_map(|(worker, open)| Operation::Connection(worker, open)),
        1 => worker.clone().prop_map(Operation::Undrain),
        2 => identity.prop_map(|(worker, target, machine, boot)| Operation::Register { worker, target, machine, boot }),
        1 => worker.prop_map(Operation::Goodbye),
        1 => (0_usize..3, any::<bool>(), any::<bool>())
            .prop_map(|(name, by_machine, cancel)| Operation::Deregister { name, by_machine, cancel }),
        1 => (0_usize..3).prop_map(Operation::LiftHold),
    ]
}

fn target(number: usize) -> Name {
    name(TARGETS[number % TARGETS.len()])
}

fn machine(number: usize) -> Name {
    name(MACHINES[number % MACHINES.len()])
}

fn submit(request: SubmissionRequest) -> Submit {
    Submit::new(client(), request.validate().unwrap())
}

impl Operation {
    /// Does it; gives back what came of it.
    pub(crate) async fn run(&self, cast: &Cast, run: &mut impl Run) -> String {
        let attempt = Attempt::FIRST;
        match *self {
            Self::Submit { target, strict, key, other_text } => {
                let affinity = if strict { "strict" } else { "preferred" };
                let request = target.map_or_else(submission, |number| submission_to(TARGETS[number], affinity));
                let text = if other_text { "another text" } else { "the text" };
                let idempotency_key = key.map(|number| KEYS[number].into());
                let request = SubmissionRequest { idempotency_key, task_description: Some(text.into()), ..request };
                run.run(submit(request)).await
            }
            Self::Cancel(job) => run.run(cancel(cast.job(job))).await,
            Self::Retry(job) => {
                let routing = cast.jobs[job % cast.jobs.len()].spec.routing.clone();
                let job_id = cast.job(job);
                run.run(Retry { job_id, routing, actor: actor(), run: None, side_effects_checked: true }).await
            }
            Self::Report(job, worker) => {
                run.run(report(cast.worker_of(job, worker), cast.job(job), "step_completed")).await
            }
            Self::SideEffects(job, worker) => {
                let who = cast.worker_of(job, worker).clone();
                run.run(SideEffectsStarted { who, job_id: cast.job(job), attempt, what: None }).await
            }
            Self::Outcome { job, worker, how } => {
                let who = cast.worker_of(job, worker).clone();
                let calls_in_flight = if how == 3 { vec![CALLS[0].into()] } else { Vec::new() };
                let closing = UsageClosing { calls_in_flight, ..UsageClosing::default() };
                let failure = FailureReport {
                    error_code: ErrorCode::parse("network_error").unwrap(),
                    error_message: "no route".into(),
                    retryable: how == 1,
                };
                let report = match how {
                    0 => Report::Release(JobLeft { reason: "too busy".into() }),
                    1 | 2 => Report::Fail(failure, closing),
                    _ => Report::Complete(Completion::default(), closing),
                };
                run.run(ReportOutcome { who, job_id: cast.job(job), attempt, report }).await
            }
            Self::Usage { job, worker, call, tokens } => {
                let who = cast.worker_of(job, worker).clone();
                let call: ReportedCall = serde_json::from_value(serde_json::json!({
                    "call_id": CALLS[call], "provider": "anthropic", "model": "claude-haiku-4-5-20251001",
                    "usage": { "input": tokens, "output": 10 },
                }))
                .unwrap();
                let calls = vec![CallReport::new(call).unwrap()];
                run.run(ReportUsage { who, job_id: cast.job(job), attempt, calls }).await
            }
            Self::Claim(worker, connection) => run.run(claim(cast.worker(worker), u128::from(connection))).await,
            Self::Drain(worker) => {
                let worker_id = cast.worker(worker).worker_id.clone();
                run.run(Drain { worker_id, actor: actor(), reason: "an update".into(), timeout: None }).await
            }
            Self::Heartbeat(worker, how) => {
                let drain = match how {
                    0 => DrainWish::Undo,
                    1 => DrainWish::Drain { reason: "enough".into(), timeout: None },
                    _ => DrainWish::Silent,
                };
                run.run(Heartbeat { drain, ..heartbeat(cast.worker(worker)) }).await
            }
            Self::Connection(worker, open) => {
                let who = cast.worker(worker).clone();
                let connection = ConnectionId::new(Uuid::from_u128(9));
                let open_for = open.then_some(Duration::from_secs(20));
                let kind = ConnectionKind::Stream;
                run.run(ConnectionNews { who, connection, kind, open_for, broken: !open }).await
            }
            Self::Undrain(worker) => run.run(Undrain { worker_id: cast.worker(worker).worker_id.clone() }).await,
            Self::Register { worker, target: to, machine: on, boot } => {
                let id = format!("worker-{worker}");
                let mut register = Register { boot_id: name(&format!("{id}-boot-{boot}")), ..registration(&id) };
                register.identity.target_worker_id = to.map(target);
                register.identity.ec2_instance_id = on.map(machine);
                run.run(register).await
            }
            Self::Goodbye(worker) => {
                run.run(Goodbye { who: cast.worker(worker).clone(), reason: "shutdown".into() }).await
            }
            Self::Deregister { name: number, by_machine, cancel } => {
                let selector =
                    if by_machine { Selector::Instance(machine(number)) } else { Selector::Target(target(number)) };
                run.run(Deregister {
                    selector,
                    actor: actor(),
                    reason: "scale-down".into(),
                    cancel_active_jobs: cancel,
                    drain_timeout: None,
                    hold: None,
                    dry_run: false,
                })
                .await
            }
            Self::LiftHold(number) => run.run(LiftHold { name: target(number) }).await,
        }
    }
}
