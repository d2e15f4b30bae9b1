//! `gh-server serve` on PostgreSQL: real processes, one database, many servers.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops where its world is not as it made it")]

#[cfg(target_os = "linux")]
mod benchmark;
mod least_privilege;
mod many_servers;
mod outage;
mod start;
