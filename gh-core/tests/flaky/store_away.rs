//! What is answered while the store cannot be read.

use std::time::Duration;

use gh_core::testing::{Fault, StoreCall, submission};

use crate::stage::{Stage, client, unanswered};

#[tokio::test(start_paused = true)]
async fn why_jobs_wait_is_only_looked_up_where_one_waits() {
    let stage = Stage::new(0);
    let who = stage.worker("worker-a", "sandbox-a").await;
    stage.control_plane.submit(&client(), submission()).await.unwrap();
    let running = stage.control_plane.claim(&who, Duration::ZERO).await.unwrap().unwrap().job;
    let waiting = stage.control_plane.submit(&client(), submission()).await.unwrap().job;
    stage.next(StoreCall::Read, Fault::Before);
    let answers = stage.control_plane.with_waiting(vec![running.clone()]).await.unwrap();
    assert!(matches!(answers.as_slice(), [answer] if answer.job.id == running.id && answer.waiting.is_none()));
    assert!(unanswered(&stage.control_plane.with_waiting(vec![running, waiting]).await));
}
