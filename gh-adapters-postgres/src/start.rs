//! What is looked at before a process begins to work on a database.

use std::io;

use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, Row};

use crate::alone;
use crate::errors::passes_by_itself;
use crate::migrate::{self, MigrateError, State};
use crate::store::PgStore;

/// The oldest version of PostgreSQL that will do, as `server_version_num`.
const OLDEST: i32 = 150_000;

/// What was found at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseReport {
    /// The version of PostgreSQL, as it tells it.
    pub server_version: String,
    /// The role that works there.
    pub role: String,
    /// Whether the tables were brought up to date just now.
    pub migrated: bool,
}

/// Why work on a database cannot begin. No message holds a password.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is not there, not ready, or cannot take anybody now.
    #[error("it is away")]
    Away(#[source] sqlx::Error),
    /// It did not answer in time.
    #[error("it does not answer")]
    Silent,
    /// It takes no writes: a standby, or set to read only.
    #[error("it is read-only")]
    ReadOnly,
    /// Its tables are not up to date, and migrations are not to be applied.
    #[error("its tables are not up to date: run `gh-server migrate`")]
    NotMigrated,
    /// There is no such host.
    #[error("its host {0} cannot be found")]
    NoHost(String, #[source] io::Error),
    /// It refuses us, or we it: a wrong password, no such database, no trust in its certificate.
    #[error("it cannot be used")]
    Refused(#[source] sqlx::Error),
    /// PostgreSQL is too old.
    #[error("it is PostgreSQL {0}, and 15 is the oldest that will do")]
    TooOld(String),
    /// The tables cannot be brought up to date.
    #[error("its tables cannot be brought up to date")]
    Migrate(#[source] MigrateError),
    /// A newer version has changed the tables.
    #[error(transparent)]
    Newer(MigrateError),
    /// The role may not do what a server has to.
    #[error("the role {role} lacks privileges: {missing}")]
    Privileges {
        /// The role.
        role: String,
        /// What it lacks, by table and function.
        missing: String,
    },
}

impl StartError {
    /// Whether it is worth waiting: what is in the way may pass without anybody changing the configuration.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Away(_) | Self::Silent | Self::ReadOnly | Self::NotMigrated => true,
            Self::Migrate(MigrateError::Database(error)) => passes_by_itself(error),
            Self::NoHost(..)
            | Self::Refused(_)
            | Self::TooOld(_)
            | Self::Migrate(_)
            | Self::Newer(_)
            | Self::Privileges { .. } => false,
        }
    }
}

/// Version, role, and whether it takes writes.
const ABOUT: &str = "
    select current_setting('server_version_num')::int as number, current_setting('server_version') as version,
        current_user::text as role, current_setting('transaction_read_only')::boolean as read_only";

/// What the role lacks of what a server needs.
const MISSING: &str = "
    select p.privilege || ' on ' || c.relname as missing
    from pg_class c cross join unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) with ordinality p (privilege, n)
    where c.relnamespace = current_schema()::regnamespace and c.relkind in ('r', 'p')
        and (c.relname like 'gh\\_%' and not c.relispartition or c.relname ~ '^gh_.*_default$')
        and not has_table_privilege(c.oid, p.privilege)
    union all
    select 'EXECUTE on ' || f.proname from pg_proc f
    where f.pronamespace = current_schema()::regnamespace and f.proname like 'gh\\_%'
        and not has_function_privilege(f.oid, 'EXECUTE')
    order by missing";

impl PgStore {
    /// Sees whether work on the database can begin: that it is there, new enough, takes writes, and lets its role do
    /// what has to be done. Where `migrate` says so, brings its tables up to date if they are not.
    ///
    /// It looks once, on a connection of its own, and answers within seconds where the database does not; only
    /// migrations may take longer.
    ///
    /// # Errors
    ///
    /// What is in the way; [`StartError::may_pass`] tells whether waiting may help.
    pub async fn start(&self, migrate: bool) -> Result<DatabaseReport, StartError> {
        let mut connection = connect(&self.pool.connect_options()).await?;
        let report = look(&mut connection, migrate).await;
        alone::close(connection).await;
        report
    }

    /// Where the database is, for messages: host, port and name.
    #[must_use]
    pub fn place(&self) -> String {
        let address = self.pool.connect_options();
        let database = address.get_database().unwrap_or(address.get_username());
        match address.get_socket() {
            Some(socket) => format!("{} at {}", database, socket.display()),
            None => format!("{} at {}:{}", database, address.get_host(), address.get_port()),
        }
    }
}

async fn connect(address: &PgConnectOptions) -> Result<PgConnection, StartError> {
    match alone::connect(address).await {
        Ok(connection) => Ok(connection),
        Err(error) => Err(refusal(address, error).await),
    }
}

async fn refusal(address: &PgConnectOptions, error: sqlx::Error) -> StartError {
    if matches!(error, sqlx::Error::Io(_)) && !alone::is_silence(&error) && address.get_socket().is_none() {
        let host = address.get_host();
        if let Err(source) = tokio::net::lookup_host((host, address.get_port())).await {
            return StartError::NoHost(host.to_owned(), source);
        }
    }
    unusable(error)
}

fn unusable(error: sqlx::Error) -> StartError {
    if alone::is_silence(&error) {
        StartError::Silent
    } else if passes_by_itself(&error) {
        StartError::Away(error)
    } else {
        StartError::Refused(error)
    }
}

async fn look(connection: &mut PgConnection, migrate: bool) -> Result<DatabaseReport, StartError> {
    let about = alone::answer(sqlx::query(ABOUT).fetch_one(&mut *connection)).await.map_err(unusable)?;
    let get = |column| about.try_get::<String, _>(column).map_err(unusable);
    let (server_version, role) = (get("version")?, get("role")?);
    if about.try_get::<i32, _>("number").map_err(unusable)? < OLDEST {
        return Err(StartError::TooOld(server_version));
    }
    if about.try_get("read_only").map_err(unusable)? {
        return Err(StartError::ReadOnly);
    }
    let migrated = match alone::answer(migrate::state(connection)).await.map_err(unusable)? {
        State::Current => false,
        State::Ahead(found) => return Err(StartError::Newer(MigrateError::newer(found))),
        State::Behind if migrate => {
            migrate::migrate(connection).await.map_err(|error| match error {
                MigrateError::Newer { .. } => StartError::Newer(error),
                other => StartError::Migrate(other),
            })?;
            true
        }
        State::Behind => return Err(StartError::NotMigrated),
    };
    let missing = alone::answer(sqlx::query_scalar(MISSING).fetch_all(connection));
    let missing: Vec<String> = missing.await.map_err(unusable)?;
    if !missing.is_empty() {
        return Err(StartError::Privileges { role, missing: missing.join(", ") });
    }
    Ok(DatabaseReport { server_version, role, migrated })
}
