//! Dispatches are shared: whoever waits is served by the next one, and nobody repeats what was done for all.
#![expect(clippy::unwrap_used, reason = "a test stops where its world is not as it made it")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;
use gh_core::application::{ControlPlane, Ports};
use gh_core::domain::changeset::Changeset;
use gh_core::domain::code::ClientName;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::{Keys, Snapshot};
use gh_core::memory::MemoryStore;
use gh_core::ports::callback_sender::MockCallbackSender;
use gh_core::ports::store::{ClaimRequest, Conflict, Store, StoreError, SweepRequest, Swept};
use gh_core::testing::{ManualClock, registration, rules, submission};
use tokio::sync::Semaphore;

/// Counts claims, each of which waits for a permit.
#[derive(Debug)]
struct Gated {
    inner: Arc<MemoryStore>,
    claims: AtomicUsize,
    permits: Semaphore,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Store for Gated {
    async fn load(&self, keys: &Keys) -> Result<Snapshot, StoreError> {
        self.inner.load(keys).await
    }

    async fn commit(&self, changes: Vec<Changeset>, rules: &Rules) -> Result<Vec<Result<(), Conflict>>, StoreError> {
        self.inner.commit(changes, rules).await
    }

    async fn claim(&self, request: ClaimRequest, rules: &Rules) -> Result<Vec<Changeset>, StoreError> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        self.inner.claim(request, rules).await
    }

    async fn sweep(&self, request: SweepRequest, rules: &Rules) -> Result<Swept, StoreError> {
        self.inner.sweep(request, rules).await
    }

    async fn token_key(&self) -> Result<[u8; 32], StoreError> {
        self.inner.token_key().await
    }
}

#[tokio::test(start_paused = true)]
async fn claims_that_come_while_one_is_dispatched_are_all_served_by_the_next_dispatch() {
    let store = Arc::new(MemoryStore::new(Arc::new(ManualClock::default()), [7; 32]));
    let gated = Arc::new(Gated { inner: store.clone(), claims: AtomicUsize::new(0), permits: Semaphore::new(0) });
    let ports = Ports { store: gated.clone(), ..Ports::alone(store, Arc::new(MockCallbackSender::new())) };
    let control_plane = ControlPlane::new(ports, rules());
    let mut workers = Vec::new();
    for index in 0..10 {
        workers.push(control_plane.register(&registration(&format!("worker-{index}"))).await.unwrap().credential);
        control_plane.submit(&ClientName::new("valet"), submission()).await.unwrap();
    }
    let claims = workers.iter().map(|who| control_plane.claim(who, Duration::from_secs(25)));
    let mut claims = Box::pin(join_all(claims));
    assert!((&mut claims).now_or_never().is_none());
    assert_eq!(gated.claims.load(Ordering::SeqCst), 1, "the others wait for their turn");
    gated.permits.add_permits(10);
    let granted = claims.await;
    let jobs: HashSet<_> = granted.into_iter().map(|claimed| claimed.unwrap().unwrap().job.id).collect();
    assert_eq!(jobs.len(), 10);
    assert_eq!(gated.claims.load(Ordering::SeqCst), 2);
}
