//! Which calls go wrong, and how.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// A call of a storage port, as far as faults tell calls apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreCall {
    /// [`Store::load`](crate::ports::store::Store::load).
    Load,
    /// [`Store::commit`](crate::ports::store::Store::commit).
    Commit,
    /// [`Store::claim`](crate::ports::store::Store::claim).
    Claim,
    /// [`Store::watch`](crate::ports::store::Store::watch).
    Watch,
    /// [`Store::sweep`](crate::ports::store::Store::sweep).
    Sweep,
    /// [`Store::token_key`](crate::ports::store::Store::token_key).
    TokenKey,
    /// Any call of [`Reader`](crate::ports::reader::Reader).
    Read,
    /// [`Outbox::lease_due`](crate::ports::outbox::Outbox::lease_due).
    LeaseDue,
    /// [`Outbox::settle`](crate::ports::outbox::Outbox::settle).
    Settle,
    /// [`Outbox::next_due`](crate::ports::outbox::Outbox::next_due).
    NextDue,
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with [`Unavailable`](crate::ports::store::StoreError::Unavailable) and never reaches the store.
    Before,
    /// It is carried out, and fails with [`Unavailable`](crate::ports::store::StoreError::Unavailable) all the same:
    /// the answer is lost.
    After,
    /// It is carried out after others had so many turns, each a yield to the runtime. No time passes.
    Delay(u32),
    /// It is carried out twice, as a network layer may do.
    Repeat(Heard),
}

/// Which answer of a call that was carried out twice is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The first: what was done, as it was done.
    First,
    /// The second: a commit that was stored looks like a conflict with itself.
    Second,
}

/// Decides call by call what goes wrong. The same calls in the same order meet the same faults.
#[derive(Debug)]
pub enum FaultPlan {
    /// What goes wrong with the next calls of each kind, in order; all others go well.
    Scripted(HashMap<StoreCall, VecDeque<Option<Fault>>>),
    /// Any call may go wrong: so many of a thousand do, each fault as often as the others.
    Seeded {
        /// The source of chance.
        random: Box<TestRng>,
        /// 0 to 1,000.
        per_mille: u32,
    },
}

impl Default for FaultPlan {
    /// Everything goes well.
    fn default() -> Self {
        Self::Scripted(HashMap::new())
    }
}

impl FaultPlan {
    /// By chance, the same for the same seed: `per_mille` of a thousand calls go wrong.
    #[must_use]
    pub fn seeded(seed: u64, per_mille: u32) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self::Seeded { random: Box::new(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)), per_mille }
    }

    /// What goes wrong with the next call of this kind.
    pub(super) fn next(&mut self, call: StoreCall) -> Option<Fault> {
        match self {
            Self::Scripted(script) => script.get_mut(&call)?.pop_front()?,
            Self::Seeded { random, per_mille } => {
                if random.random_range(0..1000) >= *per_mille {
                    return None;
                }
                Some(match random.random_range(0..5_u32) {
                    0 => Fault::Before,
                    1 => Fault::After,
                    2 => Fault::Delay(random.random_range(1..20)),
                    3 => Fault::Repeat(Heard::First),
                    _ => Fault::Repeat(Heard::Second),
                })
            }
        }
    }
}
