//! A database that lets us in and then says nothing.

use std::time::Duration;

use gh_adapters_postgres::testing::TestDatabase;
use gh_adapters_postgres::{MigrateError, PgOptions, PgStore, StartError};
use sqlx::{Connection, PgConnection};

#[tokio::test]
async fn looking_at_a_database_that_gives_no_answer_ends_within_seconds() {
    const HOUR: Duration = Duration::from_secs(3600);
    let database = TestDatabase::create().await;
    // Whoever looks at the migrations waits, and the database does not end it.
    let mut other = PgConnection::connect_with(&database.address()).await.unwrap();
    sqlx::raw_sql("begin; lock table _sqlx_migrations in access exclusive mode").execute(&mut other).await.unwrap();
    let options = PgOptions { statement_timeout: HOUR, lock_timeout: HOUR, ..PgOptions::default() };
    let store = PgStore::connect_with(database.address(), &options);
    let looks = async { tokio::join!(store.start(true), store.is_migrated()) };
    let (started, is_migrated) = tokio::time::timeout(Duration::from_secs(60), looks).await.unwrap();
    assert!(matches!(started, Err(StartError::Silent)), "{started:?}");
    assert!(matches!(is_migrated, Err(MigrateError::Database(_))), "{is_migrated:?}");
    other.close().await.unwrap();
    store.start(true).await.unwrap();
}
