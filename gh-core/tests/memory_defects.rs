//! What is peculiar to the in-memory store: how it meets defects. Its promises are tested in `memory_conformance.rs`.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use gh_core::domain::code::ClientName;
use gh_core::domain::commands::{Claim, Command, Submit, decide};
use gh_core::domain::ids::ConnectionId;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::Keys;
use gh_core::memory::MemoryStore;
use gh_core::ports::ids::IdSource;
use gh_core::ports::reader::Reader;
use gh_core::ports::store::{ClaimRequest, Store};
use gh_core::testing::{ManualClock, registration, rules, submission};

const SECOND: Duration = Duration::from_secs(1);

fn store() -> (MemoryStore, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    (MemoryStore::new(clock.clone(), [7; 32]), clock)
}

/// An id source that fails as only a defect would.
#[derive(Debug)]
struct BrokenIds;

impl IdSource for BrokenIds {
    fn uuid(&self) -> uuid::Uuid {
        panic!("no more ids")
    }

    fn jitter(&self) -> f64 {
        0.5
    }
}

async fn run<C: Command>(store: &MemoryStore, command: &C, rules: &Rules) -> C::Answer {
    let snapshot = store.load(&command.keys()).await.unwrap();
    let decision = decide(&snapshot, command, rules);
    assert_eq!(store.commit(vec![decision.changes], rules).await.unwrap(), [Ok(())]);
    decision.answer.unwrap()
}

#[test]
fn a_decision_that_panics_harms_nobody_but_its_caller() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ((store, _), rules) = (store(), rules());
    let who = runtime.block_on(async {
        let who = run(&store, &registration("w-1"), &rules).await.credential;
        let connection = ConnectionId::new(rules.ids.uuid());
        let claim = Claim { who: who.clone(), connection, wait: 30 * SECOND, waited: false };
        run(&store, &claim, &rules).await;
        run(&store, &Submit::new(ClientName::new("valet"), submission().validate().unwrap()), &rules).await;
        who
    });
    let broken = Rules { ids: Arc::new(BrokenIds), ..rules.clone() };
    let request = ClaimRequest::waiting(vec![who.worker_id]);
    let claim = AssertUnwindSafe(|| runtime.block_on(store.claim(request.clone(), &broken)));
    assert!(std::panic::catch_unwind(claim).is_err());
    assert_eq!(runtime.block_on(store.claim(request, &rules)).unwrap().committed.len(), 1);
}

#[tokio::test]
async fn the_token_key_is_the_one_it_was_made_with_and_is_not_shown() {
    let (store, _) = store();
    assert_eq!(store.token_key().await.unwrap(), [7; 32]);
    let shown = format!("{store:?}");
    assert!(!shown.contains("7, 7"), "{shown}");
}

#[tokio::test]
async fn its_time_never_goes_back_though_its_clock_does() {
    let (store, clock) = store();
    let later = clock.advance(60 * SECOND);
    assert_eq!(store.now().await.unwrap(), later);
    clock.set(later - 30 * SECOND);
    assert_eq!(store.now().await.unwrap(), later);
    assert_eq!(store.load(&Keys::default()).await.unwrap().now, later);
}
