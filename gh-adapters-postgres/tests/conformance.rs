//! The store on PostgreSQL keeps every promise of the storage ports.

use std::sync::Arc;

use async_trait::async_trait;
use gh_adapters_postgres::testing::TestDatabase;
use gh_core::ports::clock::Clock;
use gh_core::testing::conformance::{Handle, TestBed};

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
