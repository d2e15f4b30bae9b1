//! Every change there is: pure functions from what is known to what shall be.
//!
//! A command says which aggregates it needs ([`Command::keys`]) and decides on a [`Snapshot`] of them. What it decides
//! is a [`Changeset`]: states, events and callbacks together. [`decide`] runs one, [`decide_recalled`] does so on what is
//! only remembered; [`dispatch`], [`watch`], [`sweep`] and [`dead_letter`] are for the places in which the store picks
//! the rows.

mod cancel;
mod deregister;
mod dispatch;
mod drain;
mod grant;
mod heartbeat;
mod hold;
mod job_lifecycle;
mod outcome;
mod register;
mod report;
mod retry;
mod submit;
mod sweep;
mod usage;
mod watch;
mod worker_lifecycle;

pub use cancel::Cancel;
pub use deregister::{Deregister, DeregistrationAnswer, Selector};
pub use dispatch::{Dispatch, dispatch};
pub use drain::{Drain, Undrain};
pub use grant::{Claim, ClaimAnswer, ConnectionNews, Granted, grant_jobs};
pub use heartbeat::{DrainWish, Heartbeat, HeartbeatAnswer, JobClaim, LeaseWord};
pub use hold::{HoldAnswer, LiftHold};
pub use outcome::{FailureReport, JobLeft, Report, ReportOutcome, UsageClosing};
pub use register::{Goodbye, GoodbyeAnswer, Register, Registered};
pub use report::{EventOutcome, EventReport, ReportEvents, SideEffectsStarted};
pub use retry::Retry;
pub use submit::{Submit, Submitted};
pub use sweep::{dead_letter, sweep};
pub use usage::{CallResult, ReportUsage, UsageAnswer};
pub use watch::{Watched, watch};

use super::changeset::Changeset;
pub use super::draft::Draft;
use super::ids::{Generation, WorkerId};
use super::rejection::Rejection;
use super::rules::Rules;
use super::snapshot::{Keys, Snapshot};

/// Beside what other commands a command may be decided, where many are decided at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// One job, and the workers that it concerns.
    Ordinary,
    /// That a worker lives and listens: frequent, and of no use when it comes late.
    SignsOfLife,
    /// Many aggregates at once, or which worker a name means: decided alone.
    Wide,
}

/// A wish to change something.
pub trait Command: Send + Sync + 'static {
    /// What the caller gets when it was granted.
    type Answer: Send + 'static;

    /// Beside what others it may be decided. Whoever writes names, or changes the names of a worker, is
    /// [wide](Traffic::Wide).
    fn traffic(&self) -> Traffic {
        Traffic::Ordinary
    }

    /// What the decision needs to see.
    fn keys(&self) -> Keys;

    /// Decides. Reads and writes go through the draft, which notes what was relied on.
    ///
    /// # Errors
    ///
    /// The rule that refuses it.
    fn decide(&self, draft: &mut Draft<'_>) -> Result<Self::Answer, Rejection>;
}

/// What was decided: an answer, and what to store before it is given.
#[derive(Debug)]
pub struct Decision<A> {
    /// What the caller gets.
    pub answer: Result<A, Rejection>,
    /// What to store first; a refusal may leave something too, such as the count of a retired worker's calls.
    pub changes: Changeset,
}

/// Decides one command on what is known.
#[must_use]
pub fn decide<C: Command + ?Sized>(snapshot: &Snapshot, command: &C, rules: &Rules) -> Decision<C::Answer> {
    let mut draft = Draft::new(snapshot, rules);
    let answer = command.decide(&mut draft);
    let (changes, keep_on_rejection) = draft.finish();
    let changes = if answer.is_ok() || keep_on_rejection { changes } else { Changeset::default() };
    Decision { answer, changes }
}

/// Decides one command on what a store [remembers](crate::ports::store::Store::recall) and may be out of date.
///
/// Gives back only what cannot be wrong once it is stored: a granted wish that changes something, and that relies on
/// everything it was decided on, so that a store refuses it if anything of that has moved. `None` where the command
/// has to be decided on a loaded snapshot: a refusal, a repetition, and whatever else changes nothing, would be answered
/// without anybody finding out whether it is still so.
///
/// What a decision looks at beside versions is the time, which is that of now; the job that occupies a worker and the
/// worker's last sign of life, on which it is made to rely here; and what else a worker's calls left behind, which
/// never changes what a job or a worker becomes without a sign of life or a new version of the worker.
#[must_use]
pub fn decide_recalled<C: Command + ?Sized>(
    snapshot: &Snapshot,
    command: &C,
    rules: &Rules,
) -> Option<Decision<C::Answer>> {
    let mut decision = decide(snapshot, command, rules);
    if decision.answer.is_err() || decision.changes.is_empty() {
        return None;
    }
    decision.changes.rely_on_all_of_workers(snapshot);
    Some(decision)
}

/// A worker's process, known by its token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Credential {
    /// The worker.
    pub worker_id: WorkerId,
    /// The generation that the token was made for.
    pub generation: Generation,
}
