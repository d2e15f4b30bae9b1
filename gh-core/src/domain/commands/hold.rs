//! Letting workers of a deregistered name come back.

use super::{Command, Traffic};
use crate::domain::draft::Draft;
use crate::domain::ids::Name;
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;

/// A client lifts the hold on a name.
#[derive(Clone, Debug)]
pub struct LiftHold {
    /// The name.
    pub name: Name,
}

/// Whether the name is held now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldAnswer {
    /// The name.
    pub name: Name,
    /// A deregistration that still runs keeps its hold.
    pub held: bool,
}

impl Command for LiftHold {
    type Answer = HoldAnswer;

    fn traffic(&self) -> Traffic {
        Traffic::Wide
    }

    fn keys(&self) -> Keys {
        Keys { names: vec![self.name.clone()], ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<HoldAnswer, Rejection> {
        let known = draft.snapshot().names.get(&self.name).is_some_and(|view| view.record.is_some());
        if !known {
            return Err(Rejection::NameNotFound);
        }
        let Some(holder) = draft.hold_on(&self.name) else {
            return Ok(HoldAnswer { name: self.name.clone(), held: false });
        };
        let mut deregistration = holder.as_ref().clone();
        deregistration.hold_lifted = true;
        let held = deregistration.holds(draft.now());
        draft.save_deregistration(deregistration);
        Ok(HoldAnswer { name: self.name.clone(), held })
    }
}
