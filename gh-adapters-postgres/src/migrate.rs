//! Brings the tables to the state that this version needs. Forward only.

use std::borrow::Cow;

use sqlx::migrate::{MigrateError as SqlxError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, PgConnection, SqlSafeStr};

use crate::store::PgStore;
use crate::{alone, retention};

/// Number, name and statements of each migration. One that was released never changes.
const MIGRATIONS: [(i64, &str, &str); 3] = [
    (1, "initial", include_str!("../migrations/0001_initial.sql")),
    (2, "partitions", include_str!("../migrations/0002_partitions.sql")),
    (3, "watch", include_str!("../migrations/0003_watch.sql")),
];

/// The latest migration.
const KNOWN: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// Why the tables could not be brought up to date. Nothing of the migration that failed is stored.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A newer version has changed the tables: this one must not touch them.
    #[error("the database has migration {found}, this program knows none after {known}: it is too old for it")]
    Newer {
        /// A migration that this program does not know.
        found: i64,
        /// The latest that it knows.
        known: i64,
    },
    /// A migration that was applied differs from the one this program has under its number.
    #[error("migration {0} was applied in another form")]
    Changed(i64),
    /// The database could not be reached, or refused a statement.
    #[error("the database refused")]
    Database(#[source] sqlx::Error),
    /// Anything else.
    #[error("migrations could not be applied")]
    Other(#[source] SqlxError),
}

impl MigrateError {
    pub(crate) const fn newer(found: i64) -> Self {
        Self::Newer { found, known: KNOWN }
    }
}

impl From<sqlx::Error> for MigrateError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl From<SqlxError> for MigrateError {
    fn from(error: SqlxError) -> Self {
        match error {
            SqlxError::VersionMissing(found) => Self::newer(found),
            SqlxError::VersionMismatch(version) => Self::Changed(version),
            SqlxError::Execute(error) | SqlxError::ExecuteMigration(error, _) => Self::Database(error),
            other => Self::Other(other),
        }
    }
}

/// The migrations as sqlx runs them.
fn migrator() -> Migrator {
    let migration = |(number, name, sql): (i64, &'static str, &'static str)| {
        let sql = AssertSqlSafe(sql).into_sql_str();
        Migration::new(number, Cow::Borrowed(name), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(MIGRATIONS.map(migration).into())
}

/// A digest of all migrations: databases that were migrated under the same digest have the same tables.
#[cfg(feature = "testing")]
pub(crate) fn digest() -> String {
    use sha2::{Digest, Sha256};
    let mut digest = Sha256::new();
    MIGRATIONS.iter().for_each(|(_, _, sql)| digest.update(sql));
    digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Brings the tables of a database up to date, on a connection of its own: under an advisory lock, so that servers
/// that start at once do it one after the other, and without limits of time.
pub(crate) async fn migrate(connection: &mut PgConnection) -> Result<(), MigrateError> {
    sqlx::query("select set_config('statement_timeout', '0', false), set_config('lock_timeout', '0', false)")
        .execute(&mut *connection)
        .await?;
    migrator().run_direct(None, connection, false).await?;
    retention::make_partitions(connection).await?;
    Ok(())
}

/// How the tables of a database stand to what this version needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// As they should be.
    Current,
    /// Migrations are missing.
    Behind,
    /// A newer version has been here, up to this migration.
    Ahead(i64),
}

/// Looks how the tables stand.
pub(crate) async fn state(connection: &mut PgConnection) -> Result<State, sqlx::Error> {
    const KNOWS_MIGRATIONS: &str = "select to_regclass('_sqlx_migrations') is not null";
    const APPLIED: &str = "select version from _sqlx_migrations where success order by version";
    if !sqlx::query_scalar(KNOWS_MIGRATIONS).fetch_one(&mut *connection).await? {
        return Ok(State::Behind);
    }
    let applied: Vec<i64> = sqlx::query_scalar(APPLIED).fetch_all(connection).await?;
    Ok(match applied.last() {
        Some(&found) if found > KNOWN => State::Ahead(found),
        _ if applied.len() == MIGRATIONS.len() => State::Current,
        _ => State::Behind,
    })
}

/// Refuses a database whose tables are not there yet. One that a newer version has brought further is taken: servers of
/// both versions run side by side while they are replaced one by one.
pub(crate) async fn require(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    match state(connection).await? {
        State::Current | State::Ahead(_) => Ok(()),
        State::Behind => Err(sqlx::Error::Protocol("the tables are not up to date".into())),
    }
}

impl PgStore {
    /// Brings the tables up to date: applies what is missing, in order, each migration whole or not at all. Servers
    /// that start at once do it one after the other, under an advisory lock. It may take as long as it takes, once the
    /// database has let us in.
    ///
    /// # Errors
    ///
    /// [`MigrateError::Newer`] where a newer version was here before; otherwise what went wrong.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        // A connection outside the pool: its limits are changed, and its lock ends with it whatever happens.
        let mut connection = alone::connect(&self.pool.connect_options()).await?;
        let migrated = migrate(&mut connection).await;
        alone::close(connection).await;
        migrated
    }

    /// Whether the tables are those that this version needs. It asks on a connection of its own, and answers within
    /// seconds.
    ///
    /// # Errors
    ///
    /// [`MigrateError::Newer`] where a newer version was here; [`MigrateError::Database`] while the database is away.
    pub async fn is_migrated(&self) -> Result<bool, MigrateError> {
        let mut connection = alone::connect(&self.pool.connect_options()).await?;
        let state = alone::answer(state(&mut connection)).await;
        alone::close(connection).await;
        match state? {
            State::Current => Ok(true),
            State::Behind => Ok(false),
            State::Ahead(found) => Err(MigrateError::newer(found)),
        }
    }
}
