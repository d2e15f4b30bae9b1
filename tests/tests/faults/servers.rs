//! Servers that are killed, and that start together.

use gh_adapters_postgres::testing::TestDatabase;
use gh_tests::{Receiver, Server, Worker, submission};
use serde_json::json;

use crate::stage::{Stage, server, size};

/// Kills one server after the other in the middle of the load; the other one takes over each time.
async fn survives_kills(kills: usize) {
    let database = TestDatabase::create().await;
    let mut stage = Stage::start(&database.url(), &size()).await;
    for kill in 0..kills {
        stage.load.ledger().grows_by(30).await;
        let victim = kill % stage.servers.len();
        stage.servers.remove(victim).kill().await;
        stage.load.check();
        let next = server(&stage.database_url).await;
        stage.servers.insert(victim, next);
        stage.addresses.set(stage.servers.iter().map(|server| server.base_url().to_owned()));
    }
    stage.check(&database.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_of_servers_under_load_lose_nothing_that_was_acknowledged() {
    survives_kills(20).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/long-faults"]
async fn a_hundred_kills_of_servers_under_load_lose_nothing_that_was_acknowledged() {
    survives_kills(100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_start_at_once_on_an_empty_database_share_it() {
    for _ in 0..3 {
        let database = TestDatabase::create_empty().await;
        let url = database.url();
        let receiver = Receiver::start().await;
        let (first, second) = tokio::join!(Server::ready_on(&url, &[]), Server::ready_on(&url, &[]));
        let worker = Worker::register(&first.client(), "worker-a", None).await.at(&second.client());
        let job_id = first.client().submit(&submission(&json!({ "callback_url": receiver.url() }))).await;
        assert_eq!(worker.job().await, job_id, "a token of the one is good at the other");
        worker.report(&job_id, "complete", &json!({})).await.expect(200);
        receiver.until(&job_id, "completed").await;
    }
}
