//! Every command in every state of a job leaves exactly what the rules decided.

use std::time::Duration;

use uuid::Uuid;

use super::dump::Record;
use super::world::{World, heartbeat, submit};
use crate::domain::changeset::Changeset;
use crate::domain::commands::{
    Command, ConnectionNews, Credential, Decision, Drain, DrainWish, Heartbeat, LiftHold, Submit, Undrain, decide,
};
use crate::domain::ids::{ConnectionId, Generation, JobId, Name};
use crate::domain::rejection::Rejection;
use crate::domain::submission::SubmissionRequest;
use crate::domain::worker::ConnectionKind;
use crate::ports::store::ClaimRequest;
use crate::testing::scenes::{Act, CASES, Case, Cast, State, client, registration, wish};
use crate::testing::{name, submission};

/// Commands that are not about the job, but may meet it.
const OTHER_CASES: &[Case] = &[
    Case {
        title: "submit, twice with one key",
        sentence: "A client hands over another job, and repeats it.",
        before: |cast| vec![Act::Run(wish(other_job(cast)))],
        acts: |cast| vec![Act::Run(wish(other_job(cast)))],
    },
    Case {
        title: "heartbeat that wants to drain, and takes it back",
        sentence: "Its worker takes no more jobs, and then takes jobs again.",
        before: |_| Vec::new(),
        acts: |cast| {
            let timeout = Some(Duration::from_secs(30));
            let wants = DrainWish::Drain { reason: "update".into(), timeout };
            let says = |drain| Act::Run(wish(Heartbeat { drain, ..heartbeat(&cast.who) }));
            vec![says(wants), says(DrainWish::Undo)]
        },
    },
    Case {
        title: "undrain",
        sentence: "A client lets a drained worker take jobs again.",
        before: |cast| {
            let worker_id = cast.who.worker_id.clone();
            let reason = "scale-down".into();
            vec![Act::Run(wish(Drain { worker_id, actor: client(), reason, timeout: None }))]
        },
        acts: |cast| vec![Act::Run(wish(Undrain { worker_id: cast.who.worker_id.clone() }))],
    },
    Case {
        title: "a stream opens and breaks",
        sentence: "Its worker listens for directives, and the connection is lost.",
        before: |_| Vec::new(),
        acts: |cast| {
            let news = |open_for, broken| ConnectionNews {
                who: cast.who.clone(),
                connection: ConnectionId::new(Uuid::from_u128(7)),
                kind: ConnectionKind::Stream,
                open_for,
                broken,
            };
            let open = news(Some(Duration::from_secs(60)), false);
            vec![Act::Run(wish(open)), Act::Run(wish(news(None, true)))]
        },
    },
    Case {
        title: "lift the hold",
        sentence: "A client retires the workers of the target, and then lets others come under its name.",
        before: |cast| vec![Act::Run(wish(cast.deregister(true, 0)))],
        acts: |cast| vec![Act::Run(wish(LiftHold { name: cast.target.clone() }))],
    },
];

fn other_job(cast: &Cast) -> Submit {
    let key = format!("another beside {}", cast.job_id);
    submit(SubmissionRequest { idempotency_key: Some(key), expires_in_seconds: Some(1), ..submission() })
}

/// One job that is played with, and everything that must be stored of it.
struct Scene<'w> {
    world: &'w World,
    /// Another handle: what was stored is read through it.
    other: &'w World,
    cast: Cast,
    newcomer: Name,
    record: Record,
}

impl<'w> Scene<'w> {
    /// A job in this state; `tag` sets its names apart from those of all others.
    async fn set(world: &'w World, other: &'w World, state: &State, tag: usize) -> Self {
        let (target, worker_id) = (name(&format!("sandbox-{tag}")), name(&format!("worker-{tag}")));
        let nobody = Credential { worker_id: worker_id.clone(), generation: Generation::FIRST };
        let nothing = JobId::new(Uuid::nil());
        let mut scene = Self {
            world,
            other,
            cast: Cast { target: target.clone(), job_id: nothing, who: nobody },
            newcomer: name(&format!("newcomer-{tag}")),
            record: Record::default(),
        };
        let registered = scene.run(&registration(&worker_id, &target, "boot-1")).await;
        scene.cast.who = registered.unwrap().credential;
        scene.perform(Act::Listen).await.unwrap();
        scene.cast.job_id = scene.run(&submit(state.submission(&target))).await.unwrap().job.id;
        scene.check("after the submission").await;
        for act in (state.acts)(&scene.cast.clone()) {
            scene.perform(act).await.unwrap();
            scene.check("on the way to the state").await;
        }
        scene
    }

    /// Decides and stores; a refusal stores what it may keep.
    async fn run<C: Command + ?Sized>(&mut self, command: &C) -> Result<C::Answer, Rejection> {
        let snapshot = self.world.snapshot(&command.keys()).await;
        let Decision { answer, changes } = decide(&snapshot, command, &self.world.rules);
        assert_eq!(self.world.commit(vec![changes.clone()]).await, [Ok(())], "nothing moved since the snapshot");
        self.stored(&[changes]);
        answer
    }

    fn stored(&mut self, changes: &[Changeset]) {
        self.record.stored(self.world, changes);
    }

    async fn perform(&mut self, act: Act) -> Result<(), Rejection> {
        match act {
            Act::Run(command) => return self.run(&*command).await,
            Act::Pass(seconds) => {
                self.world.clock.advance(Duration::from_secs(seconds));
            }
            Act::Sweep => {
                for rounds in 0.. {
                    assert!(rounds < 100, "something stays due for ever");
                    let swept = self.world.sweep(100).await.committed;
                    if swept.is_empty() {
                        break;
                    }
                    self.stored(&swept);
                }
            }
            Act::Listen => {
                let (_, view) = self.world.reader.worker(&self.cast.who.worker_id).await.unwrap();
                if view.is_some_and(|view| view.worker.is_present()) {
                    return self.run(&listens(&self.cast.who)).await;
                }
            }
            Act::Newcomer => {
                let registered = self.run(&crate::testing::registration(self.newcomer.as_str())).await?;
                self.run(&listens(&registered.credential)).await?;
            }
            Act::Dispatch => {
                let workers = vec![self.newcomer.clone(), self.cast.who.worker_id.clone()];
                let request = ClaimRequest::waiting(workers);
                let dispatched = self.world.store.claim(request, &self.world.rules).await.unwrap();
                self.stored(&dispatched.committed);
            }
        }
        Ok(())
    }

    /// Reads everything back through the other handle.
    async fn check(&self, when: &str) {
        self.record.check(self.other, when).await;
    }

    /// Retires the workers and ends the job, so that they do not meet those of the next scene.
    async fn clear(mut self) {
        let _ended_before = self.run(&self.cast.cancel()).await;
        let _gone_before = self.run(&self.cast.deregister(true, 0)).await;
        let newcomers = Cast { target: self.newcomer.clone(), ..self.cast.clone() };
        let _never_came = self.run(&newcomers.deregister(true, 0)).await;
        for act in [Act::Pass(2), Act::Sweep] {
            self.perform(act).await.unwrap();
        }
        self.check("at the end").await;
    }
}

fn listens(who: &Credential) -> ConnectionNews {
    ConnectionNews {
        who: who.clone(),
        connection: ConnectionId::new(Uuid::nil()),
        kind: ConnectionKind::Claim,
        open_for: Some(Duration::from_secs(3600)),
        broken: false,
    }
}

async fn every_command_on(state: &str, world: World) {
    let state = State::of(state);
    let other = world.elsewhere().await;
    for (tag, case) in CASES.iter().chain(OTHER_CASES).enumerate() {
        let mut scene = Scene::set(&world, &other, &state, tag).await;
        let when = format!("{} on a job that is {}", case.title, state.name);
        for act in (case.before)(&scene.cast).into_iter().chain((case.acts)(&scene.cast)) {
            let answer = scene.perform(act).await;
            let answer = answer.map_or_else(|rejection| rejection.code(), |()| "done");
            scene.check(&format!("{when} ({answer})")).await;
        }
        scene.clear().await;
    }
}

pub(super) async fn every_command_on_a_job_that_waits_leaves_what_was_decided(world: World) {
    every_command_on("pending", world).await;
}

pub(super) async fn every_command_on_a_job_that_is_reserved_leaves_what_was_decided(world: World) {
    every_command_on("queued", world).await;
}

pub(super) async fn every_command_on_a_job_that_was_granted_leaves_what_was_decided(world: World) {
    every_command_on("running, not started", world).await;
}

pub(super) async fn every_command_on_a_job_that_runs_leaves_what_was_decided(world: World) {
    every_command_on("running", world).await;
}

pub(super) async fn every_command_on_a_job_that_runs_for_the_last_time_leaves_what_was_decided(world: World) {
    every_command_on("running, last attempt", world).await;
}

pub(super) async fn every_command_on_a_job_past_its_point_of_no_return_leaves_what_was_decided(world: World) {
    every_command_on("running, past the point of no return", world).await;
}

pub(super) async fn every_command_on_a_job_whose_worker_was_lost_in_the_act_leaves_what_was_decided(world: World) {
    every_command_on("in grace", world).await;
}

pub(super) async fn every_command_on_a_job_that_is_completed_leaves_what_was_decided(world: World) {
    every_command_on("completed", world).await;
}

pub(super) async fn every_command_on_a_job_that_failed_leaves_what_was_decided(world: World) {
    every_command_on("failed", world).await;
}

pub(super) async fn every_command_on_a_job_that_is_cancelled_leaves_what_was_decided(world: World) {
    every_command_on("cancelled", world).await;
}

pub(super) async fn every_command_on_a_job_that_expired_leaves_what_was_decided(world: World) {
    every_command_on("expired", world).await;
}
