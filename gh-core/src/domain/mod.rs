//! Plain types and pure functions. No async, no clock, no randomness: `now` and new ids come in as arguments.

pub mod affinity;
pub mod assign;
pub mod callback;
pub mod changeset;
pub mod code;
pub mod commands;
pub mod cost;
pub(crate) mod decisions;
mod draft;
pub mod event;
pub mod field;
pub mod ids;
pub mod job;
pub mod placement;
pub mod policy;
pub mod rejection;
pub mod rules;
pub mod snapshot;
pub mod submission;
pub mod time;
pub mod usd;
pub mod watch;
pub mod worker;
