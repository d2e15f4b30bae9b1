//! A database that is away, and comes back.

use gh_adapters_postgres::testing::TestDatabase;
use gh_tests::{Proxy, Server, Worker, submission};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A database behind a network that can be cut, and its address through it.
async fn behind_a_proxy(database: &TestDatabase, open: bool) -> (Proxy, String) {
    let address = database.address();
    let proxy = Proxy::start(format!("{}:{}", address.get_host(), address.get_port()), open).await;
    let url = address.host("127.0.0.1").port(proxy.port());
    (proxy, sqlx::ConnectOptions::to_url_lossy(&url).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_waits_for_its_database_and_says_so_and_is_ready_when_it_is_there() {
    let database = TestDatabase::create_empty().await;
    let (proxy, url) = behind_a_proxy(&database, false).await;
    let server = Server::serve(&url, &[("GH_DATABASE_ACQUIRE_TIMEOUT", "200ms")]).await;
    server.until_ready(false).await;
    assert_eq!(server.client().fetch("/health").await.status, 200, "it lives");
    let told = gh_tests::eventually("a line that says what it waits for", async || {
        server.log().into_iter().find(|line| line.contains("waiting for the database"))
    });
    assert!(told.await.contains("it is away"));
    proxy.mend();
    server.until_ready(true).await;
    server.client().submit(&submission(&json!({}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_callers_are_told_to_come_again_and_nothing_acknowledged_is_lost() {
    let database = TestDatabase::create().await;
    let (proxy, url) = behind_a_proxy(&database, true).await;
    let server = Server::ready_on(&url, &[("GH_DATABASE_ACQUIRE_TIMEOUT", "500ms")]).await;
    let client = server.client();
    let worker = Worker::register(&client, "worker-a", None).await;
    let first = client.submit(&submission(&json!({}))).await;

    proxy.cut();
    server.until_ready(false).await;
    let refused = client.post("/jobs", &submission(&json!({}))).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "UNAVAILABLE"), "{}", refused.text);
    assert!(refused.retry_after.is_some());
    for answer in [client.get(&format!("/jobs/{first}")).await, worker.claim(0).await] {
        assert_eq!(answer.status, 503, "{}", answer.text);
    }

    proxy.mend();
    server.until_ready(true).await;
    assert_eq!(worker.job().await, first);
    worker.report(&first, "complete", &json!({})).await.expect(200);
    let second = client.submit(&submission(&json!({}))).await;
    assert_eq!(worker.job().await, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_goes_on_where_the_last_one_was() {
    let database = TestDatabase::create().await;
    let first = Server::ready_on(&database.url(), &[]).await;
    let worker = Worker::register(&first.client(), "worker-a", None).await;
    let running = first.client().submit(&submission(&json!({}))).await;
    let waiting = first.client().submit(&submission(&json!({}))).await;
    assert_eq!(worker.job().await, running);
    first.terminate().await;
    assert_eq!(first.exit_code().await, Some(0));

    let second = Server::ready_on(&database.url(), &[]).await;
    let worker = worker.at(&second.client());
    worker.report(&running, "complete", &json!({})).await.expect(200);
    assert_eq!(worker.job().await, waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_not_ready_takes_no_job_and_is_taken_up_again_when_it_is_writable() {
    let database = TestDatabase::create().await;
    let server = Server::ready_on(&database.url(), &[]).await;
    let client = server.client();
    let job = client.submit(&submission(&json!({}))).await;
    let name = database.address().get_database().unwrap().to_owned();
    let mut admin = PgConnection::connect_with(&database.address()).await.unwrap();
    let mut switch = async |change: &str| {
        let sql = format!(
            "begin read write; alter database {name} {change}; commit;
             select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
    };
    switch("set default_transaction_read_only = on").await;
    server.until_ready(false).await;
    let refused = client.post("/jobs", &submission(&json!({}))).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.retry_after.is_some());
    // Looking is possible, once the connections that were cut are replaced.
    let read = async || (client.get(&format!("/jobs/{job}")).await.status == 200).then_some(());
    gh_tests::eventually("the job to be shown", read).await;

    switch("reset default_transaction_read_only").await;
    server.until_ready(true).await;
    client.submit(&submission(&json!({}))).await;
}
