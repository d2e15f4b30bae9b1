//! What is particular to the store on PostgreSQL; what every store must do is in `conformance`.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod commit_in;
mod concurrency;
mod contract;
mod corrupt;
mod migrations;
mod plans;
mod recall;
mod refusals;
mod retention;
mod silence;
mod time;
mod world;
