//! What is over is forgotten in time; what goes on, or is still told of, never.

use std::time::Duration;

use gh_adapters_postgres::Retention;
use gh_core::domain::job::Completion;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::ports::callback_sender::SendOutcome;
use gh_core::ports::outbox::{Outbox, Settlement};
use gh_core::ports::reader::Reader;
use gh_core::ports::store::{Store, SweepRequest};
use gh_core::testing::{name, submission};
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
    let request = SweepRequest { limit: 10, offline_after: world.rules.policy.offline_after };
    assert_eq!(world.store.sweep(request, &world.rules).await.unwrap().committed.len(), 1);
    world.clock.advance(DAY);
    assert_eq!(world.store.retain(&retention).await.unwrap().workers, 0, "it has been offline for a day");
    world.clock.advance(retention.offline_workers);
    assert_eq!(world.store.retain(&retention).await.unwrap().workers, 1);
    assert!(world.store.worker(&name("w-1")).await.unwrap().1.is_none());
    assert!(world.store.worker(&name("w-2")).await.unwrap().1.is_some());
    assert_eq!((world.count("gh_worker_vitals").await, world.count("gh_names").await), (1, 1));
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
