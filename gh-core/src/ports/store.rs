//! Storing what was decided.

use async_trait::async_trait;

use crate::domain::changeset::Changeset;
use crate::domain::commands::{Claim, ClaimAnswer, Dispatch, Watched};
use crate::domain::ids::WorkerId;
use crate::domain::rejection::Rejection;
use crate::domain::rules::Rules;
use crate::domain::snapshot::{Keys, Snapshot};
use crate::domain::watch::{Lookout, Sight};

/// Why a store could not do what was asked: nothing was changed, unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is away, too slow or overloaded; it is worth trying again. A commit may or may not have happened.
    #[error("the store is not available")]
    Unavailable(#[source] Option<Box<dyn std::error::Error + Send + Sync>>),
    /// What is stored makes no sense.
    #[error("what is stored makes no sense: {0}")]
    Corrupt(String),
    /// Anything else: a defect.
    #[error("the store failed")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Files and connections that fail: away.
impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::Unavailable(Some(Box::new(error)))
    }
}

/// A changeset was refused: something that it relied on has moved. Nothing of it is stored; load and decide again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("something that the change relied on has moved")]
pub struct Conflict;

/// Who asks for a job on this server.
#[derive(Clone, Debug, Default)]
pub struct ClaimRequest {
    /// The workers that wait: their claims were written down before.
    pub workers: Vec<WorkerId>,
    /// Claims that have just come and were not written down yet, in order.
    pub claims: Vec<Claim>,
}

impl ClaimRequest {
    /// For workers that wait already.
    #[must_use]
    pub const fn waiting(workers: Vec<WorkerId>) -> Self {
        Self { workers, claims: Vec::new() }
    }
}

/// What came of [`Store::claim`].
#[derive(Debug, Default)]
pub struct Dispatched {
    /// What was stored.
    pub committed: Vec<Changeset>,
    /// For each claim of the request, in order, its answer, which is stored; or that nothing of it is, since something
    /// that it relied on has moved or was locked. One that [waits](ClaimAnswer::Waiting) may have been granted a job in
    /// the same change, which is among those that were stored.
    pub answers: Vec<Result<Result<ClaimAnswer, Rejection>, Conflict>>,
}

impl Dispatched {
    /// What came of a decision, by what became of each of its [changesets](Dispatch::changesets), in their order.
    #[must_use]
    pub fn of(decided: Dispatch, stored: &[Result<(), Conflict>]) -> Self {
        let is_stored = |place: usize| stored.get(place).is_some_and(Result::is_ok);
        let told = |(answer, needs): (_, Vec<usize>)| {
            if needs.into_iter().all(is_stored) { Ok(answer) } else { Err(Conflict) }
        };
        let answers = decided.answers.into_iter().map(told).collect();
        let changesets = decided.changesets.into_iter().enumerate();
        let committed = changesets.filter(|(place, _)| is_stored(*place)).map(|(_, changes)| changes).collect();
        Self { committed, answers }
    }
}

/// How much to sweep at once, and by what was seen.
#[derive(Clone, Debug)]
pub struct SweepRequest {
    /// At most so many jobs and so many workers.
    pub limit: usize,
    /// What a [look](Store::watch) saw right before: who is silent is given up only by it.
    pub sight: Sight,
}

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Swept {
    /// What was stored.
    pub committed: Vec<Changeset>,
    /// Whether more was due than the limit.
    pub more: bool,
}

/// Stores changesets, whole or not at all. Its time is the one clock of every decision.
///
/// - **Atomic**: of a [`Changeset`] everything is stored or nothing; readers never see a part.
/// - **Versions**: a changeset is refused with [`Conflict`] unless everything in [`Changeset::relied_on`] has that
///   version at the moment of the commit, every worker in [`Changeset::silent`] was silent, every worker in
///   [`Changeset::occupants`] is occupied by just that job, no worker would be occupied by two jobs, and no idempotency
///   key is there already.
/// - **Durable**: what was answered `Ok` is there after any crash (as far as the store is durable at all).
///
/// # Example
///
/// What [`execute`](crate::application::ControlPlane::execute) does with it: load, decide, commit. A decision on what
/// is no longer so is refused, and nothing of it is stored.
///
/// ```
/// # use std::sync::Arc;
/// use gh_core::domain::commands::{Command, decide};
/// # use gh_core::memory::MemoryStore;
/// use gh_core::ports::store::{Conflict, Store};
/// use gh_core::testing::{registration, rules};
/// # use gh_core::testing::ManualClock;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let memory_store = MemoryStore::new(Arc::new(ManualClock::default()), [7; 32]);
/// let rules = rules();
/// let store: &dyn Store = &memory_store;
///
/// // Two processes register under one name at once: both see that it is free.
/// let register = registration("worker-a");
/// let seen_by_one = store.load(&register.keys()).await?;
/// let seen_by_other = store.load(&register.keys()).await?;
/// let one = decide(&seen_by_one, &register, &rules);
/// let other = decide(&seen_by_other, &register, &rules);
/// assert!(one.answer.is_ok() && other.answer.is_ok());
///
/// // But only one of them is right.
/// let stored = store.commit(vec![one.changes, other.changes], &rules).await?;
/// assert_eq!(stored, [Ok(()), Err(Conflict)]);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Reads what a decision asks for, all of one moment, with the store's time: at least what the
    /// [keys](Keys) promise, and more where that is easier.
    async fn load(&self, keys: &Keys) -> Result<Snapshot, StoreError>;

    /// What this process remembers of what a decision asks for, without asking anybody: what [`load`](Self::load) would
    /// give, but that each job and each worker in it may be out of date, and need not be of one moment with the others.
    /// A job or worker is always one that was stored with just its version. On which machine how many workers are
    /// occupied, and whether a worker's id is a target, is a guess. The time is that of now.
    ///
    /// `None` where not all of it is remembered, and for keys of anything but
    /// [jobs and workers](Keys::of_jobs_and_workers): that cannot be found out by the commit. A store that remembers
    /// nothing leaves this as it is. Decisions on what is remembered are made by
    /// [`decide_recalled`](crate::domain::commands::decide_recalled) alone.
    fn recall(&self, keys: &Keys) -> Option<Snapshot> {
        let _forgotten = keys;
        None
    }

    /// Stores changesets in order, each by itself: one that is refused does not touch the others, but those that
    /// [build on](Changeset::builds_on) it, which are refused too.
    /// The rules say how callbacks are [enqueued](crate::domain::callback::CallbackQueue::enqueue).
    async fn commit(&self, changes: Vec<Changeset>, rules: &Rules) -> Result<Vec<Result<(), Conflict>>, StoreError>;

    /// Picks waiting jobs for these workers and for those of the new claims, has the core decide
    /// ([`dispatch`](crate::domain::commands::dispatch)), and stores what it decided: a claim together with the job
    /// that its worker is granted, or neither; one for which there is no job as waiting. Every worker gets one job at
    /// most.
    ///
    /// The snapshot must hold what the [keys](crate::domain::commands::Command::keys) of each new claim ask for, and, for
    /// every worker that can take a job or claims, the first jobs in
    /// [queue order](crate::domain::job::Job::queue_order) that it [may take](crate::domain::assign::may_take): at
    /// least as many as there are workers.
    async fn claim(&self, request: ClaimRequest, rules: &Rules) -> Result<Dispatched, StoreError>;

    /// Looks at the whole fleet: counts how many workers take part and how many of them are silent, has the core decide
    /// what that means ([`watch`](crate::domain::commands::watch)) on the one stored
    /// [record](crate::domain::watch::FleetWatch), and stores what it decided. Two looks at once come one after the
    /// other, or one of them changes nothing and says so by an empty changeset.
    ///
    /// Of a lookout that pays attention ([`Lookout::last_heard`]) a store that knows better when the process heard of
    /// it last puts that right: by calls that were answered since, and by silence between them.
    async fn watch(&self, lookout: Lookout, rules: &Rules) -> Result<Watched, StoreError>;

    /// Picks jobs and workers for which a deadline is over, has the core decide
    /// ([`sweep`](crate::domain::commands::sweep)), and stores what it decided. Jobs are due by
    /// [`JobWrite::next_deadline`](crate::domain::changeset::JobWrite); workers when they were not heard from since
    /// [`Sight::silent_since`], and otherwise by
    /// [`WorkerView::next_deadline`](crate::domain::worker::WorkerView::next_deadline).
    async fn sweep(&self, request: SweepRequest, rules: &Rules) -> Result<Swept, StoreError>;

    /// A secret that all servers on this store share, made once: worker tokens are derived from it.
    async fn token_key(&self) -> Result<[u8; 32], StoreError>;
}
