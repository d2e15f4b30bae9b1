//! The tables come about by themselves, once, and an old program leaves newer ones alone.

use std::time::Duration;

use gh_adapters_postgres::testing::TestDatabase;
use gh_adapters_postgres::{MigrateError, PgOptions, PgStore};
use gh_core::ports::reader::Reader;
use gh_core::ports::store::{Store, StoreError};

#[tokio::test]
async fn migrations_that_were_applied_are_not_applied_again() {
    let database = TestDatabase::create_empty().await;
    let store = database.store(None);
    assert!(!store.is_migrated().await.unwrap());
    for _ in 0..2 {
        store.migrate().await.unwrap();
        assert!(store.is_migrated().await.unwrap());
    }
    assert_eq!(store.figures().await.unwrap().callbacks_open, 0);
    let partitions: i64 = sqlx::query_scalar(
        "select count(*) from pg_inherits i join pg_class c on c.oid = i.inhrelid \
        where c.relkind = 'r' and c.relname ~ '_[0-9]{8}$'",
    )
    .fetch_one(store.pool())
    .await
    .unwrap();
    assert_eq!(partitions, 10, "this week and the next four, of both kinds of events");
}

#[tokio::test]
async fn servers_that_start_at_once_on_an_empty_database_all_come_up() {
    let database = TestDatabase::create_empty().await;
    let stores: Vec<_> = (0..4).map(|_| database.store(None)).collect();
    let migrated = futures_util::future::join_all(stores.iter().map(|store| store.migrate())).await;
    for outcome in migrated {
        outcome.unwrap();
    }
    let keys = futures_util::future::join_all(stores.iter().map(|store| store.token_key())).await;
    let keys: Vec<[u8; 32]> = keys.into_iter().map(Result::unwrap).collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "all have one key");
    assert_ne!(keys[0], [0; 32]);
}

#[tokio::test]
async fn a_database_that_a_newer_version_has_changed_is_refused_by_name() {
    let database = TestDatabase::create().await;
    let store = database.store(None);
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9000, 'of the future', true, 'x', 0)",
    )
    .execute(store.pool())
    .await
    .unwrap();
    for outcome in [store.migrate().await, store.is_migrated().await.map(drop)] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, MigrateError::Newer { found: 9000, known: 3 }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the database has migration 9000, this program knows none after 3: it is too old for it"
        );
    }
}

#[tokio::test]
async fn a_store_is_away_until_its_database_is_migrated_and_then_comes_back_by_itself() {
    let database = TestDatabase::create_empty().await;
    let options = PgOptions { acquire_timeout: Duration::from_millis(200), ..PgOptions::default() };
    let store = PgStore::connect(&database.url(), &options).unwrap();
    assert!(matches!(store.figures().await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.now().await, Err(StoreError::Unavailable(_))));
    store.migrate().await.unwrap();
    store.now().await.unwrap();
    assert_eq!(store.figures().await.unwrap().callbacks_open, 0);
}
