//! Every command in every state: what it changes, and which events and callbacks it makes.
//!
//! The result is a page that a person can read, `docs/transitions.md`. This test compares it with what the rules do;
//! `UPDATE_GOLDEN=1 cargo test -p gh-core --test domain` writes it anew after a wanted change.

use std::fmt::Write as _;
use std::time::Duration;

use gh_core::domain::changeset::Changeset;
use gh_core::domain::code::ClientName;
use gh_core::domain::commands::{
    Cancel, Claim, Credential, Deregister, Drain, Report, ReportOutcome, Selector, Submit, UsageClosing,
};
use gh_core::domain::ids::{Attempt, ConnectionId, InteractionId};
use gh_core::domain::job::{Completion, JobState, Pause};
use gh_core::testing::scenes::{Act, CASES, Case, Cast, STATES, State, client};
use gh_core::testing::{name, submission, submission_to};
use uuid::Uuid;

use crate::world::World;

/// A job in one state, and the worker that has, had or may have it.
struct Scene {
    world: World,
    cast: Cast,
}

/// The states of the table, in the order of a job's life. No command leads into `needs_human` yet.
fn states() -> Vec<&'static str> {
    let mut names: Vec<&str> = STATES.iter().map(|state| state.name).collect();
    let ended = names.iter().position(|name| *name == "completed").unwrap();
    names.insert(ended, "needs_human");
    names
}

fn scene(state: &str) -> Scene {
    let paused = state == "needs_human";
    let state = State::of(if paused { "running" } else { state });
    let mut world = World::new();
    let who = world.worker("worker-a", Some("sandbox-a"));
    let target = name("sandbox-a");
    let job_id = world.submit(state.submission(&target)).id;
    let mut scene = Scene { world, cast: Cast { target, job_id, who } };
    for act in (state.acts)(&scene.cast.clone()) {
        let effect = scene.perform(act);
        assert!(matches!(effect.answer.as_str(), "" | "ok"), "{}", effect.answer);
    }
    if paused {
        let (since, expires_at) = (scene.world.now(), scene.world.now() + Duration::from_secs(120));
        scene.world.put(job_id, |job| {
            let JobState::Running(lease) = job.state.clone() else { unreachable!("it runs") };
            let interaction_id = InteractionId::new(Uuid::nil());
            job.state = JobState::NeedsHuman(lease, Pause { interaction_id, since, expires_at });
        });
    }
    scene
}

impl Scene {
    fn perform(&mut self, act: Act) -> Effect {
        let (mut answer, mut changes) = (String::new(), Vec::new());
        let worker_id = &self.cast.who.worker_id;
        match act {
            Act::Run(command) => {
                let (told, change) = self.world.run(&*command);
                answer = told.map_or_else(|rejection| rejection.code().to_owned(), |()| "ok".to_owned());
                changes.push(change);
            }
            Act::Pass(seconds) => self.world.pass(seconds),
            Act::Sweep => changes = self.world.sweep(),
            Act::Listen if self.world.view(worker_id).worker.is_present() => self.world.listens(worker_id),
            Act::Listen => {}
            Act::Newcomer => {
                self.world.worker("worker-b", None);
            }
            Act::Dispatch => changes = self.world.dispatch(),
        }
        Effect { answer, changes }
    }

    /// What a command does here.
    fn play(&mut self, case: &Case) -> Effect {
        for act in (case.before)(&self.cast) {
            let _not_shown = self.perform(act);
        }
        let mut effect = Effect::default();
        for act in (case.acts)(&self.cast) {
            let Effect { answer, changes } = self.perform(act);
            effect.answer = answer;
            effect.changes.extend(changes);
        }
        effect
    }
}

fn claim(who: &Credential) -> Claim {
    Claim { who: who.clone(), connection: ConnectionId::new(Uuid::nil()), wait: Duration::ZERO, waited: false }
}

/// One row of a table: what a step did to the scene.
#[derive(Default)]
struct Effect {
    answer: String,
    changes: Vec<Changeset>,
}

fn row(state: &str, scene: &Scene, before: &str, effect: &Effect) -> String {
    let job = scene.world.job(scene.cast.job_id);
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
    for case in CASES {
        let Case { title, sentence, .. } = case;
        writeln!(page, "\n### {title}\n\n{sentence}\n").unwrap();
        writeln!(
            page,
            "| job is | answer | job becomes | attempt | events of the job | callbacks | events of workers |"
        )
        .unwrap();
        writeln!(page, "| --- | --- | --- | --- | --- | --- | --- |").unwrap();
        for state in states() {
            let mut scene = scene(state);
            let before = scene.world.job(scene.cast.job_id).status().as_str();
            let effect = scene.play(case);
            check_consistency(&scene, &effect);
            writeln!(page, "{}", row(state, &scene, before, &effect)).unwrap();
        }
    }
    page
}

/// What holds for every cell: numbers without gaps, a terminal state with its event and its callback.
fn check_consistency(scene: &Scene, effect: &Effect) {
    let job = scene.world.job(scene.cast.job_id);
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
        world.known(&name("worker-a")).vitals.claim = None;
    }),
    ("deaf", |world| {
        world.worker("worker-a", Some("sandbox-a"));
        world.known(&name("worker-a")).vitals.claim = None;
        world.pass(11);
        let now = world.now();
        world.known(&name("worker-a")).vitals.last_seen = now;
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
    let report = Report::Complete(Completion::default(), UsageClosing::default());
    let report = ReportOutcome { who, job_id, attempt: Attempt::FIRST, report };
    let (answer, changes) = world.run(&report);
    assert!(answer.is_ok());
    assert!(changes.callbacks().is_empty());
}
