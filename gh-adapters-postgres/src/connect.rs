//! Connections to the database, set up for this store.

use std::sync::Arc;
use std::time::Duration;

use gh_core::ports::clock::Clock;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use url::Url;

use crate::migrate;
use crate::spare::Origin;
use crate::store::PgStore;
use crate::trust::Trust;

/// How many connections there are and what limits each of them has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgOptions {
    /// At most so many connections; at least 2. Default 16.
    pub max_connections: u32,
    /// How long to wait for a free connection, a new one included. Default 5 s.
    pub acquire_timeout: Duration,
    /// How long one statement may take; to the millisecond. Default 10 s.
    pub statement_timeout: Duration,
    /// How long to wait for a lock; to the millisecond. Default 3 s.
    pub lock_timeout: Duration,
    /// How long a transaction may wait for its client, after which the database gives its locks free; to the
    /// millisecond. Default 10 s.
    pub idle_in_transaction_timeout: Duration,
    /// What `pg_stat_activity` calls these connections. Default `gh-server`.
    pub application_name: String,
}

impl Default for PgOptions {
    fn default() -> Self {
        Self {
            max_connections: 16,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(3),
            idle_in_transaction_timeout: Duration::from_secs(10),
            application_name: "gh-server".into(),
        }
    }
}

/// The address of the database cannot be read. No part of it is told that may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is no such URL, or what stands at one of its places makes no sense there.
    #[error("not of the form postgres://user:password@host:port/database?sslmode=…")]
    Form,
    /// It has a parameter that means nothing here.
    #[error("the parameter `{0}` is unknown; known are {known}", known = PARAMETERS.join(", "))]
    Parameter(String),
}

/// What may stand behind the `?` of an address. The rest is for [`PgOptions`], which sets the session up.
const PARAMETERS: [&str; 10] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "port",
    "dbname",
    "user",
    "password",
    "statement-cache-capacity",
];

/// The longest name of an unknown parameter that is repeated in a message, in characters.
const LONGEST_NAME: usize = 40;

/// Reads an address such as `postgres://user:password@host:5432/database?sslmode=verify-full`.
///
/// # Errors
///
/// [`AddressError`] when it is none.
pub fn parse_address(url: &str) -> Result<PgConnectOptions, AddressError> {
    let parsed = Url::parse(url).map_err(|_| AddressError::Form)?;
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        return Err(AddressError::Form);
    }
    // The driver ignores what it does not know, and logs it with its value.
    if let Some((name, _)) = parsed.query_pairs().find(|(name, _)| !PARAMETERS.contains(&name.as_ref())) {
        return Err(AddressError::Parameter(name.chars().take(LONGEST_NAME).collect()));
    }
    url.parse().map_err(|_| AddressError::Form)
}

impl PgOptions {
    /// The settings of every session. Tables of this store are small where statements look, or found by key, at any
    /// size: plans by statistics go wrong while tables are young, and planning each time costs more than it gains.
    fn session(&self) -> Vec<(&'static str, String)> {
        let milliseconds = |time: Duration| time.as_millis().clamp(1, i32::MAX as u128).to_string();
        let mut settings = vec![
            ("statement_timeout", milliseconds(self.statement_timeout)),
            ("lock_timeout", milliseconds(self.lock_timeout)),
            ("idle_in_transaction_session_timeout", milliseconds(self.idle_in_transaction_timeout)),
            ("plan_cache_mode", "force_generic_plan".into()),
            ("default_transaction_isolation", "read committed".into()),
        ];
        settings.extend(
            ["jit", "enable_seqscan", "enable_hashjoin", "enable_mergejoin"].map(|setting| (setting, "off".into())),
        );
        settings
    }
}

impl PgStore {
    /// A store on this database. No connection is made before it is needed, so this also succeeds while the database
    /// is away; calls then answer [`StoreError::Unavailable`](gh_core::ports::store::StoreError::Unavailable).
    ///
    /// # Errors
    ///
    /// [`AddressError`] when the address cannot be read.
    pub fn connect(url: &str, options: &PgOptions) -> Result<Self, AddressError> {
        Ok(Self::connect_with(parse_address(url)?, options))
    }

    /// The same for an address that was read already.
    #[must_use]
    pub fn connect_with(address: PgConnectOptions, options: &PgOptions) -> Self {
        Self::connect_at(address, options, None)
    }

    /// The same with a clock of its own, if there is one.
    pub(crate) fn connect_at(address: PgConnectOptions, options: &PgOptions, clock: Option<Arc<dyn Clock>>) -> Self {
        let trust = Trust::new(options.statement_timeout);
        Self::on_pool(pool(address, options, &trust), Origin::Opened, trust, clock)
    }
}

/// A pool whose connections are set up for this store. It connects when it has to, and only to databases that are
/// [migrated](PgStore::migrate): until one is, whoever asks for a connection waits in vain, as while it is away.
fn pool(address: PgConnectOptions, options: &PgOptions, trust: &Trust) -> sqlx::PgPool {
    let (before, after) = (trust.clone(), trust.clone());
    let address = address.application_name(&options.application_name).options(options.session());
    PgPoolOptions::new()
        .max_connections(options.max_connections.max(2))
        .acquire_timeout(options.acquire_timeout)
        // One that was used a moment ago is taken for alive: asking each time would cost every statement a round trip.
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(migrate::require(connection)))
        .before_acquire(move |connection, known| {
            let trust = before.clone();
            Box::pin(async move { trust.may_use(connection, known.age, known.idle_for).await })
        })
        .after_release(move |connection, known| {
            let trust = after.clone();
            Box::pin(async move { trust.may_keep(connection, known.age).await })
        })
        .connect_lazy_with(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_read_is_not_told() {
        for url in [
            "",
            "mysql://root:hunter2@db/x",
            "postgres://gh:hunter2@db:port/x",
            "hunter2",
            "postgres://gh@db/x?sslmode=hunter2",
            "postgres://gh@db/x?pasword=hunter2",
        ] {
            let error = parse_address(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}");
        }
        assert!(parse_address("postgres://gh:secret@db/gh?sslmode=require").is_ok());
    }
}
