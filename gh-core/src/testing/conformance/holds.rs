//! A deregistered name is held: nobody comes back under it before its time.

use super::steps::{client, deregister, names, reboot};
use super::world::{SECOND, World};
use crate::domain::commands::{Deregister, LiftHold, Register, Selector};
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;
use crate::domain::worker::WorkerStatus;
use crate::testing::{name, registration, submission};

fn newcomer(id: &str) -> Register {
    let mut register = registration(id);
    register.identity.target_worker_id = Some(name("sandbox-1"));
    register
}

fn held<A>(answer: &Result<A, Rejection>) -> bool {
    matches!(answer, Err(Rejection::WorkerDeregistered { retry_at: Some(_) }))
}

impl World {
    /// Registers through another server than the one that retired the name.
    async fn come(&self, register: &Register) -> Result<(), Rejection> {
        self.elsewhere().await.attempt(register).await.map(drop)
    }
}

pub(super) async fn nobody_registers_under_a_name_while_its_workers_are_being_retired_nor_while_the_hold_lasts(
    world: World,
) {
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let job = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(job));
    let patient = Deregister { cancel_active_jobs: false, hold: Some(60 * SECOND), ..deregister("sandbox-1") };
    let running = world.run(&patient).await.deregistration;
    assert_eq!(running.finished_at, None, "its job may finish");
    assert!(held(&world.come(&newcomer("w-2")).await), "while it runs, under the target");
    assert!(held(&world.come(&reboot("w-1", "w-1-boot-2")).await), "while it runs, under the worker's own name");
    let keys = Keys { names: names(&["sandbox-1", "w-1"]), ..Keys::default() };
    for holder in names(&["sandbox-1", "w-1"]) {
        let snapshot = world.elsewhere().await.snapshot(&keys).await;
        assert_eq!(snapshot.hold_on(&holder).map(|known| known.id), Some(running.id), "{holder}");
    }
    world.complete(&who, job).await;
    let finished = world.reader.deregistration(running.id).await.unwrap().unwrap();
    assert!(finished.finished_at.is_some());
    assert_eq!(finished.deregistered, names(&["w-1"]));
    world.clock.advance(59 * SECOND);
    assert!(held(&world.come(&newcomer("w-2")).await), "afterwards");
    assert!(held(&world.come(&reboot("w-1", "w-1-boot-2")).await), "afterwards");
}

pub(super) async fn a_hold_that_has_expired_lets_a_new_process_in_and_never_the_old_one(world: World) {
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    world.run(&Deregister { hold: Some(60 * SECOND), ..deregister("sandbox-1") }).await;
    world.clock.advance(60 * SECOND);
    let old = world.come(&newcomer("w-1")).await;
    assert_eq!(old, Err(Rejection::WorkerDeregistered { retry_at: None }), "its boot was retired for good");
    assert_eq!(world.come(&Register { boot_id: name("w-1-boot-2"), ..newcomer("w-1") }).await, Ok(()));
    assert_eq!(world.view("w-1").await.status(), WorkerStatus::Idle);
    let keys = Keys { names: names(&["sandbox-1", "w-1"]), ..Keys::default() };
    let snapshot = world.snapshot(&keys).await;
    assert!(snapshot.names[&name("sandbox-1")].record.as_ref().is_some_and(|record| record.held_by.is_none()));
    let old = world.come(&newcomer("w-1")).await;
    assert_eq!(old, Err(Rejection::WorkerDeregistered { retry_at: None }), "also when another boot lives");
}

pub(super) async fn a_hold_that_a_client_lifted_is_over_at_once_on_every_server(world: World) {
    let who = world.worker_of("w-1", "sandbox-1", "i-1").await;
    let job = world.submit(submission()).await;
    assert_eq!(world.claim_one(&who).await, Some(job));
    world.run(&Deregister { cancel_active_jobs: false, ..deregister("sandbox-1") }).await;
    let lift = LiftHold { name: name("sandbox-1") };
    assert!(world.run(&lift).await.held, "a deregistration that runs keeps its hold");
    assert!(held(&world.come(&newcomer("w-2")).await));
    world.complete(&who, job).await;
    assert!(!world.run(&lift).await.held);
    assert_eq!(world.come(&newcomer("w-2")).await, Ok(()));
    let unknown = world.attempt(&LiftHold { name: name("nobody") }).await;
    assert_eq!(unknown, Err(Rejection::NameNotFound));
}

pub(super) async fn a_machine_that_is_retired_holds_its_name_and_those_of_its_workers(world: World) {
    world.worker_of("w-1", "sandbox-1", "i-1").await;
    world.worker_of("w-2", "sandbox-1", "i-2").await;
    let machine = Deregister {
        selector: Selector::Instance(name("i-1")),
        hold: Some(60 * SECOND),
        actor: client(),
        ..deregister("unused")
    };
    let record = world.run(&machine).await.deregistration;
    assert_eq!(record.deregistered, names(&["w-1"]));
    assert_eq!(world.view("w-2").await.status(), WorkerStatus::Idle);
    let on_machine = |id: &str| {
        let mut register = reboot(id, "another-boot");
        register.identity.ec2_instance_id = Some(name("i-1"));
        register
    };
    assert!(held(&world.come(&on_machine("w-3")).await), "under the machine");
    assert!(held(&world.come(&reboot("w-1", "another-boot")).await), "under the worker's own name");
    assert_eq!(world.come(&newcomer("w-4")).await, Ok(()), "the target is not held");
}
