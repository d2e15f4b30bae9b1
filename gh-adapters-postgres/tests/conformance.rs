//! The store on PostgreSQL keeps every promise of the storage ports, and the invariants hold on it under random histories.

use std::sync::Arc;

use async_trait::async_trait;
use gh_adapters_postgres::testing::TestDatabase;
use gh_core::ports::clock::Clock;
use gh_core::testing::conformance::{Handle, TestBed, each_of_a_fleet_is_given_up_in_time};
use gh_core::testing::model;

struct Postgres {
    database: TestDatabase,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl TestBed for Postgres {
    async fn create(clock: Arc<dyn Clock>) -> Self {
        Self { database: TestDatabase::create().await, clock }
    }

    async fn open(&self) -> Handle {
        Handle::of(Arc::new(self.database.store(Some(Arc::clone(&self.clock)))))
    }
}

gh_core::store_conformance!(Postgres);

#[tokio::test]
async fn of_ten_thousand_workers_each_is_given_up_within_a_second_of_its_deadline() {
    each_of_a_fleet_is_given_up_in_time::<Postgres>(10_000).await;
}

#[test]
fn whatever_is_done_in_whatever_order_with_whatever_faults_the_invariants_hold() {
    model::check::<Postgres>(16, 20..80);
}
