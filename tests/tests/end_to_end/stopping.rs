//! Going down in order.

use gh_tests::{Server, Worker};

#[tokio::test]
async fn a_server_that_is_asked_to_stop_answers_waiting_claims_and_exits_well() {
    let server = Server::start(1).await;
    let client = server.client();
    let worker = Worker::register(&client, "worker-a", None).await;
    let (claim, ()) = tokio::join!(worker.claim(30), async {
        gh_tests::eventually("the claim to wait", async || {
            let entry = client.get("/workers/worker-a").await.expect(200);
            (entry["condition"].is_null() && entry["status"] == "idle").then_some(())
        })
        .await;
        server.terminate().await;
    });
    assert_eq!(claim.status, 204);
    assert_eq!(server.exit_code().await, Some(0));
}
