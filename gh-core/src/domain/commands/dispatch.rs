//! Claims that have just come and waiting jobs, decided together: a claim for which a job is there is one change with it.

use std::collections::HashSet;

use super::grant::grants;
use super::{Claim, ClaimAnswer, Command, decide};
use crate::domain::changeset::Changeset;
use crate::domain::decisions::{Decisions, Plan};
use crate::domain::ids::WorkerId;
use crate::domain::rejection::Rejection;
use crate::domain::rules::Rules;
use crate::domain::snapshot::{Keys, Snapshot};

/// What was decided of claims and waiting jobs, to be stored before the claims are answered.
#[derive(Debug)]
pub struct Dispatch {
    /// What to store, in this order; each stands by itself.
    pub changesets: Vec<Changeset>,
    /// For each new claim, in order: its answer before any grant, and the places of the changesets that must be stored
    /// before it holds.
    pub(crate) answers: Vec<(Result<ClaimAnswer, Rejection>, Vec<usize>)>,
}

/// Decides the claims that have just come, in order, and then grants the waiting jobs of the snapshot: to those of the
/// `waiting` workers that are eligible, and to the workers of those claims that have to wait. A claim and the job that
/// its worker is granted are one changeset.
///
/// For stores, in [`Store::claim`](crate::ports::store::Store::claim). Workers of the snapshot that neither wait nor
/// claim get nothing.
#[must_use]
pub fn dispatch(mut snapshot: Snapshot, waiting: &[WorkerId], claims: &[Claim], rules: &Rules) -> Dispatch {
    let mut decisions = Decisions::default();
    let mut asking: HashSet<&WorkerId> = waiting.iter().collect();
    let mut answers = Vec::with_capacity(claims.len());
    for claim in claims {
        let decision = decide(&snapshot, claim, rules);
        if matches!(decision.answer, Ok(ClaimAnswer::Waiting)) {
            asking.insert(&claim.who.worker_id);
        }
        decisions.add(&claim.keys(), decision.changes, &mut snapshot);
        answers.push(decision.answer);
    }
    for (worker_id, changes) in grants(&snapshot, rules, |id| asking.contains(id)) {
        // Who had the job before does not matter to it.
        let keys = Keys { workers: vec![worker_id], ..Keys::default() };
        decisions.add(&keys, changes, &mut snapshot);
    }
    let Plan { changesets, conditions } = decisions.finish();
    Dispatch { changesets, answers: answers.into_iter().zip(conditions).collect() }
}
