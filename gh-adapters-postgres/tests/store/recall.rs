//! What a server remembers of what it read and wrote itself, and when it forgets.

use std::time::Duration;

use gh_core::domain::callback::LeasedDelivery;
use gh_core::domain::code::{Actor, ClientName};
use gh_core::domain::commands::{
    Cancel, Command, Credential, Drain, EventReport, Report, ReportEvents, ReportOutcome, UsageClosing, decide,
    decide_recalled,
};
use gh_core::domain::ids::{Attempt, JobId, ServerId};
use gh_core::domain::job::Completion;
use gh_core::domain::snapshot::{Keys, Snapshot};
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::watch::Lookout;
use gh_core::ports::callback_sender::SendOutcome;
use gh_core::ports::outbox::{Outbox, Settlement};
use gh_core::ports::store::{ClaimRequest, Conflict, Store, SweepRequest};
use gh_core::testing::{name, submission};
use uuid::Uuid;

use crate::world::World;

/// A snapshot as text, but for the time, and for what is only a guess in one that is remembered.
fn text(snapshot: &Snapshot) -> Vec<String> {
    let jobs = snapshot.jobs.values().map(|job| format!("{job:?}"));
    let views = snapshot.workers.values();
    let workers = views.map(|view| format!("{:?} {:?} {:?}", view.worker, view.vitals, view.occupied_by));
    let mut text: Vec<String> = jobs.chain(workers).collect();
    text.sort_unstable();
    text
}

fn keys_of(id: JobId, who: &Credential) -> Keys {
    Keys { jobs: vec![id], workers: vec![who.worker_id.clone()], ..Keys::default() }
}

impl World {
    /// Asserts that all of this is remembered, and as it is stored.
    async fn assert_remembers(&self, keys: &Keys, after: &str) {
        let recalled = self.store.recall(keys).unwrap_or_else(|| panic!("forgotten after {after}"));
        // By another server, since loading refreshes what is remembered.
        let other = self.database.store(Some(self.clock.clone()));
        assert_eq!(text(&recalled), text(&other.load(keys).await.unwrap()), "after {after}");
        other.pool().close().await;
    }

    /// Decides on what is remembered alone.
    async fn run_recalled<C: Command>(&self, command: &C) {
        let recalled = self.store.recall(&command.keys()).unwrap();
        let decision = decide_recalled(&recalled, command, &self.rules).unwrap();
        assert_eq!(self.store.commit(vec![decision.changes], &self.rules).await.unwrap(), [Ok(())]);
    }

    /// Sends what is due, and records that it was received.
    async fn deliver(&self) {
        let leased = self.store.lease_due(10, &self.rules).await.unwrap();
        assert!(!leased.is_empty());
        let settle = |lease: LeasedDelivery| Settlement {
            job_id: lease.job_id,
            lease_id: lease.lease_id,
            delivery_id: lease.delivery_id,
            outcome: SendOutcome::Answered {
                status: 200,
                retry_after: None,
                excerpt: String::new(),
                took: Duration::from_millis(1),
            },
            jitter: 0.5,
        };
        self.store.settle(leased.into_iter().map(settle).collect(), &self.rules).await.unwrap();
    }
}

fn drain(who: &Credential, timeout: Option<Duration>) -> Drain {
    let actor = Actor::Client(ClientName::new("valet"));
    Drain { worker_id: who.worker_id.clone(), actor, reason: "an update".into(), timeout }
}

/// A report of one event.
fn report_of(who: &Credential, job_id: JobId) -> ReportEvents {
    let event = EventReport {
        event_type: "step_completed".into(),
        message: None,
        metadata: None,
        occurred_at: None,
        worker_seq: None,
    };
    ReportEvents { who: who.clone(), job_id, attempt: Attempt::FIRST, events: vec![event] }
}

#[tokio::test]
async fn whatever_this_server_stored_is_remembered_as_it_is_stored() {
    let world = World::new().await;
    let who = world.worker("w-1").await;
    let request = SubmissionRequest { callback_url: Some("https://valet.example/callbacks".into()), ..submission() };
    let id = world.submit(request).await;
    let keys = keys_of(id, &who);
    world.assert_remembers(&keys, "a submission and a claim that waits").await;
    let granted = world.store.claim(ClaimRequest::waiting(keys.workers.clone()), &world.rules).await.unwrap();
    assert_eq!(granted.committed.len(), 1);
    world.assert_remembers(&keys, "a grant").await;
    world.deliver().await;
    world.assert_remembers(&keys, "a callback").await;
    world.clock.advance(Duration::from_secs(1));
    world.run_recalled(&report_of(&who, id)).await;
    world.assert_remembers(&keys, "a report").await;
    world.run_recalled(&drain(&who, Some(Duration::from_secs(1)))).await;
    world.assert_remembers(&keys, "a drain").await;
    world.clock.advance(Duration::from_secs(2));
    let sight = world.store.watch(Lookout::by_hand(ServerId::new(Uuid::nil())), &world.rules).await.unwrap().sight;
    let request = SweepRequest { limit: 10, sight };
    assert!(!world.store.sweep(request, &world.rules).await.unwrap().committed.is_empty());
    world.assert_remembers(&keys, "a sweep that took the job away").await;
}

#[tokio::test]
async fn a_job_that_ended_is_not_remembered_but_its_worker_is() {
    let world = World::new().await;
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    let keys = keys_of(id, &who);
    world.store.claim(ClaimRequest::waiting(keys.workers.clone()), &world.rules).await.unwrap();
    let report = Report::Complete(Completion::default(), UsageClosing::default());
    world.run_recalled(&ReportOutcome { who: who.clone(), job_id: id, attempt: Attempt::FIRST, report }).await;
    assert!(world.store.recall(&Keys { jobs: vec![id], ..Keys::default() }).is_none());
    world.assert_remembers(&Keys { workers: keys.workers.clone(), ..Keys::default() }, "its end").await;
    world.store.load(&keys).await.unwrap();
    assert!(world.store.recall(&keys).is_none(), "also after it was read");
}

#[tokio::test]
async fn what_another_server_made_wrong_is_forgotten_when_that_is_found_out() {
    let world = World::new().await;
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    let keys = keys_of(id, &who);
    world.store.claim(ClaimRequest::waiting(keys.workers.clone()), &world.rules).await.unwrap();
    let report = report_of(&who, id);
    let other = world.database.store(Some(world.clock.clone()));
    let meanwhile = decide(&other.load(&report.keys()).await.unwrap(), &report, &world.rules).changes;
    assert_eq!(other.commit(vec![meanwhile], &world.rules).await.unwrap(), [Ok(())]);
    let recalled = world.store.recall(&report.keys()).unwrap();
    let decision = decide_recalled(&recalled, &report, &world.rules).unwrap();
    let outcome = world.store.commit(vec![decision.changes], &world.rules).await.unwrap();
    assert!(outcome[0].is_err() && world.store.recall(&report.keys()).is_none());
    other.pool().close().await;
}

#[tokio::test]
async fn a_lost_connection_forgets_all_since_another_database_may_answer_next() {
    let world = World::new().await;
    let who = world.worker("w-1").await;
    let keys = Keys { workers: vec![who.worker_id.clone()], ..Keys::default() };
    assert!(world.store.recall(&keys).is_some());
    world
        .sql(
            "select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid()",
        )
        .await;
    // The connection that was kept for the next load is gone.
    assert!(world.store.load(&Keys { workers: vec![name("w-2")], ..Keys::default() }).await.is_err());
    assert!(world.store.recall(&keys).is_none());
    world.store.load(&keys).await.unwrap();
    assert!(world.store.recall(&keys).is_some(), "read anew");
}

#[tokio::test]
async fn what_a_callers_transaction_wrote_is_not_remembered_whether_it_is_stored_or_not() {
    let world = World::new().await;
    let who = world.worker("w-1").await;
    let keys = Keys { workers: vec![who.worker_id.clone()], ..Keys::default() };
    let changes = world.decision(&drain(&who, None)).await;
    let mut transaction = world.pool().begin().await.unwrap();
    let stored = world.store.commit_in(&mut transaction, &[changes], &world.rules).await.unwrap();
    assert_eq!(stored, [Ok(())]);
    assert!(world.store.recall(&keys).is_none());
    transaction.rollback().await.unwrap();
    world.store.load(&keys).await.unwrap();
    world.assert_remembers(&keys, "a transaction that was rolled back").await;
}

#[tokio::test]
async fn a_job_that_has_moved_is_a_conflict_also_while_somebody_holds_the_worker_it_moved_to() {
    let world = World::new().await;
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    let cancel = Cancel { job_id: id, actor: Actor::Client(ClientName::new("valet")), reason: None };
    let late = world.decision(&cancel).await;
    world.store.claim(ClaimRequest::waiting(vec![who.worker_id.clone()]), &world.rules).await.unwrap();
    let mut other = world.pool().begin().await.unwrap();
    sqlx::query("select from gh_workers for no key update").execute(&mut *other).await.unwrap();
    assert_eq!(world.store.commit(vec![late], &world.rules).await.unwrap(), [Err(Conflict)]);
    other.rollback().await.unwrap();
}
