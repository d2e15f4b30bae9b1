//! Which connections are still believed in, and how long a call waits for one.
//!
//! The database bounds its statements by itself, but only the one who asked notices that no answer comes any more: a
//! network that swallows packets closes no connection. So every call has an end here too. And where one connection
//! turned out to be of no use, because it fell silent or belongs to a database that takes no writes any more, those
//! that were made before it was noticed are not used again: new ones may lead elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gh_core::ports::store::StoreError;
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use crate::errors::{is_lost_connection, is_read_only};

/// A connection that was idle for so long is asked whether it still lives before it is used.
const ASKED_AFTER: Duration = Duration::from_secs(1);

/// How long a connection may take to say that it lives.
const ALIVE_WITHIN: Duration = Duration::from_secs(1);

/// Connections to a database that stays read-only are not renewed more often than this: it can be read meanwhile.
const RENEWED_EVERY: Duration = Duration::from_secs(1);

/// How much longer a call waits than the database takes at most, whose own answer says more.
const SLACK: Duration = Duration::from_secs(2);

/// Shared by a pool and the store on it.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    call: Duration,
    /// Connections from before this are of no use.
    lost_until: Arc<Mutex<Option<Instant>>>,
    /// How often that has moved.
    era: Arc<AtomicU64>,
}

/// A call was not answered in time.
#[derive(Debug, thiserror::Error)]
#[error("the database does not answer")]
struct NoAnswer;

impl Trust {
    /// For connections whose statements take at most `statement_timeout`.
    pub(crate) fn new(statement_timeout: Duration) -> Self {
        Self { call: statement_timeout + SLACK, lost_until: Arc::default(), era: Arc::default() }
    }

    /// Waits for what a call brings, with a bound.
    pub(crate) fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> impl Future<Output = Result<T, StoreError>> {
        let mut call = Box::pin(call);
        async move {
            let answer = match tokio::time::timeout(self.call, call.as_mut()).await {
                Ok(answer) => answer,
                // Before the call is dropped, which gives its connection back.
                Err(_) => {
                    self.lose();
                    Err(StoreError::Unavailable(Some(Box::new(NoAnswer))))
                }
            };
            if let Err(StoreError::Unavailable(Some(source))) = &answer
                && let Some(error) = source.downcast_ref()
            {
                if is_read_only(error) {
                    self.renew();
                } else if is_lost_connection(error) {
                    self.lose();
                }
            }
            answer
        }
    }

    /// No connection that there is now is used again.
    fn lose(&self) {
        *self.lost_until() = Some(now());
        self.era.fetch_add(1, Ordering::AcqRel);
    }

    /// Another number each time that connections turned out to be of no use: what answers next may be another database.
    pub(crate) fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// The same, but not all the time.
    pub(crate) fn renew(&self) {
        let now = now();
        let mut lost_until = self.lost_until();
        if lost_until.is_none_or(|before| now.duration_since(before) >= RENEWED_EVERY) {
            *lost_until = Some(now);
            self.era.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn lost_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.lost_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_lost(&self, age: Duration) -> bool {
        let lost_until = *self.lost_until();
        lost_until.is_some_and(|until| now().duration_since(until) <= age)
    }

    /// Whether a connection of this age that was idle for so long can be used.
    pub(crate) async fn may_use(
        &self,
        connection: &mut PgConnection,
        age: Duration,
        idle_for: Duration,
    ) -> Result<bool, sqlx::Error> {
        if self.is_lost(age) {
            return Ok(false);
        }
        if idle_for < ASKED_AFTER || lives(connection).await? {
            return Ok(true);
        }
        self.lose();
        Ok(false)
    }

    /// Whether a connection of this age is worth keeping. Whoever had it may have gone in the middle of a statement,
    /// whose answer is waited for here.
    pub(crate) async fn may_keep(&self, connection: &mut PgConnection, age: Duration) -> Result<bool, sqlx::Error> {
        Ok(!self.is_lost(age) && lives(connection).await?)
    }
}

async fn lives(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    match tokio::time::timeout(ALIVE_WITHIN, connection.ping()).await {
        Ok(alive) => alive.map(|()| true),
        Err(_) => Ok(false),
    }
}

#[expect(clippy::disallowed_methods, reason = "the age of connections has nothing to do with the store's time")]
fn now() -> Instant {
    Instant::now()
}
