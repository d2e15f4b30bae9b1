//! A command of any kind together with the caller that waits for its answer.

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;

use crate::application::UseCaseError;
use crate::domain::changeset::Changeset;
use crate::domain::commands::{Command, decide};
use crate::domain::rules::Rules;
use crate::domain::snapshot::{Keys, Snapshot};
use crate::ports::store::StoreError;

/// What a batch has to know of a command.
trait Pending: Send {
    /// What its decision needs to see.
    fn keys(&self) -> &Keys;

    /// Decides anew; the answer is kept until it may be given.
    fn decide(&mut self, snapshot: &Snapshot, rules: &Rules) -> Changeset;

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
        (Self { call: Box::new(Call { command, keys, decided: None, caller }), tries: 0 }, answer)
    }

    pub(super) fn keys(&self) -> &Keys {
        self.call.keys()
    }

    pub(super) fn decide(&mut self, snapshot: &Snapshot, rules: &Rules) -> Changeset {
        self.tries += 1;
        self.call.decide(snapshot, rules)
    }

    /// How often it was decided.
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
