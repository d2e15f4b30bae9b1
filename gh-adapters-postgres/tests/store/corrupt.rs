//! A row that makes no sense is an error that names it, never a default, and never tells what is in it.

use gh_core::domain::snapshot::Keys;
use gh_core::ports::outbox::Outbox;
use gh_core::ports::reader::{JobEventQuery, JobQuery, Reader};
use gh_core::ports::store::{Store, StoreError};
use gh_core::testing::{name, submission};

use crate::world::World;

fn corrupt<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Corrupt(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_job_whose_row_makes_no_sense_is_corrupt_however_it_is_read() {
    for damage in [
        "update gh_jobs set body = 'hunter2'",
        "update gh_jobs set body = replace(body, '\"attempt\":1', '\"attempt\":\"hunter2\"')",
        "update gh_jobs set status = 'queued', occupies = 'w-1'",
        "delete from gh_job_specs",
        "update gh_job_specs set spec = '{\"password\": \"hunter2\"}'",
    ] {
        let world = World::new().await;
        let id = world.submit(submission()).await;
        assert_eq!(world.sql(damage).await, 1, "{damage}");
        let other = world.database.store(None);
        let by_keys = other.load(&Keys { jobs: vec![id], ..Keys::default() }).await;
        let listed = other.jobs(&JobQuery { limit: 1, ..JobQuery::default() }).await.map(|jobs| jobs.len());
        if damage.starts_with("delete") {
            // A job is listed by what was asked for.
            assert!(matches!(listed, Ok(0)), "{listed:?}");
        } else {
            corrupt(listed);
        }
        for told in [corrupt(by_keys), corrupt(other.job(id).await)] {
            assert!(told.contains(&id.to_string()), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}

#[tokio::test]
async fn a_worker_an_event_and_a_queue_that_make_no_sense_are_corrupt() {
    let world = World::new().await;
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    assert_eq!(world.claim(&who).await, Some(id));
    assert_eq!(world.sql("update gh_worker_vitals set body = '{}'").await, 1);
    assert_eq!(corrupt(world.store.worker(&name("w-1")).await), "gh_worker_vitals w-1: unreadable at line 1 column 2");
    assert_eq!(world.sql("delete from gh_worker_vitals").await, 1);
    assert_eq!(corrupt(world.store.worker(&name("w-1")).await), "gh_worker_vitals w-1: is missing");
    assert_eq!(world.sql("update gh_workers set version = version + 1").await, 1);
    corrupt(world.store.worker(&name("w-1")).await);
    assert_eq!(world.sql("update gh_job_events set to_status = 'lost' where seq = 2").await, 1);
    let events = JobEventQuery { job_id: id, after_seq: 0, event_types: Vec::new(), limit: 10 };
    corrupt(world.store.job_events(&events).await);
    assert_eq!(world.sql("update gh_callback_queues set body = '[]'").await, 1);
    corrupt(world.store.deliveries(id, None, 10).await);
    corrupt(world.store.lease_due(10, &world.rules).await);
}
