//! Waking those who wait on other servers, by `LISTEN` and `NOTIFY`.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gh_core::application::Wakeups;
use gh_core::domain::ids::WorkerId;
use gh_core::ports::signals::{Signals, Wake};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::store::PgStore;

/// What all servers listen to.
const CHANNEL: &str = "gh_wake";

/// So many workers are told by name; with more, everybody is woken.
const MOST_WORKERS: usize = 4096;

/// The longest payload, in bytes; PostgreSQL refuses those of 8,000.
const LONGEST_PAYLOAD: usize = 7000;

/// How often a server says something to itself, so that it notices a connection that only seems to be there.
const SELF_TEST_EVERY: Duration = Duration::from_secs(10);

/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// [`Signals`] for many servers over one database: whoever waits in this process is woken at once, the other servers
/// are told by one statement for all that came together meanwhile, outside any transaction of the store.
///
/// It takes [`run`](Self::run) to tell others and to hear them. A wake that is lost, because the database was away,
/// costs a moment: everybody also looks from time to time. After a connection was lost, all who wait here are woken.
#[derive(Debug)]
pub struct PgSignals {
    here: Arc<Wakeups>,
    pending: Mutex<Pending>,
    came: Notify,
    pool: PgPool,
    origin: Uuid,
}

/// What the others were not told yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pending {
    everybody: bool,
    dispatch: bool,
    deliver: bool,
    workers: BTreeSet<WorkerId>,
}

/// What one notification says. Fields that a later version adds are ignored.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Message {
    from: Uuid,
    #[serde(default, skip_serializing_if = "is_false")]
    everybody: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    dispatch: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    deliver: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    workers: Vec<WorkerId>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Pending {
    fn add(&mut self, wake: Wake) {
        match wake {
            Wake::Dispatch => self.dispatch = true,
            Wake::Deliver => self.deliver = true,
            Wake::Worker(_) if self.everybody => {}
            Wake::Worker(worker_id) => {
                self.workers.insert(worker_id);
                if self.workers.len() > MOST_WORKERS {
                    self.workers.clear();
                    self.everybody = true;
                }
            }
        }
    }

    /// Puts back what could not be told.
    fn put_back(&mut self, other: Self) {
        self.everybody |= other.everybody;
        self.dispatch |= other.dispatch;
        self.deliver |= other.deliver;
        other.workers.into_iter().for_each(|worker_id| self.add(Wake::Worker(worker_id)));
    }

    /// As payloads that are short enough; at least one.
    fn payloads(&self, from: Uuid) -> Result<Vec<String>, serde_json::Error> {
        let first = Message {
            from,
            everybody: self.everybody,
            dispatch: self.dispatch,
            deliver: self.deliver,
            workers: vec![],
        };
        let mut messages = vec![first];
        let mut length = 0;
        for worker_id in &self.workers {
            // With quotes and a comma, were each character written as an escape.
            let more = worker_id.as_str().len() * 2 + 3;
            if length + more > LONGEST_PAYLOAD {
                messages.push(Message { from, ..Message::default() });
                length = 0;
            }
            length += more;
            if let Some(last) = messages.last_mut() {
                last.workers.push(worker_id.clone());
            }
        }
        messages.iter().map(serde_json::to_string).collect()
    }
}

impl PgSignals {
    /// Signals between the servers on this store's database; `here` is where those wait who wait in this process, and
    /// `origin` is this process's own, so that it knows its own words.
    #[must_use]
    pub fn new(store: &PgStore, here: Arc<Wakeups>, origin: Uuid) -> Self {
        Self { here, pending: Mutex::default(), came: Notify::new(), pool: store.pool().clone(), origin }
    }

    /// Tells the others what is to be told, and hears them, for as long as it is polled. Run it once, beside the loops.
    pub async fn run(&self) {
        tokio::join!(self.tell(), self.hear(), self.test());
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self) {
        loop {
            self.came.notified().await;
            let pending = mem::take(&mut *self.pending());
            if let Err(error) = self.send(&pending).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "other servers could not be woken");
                self.pending().put_back(pending);
                self.came.notify_one();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn send(&self, pending: &Pending) -> Result<(), sqlx::Error> {
        const NOTIFY: &str = "select pg_notify($1, payload) from unnest($2::text[]) payload";
        let payloads = pending.payloads(self.origin).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let told = sqlx::query(NOTIFY).bind(CHANNEL).bind(payloads).execute(&self.pool);
        let told = tokio::time::timeout(SELF_TEST_EVERY, told).await;
        told.map_err(|_| connection_lost("nothing could be said for too long"))?.map(drop)
    }

    async fn test(&self) {
        loop {
            tokio::time::sleep(SELF_TEST_EVERY).await;
            self.came.notify_one();
        }
    }

    async fn hear(&self) {
        let mut lost = false;
        loop {
            let error = match self.listen(lost).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "no word from other servers; connecting again, and looking by itself meanwhile"
            );
            lost = true;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Listens until the connection is lost.
    async fn listen(&self, lost: bool) -> Result<std::convert::Infallible, sqlx::Error> {
        // A connection of its own, and each time a new one: what is left of a broken one holds up nobody.
        let options = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let options = options.acquire_timeout(self.pool.options().get_acquire_timeout());
        let own = options.connect_lazy_with(self.pool.connect_options().as_ref().clone());
        let mut listener = PgListener::connect_with(&own).await?;
        // Lost connections are seen here, where everybody is woken afterwards.
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        if lost {
            tracing::info!("other servers are heard again");
        }
        // What was said before is not repeated.
        self.here.wake_everybody();
        loop {
            // It speaks to itself more often than that.
            let heard = tokio::time::timeout(SELF_TEST_EVERY * 3, listener.try_recv()).await;
            match heard {
                Ok(Ok(Some(notification))) => self.heard(notification.payload()),
                Ok(Ok(None)) => return Err(connection_lost("the connection ended")),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(connection_lost("nothing was heard for too long")),
            }
        }
    }

    fn heard(&self, payload: &str) {
        let Ok(message) = serde_json::from_str::<Message>(payload) else {
            // Another version speaks otherwise: to look once too often is harmless.
            self.here.wake_everybody();
            return;
        };
        if message.from == self.origin {
            return;
        }
        if message.everybody {
            self.here.wake_everybody();
        }
        if message.dispatch {
            self.here.wake(Wake::Dispatch);
        }
        if message.deliver {
            self.here.wake(Wake::Deliver);
        }
        for worker_id in message.workers {
            self.here.wake(Wake::Worker(worker_id));
        }
    }
}

fn connection_lost(why: &'static str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, why))
}

impl Signals for PgSignals {
    fn wake(&self, wake: Wake) {
        self.here.wake(wake.clone());
        self.pending().add(wake);
        self.came.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(number: usize) -> WorkerId {
        WorkerId::parse(&format!("{number:\"^100}")).unwrap()
    }

    #[test]
    fn what_comes_together_is_told_once_and_in_payloads_that_postgresql_takes() {
        let mut pending = Pending::default();
        for number in 0..MOST_WORKERS {
            pending.add(Wake::Worker(worker(number)));
            pending.add(Wake::Worker(worker(number)));
            pending.add(Wake::Dispatch);
        }
        let payloads = pending.payloads(Uuid::nil()).unwrap();
        assert!(payloads.iter().all(|payload| payload.len() < 8000));
        let messages: Vec<Message> = payloads.iter().map(|payload| serde_json::from_str(payload).unwrap()).collect();
        let told: BTreeSet<WorkerId> = messages.iter().flat_map(|message| message.workers.clone()).collect();
        assert_eq!(told, (0..MOST_WORKERS).map(worker).collect());
        assert_eq!(messages.iter().filter(|message| message.dispatch).count(), 1);
        assert!(messages.iter().all(|message| !message.everybody && !message.deliver));
    }

    #[test]
    fn more_workers_than_can_be_named_are_everybody() {
        let mut pending = Pending::default();
        (0..=MOST_WORKERS).for_each(|number| pending.add(Wake::Worker(worker(number))));
        assert!(pending.everybody && pending.workers.is_empty());
        let mut fresh = Pending::default();
        fresh.put_back(pending);
        fresh.add(Wake::Worker(worker(0)));
        assert_eq!(fresh, Pending { everybody: true, ..Pending::default() });
    }
}
