//! Dispatches take new claims with them and are shared: whoever waits is served by the next one, and nobody repeats what was done for all.
#![expect(clippy::unwrap_used, reason = "a test stops where its world is not as it made it")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;
use gh_core::application::{BackgroundLoops, ControlPlane, Ports, UseCaseError};
use gh_core::domain::changeset::Changeset;
use gh_core::domain::code::ClientName;
use gh_core::domain::commands::{Credential, Register, Watched};
use gh_core::domain::ids::{JobId, WorkerId};
use gh_core::domain::rejection::Rejection;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::{Keys, Snapshot};
use gh_core::domain::watch::Lookout;
use gh_core::domain::worker::Vitals;
use gh_core::memory::MemoryStore;
use gh_core::ports::callback_sender::MockCallbackSender;
use gh_core::ports::store::{ClaimRequest, Conflict, Dispatched, Store, StoreError, SweepRequest, Swept};
use gh_core::testing::{ManualClock, name, registration, rules, submission};
use tokio::sync::Semaphore;

/// Counts calls, and lets each claim wait for a permit.
#[derive(Debug)]
struct Gated {
    inner: Arc<MemoryStore>,
    claims: AtomicUsize,
    others: AtomicUsize,
    permits: Semaphore,
    /// A worker whose row makes no sense, from when it is set.
    corrupt: OnceLock<WorkerId>,
}

impl Gated {
    /// As if the row of a worker made no sense.
    fn read<'w>(&self, mut workers: impl Iterator<Item = &'w WorkerId>) -> Result<(), StoreError> {
        if workers.any(|id| self.corrupt.get() == Some(id)) {
            return Err(StoreError::Corrupt("a worker of no kind".into()));
        }
        Ok(())
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Store for Gated {
    async fn load(&self, keys: &Keys) -> Result<Snapshot, StoreError> {
        self.others.fetch_add(1, Ordering::SeqCst);
        self.read(keys.workers.iter())?;
        self.inner.load(keys).await
    }

    fn recall(&self, keys: &Keys) -> Option<Snapshot> {
        self.inner.recall(keys)
    }

    async fn commit(&self, changes: Vec<Changeset>, rules: &Rules) -> Result<Vec<Result<(), Conflict>>, StoreError> {
        self.others.fetch_add(1, Ordering::SeqCst);
        self.inner.commit(changes, rules).await
    }

    async fn claim(&self, request: ClaimRequest, rules: &Rules) -> Result<Dispatched, StoreError> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        self.read(request.workers.iter().chain(request.claims.iter().map(|claim| &claim.who.worker_id)))?;
        self.inner.claim(request, rules).await
    }

    async fn watch(&self, lookout: Lookout, rules: &Rules) -> Result<Watched, StoreError> {
        self.inner.watch(lookout, rules).await
    }

    async fn sweep(&self, request: SweepRequest, rules: &Rules) -> Result<Swept, StoreError> {
        self.inner.sweep(request, rules).await
    }

    async fn token_key(&self) -> Result<[u8; 32], StoreError> {
        self.inner.token_key().await
    }
}

struct Stage {
    control_plane: ControlPlane,
    gated: Arc<Gated>,
}

const WAIT: Duration = Duration::from_secs(25);

impl Stage {
    fn new() -> Self {
        let inner = Arc::new(MemoryStore::new(Arc::new(ManualClock::default()), [7; 32]));
        let (claims, others) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let gated =
            Gated { inner: inner.clone(), claims, others, permits: Semaphore::new(0), corrupt: OnceLock::new() };
        let gated = Arc::new(gated);
        let ports = Ports { store: gated.clone(), ..Ports::alone(inner, Arc::new(MockCallbackSender::new())) };
        Self { control_plane: ControlPlane::new(ports, rules()), gated }
    }

    async fn worker(&self, id: &str) -> Credential {
        self.control_plane.register(&registration(id)).await.unwrap().credential
    }

    async fn submit(&self) -> JobId {
        self.control_plane.submit(&ClientName::new("valet"), submission()).await.unwrap().job.id
    }

    async fn vitals(&self, who: &Credential) -> Vitals {
        self.control_plane.worker(&who.worker_id).await.unwrap().1.vitals
    }

    /// Until so many claims have reached the store.
    async fn reached(&self, claims: usize) {
        while self.gated.claims.load(Ordering::SeqCst) < claims {
            tokio::task::yield_now().await;
        }
    }

    /// Dispatches in a loop while this goes on.
    async fn beside_the_loop<T>(&self, story: impl Future<Output = T>) -> T {
        let story = async {
            let done = story.await;
            self.control_plane.close();
            done
        };
        tokio::join!(Box::pin(BackgroundLoops::DISPATCH.run(&self.control_plane)), story).1
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_for_which_a_job_waits_is_one_call_of_the_store() {
    let stage = Stage::new();
    let who = stage.worker("worker-a").await;
    let id = stage.submit().await;
    let before = stage.gated.others.load(Ordering::SeqCst);
    stage.gated.permits.add_permits(1);
    let claimed = stage.control_plane.claim(&who, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(claimed.job.id, id);
    assert_eq!((stage.gated.claims.load(Ordering::SeqCst), stage.gated.others.load(Ordering::SeqCst)), (1, before));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_in_a_dispatch_cuts_nobody_else_off() {
    let stage = Stage::new();
    let [first, second, third] = [stage.worker("w-1").await, stage.worker("w-2").await, stage.worker("w-3").await];
    let mut one = Box::pin(stage.control_plane.claim(&first, WAIT));
    assert!((&mut one).now_or_never().is_none());
    let mut two = Box::pin(stage.control_plane.claim(&second, WAIT));
    let mut three = Box::pin(stage.control_plane.claim(&third, WAIT));
    assert!((&mut two).now_or_never().is_none() && (&mut three).now_or_never().is_none());
    // The next dispatch is that of the second, for the third as well.
    stage.gated.permits.add_permits(1);
    assert!((&mut one).now_or_never().is_none());
    assert!((&mut two).now_or_never().is_none());
    assert_eq!(stage.gated.claims.load(Ordering::SeqCst), 2);
    drop(two);
    let ids = [stage.submit().await, stage.submit().await];
    stage.gated.permits.add_permits(10);
    let (one, three) = tokio::join!(one, three);
    let granted: HashSet<_> = [one, three].map(|claimed| claimed.unwrap().unwrap().job.id).into();
    assert_eq!(granted, HashSet::from(ids));
}

#[tokio::test(start_paused = true)]
async fn nobody_counts_on_a_claim_whose_caller_went_away_before_it_was_stored() {
    let stage = Stage::new();
    let who = stage.worker("worker-a").await;
    stage
        .beside_the_loop(Box::pin(async {
            tokio::select! {
                claimed = stage.control_plane.claim(&who, WAIT) => panic!("{claimed:?}"),
                () = stage.reached(1) => {}
            }
            stage.gated.permits.add_permits(10);
            let (now, _) = stage.control_plane.worker(&who.worker_id).await.unwrap();
            while stage.vitals(&who).await.claim.is_none_or(|claim| claim.until > now) {
                tokio::task::yield_now().await;
            }
        }))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_cannot_be_decided_fails_by_itself() {
    let stage = Stage::new();
    let [good, bad] = [stage.worker("w-1").await, stage.worker("w-2").await];
    stage.gated.corrupt.set(bad.worker_id.clone()).unwrap();
    let id = stage.submit().await;
    stage.gated.permits.add_permits(10);
    stage
        .beside_the_loop(Box::pin(async {
            let claims = tokio::join!(stage.control_plane.claim(&bad, WAIT), stage.control_plane.claim(&good, WAIT));
            let (failed, claimed) = claims;
            assert!(matches!(failed, Err(UseCaseError::Internal(StoreError::Corrupt(_)))), "{failed:?}");
            assert_eq!(claimed.unwrap().unwrap().job.id, id);
        }))
        .await;
}

#[tokio::test(start_paused = true)]
async fn claims_that_came_are_served_though_the_loop_ends() {
    let stage = Stage::new();
    let who = stage.worker("worker-a").await;
    let id = stage.submit().await;
    let mut claim = Box::pin(stage.control_plane.claim(&who, WAIT));
    tokio::select! {
        () = BackgroundLoops::DISPATCH.run(&stage.control_plane) => panic!("it runs on"),
        claimed = &mut claim => panic!("{claimed:?}"),
        () = stage.reached(1) => {}
    }
    stage.gated.permits.add_permits(10);
    assert_eq!(claim.await.unwrap().unwrap().job.id, id);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_refused_does_not_end_the_claim_that_waits() {
    let stage = Stage::new();
    stage.gated.permits.add_permits(100);
    let retired = stage.worker("worker-a").await;
    let boot = Register { boot_id: name("boot-2"), ..registration("worker-a") };
    let living = stage.control_plane.register(&boot).await.unwrap().credential;
    stage
        .beside_the_loop(Box::pin(async {
            let (claimed, id) = tokio::join!(stage.control_plane.claim(&living, WAIT), async {
                while stage.vitals(&living).await.claim.is_none() {
                    tokio::task::yield_now().await;
                }
                let refused = stage.control_plane.claim(&retired, WAIT).await;
                assert!(matches!(refused, Err(UseCaseError::Rejected(Rejection::StaleGeneration))), "{refused:?}");
                stage.submit().await
            });
            assert_eq!(claimed.unwrap().unwrap().job.id, id);
        }))
        .await;
}

#[tokio::test(start_paused = true)]
async fn claims_that_come_while_one_is_dispatched_are_all_served_by_the_next_dispatch() {
    let stage = Stage::new();
    let Stage { control_plane, gated } = &stage;
    let mut workers = Vec::new();
    for index in 0..10 {
        workers.push(stage.worker(&format!("worker-{index}")).await);
        stage.submit().await;
    }
    let claims = workers.iter().map(|who| control_plane.claim(who, WAIT));
    let mut claims = Box::pin(join_all(claims));
    assert!((&mut claims).now_or_never().is_none());
    assert_eq!(gated.claims.load(Ordering::SeqCst), 1, "the others wait for their turn");
    gated.permits.add_permits(10);
    let granted = claims.await;
    let jobs: HashSet<_> = granted.into_iter().map(|claimed| claimed.unwrap().unwrap().job.id).collect();
    assert_eq!(jobs.len(), 10);
    assert_eq!(gated.claims.load(Ordering::SeqCst), 2);
}
