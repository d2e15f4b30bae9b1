//! Connections that stay with those who need one all the time.
//!
//! A pool asks each connection that is given back whether it still lives: one round trip more for every statement. Who
//! reads and commits in a loop keeps its connections here instead. They are outside the pool's number, and few.

use std::sync::{Mutex, PoisonError};

use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;

use crate::trust::Trust;

/// So many connections are kept at most.
const SPARES: usize = 3;

/// A connection and its past.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) connection: PgConnection,
    taken_at: Instant,
    used_at: Instant,
}

/// Connections that nobody uses just now.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Vec<Spare>>);

impl Spares {
    /// A connection that can be used: the one that was used last, else one from the pool.
    pub(crate) async fn take(&self, pool: &PgPool, trust: &Trust) -> Result<Spare, sqlx::Error> {
        while let Some(mut spare) = self.pop() {
            let (age, idle_for) = (spare.taken_at.elapsed(), spare.used_at.elapsed());
            // One that is broken is as good as none.
            if trust.may_use(&mut spare.connection, age, idle_for).await.unwrap_or(false) {
                return Ok(spare);
            }
        }
        let connection = pool.acquire().await?.detach();
        let now = now();
        Ok(Spare { connection, taken_at: now, used_at: now })
    }

    /// Keeps a connection whose last statement was answered to its end, if there is a place for it.
    pub(crate) fn keep(&self, mut spare: Spare) {
        spare.used_at = now();
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < SPARES {
            spares.push(spare);
        }
    }

    fn pop(&self) -> Option<Spare> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

#[expect(clippy::disallowed_methods, reason = "the age of connections has nothing to do with the store's time")]
fn now() -> Instant {
    Instant::now()
}
