//! Plain types and pure functions. No async, no clock, no randomness: `now` and new ids come in as arguments.

pub mod cost;
pub mod ids;
pub mod time;
pub mod usd;
