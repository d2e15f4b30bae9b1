//! The conformance suite finds a store that loses updates.
//!
//! A copy of the store in a file with one deliberate defect, in a decorator around it, runs through the same scenarios as
//! the store itself.
#![expect(clippy::unwrap_used, reason = "a test may stop where its world is not as it made it")]

use std::sync::Arc;

use async_trait::async_trait;
use gh_core::domain::changeset::Changeset;
use gh_core::domain::commands::Watched;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::{Keys, Snapshot};
use gh_core::domain::watch::Lookout;
use gh_core::ports::clock::Clock;
use gh_core::ports::store::{ClaimRequest, Conflict, Dispatched, Store, StoreError, SweepRequest, Swept};
use gh_core::testing::conformance::{Handle, Scenario, TestBed, scenarios};
use gh_examples::file_log::FileLogStore;
use tempfile::TempDir;
use tokio::task::JoinSet;

type Commits = Result<Vec<Result<(), Conflict>>, StoreError>;

/// Around a store: answers `Ok` to what the store refused, so that one of two updates is lost.
#[derive(Debug)]
struct SaysYes(Arc<FileLogStore>);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for SaysYes {
    async fn load(&self, keys: &Keys) -> Result<Snapshot, StoreError> {
        self.0.load(keys).await
    }

    fn recall(&self, keys: &Keys) -> Option<Snapshot> {
        self.0.recall(keys)
    }

    async fn commit(&self, changes: Vec<Changeset>, rules: &Rules) -> Commits {
        let stored = self.0.commit(changes, rules).await?;
        Ok(stored.into_iter().map(|_| Ok(())).collect())
    }

    async fn claim(&self, request: ClaimRequest, rules: &Rules) -> Result<Dispatched, StoreError> {
        self.0.claim(request, rules).await
    }

    async fn watch(&self, lookout: Lookout, rules: &Rules) -> Result<Watched, StoreError> {
        self.0.watch(lookout, rules).await
    }

    async fn sweep(&self, request: SweepRequest, rules: &Rules) -> Result<Swept, StoreError> {
        self.0.sweep(request, rules).await
    }

    async fn token_key(&self) -> Result<[u8; 32], StoreError> {
        self.0.token_key().await
    }
}

/// A log in a folder of its own, with or without the defect.
struct Log<const SOUND: bool> {
    folder: TempDir,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl<const SOUND: bool> TestBed for Log<SOUND> {
    async fn create(clock: Arc<dyn Clock>) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock }
    }

    async fn open(&self) -> Handle {
        let log = Arc::new(FileLogStore::new(self.folder.path().join("log"), Arc::clone(&self.clock), [7; 32]));
        let sound = Handle::of(Arc::clone(&log));
        if SOUND { sound } else { Handle { store: Arc::new(SaysYes(log)), ..sound } }
    }
}

/// Scenarios that are about two who change the same at once.
const ABOUT_UPDATES: [&str; 6] = [
    "of_two_decisions_on_one_version_only_the_first_is_stored_and_the_second_leaves_no_trace",
    "of_submissions_with_one_key_through_many_handles_at_once_only_one_makes_a_job",
    "a_grant_and_a_deregistration_refuse_each_other",
    "a_hold_on_a_name_and_a_registration_under_it_refuse_each_other",
    "a_worker_that_was_heard_from_meanwhile_is_not_given_up",
    "a_heartbeat_that_was_decided_before_its_worker_was_given_up_is_decided_anew",
];

/// Which of these scenarios a store fails.
async fn failures<B: TestBed>(names: &[&str]) -> Vec<&'static str> {
    let chosen: Vec<Scenario> = scenarios().into_iter().filter(|scenario| names.contains(&scenario.name)).collect();
    assert_eq!(chosen.len(), names.len(), "the suite has all of them");
    let mut failed = Vec::new();
    for scenario in chosen {
        let name = scenario.name;
        let mut task = JoinSet::new();
        task.spawn(async move { scenario.run::<B>().await });
        if task.join_next().await.unwrap().is_err() {
            failed.push(name);
        }
    }
    failed
}

#[tokio::test]
async fn a_store_that_loses_updates_fails_every_scenario_about_them_and_the_sound_one_none() {
    assert_eq!(failures::<Log<true>>(&ABOUT_UPDATES).await, [""; 0]);
    let mut failed = failures::<Log<false>>(&ABOUT_UPDATES).await;
    let mut expected = ABOUT_UPDATES;
    failed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(failed, expected);
}
