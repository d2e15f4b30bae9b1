//! Forgetting what is old enough, from time to time.

use std::convert::Infallible;
use std::time::Duration;

use gh_adapters_postgres::{Forgotten, PgStore, Retention};
use tracing::{debug, info, warn};

/// Forgets at once and then at this pace, for as long as it is polled. Where several servers do so, one at a time does it.
pub(crate) async fn run(store: &PgStore, retention: Retention, every: Duration) -> Infallible {
    loop {
        match store.retain_unless_busy(&retention).await {
            Ok(Some(forgotten)) if forgotten == Forgotten::default() => {
                debug!("nothing was old enough to be forgotten")
            }
            Ok(Some(Forgotten { jobs, partitions, events, deliveries, llm_calls, workers })) => {
                info!(jobs, partitions, events, deliveries, llm_calls, workers, "forgot what was old enough");
            }
            Ok(None) => debug!("another server is forgetting what is old enough"),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "what is old enough could not all be forgotten; the rest is left for the next time"
            ),
        }
        tokio::time::sleep(every).await;
    }
}
