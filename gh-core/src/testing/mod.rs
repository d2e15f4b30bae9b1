//! What tests of the rules and of adapters need: a clock that stands still, ids that count, and valid requests.
//!
//! [`conformance`] judges stores: one line runs every promise of the storage ports against somebody's own. [`model`]
//! does so with random histories. [`FlakyStore`] goes wrong, for what is built on a store.
//!
//! Mocks of the effect ports come with this feature too: `MockCallbackSender` beside its port. Storage is not mocked:
//! logic is tested on [`MemoryStore`](crate::memory::MemoryStore).

mod builders;
mod clock;
pub mod conformance;
mod flaky;
mod ids;
pub mod model;
pub mod scenes;

pub use self::builders::{name, registration, rules, submission, submission_to};
pub use self::clock::ManualClock;
pub use self::flaky::{Fault, FaultPlan, FlakyStore, Heard, StoreCall};
pub use self::ids::SequentialIds;
