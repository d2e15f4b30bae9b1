//! A control plane that was blind gives nobody up.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::bed::TestBed;
use super::steps::{deregister, drain};
use super::world::{Open, SECOND, World, heartbeat};
use crate::domain::changeset::Changeset;
use crate::domain::commands::{Command, Credential, Deregister, Heartbeat, Register, decide};
use crate::domain::event::{EventType, WorkerEvent};
use crate::domain::ids::{JobId, WorkerId};
use crate::domain::job::JobStatus;
use crate::domain::placement::{self, FleetView, WaitingCode};
use crate::domain::snapshot::Keys;
use crate::domain::submission::SubmissionRequest;
use crate::domain::time::Timestamp;
use crate::domain::watch::{Lookout, Trouble};
use crate::domain::worker::WorkerStatus;
use crate::ports::reader::WorkerQuery;
use crate::ports::store::{SweepRequest, Swept};
use crate::testing::{ManualClock, name, registration, submission, submission_to};

/// Nobody is given up by a sweep with this limit for the lack of a place.
const ALL: usize = 1000;

impl World {
    async fn fleet(&self, count: usize) -> Vec<Credential> {
        let mut fleet = Vec::new();
        for number in 0..count {
            fleet.push(self.run(&registration(&format!("w-{number:03}"))).await.credential);
        }
        fleet
    }

    async fn beat(&self, fleet: &[Credential]) {
        for who in fleet {
            self.run(&heartbeat(who)).await;
        }
    }

    /// Runs commands that do not concern each other, many in one commit.
    async fn run_together<C: Command>(&self, commands: &[C]) -> Vec<C::Answer> {
        let mut answers = Vec::new();
        for some in commands.chunks(500) {
            let keys: Vec<Keys> = some.iter().map(Command::keys).collect();
            let snapshot = self.snapshot(&Keys::merged(&keys)).await;
            let decisions = some.iter().map(|command| decide(&snapshot, command, &self.rules));
            let (changes, decided): (Vec<_>, Vec<_>) =
                decisions.map(|decision| (decision.changes, decision.answer)).unzip();
            assert!(self.commit(changes).await.iter().all(Result::is_ok));
            answers.extend(decided.into_iter().map(|answer| answer.ok().unwrap()));
        }
        answers
    }

    async fn why_it_waits(&self, id: JobId) -> WaitingCode {
        let (now, workers) = self.reader.glance().await.unwrap();
        let brake = self.reader.fleet_watch().await.unwrap().episode(now).is_some();
        let fleet = FleetView { now, workers: &workers, brake, policy: &self.rules.policy };
        placement::waiting(self.job(id).await.as_ref(), &fleet).unwrap().code
    }

    async fn offline(&self, fleet: &[Credential]) -> usize {
        let mut offline = 0;
        for who in fleet {
            offline += usize::from(self.view(who.worker_id.as_str()).await.status() == WorkerStatus::Offline);
        }
        offline
    }

    /// A look of a server that has just come back to the store, and the sweep that follows.
    async fn sweep_after(&self, trouble: Trouble) -> Swept {
        let watched = self.watch(Lookout { trouble: Some(trouble), ..Lookout::by_hand(self.server) }).await;
        self.store.sweep(SweepRequest { limit: ALL, sight: watched.sight }, &self.rules).await.unwrap()
    }

    /// The events of the fleet that looks left, seconds apart, from now on.
    async fn told_within(&self, seconds: u32) -> Vec<WorkerEvent> {
        let mut told = Vec::new();
        for _ in 0..seconds {
            self.clock.advance(SECOND);
            let watched = self.watch(Lookout::by_hand(self.server)).await;
            told.extend(watched.changes.worker_events().iter().cloned());
        }
        told
    }
}

fn events_of(changes: &Changeset) -> Vec<&str> {
    changes.worker_events().iter().map(|event| event.event_type.as_str()).collect()
}

/// One job for each deadline that hangs on hearing, each with a worker of its own; the drained one last.
struct Deadlines {
    workers: Vec<Credential>,
    reserved: JobId,
    running: JobId,
    drained: JobId,
}

impl Deadlines {
    /// At most 10 s are left to each.
    async fn of(world: &World) -> Self {
        let picking = world.worker_of("w-reserved", "sandbox-1", "i-1").await;
        let reserved = world.submit(submission_to("sandbox-1", "preferred")).await;
        let busy = world.worker("w-running").await;
        let short = SubmissionRequest { timeout_seconds: Some(10), ..submission() };
        let running = world.submit(short).await;
        assert_eq!(world.claim_one(&busy).await, Some(running));
        let leaving = world.worker("w-drained").await;
        let drained = world.submit(submission()).await;
        assert_eq!(world.claim_one(&leaving).await, Some(drained));
        world.run(&drain(&leaving, Some(10 * SECOND))).await;
        Self { workers: vec![picking, busy, leaving], reserved, running, drained }
    }

    async fn statuses(&self, world: &World) -> [JobStatus; 3] {
        [world.status(self.reserved).await, world.status(self.running).await, world.status(self.drained).await]
    }
}

const UNTOUCHED: [JobStatus; 3] = [JobStatus::Queued, JobStatus::Running, JobStatus::Running];
const PUT_BACK: [JobStatus; 3] = [JobStatus::Pending; 3];

pub(super) async fn while_the_brake_holds_nobody_is_given_up_and_no_deadline_that_hangs_on_hearing_is_over(
    world: World,
) {
    // Heard for the last time at 0: the brake is engaged at 10 and lasts until 30.
    let fleet = world.fleet(20).await;
    world.sweep(ALL).await;
    world.clock.advance(5 * SECOND);
    // Over at 15, and their workers are heard.
    let deadlines = Deadlines::of(&world).await;
    world.sweep(ALL).await;
    for second in 6..30 {
        world.clock.advance(SECOND);
        world.beat(&deadlines.workers).await;
        world.sweep(ALL).await;
        assert_eq!(world.offline(&fleet).await, 0, "at {second}");
        assert_eq!(deadlines.statuses(&world).await, UNTOUCHED, "at {second}");
        let why = world.why_it_waits(deadlines.reserved).await;
        assert_eq!(why, if second < 15 { WaitingCode::Reserved } else { WaitingCode::Brake }, "at {second}");
    }
    world.clock.advance(SECOND);
    world.beat(&deadlines.workers).await;
    world.sweep(ALL).await;
    assert_eq!(world.offline(&fleet).await, fleet.len());
    assert_eq!(deadlines.statuses(&world).await, PUT_BACK);
}

pub(super) async fn nobody_is_given_up_before_the_silence_of_the_whole_fleet_is_counted(world: World) {
    // They fall silent one after the other within five seconds, as heartbeats come that are not in step.
    let fleet = world.fleet(20).await;
    for who in &fleet {
        world.beat(std::slice::from_ref(who)).await;
        world.clock.advance(SECOND / 4);
    }
    // The eleventh has been silent for 10 s at 12.5: more than half, and the first is not yet given up.
    for step in 20..130 {
        world.sweep(ALL).await;
        assert_eq!(world.offline(&fleet).await, 0, "at {} s", f64::from(step) / 4.0);
        world.clock.advance(SECOND / 4);
    }
    world.sweep(ALL).await;
    assert_eq!(world.offline(&fleet).await, fleet.len(), "at 32.5 s");
}

pub(super) async fn whoever_is_still_silent_after_the_episode_is_lost_within_twice_the_time(world: World) {
    let fleet = world.fleet(100).await;
    let (dead, alive) = fleet.split_at(60);
    world.sweep(ALL).await;
    let mut offline = Vec::new();
    for second in 1..=40_u32 {
        world.clock.advance(SECOND);
        if second % 5 == 0 {
            world.beat(alive).await;
        }
        world.sweep(ALL).await;
        offline.push(world.offline(dead).await);
    }
    assert_eq!(offline[28], 0, "the brake holds");
    assert_eq!(offline[39], 60, "within two offline_after");
    assert_eq!(world.offline(alive).await, 0);
}

pub(super) async fn blind_time_is_added_to_every_deadline_that_hangs_on_hearing(world: World) {
    let deadlines = Deadlines::of(&world).await;
    world.sweep(ALL).await;
    world.clock.advance(4 * SECOND);
    world.beat(&deadlines.workers).await;
    world.sweep(ALL).await;
    // A minute without the store.
    world.clock.advance(60 * SECOND);
    world.sweep_after(Trouble::Lost).await;
    assert_eq!(deadlines.statuses(&world).await, UNTOUCHED);
    // 6 s were left to each deadline, 16 s to the silence of each worker; the brake holds for 20 s.
    for _ in 0..19 {
        world.clock.advance(SECOND);
        world.beat(&deadlines.workers).await;
        world.sweep(ALL).await;
        assert_eq!(deadlines.statuses(&world).await, UNTOUCHED);
    }
    world.clock.advance(SECOND);
    world.beat(&deadlines.workers).await;
    world.sweep(ALL).await;
    assert_eq!(deadlines.statuses(&world).await, PUT_BACK);

    // With more left than the brake holds, blind time is all that is added, and only once.
    let who = world.worker_of("w-long", "sandbox-2", "i-2").await;
    let slow = SubmissionRequest { timeout_seconds: Some(100), ..submission_to("sandbox-2", "preferred") };
    let long = world.submit(slow).await;
    world.run(&world.claim_of(&who)).await;
    world.sweep(ALL).await;
    let granted_at = world.job(long).await.lease().unwrap().granted_at;
    world.clock.advance(50 * SECOND);
    world.sweep_after(Trouble::Stalled).await;
    loop {
        let since = world.reader.now().await.unwrap().since(granted_at);
        world.beat(std::slice::from_ref(&who)).await;
        world.sweep(ALL).await;
        let expected = if since < 150 * SECOND { JobStatus::Running } else { JobStatus::Pending };
        assert_eq!(world.status(long).await, expected, "{since:?}");
        if since >= 150 * SECOND {
            return;
        }
        world.clock.advance(SECOND);
    }
}

pub(super) async fn expiry_callbacks_and_holds_on_names_are_not_held_back(world: World) {
    let fleet = world.fleet(10).await;
    world.worker_of("w-retired", "sandbox-9", "i-9").await;
    world.run(&Deregister { hold: Some(15 * SECOND), ..deregister("sandbox-9") }).await;
    let waits = SubmissionRequest { expires_in_seconds: Some(5), ..submission() };
    let waits = SubmissionRequest { callback_url: Some("https://client.example/callbacks".into()), ..waits };
    let expiring = world.submit(waits).await;
    world.sweep(ALL).await;
    world.clock.advance(60 * SECOND);
    let swept = world.sweep_after(Trouble::Lost).await;
    assert_eq!(world.status(expiring).await, JobStatus::Expired, "{swept:?}");
    assert_eq!(world.outbox.lease_due(ALL, &world.rules).await.unwrap().len(), 1);
    assert_eq!(world.offline(&fleet).await, 0);
    let mut newcomer = registration("w-new");
    newcomer.identity.target_worker_id = Some(name("sandbox-9"));
    assert!(world.attempt(&newcomer).await.is_ok(), "the hold is over");
}

pub(super) async fn a_server_that_has_just_started_holds_back_alone_while_another_looks(world: World) {
    let fleet = world.fleet(3).await;
    let newcomer = world.elsewhere().await;
    world.sweep(ALL).await;
    world.clock.advance(20 * SECOND - SECOND / 2);
    world.sweep(ALL).await;
    world.clock.advance(SECOND / 2);
    assert!(newcomer.sweep_after(Trouble::Started).await.committed.is_empty());
    assert_eq!(world.offline(&fleet).await, 0);
    world.sweep(ALL).await;
    assert_eq!(world.offline(&fleet).await, 3);

    // Alone, it holds back for all that come after it.
    let alone = [world.worker("w-a").await, world.worker("w-b").await];
    world.clock.advance(100 * SECOND);
    assert!(newcomer.sweep_after(Trouble::Started).await.committed.is_empty());
    world.sweep(ALL).await;
    assert_eq!(world.offline(&alone).await, 0);
    world.clock.advance(20 * SECOND);
    world.sweep(ALL).await;
    assert_eq!(world.offline(&alone).await, 2);
}

pub(super) async fn what_one_server_found_is_told_once_and_known_to_all(world: World) {
    world.fleet(12).await;
    world.sweep(ALL).await;
    let servers = join_all((0..4).map(|_| world.elsewhere())).await;
    world.clock.advance(10 * SECOND);
    let looks = join_all(servers.iter().map(|server| server.watch(Lookout::by_hand(server.server)))).await;
    let told: Vec<&str> = looks.iter().flat_map(|watched| events_of(&watched.changes)).collect();
    assert_eq!(told, ["brake_engaged"]);
    let now = world.reader.now().await.unwrap();
    let episode = world.reader.fleet_watch().await.unwrap().episode(now).unwrap();
    assert_eq!(episode.until, now + world.rules.policy.offline_after);
    let event = looks.iter().flat_map(|watched| watched.changes.worker_events()).next().unwrap();
    assert_eq!((event.worker_id.clone(), event.generation, event.seq), (None, None, 1));
    assert_eq!(event.metadata.as_deref().unwrap().get(), r#"{"silent":12,"workers":12}"#);
    let told = world.told_within(25).await;
    let told: Vec<_> =
        told.iter().map(|event| (event.event_type.clone(), event.worker_id.clone(), event.seq)).collect();
    assert_eq!(told, [(EventType::BRAKE_RELEASED, None, 2)]);
}

pub(super) async fn what_was_seen_too_long_ago_gives_nobody_up(world: World) {
    let fleet = world.fleet(3).await;
    world.sweep(ALL).await;
    world.clock.advance(10 * SECOND);
    let seen = world.watch(Lookout::by_hand(world.server)).await;
    world.clock.advance(60 * SECOND);
    let request = SweepRequest { limit: ALL, sight: seen.sight };
    assert!(world.store.sweep(request, &world.rules).await.unwrap().committed.is_empty());
    assert_eq!(world.offline(&fleet).await, 0);
}

pub(super) async fn of_many_workers_each_is_given_up_within_a_second_of_its_deadline(world: World) {
    given_up_in_time(&world, 200).await;
}

/// The same as the scenario `of_many_workers_each_is_given_up_within_a_second_of_its_deadline` with a fleet of this
/// size, for stores that are made for large ones.
///
/// # Panics
///
/// When a worker is given up too early, too late or never.
pub async fn each_of_a_fleet_is_given_up_in_time<B: TestBed>(size: usize) {
    let clock = Arc::new(ManualClock::default());
    let bed = Arc::new(B::create(clock.clone()).await);
    let open: Open = {
        let bed = Arc::clone(&bed);
        Box::new(move || {
            let bed = Arc::clone(&bed);
            Box::pin(async move { bed.open().await })
        })
    };
    given_up_in_time(&World::new(clock, open).await, size).await;
}

async fn given_up_in_time(world: &World, size: usize) {
    let quiet = size / 5;
    let registrations: Vec<Register> = (0..size).map(|number| registration(&format!("w-{number:05}"))).collect();
    let registered = world.run_together(&registrations).await;
    let beats: Vec<Heartbeat> = registered.iter().map(|registered| heartbeat(&registered.credential)).collect();
    // Four out of five go on beating, the others fall silent within two seconds.
    let (silent, alive) = beats.split_at(quiet);
    let mut given_up_at: HashMap<WorkerId, Timestamp> = HashMap::new();
    for quarter in silent.chunks(quiet / 4) {
        world.run_together(quarter).await;
        let deadline = world.reader.now().await.unwrap() + world.rules.policy.offline_after;
        given_up_at.extend(quarter.iter().map(|beat| (beat.who.worker_id.clone(), deadline)));
        world.clock.advance(SECOND / 2);
    }
    for half_second in 1..=44 {
        if half_second % 10 == 1 {
            world.run_together(alive).await;
        }
        loop {
            let swept = world.sweep(500).await;
            let now = world.reader.now().await.unwrap();
            for worker in swept.committed.iter().flat_map(Changeset::workers) {
                let deadline = given_up_at.remove(&worker.id).unwrap();
                assert!(deadline <= now && now.since(deadline) <= SECOND, "{}: {deadline}, {now}", worker.id);
            }
            if !swept.more {
                break;
            }
        }
        world.clock.advance(SECOND / 2);
    }
    assert!(given_up_at.is_empty(), "{} are never given up", given_up_at.len());
    let present = world.reader.workers(&WorkerQuery::default()).await.unwrap().1;
    assert_eq!(present.iter().filter(|view| view.worker.is_present()).count(), size - quiet);
}
