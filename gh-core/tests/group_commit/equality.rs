//! A batch leaves what its commands leave one by one; a snapshot with changes applied is the one that a store gives.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::Arc;

use gh_core::application::ControlPlane;
use gh_core::domain::commands::{Command, decide};
use gh_core::domain::ids::Name;
use gh_core::domain::job::{Job, JobStatus};
use gh_core::domain::snapshot::{Keys, Snapshot};
use gh_core::ports::outbox::Outbox;
use gh_core::ports::reader::{JobEventQuery, Reader, WorkerQuery};
use gh_core::ports::store::Store;
use gh_core::testing::{name, submission, submission_to};
use proptest::prelude::*;
use proptest::sample::SizeRange;

use crate::operations::{CALLS, Cast, KEYS, MACHINES, Operation, Run, TARGETS, any_operation, ordinary};
use crate::stage::{Stage, client, with_key};

/// Two workers of one target, one of another, one without; jobs that run, wait, are reserved and have failed.
pub(crate) async fn cast(stage: &Stage) -> Cast {
    let mut workers = Vec::new();
    for (number, target) in [Some(TARGETS[0]), Some(TARGETS[0]), Some(TARGETS[1]), None].into_iter().enumerate() {
        workers.push(stage.worker(&format!("worker-{number}"), target).await);
    }
    stage.running_job(&workers[0]).await;
    stage.running_job(&workers[2]).await;
    for request in [
        with_key(KEYS[0], "the text"),
        submission_to(TARGETS[0], "strict"),
        submission_to("sandbox-nowhere", "strict"),
        submission_to("sandbox-nowhere", "preferred"),
    ] {
        stage.direct.submit(&client(), request).await.unwrap();
    }
    let jobs = stage.jobs().await;
    let statuses: Vec<JobStatus> = jobs.iter().map(|job| job.status()).collect();
    use JobStatus::{Failed, Pending, Queued, Running};
    assert_eq!(statuses, [Running, Running, Pending, Queued, Failed, Pending]);
    Cast { workers, jobs }
}

impl Run for &ControlPlane {
    async fn run<C: Command<Answer: Debug> + Clone>(&mut self, command: C) -> String {
        format!("{:#?}", self.execute(&command).await)
    }
}

/// Everything that is stored, as text.
async fn dump(stage: &Stage) -> String {
    dump_of(stage, &stage.jobs().await).await
}

/// The same, with jobs in this order.
pub(crate) async fn dump_of(stage: &Stage, jobs: &[Arc<Job>]) -> String {
    let mut text = String::new();
    let store = &stage.store;
    for job in jobs {
        let query = JobEventQuery { job_id: job.id, after_seq: 0, event_types: Vec::new(), limit: usize::MAX };
        let events = store.job_events(&query).await.unwrap();
        let deliveries = store.deliveries(job.id, None, usize::MAX).await.unwrap();
        let calls = CALLS.iter().map(|call| (job.id, (*call).into())).collect();
        let calls = store.load(&Keys { calls, ..Keys::default() }).await.unwrap().calls;
        let calls: BTreeMap<_, _> = calls.into_iter().collect();
        write!(text, "{job:#?}\n{events:#?}\n{deliveries:#?}\n{calls:#?}\n").unwrap();
    }
    let (now, workers) = store.workers(&WorkerQuery::default()).await.unwrap();
    for view in workers {
        let events = store.worker_events(&view.worker.id, None, usize::MAX).await.unwrap();
        write!(text, "{view:#?}\n{events:#?}\n").unwrap();
    }
    let keys = KEYS.iter().map(|key| (client(), (*key).into())).collect();
    let used = store.load(&Keys { idempotency_keys: keys, ..Keys::default() }).await.unwrap().idempotency_keys;
    let used: BTreeMap<_, _> = used.into_iter().collect();
    let due = store.next_due().await.unwrap();
    write!(text, "{now:?}\n{used:#?}\n{due:?}\n{:#?}", store.figures().await.unwrap()).unwrap();
    text
}

async fn one_by_one(operations: &[Operation]) -> (Vec<String>, String) {
    let stage = Stage::new();
    let cast = cast(&stage).await;
    // The one that is before the batch.
    stage.direct.submit(&client(), submission()).await.unwrap();
    let mut answers = Vec::new();
    for operation in operations {
        answers.push(operation.run(&cast, &mut &stage.direct).await);
    }
    (answers, dump(&stage).await)
}

async fn in_one_batch(operations: &[Operation]) -> (Vec<String>, String) {
    let stage = Stage::new();
    let cast = cast(&stage).await;
    let cast = &cast;
    let grouping = &stage.grouping;
    let calls = operations.iter().map(|operation| async move {
        let mut run = grouping;
        operation.run(cast, &mut run).await
    });
    let answers = stage.while_committing(stage.in_one_batch(calls)).await;
    assert_eq!(stage.door.loads().len(), 1);
    assert!(stage.door.commits() <= 1);
    (answers, dump(&stage).await)
}

/// Decides on a snapshot of everything, applies what was decided, and compares with what the store then gives.
struct Applying<'s> {
    stage: &'s Stage,
    keys: Keys,
}

impl Run for Applying<'_> {
    async fn run<C: Command<Answer: Debug> + Clone>(&mut self, command: C) -> String {
        let mut applied = self.stage.store.load(&self.keys).await.unwrap();
        let decision = decide(&applied, &command, &self.stage.rules);
        self.keys.jobs.extend(decision.changes.jobs().iter().map(|write| write.job.id));
        applied.apply(&decision.changes);
        let outcome = self.stage.store.commit(vec![decision.changes], &self.stage.rules).await.unwrap();
        assert_eq!(outcome, [Ok(())]);
        let loaded = self.stage.store.load(&self.keys).await.unwrap();
        assert_same(&comparable(applied), &comparable(loaded));
        format!("{:?}", decision.answer)
    }
}

/// A snapshot with everything in order; deregistrations that hold nothing any more need not be in it.
fn comparable(snapshot: Snapshot) -> String {
    fn sorted<K: Ord, V>(map: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
        map.into_iter().collect()
    }
    let Snapshot { now, jobs, workers, mut names, mut deregistrations, idempotency_keys, calls, watch } = snapshot;
    for view in names.values_mut() {
        view.waiting_jobs.sort_unstable();
    }
    let held: Vec<_> = names.values().filter_map(|view| view.record.as_ref()?.held_by).collect();
    deregistrations.retain(|id, _| held.contains(id));
    let (jobs, workers, names) = (sorted(jobs), sorted(workers), sorted(names));
    let (used, calls) = (sorted(idempotency_keys), sorted(calls));
    format!(
        "{now:?}\n{jobs:#?}\n{workers:#?}\n{names:#?}\n{:#?}\n{used:#?}\n{calls:#?}\n{watch:?}",
        sorted(deregistrations)
    )
}

/// Tells where two long texts part.
pub(crate) fn assert_same(text: &str, expected: &str) {
    if text == expected {
        return;
    }
    let (lines, other): (Vec<&str>, Vec<&str>) = (text.lines().collect(), expected.lines().collect());
    let place =
        lines.iter().zip(&other).position(|(line, other)| line != other).unwrap_or(lines.len().min(other.len()));
    let before = lines[place.saturating_sub(40)..place].join("\n");
    panic!("{before}\nfound    {:?}\nexpected {:?}", lines.get(place), other.get(place));
}

async fn apply_each(operations: &[Operation]) {
    let stage = Stage::new();
    let cast = cast(&stage).await;
    let workers: Vec<Name> = (0..6).map(|number| name(&format!("worker-{number}"))).collect();
    let names: Vec<Name> = TARGETS
        .iter()
        .chain(&MACHINES)
        .chain(&["sandbox-nowhere"])
        .map(|text| name(text))
        .chain(workers.clone())
        .collect();
    let keys = Keys {
        jobs: cast.jobs.iter().map(|job| job.id).collect(),
        workers,
        waiting_for: names.clone(),
        names,
        idempotency_keys: KEYS.iter().map(|key| (client(), (*key).into())).collect(),
        calls: cast.jobs.iter().flat_map(|job| CALLS.map(|call| (job.id, call.into()))).collect(),
    };
    let mut applying = Applying { stage: &stage, keys };
    for operation in operations {
        operation.run(&cast, &mut applying).await;
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub(crate) fn some<S: Strategy<Value = Operation>>(
    operation: S,
    count: impl Into<SizeRange>,
) -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(operation, count)
}

proptest! {
    #[test]
    fn a_batch_leaves_and_answers_what_its_commands_do_one_by_one(operations in some(ordinary(), 1..40)) {
        let (answers, stored) = block_on(one_by_one(&operations));
        let (batch_answers, batch_stored) = block_on(in_one_batch(&operations));
        for ((operation, answer), batch_answer) in operations.iter().zip(answers).zip(batch_answers) {
            prop_assert_eq!(answer, batch_answer, "{:?}", operation);
        }
        assert_same(&batch_stored, &stored);
    }

    #[test]
    fn changes_applied_to_a_snapshot_give_the_snapshot_that_the_store_gives_after_them(
        operations in some(any_operation(), 1..40)
    ) {
        block_on(apply_each(&operations));
    }
}
