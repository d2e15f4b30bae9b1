//! PostgreSQL for the GhostHands control plane: the place for a durable implementation of the store's ports
//! (`gh_core::ports::{store, reader, outbox}`).
//!
//! There is no store here yet: `gh-server dev` keeps everything in memory, and `gh-server serve` says so and stops.
