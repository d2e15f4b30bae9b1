//! Group commit: commands that arrive while others are being stored are decided and stored together.
//!
//! # Why
//!
//! A store that keeps what it acknowledged pays for each commit with a round trip and a write to disk, whatever is in
//! it. With one commit for each command that price is the speed of the whole system. Here it is paid once for a batch.
//!
//! # How it works
//!
//! A command is put into a **lane**: a bounded queue. A **committer**, one of the loops, takes all that waits in its
//! lane and runs it as one batch: one [`Store::load`](crate::ports::store::Store::load) for the keys of all of which
//! the store does not [remember](crate::ports::store::Store::recall) what they ask for, the decisions in order, one [`Store::commit`](crate::ports::store::Store::commit), then the answers and the wakes. What
//! arrives meanwhile is the next batch. So batches grow with the load by themselves; nothing waits for a timer, and a
//! command that comes alone is run at once, alone.
//!
//! **In order.** Each command is decided on what the ones before it left: [`Snapshot::apply`] changes the snapshot as
//! the store will be changed. Two submissions with one key make one job and a duplicate; of two strict jobs for one
//! worker the second finds it taken.
//!
//! **Memory.** What a store remembers may be out of date, so it is good for one try, and only for a decision that
//! changes something: that is stored only if nothing of what it was decided on has moved
//! ([`decide_recalled`](crate::domain::commands::decide_recalled)). If one command of a batch is refused, or has nothing
//! to change, by what is remembered, the whole batch is decided again on a loaded snapshot, so that the order stays.
//! Beside commands whose keys had to be loaded, what was loaded stands before what is remembered of the same.
//!
//! **What hangs together is stored together.** A decision that saw what an earlier one of its batch changes must not
//! outlive it, were that one refused. Versions cannot see to that: if somebody else wrote the same job meanwhile, it
//! has just the version that the second decision counted on. So decisions of which one saw what the other wrote become
//! one changeset, with the versions from before the first (`Changeset::in_sequence`). Those that have nothing to do
//! with each other remain changesets of their own: a conflict of one leaves the others alone.
//!
//! **Answers.** A decision without changes, such as a refusal, is answered at once if nothing that it saw was changed
//! in its batch; else when all of that is stored.
//!
//! **Conflicts.** What was refused by the store is decided again, in order and ahead of what came later, on a fresh
//! snapshot; after too many tries its callers are asked to come again. A direct [`execute`](ControlPlane::execute) is
//! a batch of one and takes the same path: this is the only place where conflicts are tried again.
//!
//! **Failures.** A store that is away fails the whole batch: each caller hears that it is worth trying again. Any other
//! failure may be the fault of a single command, so the batch is halved, and halved again, until that command stands
//! alone: only its caller hears of it, the others are stored. A decision that panics fails alone.
//!
//! # Lanes
//!
//! - **Ordinary** commands concern one job and its workers.
//! - **Signs of life** (heartbeats, news of connections) are frequent and late ones are worthless: neither do they
//!   hold up jobs, nor do jobs hold them up.
//! - **Wide** commands ([`Traffic::Wide`]) each get a call of their own: they read much and lock much, which would be
//!   the price of everybody in their batch. And they change which workers a name leads to, which a snapshot cannot
//!   show to the next decision for names that nobody asked for.
//!
//! Lanes know nothing of each other: what meets between them, or between two committers of one lane, meets in the
//! store and is a conflict.
//!
//! # Bounds and ends
//!
//! A full lane refuses at once ([`UseCaseError::Unavailable`]). A command whose caller
//! went away while it waited is not run; a batch that has it goes on. When the control plane closes, lanes take nothing more,
//! and all that is in them is run and answered. While no committer runs (before the loops, after them) commands are
//! executed directly.

mod batch;
mod call;
mod lane;

use futures_util::future::join_all;

pub(super) use self::call::Entry;
use self::lane::{Lane, Refused};
use super::{ControlPlane, UseCaseError};
use crate::domain::commands::{Command, Traffic};
#[cfg(doc)]
use crate::domain::snapshot::Snapshot;

/// How commands are grouped: [`ControlPlane::with_group_commit`] says what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCommit {
    /// At most so many commands are decided and stored together; at least 1, and 0 counts as 1. A bound below the
    /// number of calls in flight costs speed.
    pub batch: usize,
    /// The lane of everything else.
    pub ordinary: LaneSettings,
    /// The lane of heartbeats and of news of connections.
    pub signs_of_life: LaneSettings,
    /// The lane of commands that are run alone.
    pub wide: LaneSettings,
}

/// One lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSettings {
    /// So many commands may wait, beside those of the batches in flight; at least 1, and 0 counts as 1.
    pub queue: usize,
    /// So many batches may be in flight at once; at least 1, and 0 counts as 1. More than one is of use where the
    /// store waits for a disk, but two batches that change the same are conflicts.
    pub committers: usize,
}

impl Default for GroupCommit {
    /// Batches of up to 256; one committer and 4,096 places for ordinary commands and as many for signs of life; two
    /// committers and 1,024 places for wide ones.
    fn default() -> Self {
        let busy = LaneSettings { queue: 4_096, committers: 1 };
        Self { batch: 256, ordinary: busy, signs_of_life: busy, wide: LaneSettings { queue: 1_024, committers: 2 } }
    }
}

/// The lanes of a control plane.
#[derive(Debug)]
pub(super) struct Lanes {
    ordinary: Lane,
    signs_of_life: Lane,
    wide: Lane,
}

impl Lanes {
    pub(super) const fn new(settings: &GroupCommit) -> Self {
        Self {
            ordinary: Lane::new(settings.ordinary, settings.batch),
            signs_of_life: Lane::new(settings.signs_of_life, settings.batch),
            wide: Lane::new(settings.wide, 1),
        }
    }

    const fn of(&self, traffic: Traffic) -> &Lane {
        match traffic {
            Traffic::Ordinary => &self.ordinary,
            Traffic::SignsOfLife => &self.signs_of_life,
            Traffic::Wide => &self.wide,
        }
    }
}

impl ControlPlane {
    /// Puts a command into its lane and waits for its answer; `None` where no committer runs.
    pub(super) async fn execute_in_lane<C: Command + Clone>(
        &self,
        command: &C,
    ) -> Option<Result<C::Answer, UseCaseError>> {
        let lane = self.lanes.as_ref()?.of(command.traffic());
        if !lane.is_open() {
            return None;
        }
        let (entry, answer) = Entry::owned(command.clone());
        match lane.push(entry) {
            // An answer that never comes was lost with its committer: the command may or may not have been stored.
            Ok(()) => Some(answer.await.unwrap_or(Err(UseCaseError::Unavailable(None)))),
            Err(Refused::Full) => Some(Err(UseCaseError::Unavailable(None))),
            Err(Refused::Closed) => None,
        }
    }

    /// Runs the committers of every lane until [`Self::close`] and until the lanes are empty.
    pub(super) async fn run_committers(&self) {
        let Some(lanes) = &self.lanes else {
            return;
        };
        let committers = [&lanes.ordinary, &lanes.signs_of_life, &lanes.wide]
            .into_iter()
            .flat_map(|lane| (0..lane.committers()).map(move |_| self.run_committer(lane)));
        join_all(committers).await;
    }

    async fn run_committer(&self, lane: &Lane) {
        let seat = lane.open();
        let mut again = Vec::new();
        while let Some(batch) = seat.next(again, self.closed()).await {
            again = self.run_together(batch).await;
        }
    }
}
