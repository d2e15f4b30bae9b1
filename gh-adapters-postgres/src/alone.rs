//! A connection outside the pool, for a task that needs one of its own; and an end to each wait for it.
//!
//! Sessions of the pool are bounded by the store (`trust`). Here nobody else notices that no answer comes any more:
//! a network that swallows packets closes no connection.

use std::io;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

/// How long a connection may take to come about, or to end.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How long an answer may take. What is asked here looks at a few rows.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Connects.
pub(crate) async fn connect(address: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    within(CONNECT_TIME, PgConnection::connect_with(address)).await
}

/// Waits for an answer, with a bound. Without one the connection is of no use any more.
pub(crate) async fn answer<T>(call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    within(ANSWER_TIME, call).await
}

/// Says goodbye. What was done stands, whatever becomes of the connection.
pub(crate) async fn close(connection: PgConnection) {
    let _closed = within(CONNECT_TIME, connection.close()).await;
}

/// Whether the database gave no answer, rather than a bad one.
pub(crate) fn is_silence(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

async fn within<T>(time: Duration, call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let silence = |_| io::Error::new(io::ErrorKind::TimedOut, "the database does not answer");
    tokio::time::timeout(time, call).await.map_err(silence)?
}
