//! What tests of the rules and of adapters need: a clock that stands still, ids that count, and valid requests.
//!
//! Mocks of the effect ports come with this feature too: `MockCallbackSender` beside its port. Storage is not mocked:
//! logic is tested on [`MemoryStore`](crate::memory::MemoryStore).

mod builders;
mod clock;
mod ids;
pub mod scenes;

pub use self::builders::{name, registration, rules, submission, submission_to};
pub use self::clock::ManualClock;
pub use self::ids::SequentialIds;
