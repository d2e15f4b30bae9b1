//! The in-memory store keeps every promise of the storage ports, and its invariants under random histories.

use std::sync::Arc;

use async_trait::async_trait;
use gh_core::memory::MemoryStore;
use gh_core::ports::clock::Clock;
use gh_core::testing::conformance::{Handle, TestBed, each_of_a_fleet_is_given_up_in_time};
use gh_core::testing::model;

struct Memory(Arc<MemoryStore>);

#[async_trait]
impl TestBed for Memory {
    async fn create(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(MemoryStore::new(clock, [7; 32])))
    }

    async fn open(&self) -> Handle {
        Handle::of(Arc::clone(&self.0))
    }
}

gh_core::store_conformance!(Memory);

#[tokio::test]
async fn of_ten_thousand_workers_each_is_given_up_within_a_second_of_its_deadline() {
    each_of_a_fleet_is_given_up_in_time::<Memory>(10_000).await;
}

#[test]
fn whatever_is_done_in_whatever_order_with_whatever_faults_the_invariants_hold() {
    model::check::<Memory>(200, 20..80);
}
