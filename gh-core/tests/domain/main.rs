//! The rules, as pure functions: every command in every state, and the stories that take more than one.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test may stop where its world is not as it made it")]

mod extremes;
mod stories;
mod transitions;
mod world;
