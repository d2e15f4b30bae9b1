//! What the database refuses, and what that means for the caller. Each refusal is a real one.

use std::time::Duration;

use gh_adapters_postgres::{PgOptions, PgStore};
use gh_core::domain::commands::{DrainWish, Heartbeat, JobClaim};
use gh_core::domain::worker::Beat;
use gh_core::ports::reader::Reader;
use gh_core::ports::store::{Store, StoreError};
use gh_core::testing::{rules, submission};
use sqlx::Connection;

use crate::world::{World, poison, submit};

fn unavailable<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert!(matches!(answer, Err(StoreError::Unavailable(Some(_)))), "{answer:?}");
}

#[tokio::test]
async fn a_row_that_somebody_holds_for_too_long_is_unavailable_and_free_later() {
    let world = World::new().await;
    let who = world.worker("w-1").await;
    let options = PgOptions { max_connections: 2, lock_timeout: Duration::from_millis(50), ..PgOptions::default() };
    let impatient = PgStore::connect_with(world.database.address(), &options);
    let beat = Heartbeat {
        who,
        beat: Beat::default(),
        job: JobClaim::Silent,
        drain: DrainWish::Silent,
        acknowledged: Vec::new(),
    };
    let changes = world.decision(&beat).await;
    let mut holder = world.pool().begin().await.unwrap();
    sqlx::query("select from gh_worker_vitals for update").execute(&mut *holder).await.unwrap();
    unavailable(impatient.commit(vec![changes.clone()], &world.rules).await);
    holder.rollback().await.unwrap();
    assert_eq!(impatient.commit(vec![changes], &world.rules).await.unwrap(), [Ok(())]);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_unavailable() {
    let world = World::new().await;
    let options = PgOptions { statement_timeout: Duration::from_millis(50), ..PgOptions::default() };
    let impatient = PgStore::connect_with(world.database.address(), &options);
    let mut holder = world.pool().begin().await.unwrap();
    sqlx::query("lock table gh_callback_queues in access exclusive mode").execute(&mut *holder).await.unwrap();
    unavailable(impatient.figures().await);
}

#[tokio::test]
async fn a_read_only_database_is_unavailable_for_writes_and_recovers() {
    let world = World::new().await;
    let changes = world.decision(&submit(submission())).await;
    let read_only =
        |on: &str| format!("alter database {} set default_transaction_read_only = {on}", database_of(&world));
    world.sql(&read_only("on")).await;
    let store = world.database.store(None);
    unavailable(store.commit(vec![changes.clone()], &world.rules).await);
    assert_eq!(store.figures().await.unwrap().callbacks_open, 0, "reading goes on");
    let mut owner = sqlx::PgConnection::connect_with(&world.database.address()).await.unwrap();
    sqlx::query("set default_transaction_read_only = off").execute(&mut owner).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(read_only("off"))).execute(&mut owner).await.unwrap();
    // Sessions from before stay read-only for as long as they live: so they are replaced.
    let recovered = async {
        loop {
            match store.commit(vec![changes.clone()], &world.rules).await {
                Ok(answers) => return answers,
                Err(error) => assert!(matches!(error, StoreError::Unavailable(Some(_))), "{error:?}"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(30), recovered).await.unwrap(), [Ok(())]);
}

fn database_of(world: &World) -> String {
    world.database.address().get_database().unwrap().to_owned()
}

#[tokio::test]
async fn a_connection_that_the_database_cut_is_unavailable_once_and_then_replaced() {
    let world = World::new().await;
    let options = PgOptions { max_connections: 2, ..PgOptions::default() };
    let store = PgStore::connect_with(world.database.address(), &options);
    store.figures().await.unwrap();
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'gh-server'";
    assert_eq!(world.sql(cut).await, 1);
    let mut failures = 0;
    while let Err(error) = store.figures().await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        failures += 1;
        assert!(failures < 3, "the connection is not replaced");
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable() {
    let nowhere = "postgres://gh@127.0.0.1:1/gh".parse().unwrap();
    let options = PgOptions { acquire_timeout: Duration::from_millis(200), ..PgOptions::default() };
    let store = PgStore::connect_with(nowhere, &options);
    unavailable(store.figures().await);
    unavailable(store.commit(vec![gh_core::domain::changeset::Changeset::default()], &rules()).await);
}

#[tokio::test]
async fn a_batch_with_a_changeset_that_the_tables_refuse_leaves_nothing_and_its_halves_find_the_one() {
    let world = World::new().await;
    let mut changes = Vec::new();
    for place in 0..8 {
        changes.push(match place {
            5 => world.decision(&poison()).await,
            _ => world.decision(&submit(submission())).await,
        });
    }
    // As whoever gathered the batch does it.
    let mut batches = vec![changes];
    let mut refused = 0;
    while let Some(mut batch) = batches.pop() {
        let before = world.count("gh_jobs").await;
        match world.store.commit(batch.clone(), &world.rules).await {
            Ok(answers) => assert_eq!(answers, vec![Ok(()); batch.len()]),
            Err(StoreError::Internal(_)) => {
                assert_eq!(world.count("gh_jobs").await, before, "nothing of the batch is stored");
                assert_eq!(world.count("gh_job_events").await, before);
                if batch.len() == 1 {
                    refused += 1;
                } else {
                    let second = batch.split_off(batch.len() / 2);
                    batches.extend([second, batch]);
                }
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((refused, world.count("gh_jobs").await), (1, 7));
}
