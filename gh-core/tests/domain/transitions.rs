//! Every command in every state: what it changes, and which events and callbacks it makes.
//!
//! The result is a page that a person can read, `docs/transitions.md`. This test compares it with what the rules do;
//! `UPDATE_GOLDEN=1 cargo test -p gh-core --test domain` writes it anew after a wanted change.

use std::fmt::Write as _;
use std::time::Duration;

use gh_core::domain::changeset::Changeset;
use gh_core::domain::code::{Actor, ClientName, ErrorCode};
use gh_core::domain::commands::{
    Cancel, Claim, Command, Credential, Deregister, Drain, DrainWish, FailureReport, Goodbye, Heartbeat, JobClaim,
    JobLeft, Register, Report, ReportEvents, ReportOutcome, ReportUsage, Retry, Selector, SideEffectsStarted,
    UsageClosing,
};
use gh_core::domain::commands::{EventReport, Submit};
use gh_core::domain::cost::{CallReport, ReportedCall};
use gh_core::domain::ids::{Attempt, ConnectionId, InteractionId, JobId};
use gh_core::domain::job::{Completion, JobState, Pause};
use gh_core::domain::worker::{Beat, WorkerIdentity};
use gh_core::testing::{name, submission, submission_to};
use uuid::Uuid;

use crate::world::World;

/// A job in one state, and the worker that has, had or may have it.
struct Scene {
    world: World,
    job_id: JobId,
    who: Credential,
    attempt: Attempt,
}

/// The states of the table, in the order of a job's life.
const STATES: [&str; 12] = [
    "pending",
    "queued",
    "running, not started",
    "running",
    "running, last attempt",
    "running, past the point of no return",
    "in grace",
    "needs_human",
    "completed",
    "failed",
    "cancelled",
    "expired",
];

fn scene(state: &str) -> Scene {
    let mut world = World::new();
    let who = world.worker("worker-a", Some("sandbox-a"));
    let mut request = submission_to("sandbox-a", "preferred");
    request.max_attempts = Some(if state == "running, last attempt" { 1 } else { 3 });
    request.expires_in_seconds = Some(3600);
    let job_id = world.submit(request).id;
    let scene = |world| Scene { world, job_id, who: who.clone(), attempt: Attempt::FIRST };
    if state == "pending" || state == "expired" {
        // Somebody else's reservation ran out: it waits for anyone.
        world.pass(11);
        world.sweep();
        world.listens(&who.worker_id);
        if state == "expired" {
            world.pass(3600);
            world.sweep();
            world.listens(&who.worker_id);
        }
        return scene(world);
    }
    if state == "queued" {
        return scene(world);
    }
    let (claimed, _) = world.run(&claim(&who));
    claimed.expect("granted");
    if state == "running, not started" {
        return scene(world);
    }
    let mut scene = scene(world);
    scene.run(&scene.heartbeat(JobClaim::Job(job_id)));
    match state {
        "running" | "running, last attempt" => {}
        "running, past the point of no return" => scene.run(&scene.side_effects()),
        "in grace" => {
            scene.run(&scene.side_effects());
            scene.world.pass(21);
            scene.world.sweep();
        }
        "needs_human" => {
            let (since, expires_at) = (scene.world.now, scene.world.now + Duration::from_secs(120));
            scene.world.put(job_id, |job| {
                let JobState::Running(lease) = job.state.clone() else { unreachable!("it runs") };
                let interaction_id = InteractionId::new(Uuid::nil());
                job.state = JobState::NeedsHuman(lease, Pause { interaction_id, since, expires_at });
            });
        }
        "completed" => scene.run(&scene.outcome(complete())),
        "failed" => scene.run(&scene.outcome(fail(false))),
        "cancelled" => scene.run(&scene.cancel()),
        other => unreachable!("no such state: {other}"),
    }
    scene
}

impl Scene {
    fn run<C: Command>(&mut self, command: &C) {
        let (answer, _) = self.world.run(command);
        assert!(answer.is_ok(), "{:?}", answer.err());
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
        SideEffectsStarted { who: self.who.clone(), job_id: self.job_id, attempt: self.attempt, what: None }
    }

    fn outcome(&self, report: Report) -> ReportOutcome {
        ReportOutcome { who: self.who.clone(), job_id: self.job_id, attempt: self.attempt, report }
    }

    fn cancel(&self) -> Cancel {
        Cancel { job_id: self.job_id, actor: client(), reason: None }
    }

    fn retry(&self, side_effects_checked: bool) -> Retry {
        let routing = self.world.job(self.job_id).spec.routing.clone();
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
        ReportEvents { who: self.who.clone(), job_id: self.job_id, attempt: self.attempt, events: vec![event] }
    }

    fn usage(&self) -> ReportUsage {
        let call: ReportedCall = serde_json::from_str(
            r#"{"call_id": "c1", "provider": "anthropic", "model": "claude-haiku-4-5-20251001",
                "usage": {"input": 2100, "output": 1130}}"#,
        )
        .unwrap();
        let calls = vec![CallReport::new(call).unwrap()];
        ReportUsage { who: self.who.clone(), job_id: self.job_id, attempt: self.attempt, calls }
    }

    fn deregister(&self, cancel_active_jobs: bool, drain_seconds: u64) -> Deregister {
        Deregister {
            selector: Selector::Target(name("sandbox-a")),
            actor: client(),
            reason: "sandbox_terminated".into(),
            cancel_active_jobs,
            drain_timeout: Some(Duration::from_secs(drain_seconds)),
            hold: None,
            dry_run: false,
        }
    }

    fn register(&self, boot: &str) -> Register {
        let identity = WorkerIdentity { target_worker_id: Some(name("sandbox-a")), ..WorkerIdentity::default() };
        Register { worker_id: self.who.worker_id.clone(), boot_id: name(boot), identity, metadata: None }
    }
}

fn client() -> Actor {
    Actor::Client(ClientName::new("valet"))
}

fn claim(who: &Credential) -> Claim {
    Claim { who: who.clone(), connection: ConnectionId::new(Uuid::nil()), wait: Duration::ZERO, waited: false }
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

/// One row of a table: what a step did to the scene.
#[derive(Default)]
struct Effect {
    answer: String,
    changes: Vec<Changeset>,
}

fn effect<C: Command>(scene: &mut Scene, command: &C) -> Effect {
    let (answer, changes) = scene.world.run(command);
    let answer = answer.map_or_else(|rejection| rejection.code().to_owned(), |_| "ok".to_owned());
    Effect { answer, changes: vec![changes] }
}

fn after(scene: &mut Scene, seconds: u64, still_heard: bool) -> Effect {
    scene.world.pass(seconds);
    if still_heard && scene.world.view(&scene.who.worker_id).worker.is_present() {
        scene.world.listens(&scene.who.worker_id);
    }
    Effect { answer: String::new(), changes: scene.world.sweep() }
}

type Step = fn(&mut Scene) -> Effect;

/// Each command of a job's life, with the sentence that introduces its table.
const COMMANDS: &[(&str, &str, Step)] = &[
    ("cancel", "A client ends the job.", |scene| effect(scene, &scene.cancel())),
    ("retry", "A client opens a new run.", |scene| effect(scene, &scene.retry(false))),
    ("retry, 20 s later", "The self-fence of a worker that had it has passed.", |scene| {
        scene.world.pass(20);
        effect(scene, &scene.retry(false))
    }),
    ("retry, side_effects_checked", "A client says that it has looked.", |scene| {
        scene.world.pass(20);
        effect(scene, &scene.retry(true))
    }),
    ("claim", "Its worker asks for a job.", |scene| effect(scene, &claim(&scene.who.clone()))),
    ("dispatch", "Waiting jobs are granted to a second worker that waits.", |scene| {
        scene.world.worker("worker-b", None);
        let changes = scene.world.dispatch();
        Effect { answer: String::new(), changes }
    }),
    ("events", "Its worker reports a step.", |scene| effect(scene, &scene.events())),
    ("usage", "Its worker reports an LLM call.", |scene| effect(scene, &scene.usage())),
    ("side-effects-started", "Its worker is about to do what must not happen twice.", |scene| {
        effect(scene, &scene.side_effects())
    }),
    ("complete", "Its worker says that it is done.", |scene| effect(scene, &scene.outcome(complete()))),
    ("complete, again", "The same report once more: its answer was lost.", |scene| {
        let report = scene.outcome(complete());
        let _first = scene.world.run(&report);
        effect(scene, &report)
    }),
    ("fail, retryable", "Its worker says that another attempt may help.", |scene| {
        effect(scene, &scene.outcome(fail(true)))
    }),
    ("fail", "Its worker says that it cannot be done.", |scene| effect(scene, &scene.outcome(fail(false)))),
    ("release", "Its worker gives it back, since it shuts down.", |scene| {
        effect(scene, &scene.outcome(Report::Release(JobLeft { reason: "deploy".into() })))
    }),
    ("heartbeat that names the job", "Its worker says that it has it.", |scene| {
        let beat = scene.heartbeat(JobClaim::Job(scene.job_id));
        effect(scene, &beat)
    }),
    ("two heartbeats without a job", "Its worker says twice that it has none.", |scene| {
        let beat = scene.heartbeat(JobClaim::None);
        let first = effect(scene, &beat);
        let mut second = effect(scene, &beat);
        second.changes.splice(0..0, first.changes);
        second
    }),
    ("register, same boot", "The living process registers again.", |scene| {
        let registration = scene.register("boot-1");
        effect(scene, &registration)
    }),
    ("register, new boot", "Its worker was restarted.", |scene| {
        let registration = scene.register("boot-2");
        effect(scene, &registration)
    }),
    ("goodbye", "Its worker shuts down.", |scene| {
        let goodbye = Goodbye { who: scene.who.clone(), reason: "deploy".into() };
        effect(scene, &goodbye)
    }),
    ("drain", "A client tells its worker to take no more jobs.", |scene| {
        let drain = Drain {
            worker_id: scene.who.worker_id.clone(),
            actor: client(),
            reason: "scale-down".into(),
            timeout: None,
        };
        effect(scene, &drain)
    }),
    ("drain, deadline over", "The same with 30 s, which pass.", |scene| {
        let drain = Drain {
            worker_id: scene.who.worker_id.clone(),
            actor: client(),
            reason: "scale-down".into(),
            timeout: Some(Duration::from_secs(30)),
        };
        let _drained = scene.world.run(&drain);
        after(scene, 31, true)
    }),
    ("deregister, cancelling", "A client retires the workers of the target and cancels their jobs.", |scene| {
        effect(scene, &scene.deregister(true, 30))
    }),
    ("deregister, draining", "The same, but running jobs may finish.", |scene| {
        effect(scene, &scene.deregister(false, 300))
    }),
    ("deregister, at once", "The same, without any time to finish.", |scene| {
        effect(scene, &scene.deregister(false, 0))
    }),
    ("1 s passes", "Nothing is over.", |scene| after(scene, 1, true)),
    ("11 s pass", "A reservation is over.", |scene| after(scene, 11, true)),
    ("21 s pass in silence", "Its worker is given up.", |scene| after(scene, 21, false)),
    ("301 s pass", "The attempt's time is over, or the grace of a lost worker.", |scene| after(scene, 301, true)),
    ("3,700 s pass", "Everything is over.", |scene| after(scene, 3700, true)),
];

fn row(state: &str, scene: &Scene, before: &str, effect: &Effect) -> String {
    let job = scene.world.job(scene.job_id);
    let status = job.status().as_str();
    let becomes = if before == status { "–".to_owned() } else { format!("{before} → {status}") };
    let list = |words: Vec<String>| {
        if words.is_empty() { "–".to_owned() } else { words.join(", ") }
    };
    let events = effect.changes.iter().flat_map(Changeset::job_events).filter(|event| event.job_id == job.id);
    let callbacks = effect.changes.iter().flat_map(Changeset::callbacks).filter(|callback| callback.job_id == job.id);
    let worker_events = effect.changes.iter().flat_map(Changeset::worker_events);
    let answer = if effect.answer.is_empty() { "–" } else { &effect.answer };
    format!(
        "| {state} | {answer} | {becomes} | {} | {} | {} | {} |",
        job.attempt,
        list(events.map(|event| event.event_type.to_string()).collect()),
        list(callbacks.map(|callback| callback.facts.status.as_str().to_owned()).collect()),
        list(worker_events.map(|event| event.event_type.to_string()).collect()),
    )
}

fn job_tables() -> String {
    let mut page = String::new();
    for (title, sentence, step) in COMMANDS {
        writeln!(page, "\n### {title}\n\n{sentence}\n").unwrap();
        writeln!(
            page,
            "| job is | answer | job becomes | attempt | events of the job | callbacks | events of workers |"
        )
        .unwrap();
        writeln!(page, "| --- | --- | --- | --- | --- | --- | --- |").unwrap();
        for state in STATES {
            let mut scene = scene(state);
            let before = scene.world.job(scene.job_id).status().as_str();
            let effect = step(&mut scene);
            check_consistency(&scene, &effect);
            writeln!(page, "{}", row(state, &scene, before, &effect)).unwrap();
        }
    }
    page
}

/// What holds for every cell: numbers without gaps, a terminal state with its event and its callback.
fn check_consistency(scene: &Scene, effect: &Effect) {
    let job = scene.world.job(scene.job_id);
    let events: Vec<u64> = effect
        .changes
        .iter()
        .flat_map(Changeset::job_events)
        .filter(|event| event.job_id == job.id)
        .map(|event| event.seq)
        .collect();
    assert!(events.windows(2).all(|pair| pair[1] == pair[0] + 1), "gap in {events:?}");
    assert!(events.last().is_none_or(|last| *last == job.event_seq), "{events:?} against {}", job.event_seq);
    let ended = effect
        .changes
        .iter()
        .flat_map(Changeset::job_events)
        .any(|event| event.to_status.is_some_and(|status| status.is_terminal()) && event.job_id == job.id);
    let told = effect.changes.iter().flat_map(Changeset::callbacks).any(|callback| {
        callback.kind == gh_core::domain::callback::CallbackKind::Terminal && callback.job_id == job.id
    });
    assert_eq!(ended, told, "an end has its event and its callback");
}

type Arrange = fn(&mut World);

/// Where the target's worker is when a job is submitted to it.
const TARGETS: &[(&str, Arrange)] = &[
    ("unknown", |_| {}),
    ("waiting", |world| {
        world.worker("worker-a", Some("sandbox-a"));
    }),
    ("there, not waiting", |world| {
        world.worker("worker-a", Some("sandbox-a"));
        world.workers.get_mut(&name("worker-a")).unwrap().1.claim = None;
    }),
    ("deaf", |world| {
        world.worker("worker-a", Some("sandbox-a"));
        world.workers.get_mut(&name("worker-a")).unwrap().1.claim = None;
        world.pass(11);
        world.workers.get_mut(&name("worker-a")).unwrap().1.last_seen = world.now;
    }),
    ("suspect", |world| {
        world.worker("worker-a", Some("sandbox-a"));
        world.pass(11);
    }),
    ("offline", |world| {
        world.worker("worker-a", Some("sandbox-a"));
        world.pass(21);
        world.sweep();
    }),
    ("reserved", |world| {
        world.worker("worker-a", Some("sandbox-a"));
        world.submit(submission_to("sandbox-a", "strict"));
    }),
    ("busy", |world| {
        let who = world.worker("worker-a", Some("sandbox-a"));
        world.submit(submission_to("sandbox-a", "strict"));
        world.run(&claim(&who)).0.expect("granted");
    }),
    ("closing", |world| {
        let who = world.worker("worker-a", Some("sandbox-a"));
        let job_id = world.submit(submission_to("sandbox-a", "strict")).id;
        world.run(&claim(&who)).0.expect("granted");
        world.run(&Cancel { job_id, actor: client(), reason: None }).0.expect("cancelled");
    }),
    ("lapsed", |world| {
        let who = world.worker("worker-a", Some("sandbox-a"));
        world.submit(submission_to("sandbox-a", "preferred"));
        world.pass(11);
        world.sweep();
        world.listens(&who.worker_id);
    }),
    ("draining", |world| {
        let who = world.worker("worker-a", Some("sandbox-a"));
        let drain = Drain { worker_id: who.worker_id, actor: client(), reason: "deploy".into(), timeout: None };
        world.run(&drain).0.expect("drained");
    }),
    ("deregistered, name held", |world| {
        world.worker("worker-a", Some("sandbox-a"));
        let deregister = Deregister {
            selector: Selector::Target(name("sandbox-a")),
            actor: client(),
            reason: "sandbox_terminated".into(),
            cancel_active_jobs: true,
            drain_timeout: None,
            hold: None,
            dry_run: false,
        };
        world.run(&deregister).0.expect("deregistered");
    }),
    ("busy, a second one waiting", |world| {
        let who = world.worker("worker-a", Some("sandbox-a"));
        world.submit(submission_to("sandbox-a", "strict"));
        world.run(&claim(&who)).0.expect("granted");
        world.worker("worker-b", Some("sandbox-a"));
    }),
];

fn submission_tables() -> String {
    let mut page = String::new();
    for (affinity, wait, sentence) in [
        ("strict", 0, "Only workers of the target, now."),
        ("strict", 60, "Only workers of the target, which may take up to 60 s to become free."),
        ("preferred", 0, "Workers of the target first, then anyone."),
        ("preferred", 60, "Workers of the target for up to 60 s, then anyone."),
        ("any", 0, "Whoever is free; a target named all the same is only told back."),
    ] {
        writeln!(page, "\n### {affinity}, affinity_wait_seconds {wait}\n\n{sentence}\n").unwrap();
        writeln!(page, "| the target's worker is | the job is | reserved for | refused because | events | callbacks |")
            .unwrap();
        writeln!(page, "| --- | --- | --- | --- | --- | --- |").unwrap();
        for (situation, arrange) in TARGETS {
            let mut world = World::new();
            arrange(&mut world);
            let mut request = submission_to("sandbox-a", affinity);
            request.affinity_wait_seconds = Some(wait);
            let command = Submit::new(ClientName::new("valet"), request.validate().unwrap());
            let (submitted, changes) = world.run(&command);
            let submitted = submitted.expect("submitted");
            let dash = || "–".to_owned();
            let reserved = submitted.job.occupies().map_or_else(dash, ToString::to_string);
            let refused = submitted.worker_status.map_or_else(dash, |status| status.to_string());
            let events: Vec<&str> = changes.job_events().iter().map(|event| event.event_type.as_str()).collect();
            let callbacks: Vec<&str> =
                changes.callbacks().iter().map(|callback| callback.facts.status.as_str()).collect();
            let callbacks = if callbacks.is_empty() { dash() } else { callbacks.join(", ") };
            writeln!(
                page,
                "| {situation} | {} | {reserved} | {refused} | {} | {callbacks} |",
                submitted.job.status().as_str(),
                events.join(", ")
            )
            .unwrap();
        }
    }
    page
}

#[test]
fn every_command_in_every_state_does_what_the_documentation_says() {
    let page = format!(
        "# What every command does in every state\n\n\
         This page is made by the test `domain` of gh-core from the rules themselves. A dash means *nothing*. The \
         job is a preferred one for the target `sandbox-a`, whose only worker is `worker-a`.\n\n\
         ## Submitting, by the state of the target\n{}\n## Commands, by the state of the job\n{}",
        submission_tables(),
        job_tables()
    );
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/transitions.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let different = page.lines().zip(known.lines()).find(|(made, known)| made != known);
    assert_eq!(different, None, "docs/transitions.md is not what the rules do (UPDATE_GOLDEN=1 writes it anew)");
    assert_eq!(page.lines().count(), known.lines().count());
}

#[test]
fn a_job_without_a_callback_address_makes_no_callbacks() {
    let mut world = World::new();
    let who = world.worker("worker-a", None);
    let mut request = submission();
    request.callback_url = None;
    let job_id = world.submit(request).id;
    let granted = world.dispatch();
    assert_eq!(granted.len(), 1);
    assert!(granted[0].callbacks().is_empty());
    let report = ReportOutcome { who, job_id, attempt: Attempt::FIRST, report: complete() };
    let (answer, changes) = world.run(&report);
    assert!(answer.is_ok());
    assert!(changes.callbacks().is_empty());
}
