//! What becomes of a load when servers are killed, when the database or the network fails, and when transactions meet that
//! want the same. Real processes throughout.
#![expect(clippy::unwrap_used, reason = "a test stops where its surroundings fail")]

mod contention;
mod database;
mod poison;
mod servers;
mod stage;
