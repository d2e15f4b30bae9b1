//! The store in a file keeps every promise of the storage ports, and what it stored outlives it.
#![expect(clippy::unwrap_used, reason = "a test may stop where its world is not as it made it")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use gh_core::domain::code::ClientName;
use gh_core::domain::commands::{Command, Submit, decide};
use gh_core::domain::ids::JobId;
use gh_core::domain::rules::Rules;
use gh_core::ports::clock::Clock;
use gh_core::ports::reader::{JobEventQuery, Reader};
use gh_core::ports::store::{Store, StoreError};
use gh_core::testing::conformance::{Handle, TestBed};
use gh_core::testing::{ManualClock, rules, submission};
use gh_examples::file_log::FileLogStore;
use tempfile::TempDir;

/// A log in a folder of its own, which goes with it. Each handle opens the file anew, as another process would.
struct FileLog {
    folder: TempDir,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl TestBed for FileLog {
    async fn create(clock: Arc<dyn Clock>) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock }
    }

    async fn open(&self) -> Handle {
        let path = self.folder.path().join("log");
        Handle::of(Arc::new(FileLogStore::new(path, Arc::clone(&self.clock), [7; 32])))
    }
}

gh_core::store_conformance!(FileLog);

fn open(path: &Path) -> FileLogStore {
    FileLogStore::new(path, Arc::new(ManualClock::default()), [7; 32])
}

/// Submits a job, decided and stored as the control plane does it.
async fn submit(store: &FileLogStore, rules: &Rules) -> JobId {
    let command = Submit::new(ClientName::new("shop"), submission().validate().unwrap());
    let decision = decide(&store.load(&command.keys()).await.unwrap(), &command, rules);
    assert_eq!(store.commit(vec![decision.changes], rules).await.unwrap(), [Ok(())]);
    decision.answer.unwrap().job.id
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart_and_an_entry_without_its_end_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let rules = rules();
    let first = submit(&open(&path), &rules).await;
    let whole = std::fs::read(&path).unwrap();
    let second = submit(&open(&path), &rules).await;
    let both = std::fs::read(&path).unwrap();
    // The process died while it wrote the second entry: wherever it was cut off, the first is there, and work goes on.
    for length in whole.len()..both.len() - 1 {
        std::fs::write(&path, &both[..length]).unwrap();
        let store = open(&path);
        assert!(store.job(first).await.unwrap().is_some(), "cut at {length}");
        assert!(store.job(second).await.unwrap().is_none(), "cut at {length}");
    }
    let third = submit(&open(&path), &rules).await;
    let store = open(&path);
    assert!(store.job(first).await.unwrap().is_some() && store.job(third).await.unwrap().is_some());
    assert_eq!(store.job_events(&events_of(third)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_log_that_is_none_is_told_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    submit(&open(&path), &rules()).await;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend(b"\nThis is no entry");
    std::fs::write(&path, &bytes).unwrap();
    let refused = open(&path).now().await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn two_handles_see_the_same_and_only_the_owner_may_read_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (here, there) = (open(&path), open(&path));
    let id = submit(&here, &rules()).await;
    assert!(there.job(id).await.unwrap().is_some());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!format!("{here:?}").contains("client.example.com"));
}

#[test]
fn the_store_has_fewer_than_275_lines_with_every_comment() {
    assert!(include_str!("../src/file_log.rs").lines().count() < 275);
}

fn events_of(job_id: JobId) -> JobEventQuery {
    JobEventQuery { job_id, after_seq: 0, event_types: Vec::new(), limit: 10 }
}
