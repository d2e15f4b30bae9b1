//! What is over is forgotten in time; what goes on, or is still told of, never.

use std::time::Duration;

use gh_adapters_postgres::Retention;
use gh_core::domain::code::{Actor, ClientName};
use gh_core::domain::commands::{Command, Credential, Deregister, Goodbye, Selector, decide};
use gh_core::domain::job::Completion;
use gh_core::domain::rejection::Rejection;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::watch::Sight;
use gh_core::ports::callback_sender::SendOutcome;
use gh_core::ports::outbox::{Outbox, Settlement};
use gh_core::ports::reader::{Reader, WorkerQuery};
use gh_core::ports::store::{Store, SweepRequest};
use gh_core::testing::{name, registration, submission, submission_to};
use serde_json::value::RawValue;

use crate::world::World;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl World {
    /// Sends everything that is due.
    async fn deliver_all(&self) {
        loop {
            let leased = self.store.lease_due(10, &self.rules).await.unwrap();
            if leased.is_empty() {
                return;
            }
            let settle = |leased: gh_core::domain::callback::LeasedDelivery| Settlement {
                job_id: leased.job_id,
                lease_id: leased.lease_id,
                delivery_id: leased.delivery_id,
                outcome: SendOutcome::Answered {
                    status: 200,
                    retry_after: None,
                    excerpt: String::new(),
                    took: Duration::from_millis(5),
                },
                jitter: 0.5,
            };
            self.store.settle(leased.into_iter().map(settle).collect(), &self.rules).await.unwrap();
        }
    }
}

const TABLES: [&str; 6] =
    ["gh_jobs", "gh_job_specs", "gh_job_results", "gh_callback_queues", "gh_deliveries", "gh_idempotency_keys"];

#[tokio::test]
async fn a_job_is_forgotten_with_all_that_is_its_own_once_it_is_old_and_its_callbacks_are_through() {
    let world = World::new().await;
    let who = world.worker("w-1").await;
    let id = world.submit(SubmissionRequest { idempotency_key: Some("k-1".into()), ..submission() }).await;
    assert_eq!(world.claim(&who).await, Some(id));
    let result_data = Some(RawValue::from_string("{\"done\": true}".into()).unwrap().into());
    world.complete(&who, id, Completion { result_data, ..Completion::default() }).await;
    let waiting = world.submit(submission()).await;
    let retention = Retention { batch: 1, ..Retention::default() };
    world.clock.advance(retention.jobs + DAY);
    assert_eq!(world.store.retain(&retention).await.unwrap().jobs, 0, "its callbacks are not through");
    world.deliver_all().await;
    let forgotten = world.store.retain(&Retention { jobs: DAY * 200, ..retention.clone() }).await.unwrap();
    assert_eq!((forgotten.jobs, forgotten.deliveries), (0, 2), "not old enough");
    let forgotten = world.store.retain(&retention).await.unwrap();
    assert_eq!(forgotten.jobs, 1);
    assert!(world.store.job(id).await.unwrap().is_none());
    assert!(world.store.job(waiting).await.unwrap().is_some(), "one that waits is never forgotten");
    let left: Vec<i64> = futures_util::future::join_all(TABLES.map(|table| world.count(table))).await;
    assert_eq!(left, [1, 1, 0, 0, 0, 0], "{TABLES:?}");
    let again = world.submit(SubmissionRequest { idempotency_key: Some("k-1".into()), ..submission() }).await;
    assert_ne!(again, id, "its key is free");
}

#[tokio::test]
async fn old_events_go_with_their_partitions_and_from_the_default_one_in_batches() {
    let world = World::new().await;
    world
        .sql(
            "create table gh_job_events_20250901 partition of gh_job_events
            for values from ('2025-09-01T00:00:00Z') to ('2025-09-08T00:00:00Z')",
        )
        .await;
    world.sql(
        "insert into gh_job_events select gen_random_uuid(), gen_random_uuid(), n, 'thought', null, null, 'm', '{}',
            'system', 1, 1, at, at from generate_series(1, 25) n,
            unnest(array['2025-09-03T00:00:00Z', '2025-08-01T00:00:00Z', '2025-12-31T00:00:00Z']::timestamptz[]) at",
    )
    .await;
    let retention = Retention { batch: 10, ..Retention::default() };
    let forgotten = world.store.retain(&retention).await.unwrap();
    assert_eq!((forgotten.partitions, forgotten.events), (1, 25));
    assert_eq!(world.count("gh_job_events").await, 25);
}

#[tokio::test]
async fn a_worker_that_went_offline_is_forgotten_after_a_week_with_its_name_and_one_that_lives_is_not() {
    let world = World::new().await;
    world.worker("w-1").await;
    let retention = Retention::default();
    world.clock.advance(retention.offline_workers);
    world.worker("w-2").await;
    let request = SweepRequest { limit: 10, sight: Sight::default() };
    assert_eq!(world.store.sweep(request, &world.rules).await.unwrap().committed.len(), 1);
    world.clock.advance(DAY);
    assert_eq!(world.store.retain(&retention).await.unwrap().workers, 0, "it has been offline for a day");
    world.clock.advance(retention.offline_workers);
    assert_eq!(world.store.retain(&retention).await.unwrap().workers, 1);
    assert!(world.store.worker(&name("w-1")).await.unwrap().1.is_none());
    assert!(world.store.worker(&name("w-2")).await.unwrap().1.is_some());
    assert_eq!((world.count("gh_worker_vitals").await, world.count("gh_names").await), (1, 1));
}

impl World {
    /// A worker of a target on a machine, that says much of itself.
    async fn known_worker(&self, id: &str, target: &str, machine: &str) -> Credential {
        let mut register = registration(id);
        register.identity.target_worker_id = Some(name(target));
        register.identity.ec2_instance_id = Some(name(machine));
        register.metadata = Some(RawValue::from_string(format!("{{\"much\": \"{}\"}}", "x".repeat(4000))).unwrap());
        self.run(&register).await.credential
    }

    /// Lets every worker fall silent, until long after.
    async fn silence(&self) {
        self.clock.advance(DAY);
        let request = SweepRequest { limit: 100, sight: Sight::default() };
        while self.store.sweep(request.clone(), &self.rules).await.unwrap().more {}
        self.clock.advance(Retention::default().offline_workers + DAY);
    }

    async fn forget_workers(&self) -> u64 {
        self.store.retain(&Retention { batch: 1, ..Retention::default() }).await.unwrap().workers
    }

    /// Has a command refused, and stores what the refusal leaves.
    async fn refusal<C: Command>(&self, command: &C) -> Rejection
    where
        C::Answer: std::fmt::Debug,
    {
        let snapshot = self.store.load(&command.keys()).await.unwrap();
        let decision = decide(&snapshot, command, &self.rules);
        assert_eq!(self.store.commit(vec![decision.changes], &self.rules).await.unwrap(), [Ok(())]);
        decision.answer.unwrap_err()
    }

    /// How many workers readers are shown, however they ask.
    async fn shown(&self, id: &str) -> usize {
        let all = WorkerQuery::default();
        let of_target = WorkerQuery { target_worker_id: Some(name("target")), ..all.clone() };
        let on_machine = WorkerQuery { ec2_instance_id: Some(name("machine")), ..all.clone() };
        let shown = self.store.workers(&all).await.unwrap().1.len();
        assert_eq!(self.store.workers(&of_target).await.unwrap().1.len(), shown);
        assert_eq!(self.store.workers(&on_machine).await.unwrap().1.len(), shown);
        assert_eq!(self.store.glance().await.unwrap().1.len(), shown);
        assert_eq!(usize::from(self.store.worker(&name(id)).await.unwrap().1.is_some()), shown);
        shown
    }
}

#[tokio::test]
async fn a_forgotten_worker_is_shown_to_nobody_and_goes_on_with_its_next_generation_when_it_comes_again() {
    let world = World::new().await;
    let old = world.known_worker("w-1", "target", "machine").await;
    assert_eq!(world.shown("w-1").await, 1);
    world.silence().await;
    assert_eq!(world.forget_workers().await, 1);
    assert_eq!(world.shown("w-1").await, 0);
    assert_eq!((world.count("gh_names").await, world.count("gh_worker_vitals").await), (0, 0));
    let size: i32 =
        sqlx::query_scalar("select max(octet_length(body)) from gh_workers").fetch_one(world.pool()).await.unwrap();
    assert!(size < 1000, "what was said of it is still there: {size} bytes");

    let goodbye = |who: &Credential| Goodbye { who: who.clone(), reason: "stop".into() };
    assert_eq!(world.refusal(&goodbye(&old)).await, Rejection::StaleGeneration);
    assert_eq!(world.shown("w-1").await, 0, "its old process called, and is not it");
    assert_eq!(world.forget_workers().await, 0, "it is forgotten once");

    let new = world.known_worker("w-1", "target", "machine").await;
    assert_eq!(new.generation, old.generation.next());
    assert_eq!(world.shown("w-1").await, 1);
    assert_eq!(world.refusal(&goodbye(&old)).await, Rejection::StaleGeneration);
    world.listen(&new).await;
    let id = world.submit(submission_to("target", "strict")).await;
    assert_eq!(world.store.job(id).await.unwrap().unwrap().occupies(), Some(&name("w-1")), "its names lead to it");
    world.silence().await;
    assert_eq!(world.forget_workers().await, 1, "and it can be forgotten again");
}

#[tokio::test]
async fn a_process_that_was_deregistered_stays_refused_after_its_worker_was_forgotten() {
    let world = World::new().await;
    let old = world.known_worker("w-1", "target", "machine").await;
    let deregister = Deregister {
        selector: Selector::Target(name("target")),
        actor: Actor::Client(ClientName::new("valet")),
        reason: "scale-down".into(),
        cancel_active_jobs: true,
        drain_timeout: None,
        hold: None,
        dry_run: false,
    };
    assert_eq!(world.run(&deregister).await.deregistration.deregistered, [name("w-1")]);
    world.clock.advance(Retention::default().deregistered_workers - DAY);
    assert_eq!(world.forget_workers().await, 0);
    world.clock.advance(DAY * 2);
    assert_eq!(world.forget_workers().await, 1);
    assert_eq!((world.shown("w-1").await, world.count("gh_names").await), (0, 0));

    let mut register = registration("w-1");
    assert_eq!(world.refusal(&register).await, Rejection::WorkerDeregistered { retry_at: None });
    register.boot_id = name("w-1-boot-2");
    let registered = world.run(&register).await;
    assert_eq!(registered.credential.generation, old.generation.next());
    register.boot_id = name("w-1-boot-1");
    assert_eq!(world.refusal(&register).await, Rejection::WorkerDeregistered { retry_at: None });
}

#[tokio::test]
async fn names_of_a_forgotten_worker_that_others_carry_stay() {
    let world = World::new().await;
    world.known_worker("w-1", "target", "machine").await;
    world.known_worker("w-4", "target-4", "machine-4").await;
    world.silence().await;
    world.known_worker("w-2", "w-1", "machine-2").await;
    world.known_worker("w-3", "target", "machine").await;
    assert_eq!(world.forget_workers().await, 2);
    let names: Vec<String> =
        sqlx::query_scalar("select name from gh_names order by name").fetch_all(world.pool()).await.unwrap();
    assert_eq!(names, ["machine", "machine-2", "target", "w-1", "w-2", "w-3"]);
}

#[tokio::test]
async fn a_name_that_somebody_takes_while_its_worker_is_forgotten_stays() {
    let world = World::new().await;
    world.known_worker("w-1", "target", "machine").await;
    world.silence().await;
    let mut register = registration("w-2");
    register.identity.target_worker_id = Some(name("target"));
    let changes = [world.decision(&register).await];
    let mut transaction = world.pool().begin().await.unwrap();
    world.store.commit_in(&mut transaction, &changes, &world.rules).await.unwrap()[0].unwrap();
    let commit = async {
        let waiting = "pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        while world.count(waiting).await == 0 {}
        transaction.commit().await.unwrap();
    };
    let (forgotten, ()) = tokio::join!(world.forget_workers(), commit);
    assert_eq!(forgotten, 1);
    let names: Vec<String> =
        sqlx::query_scalar("select name from gh_names order by name").fetch_all(world.pool()).await.unwrap();
    assert_eq!(names, ["target", "w-2"]);
}

#[tokio::test]
async fn one_server_at_a_time_forgets() {
    let world = World::new().await;
    let mut other = world.pool().acquire().await.unwrap();
    let lock = async |function: &str, connection: &mut sqlx::PgConnection| {
        let sql = format!("select {function}(x'67687265'::bigint << 32 | x'7461696e'::bigint)");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(connection).await.unwrap();
    };
    lock("pg_advisory_lock", &mut other).await;
    assert_eq!(world.store.retain_unless_busy(&Retention::default()).await.unwrap(), None);
    lock("pg_advisory_unlock", &mut other).await;
    assert!(world.store.retain_unless_busy(&Retention::default()).await.unwrap().is_some());
    assert!(world.store.retain_unless_busy(&Retention::default()).await.unwrap().is_some(), "it lets go of the lock");
}
