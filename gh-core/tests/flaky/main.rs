//! The application over a store whose calls go wrong, before or after they were carried out.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test may stop where its world is not as it made it")]

mod answers_lost;
mod fleet;
mod stage;
mod store_away;
