//! What end-to-end tests share: a real server process, a client, a worker that is driven by hand, a callback receiver.
#![expect(clippy::expect_used, clippy::panic, reason = "a test stops where its surroundings fail")]

mod audit;
mod caller;
mod client;
mod ledger;
mod load;
mod postgres;
mod proxy;
mod receiver;
mod server;
mod worker;

pub use audit::Audit;
pub use caller::{Addresses, Caller};
pub use client::{Answer, Client, submission};
pub use ledger::{Acknowledged, Attempt, Ledger};
pub use load::{BRISK, Load, LoadSize};
pub use postgres::PrivatePostgres;
pub use proxy::Proxy;
pub use receiver::{Arrival, Receiver};
pub use server::{SERVICE_KEY, Server, WORKER_KEY, serve_command, server_binary};
pub use worker::Worker;

use std::time::Duration;

/// How long a test waits for something that must happen: far longer than it takes, so that only a defect gets there.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until `look` finds what it looks for.
///
/// # Panics
///
/// When it is not found within [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        loop {
            pace.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
