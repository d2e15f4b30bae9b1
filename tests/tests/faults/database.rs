//! A database that fails under load.

use gh_adapters_postgres::testing::TestDatabase;
use gh_adapters_postgres::{PgOptions, PgStore, Retention, StartError};
use gh_core::ports::store::StoreError;
use gh_tests::{PATIENCE, PrivatePostgres, Proxy, submission};
use serde_json::json;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::stage::{Stage, size};

async fn connection(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

/// A database behind a network, and its address through it.
async fn behind_a_proxy(database: &TestDatabase) -> (Proxy, String) {
    let address = database.address();
    let proxy = Proxy::start(format!("{}:{}", address.get_host(), address.get_port()), true).await;
    let url = address.host("127.0.0.1").port(proxy.port()).to_url_lossy();
    (proxy, url.to_string())
}

/// Ends all processes of the database at once, so often, and starts it again.
async fn survives_pulled_plugs(times: usize) {
    let postgres = PrivatePostgres::start(&[]);
    let url = postgres.url("postgres");
    let mut stage = Stage::start(&url, &size()).await;
    for _ in 0..times {
        postgres.stop_immediately();
        for server in &stage.servers {
            server.until_ready(false).await;
        }
        stage.load.check();
        postgres.start_again();
        stage.load.ledger().grows_by(60).await;
    }
    stage.check(&url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pulling_the_plug_of_the_database_under_load_loses_nothing_that_was_acknowledged() {
    survives_pulled_plugs(3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/long-faults"]
async fn pulling_the_plug_of_the_database_twenty_times_loses_nothing_that_was_acknowledged() {
    survives_pulled_plugs(20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cutting_every_connection_under_load_loses_nothing_that_was_acknowledged() {
    const CUT: &str = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()";
    let database = TestDatabase::create().await;
    let mut stage = Stage::start(&database.url(), &size()).await;
    let mut connection = connection(&database.url()).await;
    for _ in 0..15 {
        let cut: i64 = sqlx::query_scalar(CUT).fetch_one(&mut connection).await.unwrap();
        assert!(cut > 2, "both servers were connected");
        stage.load.check();
        stage.load.ledger().grows_by(30).await;
    }
    stage.check(&database.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_stalls_or_is_cut_under_load_loses_nothing_that_was_acknowledged() {
    let database = TestDatabase::create().await;
    let (proxy, url) = behind_a_proxy(&database).await;
    let mut stage = Stage::start(&url, &size()).await;
    for round in 0..4 {
        proxy.stall();
        for server in &stage.servers {
            server.until_ready(false).await;
        }
        if round % 2 == 1 {
            proxy.cut();
        }
        stage.load.check();
        proxy.mend();
        stage.load.ledger().grows_by(60).await;
    }
    stage.check(&database.url()).await;
}

#[tokio::test]
async fn what_needs_a_connection_of_its_own_does_not_wait_for_ever_on_a_network_that_stalls() {
    let database = TestDatabase::create().await;
    let (proxy, url) = behind_a_proxy(&database).await;
    let store = PgStore::connect(&url, &PgOptions::default()).unwrap();
    let retention = Retention::default();
    proxy.stall();
    let tasks = Box::pin(async {
        tokio::join!(store.start(true), store.migrate(), store.is_migrated(), store.retain_unless_busy(&retention))
    });
    let (started, migrated, is_migrated, retained) = tokio::time::timeout(PATIENCE, tasks).await.unwrap();
    assert!(matches!(started, Err(StartError::Silent)), "{started:?}");
    assert!(migrated.is_err() && is_migrated.is_err());
    assert!(matches!(retained, Err(StoreError::Unavailable(_))), "{retained:?}");
    proxy.mend();
    store.start(true).await.unwrap();
    assert!(store.retain_unless_busy(&retention).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_fall_silent_for_good_are_given_up_and_replaced() {
    let database = TestDatabase::create().await;
    let (proxy, url) = behind_a_proxy(&database).await;
    let mut stage = Stage::start(&url, &size()).await;
    for _ in 0..2 {
        proxy.silence();
        stage.load.ledger().grows_by(60).await;
        stage.load.check();
    }
    stage.check(&database.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_answered_with_503_and_recovered_from() {
    let postgres = PrivatePostgres::start(&[]);
    let url = postgres.url("postgres");
    let mut stage = Stage::start(&url, &size()).await;
    let mut connection = connection(&url).await;
    sqlx::raw_sql("set default_transaction_read_only = off").execute(&mut connection).await.unwrap();
    let ways = [
        // Every session, also those that there are, and back.
        (
            ["alter system set default_transaction_read_only = on", "select pg_reload_conf()"],
            ["alter system reset default_transaction_read_only", "select pg_reload_conf()"],
        ),
        // Sessions that begin meanwhile, which stay read-only when it is over: as after a failover.
        (
            [
                "alter database postgres set default_transaction_read_only = on",
                "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and pid <> pg_backend_pid()",
            ],
            ["alter database postgres reset default_transaction_read_only", "select 1"],
        ),
    ];
    for (there, back) in ways {
        for statement in there {
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        }
        for server in &stage.servers {
            server.until_ready(false).await;
            let refused = server.client().post("/jobs", &submission(&json!({}))).await;
            assert_eq!((refused.status, refused.code().as_str()), (503, "UNAVAILABLE"), "{}", refused.text);
            assert!(refused.retry_after.is_some());
        }
        stage.load.check();
        for statement in back {
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        }
        stage.load.ledger().grows_by(60).await;
        for server in &stage.servers {
            server.until_ready(true).await;
        }
    }
    stage.check(&url).await;
}
