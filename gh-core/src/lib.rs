//! The GhostHands control plane's core: every rule, no I/O.
//!
//! Three rings, dependencies point inwards only:
//!
//! - [`domain`]: plain types and pure functions. Every rule lives here, once.
//! - [`ports`]: what the core needs from the world, as traits.
//! - [`application`]: use cases that load, decide and store, and the background loops.
//!
//! *Adapters choose rows, the core decides changes*: a job and a worker change only through
//! [`commands`](domain::commands), pure functions from a [`Snapshot`](domain::snapshot::Snapshot) to a
//! [`Changeset`](domain::changeset::Changeset), which a store keeps whole or not at all.

pub mod application;
pub mod domain;
#[cfg(feature = "memory")]
pub mod memory;
pub mod ports;
#[cfg(feature = "testing")]
pub mod testing;
