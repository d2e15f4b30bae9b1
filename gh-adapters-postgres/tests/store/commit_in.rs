//! An embedder's transaction: changesets are stored together with what else is done in it.

use gh_core::ports::reader::Reader;
use gh_core::ports::store::Conflict;
use gh_core::testing::submission;

use crate::world::{World, submit};

#[tokio::test]
async fn what_is_committed_in_a_transaction_of_the_caller_is_stored_with_it_or_not_at_all() {
    let world = World::new().await;
    world.sql("create table orders (job_id uuid)").await;
    for ends_well in [false, true] {
        let changes = [world.decision(&submit(submission())).await];
        let id = changes[0].jobs()[0].job.id;
        let mut transaction = world.pool().begin().await.unwrap();
        sqlx::query("insert into orders values ($1)").bind(id.as_uuid()).execute(&mut *transaction).await.unwrap();
        let answers = world.store.commit_in(&mut transaction, &changes, &world.rules).await.unwrap();
        assert_eq!(answers, [Ok(())]);
        assert!(world.store.job(id).await.unwrap().is_none(), "nobody sees it yet");
        if ends_well {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        assert_eq!(world.store.job(id).await.unwrap().is_some(), ends_well);
        assert_eq!(world.count("orders").await, i64::from(ends_well));
        assert_eq!(world.count("gh_job_events").await, i64::from(ends_well));
    }
}

#[tokio::test]
async fn a_conflict_in_a_transaction_of_the_caller_is_told_and_leaves_the_rest_of_it_alone() {
    let world = World::new().await;
    let changes = world.decision(&submit(submission())).await;
    let mut transaction = world.pool().begin().await.unwrap();
    let twice = [changes.clone(), changes];
    let answers = world.store.commit_in(&mut transaction, &twice, &world.rules).await.unwrap();
    assert_eq!(answers, [Ok(()), Err(Conflict)]);
    transaction.commit().await.unwrap();
    assert_eq!(world.count("gh_jobs").await, 1);
}
