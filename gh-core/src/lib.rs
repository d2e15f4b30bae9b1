//! The GhostHands control plane's core: every rule, no I/O.

pub mod domain;
pub mod ports;
