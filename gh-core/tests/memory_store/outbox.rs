//! Callbacks go out in order, one sender at a time, and whatever becomes of them stays visible.

use std::time::Duration;

use gh_core::domain::callback::{CallbackStatus, DeliveryState, LeasedDelivery};
use gh_core::domain::ids::JobId;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::ports::callback_sender::{SendError, SendOutcome};
use gh_core::ports::outbox::{Outbox, Settlement};
use gh_core::ports::reader::{JobEventQuery, Reader};
use gh_core::testing::submission;

use crate::world::{SECOND, World, cancel};

impl World {
    async fn lease(&self) -> Vec<LeasedDelivery> {
        self.store.lease_due(100, &self.rules).await.unwrap()
    }

    async fn lease_one(&self) -> LeasedDelivery {
        let mut leased = self.lease().await;
        assert_eq!(leased.len(), 1);
        leased.remove(0)
    }

    async fn settle(&self, leased: &LeasedDelivery, outcome: SendOutcome) {
        let settlement = Settlement {
            job_id: leased.job_id,
            lease_id: leased.lease_id,
            delivery_id: leased.delivery_id,
            outcome,
            jitter: 0.0,
        };
        self.store.settle(vec![settlement], &self.rules).await.unwrap();
    }

    /// A job with a `running` and then a `completed` callback.
    async fn finished_job(&self) -> JobId {
        let who = self.worker("w-1").await;
        let id = self.submit(submission()).await;
        assert_eq!(self.claim_one(&who).await, Some(id));
        self.complete(&who, id).await;
        id
    }

    async fn states(&self, id: JobId) -> Vec<(CallbackStatus, DeliveryState)> {
        let listed = self.store.deliveries(id, None, 100).await.unwrap();
        listed.iter().map(|known| (known.status, known.state)).collect()
    }
}

fn answered(status: u16) -> SendOutcome {
    SendOutcome::Answered { status, retry_after: None, excerpt: String::new(), took: Duration::from_millis(3) }
}

#[tokio::test]
async fn a_queue_has_one_sender_at_a_time_and_gives_its_callbacks_in_order() {
    let world = World::new();
    let id = world.finished_job().await;
    let first = world.lease_one().await;
    assert!(world.lease().await.is_empty(), "its head is being sent");
    world.settle(&first, answered(200)).await;
    let second = world.lease_one().await;
    assert_ne!(second.delivery_id, first.delivery_id);
    world.settle(&second, answered(204)).await;
    assert!(world.lease().await.is_empty());
    assert_eq!(world.store.next_due().await.unwrap(), None);
    assert_eq!(
        world.states(id).await,
        [(CallbackStatus::Completed, DeliveryState::Delivered), (CallbackStatus::Running, DeliveryState::Delivered),],
        "what is through stays listed, newest first"
    );
}

#[tokio::test]
async fn jobs_do_not_wait_for_each_other_and_the_longest_due_comes_first() {
    let world = World::new();
    let ids = world.submit_many(3).await;
    for id in &ids {
        world.run(&cancel(*id)).await;
        world.clock.advance(SECOND);
    }
    let two = world.store.lease_due(2, &world.rules).await.unwrap();
    let leased: Vec<JobId> = two.iter().map(|leased| leased.job_id).collect();
    assert_eq!(leased, ids[..2]);
    assert_eq!(world.lease_one().await.job_id, ids[2]);
}

#[tokio::test]
async fn a_failed_attempt_is_repeated_at_its_time_with_the_same_bytes() {
    let world = World::new();
    world.finished_job().await;
    let first = world.lease_one().await;
    let unanswered = SendOutcome::Unanswered { error: SendError::Connect, took: SECOND };
    let failed_at = world.clock.advance(SECOND);
    world.settle(&first, unanswered).await;
    assert_eq!(world.store.next_due().await.unwrap(), Some(failed_at + 5 * SECOND));
    world.clock.advance(4 * SECOND);
    assert!(world.lease().await.is_empty());
    world.clock.advance(SECOND);
    let again = world.lease_one().await;
    assert_eq!((again.delivery_id, again.attempt), (first.delivery_id, 2));
    assert_eq!(again.body, first.body);
}

#[tokio::test]
async fn when_a_sender_is_lost_another_one_takes_over_and_the_first_comes_too_late() {
    let world = World::new();
    let id = world.finished_job().await;
    let lost = world.lease_one().await;
    let over = world.clock.advance(world.rules.policy.send_lease);
    assert_eq!(world.store.next_due().await.unwrap(), Some(over));
    let taken_over = world.lease_one().await;
    assert_eq!(taken_over.delivery_id, lost.delivery_id);
    world.settle(&lost, answered(200)).await;
    assert_eq!(world.states(id).await[1], (CallbackStatus::Running, DeliveryState::Sending));
    world.settle(&taken_over, answered(200)).await;
    assert_eq!(world.states(id).await[1], (CallbackStatus::Running, DeliveryState::Delivered));
}

#[tokio::test]
async fn a_callback_that_is_refused_three_times_is_overtaken_and_leaves_an_event() {
    let world = World::new();
    let id = world.finished_job().await;
    for _ in 0..3 {
        let leased = world.lease_one().await;
        world.settle(&leased, answered(400)).await;
        world.clock.advance(600 * SECOND);
    }
    assert_eq!(
        world.states(id).await,
        [(CallbackStatus::Completed, DeliveryState::Pending), (CallbackStatus::Running, DeliveryState::Dead),]
    );
    let query = JobEventQuery {
        job_id: id,
        after_seq: 0,
        event_types: vec![gh_core::domain::event::EventType::CALLBACK_DEAD],
        limit: 10,
    };
    let events = world.store.job_events(&query).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].seq, world.job(id).await.event_seq);
    let terminal = world.lease_one().await;
    world.settle(&terminal, answered(200)).await;
    assert_eq!(world.states(id).await[0], (CallbackStatus::Completed, DeliveryState::Delivered));
}

#[tokio::test]
async fn a_job_without_a_callback_address_has_nothing_to_send() {
    let world = World::new();
    let id = world.submit(SubmissionRequest { callback_url: None, ..submission() }).await;
    world.run(&cancel(id)).await;
    assert!(world.lease().await.is_empty());
    assert!(world.states(id).await.is_empty());
}

#[tokio::test]
async fn deliveries_are_paged_by_sequence() {
    let world = World::new();
    let id = world.finished_job().await;
    let running = world.lease_one().await;
    world.settle(&running, answered(200)).await;
    let newest = world.store.deliveries(id, None, 1).await.unwrap();
    assert_eq!(newest[0].status, CallbackStatus::Completed);
    let next = world.store.deliveries(id, Some(newest[0].sequence), 1).await.unwrap();
    assert_eq!(next[0].status, CallbackStatus::Running);
    let end = world.store.deliveries(id, Some(next[0].sequence), 1).await.unwrap();
    assert!(end.is_empty());
}

#[tokio::test]
async fn figures_count_what_is_open_and_what_is_due() {
    let world = World::new();
    world.finished_job().await;
    let figures = world.store.figures().await.unwrap();
    assert_eq!((figures.callbacks_open, figures.callbacks_due), (2, 1));
    let leased = world.lease_one().await;
    let figures = world.store.figures().await.unwrap();
    assert_eq!((figures.callbacks_open, figures.callbacks_due), (2, 0));
    world.settle(&leased, answered(200)).await;
    let figures = world.store.figures().await.unwrap();
    assert_eq!((figures.callbacks_open, figures.callbacks_due), (1, 1));
}
