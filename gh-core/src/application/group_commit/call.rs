//! A command of any kind together with the caller that waits for its answer.

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;

use crate::application::UseCaseError;
use crate::domain::changeset::Changeset;
use crate::domain::commands::{Command, decide, decide_recalled};
use crate::domain::rules::Rules;
use crate::domain::snapshot::{Keys, Snapshot};
use crate::ports::store::{Store, StoreError};

/// What a batch has to know of a command.
trait Pending: Send {
    /// What its decision needs to see.
    fn keys(&self) -> &Keys;

    /// Decides anew; the answer is kept until it may be given.
    fn decide(&mut self, snapshot: &Snapshot, rules: &Rules) -> Changeset;

    /// The same on what is only remembered; `None` where that is not enough.
    fn decide_recalled(&mut self, snapshot: &Snapshot, rules: &Rules) -> Option<Changeset>;

    /// Gives the answer that was decided, or tells why there is none.
    fn answer(self: Box<Self>, outcome: Result<(), UseCaseError>);

    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
}

struct Call<'c, C: Command + Clone> {
    command: Cow<'c, C>,
    keys: Keys,
    decided: Option<Result<C::Answer, UseCaseError>>,
    caller: oneshot::Sender<Result<C::Answer, UseCaseError>>,
}

impl<C: Command + Clone> Pending for Call<'_, C> {
    fn keys(&self) -> &Keys {
        &self.keys
    }

    fn decide(&mut self, snapshot: &Snapshot, rules: &Rules) -> Changeset {
        // A decision changes nothing but what it gives back, so nothing is left half done.
        let decided = catch_unwind(AssertUnwindSafe(|| decide(snapshot, self.command.as_ref(), rules)));
        let (answer, changes) = match decided {
            Ok(decision) => (decision.answer.map_err(Into::into), decision.changes),
            Err(_) => {
                let error = StoreError::Internal("the decision panicked".into());
                (Err(UseCaseError::Internal(error)), Changeset::default())
            }
        };
        self.decided = Some(answer);
        changes
    }

    fn decide_recalled(&mut self, snapshot: &Snapshot, rules: &Rules) -> Option<Changeset> {
        // A decision that panics may do so because what is remembered does not fit together.
        let decided = catch_unwind(AssertUnwindSafe(|| decide_recalled(snapshot, self.command.as_ref(), rules)));
        let decision = decided.ok().flatten()?;
        self.decided = Some(decision.answer.map_err(Into::into));
        Some(decision.changes)
    }

    fn answer(self: Box<Self>, outcome: Result<(), UseCaseError>) {
        let Self { decided, caller, .. } = *self;
        let answer = outcome.and_then(|()| decided.unwrap_or(Err(UseCaseError::Unavailable(None))));
        // Who went away needs no answer.
        let _gone = caller.send(answer);
    }

    fn is_abandoned(&self) -> bool {
        self.caller.is_closed()
    }
}

/// A command in a lane or in a batch.
pub(in crate::application) struct Entry<'c> {
    call: Box<dyn Pending + 'c>,
    tries: u32,
    recallable: bool,
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Entry").field("tries", &self.tries).finish_non_exhaustive()
    }
}

/// Where the answer to a command comes.
pub(in crate::application) type Answer<C> = oneshot::Receiver<Result<<C as Command>::Answer, UseCaseError>>;

impl Entry<'static> {
    /// A command that lives as long as it waits.
    pub(super) fn owned<C: Command + Clone>(command: C) -> (Self, Answer<C>) {
        Self::of::<C>(Cow::Owned(command))
    }
}

impl<'c> Entry<'c> {
    /// A command of a caller that stays until it is answered.
    pub(in crate::application) fn borrowed<C: Command + Clone>(command: &'c C) -> (Self, Answer<C>) {
        Self::of(Cow::Borrowed(command))
    }

    fn of<C: Command + Clone>(command: Cow<'c, C>) -> (Self, Answer<C>) {
        let (caller, answer) = oneshot::channel();
        let keys = command.keys();
        let recallable = keys.of_jobs_and_workers();
        (Self { call: Box::new(Call { command, keys, decided: None, caller }), tries: 0, recallable }, answer)
    }

    pub(super) fn keys(&self) -> &Keys {
        self.call.keys()
    }

    /// What the store remembers of what it asks for, where its decision may be based on that: once, and first.
    pub(super) fn recall(&mut self, store: &dyn Store) -> Option<Snapshot> {
        std::mem::take(&mut self.recallable).then(|| store.recall(self.keys())).flatten()
    }

    pub(super) fn decide(&mut self, snapshot: &Snapshot, rules: &Rules) -> Changeset {
        self.tries += 1;
        self.call.decide(snapshot, rules)
    }

    /// Decides on what was [recalled](Self::recall); `None` where it has to be loaded for that.
    pub(super) fn decide_recalled(&mut self, snapshot: &Snapshot, rules: &Rules) -> Option<Changeset> {
        self.call.decide_recalled(snapshot, rules)
    }

    /// How often it was decided on what was loaded for it.
    pub(super) const fn tries(&self) -> u32 {
        self.tries
    }

    pub(super) fn answer(self, outcome: Result<(), UseCaseError>) {
        self.call.answer(outcome);
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.call.is_abandoned()
    }
}
