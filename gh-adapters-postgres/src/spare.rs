//! Connections that stay with those who need one all the time.
//!
//! A pool asks each connection that is given back whether it still lives: one round trip more for every statement. Who
//! reads and commits in a loop keeps its connections here instead. They are outside the pool's number, and few.
//!
//! The runtime on which a connection was opened watches its socket. Whoever uses it on another waits for threads of both,
//! so each runtime has connections of its own.

use std::sync::{Mutex, PoisonError};

use sqlx::{ConnectOptions, PgConnection, PgPool};
use tokio::runtime::{self, Handle};
use tokio::time::Instant;

use crate::migrate;
use crate::trust::Trust;

/// So many connections are kept for each runtime at most: each committer and whoever dispatches may have one at once.
const SPARES: usize = 6;

/// So many are kept for all of them.
const ALL_SPARES: usize = 12;

/// A connection and its past.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) connection: PgConnection,
    runtime: runtime::Id,
    taken_at: Instant,
    used_at: Instant,
}

/// Connections that nobody uses just now.
#[derive(Debug)]
pub(crate) struct Spares {
    idle: Mutex<Vec<Spare>>,
    origin: Origin,
}

/// Where connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A pool of the caller's, which may do more to its connections than opening them.
    Pool,
    /// They are opened as the pool's own are, on the runtime that uses them.
    Opened,
}

impl Spares {
    /// None yet.
    pub(crate) const fn new(origin: Origin) -> Self {
        Self { idle: Mutex::new(Vec::new()), origin }
    }

    /// A connection that can be used: the one that was used last on this runtime, else a new one.
    pub(crate) async fn take(&self, pool: &PgPool, trust: &Trust) -> Result<Spare, sqlx::Error> {
        let runtime = Handle::current().id();
        while let Some(mut spare) = self.pop(runtime) {
            let (age, idle_for) = (spare.taken_at.elapsed(), spare.used_at.elapsed());
            // One that is broken is as good as none.
            if trust.may_use(&mut spare.connection, age, idle_for).await.unwrap_or(false) {
                return Ok(spare);
            }
        }
        let connection = match self.origin {
            Origin::Pool => pool.acquire().await?.detach(),
            Origin::Opened => open(pool).await?,
        };
        let now = now();
        Ok(Spare { connection, runtime, taken_at: now, used_at: now })
    }

    /// Keeps a connection whose last statement was answered to its end, if there is a place for it.
    pub(crate) fn keep(&self, mut spare: Spare) {
        spare.used_at = now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.iter().filter(|other| other.runtime == spare.runtime).count() >= SPARES {
            return;
        }
        if idle.len() >= ALL_SPARES {
            // The one that was kept first: its runtime may have ended.
            idle.remove(0);
        }
        idle.push(spare);
    }

    fn pop(&self, runtime: runtime::Id) -> Option<Spare> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let last = idle.iter().rposition(|spare| spare.runtime == runtime)?;
        Some(idle.remove(last))
    }
}

/// Opens a connection as the pool of this store does, within the time that it gives that.
async fn open(pool: &PgPool) -> Result<PgConnection, sqlx::Error> {
    let opened = async {
        let mut connection = pool.connect_options().connect().await?;
        migrate::require(&mut connection).await?;
        Ok(connection)
    };
    let in_time = tokio::time::timeout(pool.options().get_acquire_timeout(), opened).await;
    in_time.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

#[expect(clippy::disallowed_methods, reason = "the age of connections has nothing to do with the store's time")]
fn now() -> Instant {
    Instant::now()
}
