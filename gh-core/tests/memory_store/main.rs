//! The in-memory store keeps the promises of its ports. Everything is stored through the rules' own commands.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod claims;
mod commits;
mod outbox;
mod reads;
mod snapshots;
mod sweeps;
mod world;
