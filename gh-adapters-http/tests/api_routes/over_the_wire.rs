//! What only a real connection shows.

use std::time::Duration;

use gh_core::domain::worker::Ineligible;
use gh_core::testing::name;
use serde_json::Value;

use crate::support::{Api, SERVICE_KEY};

/// Asks the API over a real connection, while it is served.
pub(crate) async fn over_tcp<T>(api: &Api, ask: impl AsyncFnOnce(String) -> T) -> T {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let serving = axum::serve(listener, api.router.clone());
    tokio::select! {
        stopped = serving.into_future() => panic!("{stopped:?}"),
        answer = ask(base) => answer,
    }
}

fn client() -> reqwest::Client {
    gh_adapters_http::tls::client_builder().unwrap().timeout(Duration::from_secs(20)).build().unwrap()
}

#[tokio::test]
async fn the_answer_to_a_body_that_is_too_large_arrives() {
    let api = Api::new();
    over_tcp(&api, async |base| {
        let client = client();
        // Refused by its length, and refused for its key: both are still read.
        for (key, status) in [(SERVICE_KEY, 413), ("unknown", 401)] {
            let request = client
                .post(format!("{base}/api/v1/jobs"))
                .header("x-gh-service-key", key)
                .header("content-type", "application/json")
                .body(vec![b'x'; 6 * 1024 * 1024]);
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), status);
            let problem: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            assert_eq!(problem["status"], status);
        }
    })
    .await;
}

/// Whether the only worker could take a job now.
async fn eligible(api: &Api) -> Result<(), Ineligible> {
    let (now, view) = api.control_plane.worker(&name("worker-a")).await.unwrap();
    view.eligible(now, api.control_plane.policy())
}

#[tokio::test]
async fn a_claim_whose_worker_hangs_up_no_longer_counts_as_waiting() {
    let api = Api::new();
    let token = api.register("worker-a").await;
    let hung_up = over_tcp(&api, async |base| {
        let claim = client().post(format!("{base}/api/v1/workers/worker-a/claim?wait=30")).bearer_auth(&token).send();
        let waiting = async {
            while eligible(&api).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = claim => panic!("{answer:?}"),
            () = waiting => {}
        }
        // The claim is dropped here, and its connection with it: the server notices, and writes it down.
        // Far less than the claim's 30 s pass, but more than the grace for coming back.
        api.clock.advance(Duration::from_secs(4));
        while eligible(&api).await.is_ok() {
            api.control_plane.note_departures().await.unwrap();
            tokio::task::yield_now().await;
            api.clock.advance(Duration::from_millis(1));
        }
        eligible(&api).await
    });
    let hung_up = tokio::time::timeout(Duration::from_secs(20), hung_up).await.unwrap();
    assert_eq!(hung_up, Err(Ineligible::NotWaiting));
}
