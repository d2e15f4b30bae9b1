//! Databases for tests: each test gets one of its own, copied from a template that is migrated once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gh_core::ports::clock::Clock;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use crate::connect::{PgOptions, parse_address};
use crate::migrate::{digest, migrate};
use crate::store::PgStore;

/// A fresh, migrated database on the server that `TEST_DATABASE_URL` names. It is removed when this is dropped.
#[derive(Debug)]
pub struct TestDatabase {
    server: PgConnectOptions,
    name: String,
}

/// How many databases this process made.
static MADE: AtomicU64 = AtomicU64::new(0);

const MISSING: &str = "TEST_DATABASE_URL is not set. These tests need PostgreSQL 15 or newer: run them as \
    `scripts/with-postgres cargo test`, which starts one, or set TEST_DATABASE_URL to one where databases may be created";

/// Keeps those who make or copy the template apart, over all processes.
const TEMPLATE_LOCK: i64 = 0x6768_5f74_656d_706c;

impl TestDatabase {
    /// Makes one.
    ///
    /// # Panics
    ///
    /// When there is no server, or it refuses: with a sentence that says what to do.
    pub async fn create() -> Self {
        let server = server();
        let template = format!("gh_template_{}", digest());
        let name = format!("gh_test_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let mut connection = connect(&server).await;
        prepare_template(&server, &mut connection, &template).await;
        // Tests that were killed leave databases behind; a new process of the same number may meet them.
        run(&mut connection, format!("drop database if exists {name} with (force)")).await;
        run(&mut connection, format!("create database {name} template {template}")).await;
        close(connection).await;
        Self { server, name }
    }

    /// Makes an empty one: not migrated.
    ///
    /// # Panics
    ///
    /// As [`create`](Self::create).
    pub async fn create_empty() -> Self {
        let server = server();
        let name = format!("gh_test_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let mut connection = connect(&server).await;
        run(&mut connection, format!("drop database if exists {name} with (force)")).await;
        run(&mut connection, format!("create database {name} template template0")).await;
        close(connection).await;
        Self { server, name }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// Where it is, as text for other processes.
    #[must_use]
    pub fn url(&self) -> String {
        self.address().to_url_lossy().to_string()
    }

    /// A store on it, with at most four connections, whose time is this clock's, or the database's.
    #[must_use]
    pub fn store(&self, clock: Option<Arc<dyn Clock>>) -> PgStore {
        let options = PgOptions { max_connections: 4, application_name: "gh-test".into(), ..PgOptions::default() };
        PgStore::connect_at(self.address(), &options, clock)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let server = self.server.clone();
        let sql = format!("drop database if exists {} with (force)", self.name);
        // A test ends in the middle of its runtime, and this has to wait: so it gets a thread and a runtime of its own.
        let removed = std::thread::scope(|scope| {
            let remove = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let mut connection = PgConnection::connect_with(&server).await?;
                    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await?;
                    connection.close().await
                })
            };
            std::thread::Builder::new().spawn_scoped(scope, remove).map(|thread| thread.join())
        });
        if !matches!(removed, Ok(Ok(Ok(())))) {
            eprintln!("the test database {} could not be removed", self.name);
        }
    }
}

fn server() -> PgConnectOptions {
    let url = std::env::var("TEST_DATABASE_URL").unwrap_or_else(|_| panic!("{MISSING}"));
    parse_address(&url).unwrap_or_else(|error| panic!("TEST_DATABASE_URL: {error}"))
}

async fn connect(server: &PgConnectOptions) -> PgConnection {
    PgConnection::connect_with(server).await.unwrap_or_else(|error| panic!("TEST_DATABASE_URL: {error}"))
}

async fn close(connection: PgConnection) {
    connection.close().await.unwrap_or_else(|error| panic!("{error}"));
}

async fn run(connection: &mut PgConnection, sql: String) {
    let done = sqlx::query(AssertSqlSafe(sql.clone())).execute(connection).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Makes the template unless it is there: once for a form of the tables, however many processes ask.
async fn prepare_template(server: &PgConnectOptions, connection: &mut PgConnection, template: &str) {
    const IS_READY: &str = "select exists (select from pg_database where datname = $1 and datistemplate)";
    const LOCK: &str = "select pg_advisory_lock($1)";
    const UNLOCK: &str = "select pg_advisory_unlock($1)";
    let is_ready = || sqlx::query_scalar::<_, bool>(IS_READY).bind(template.to_owned());
    let failed = |error: sqlx::Error| -> bool { panic!("the template of test databases: {error}") };
    if is_ready().fetch_one(&mut *connection).await.unwrap_or_else(failed) {
        return;
    }
    sqlx::query(LOCK).bind(TEMPLATE_LOCK).execute(&mut *connection).await.map_or_else(failed, |_| true);
    if !is_ready().fetch_one(&mut *connection).await.unwrap_or_else(failed) {
        run(connection, format!("drop database if exists {template} with (force)")).await;
        run(connection, format!("create database {template} template template0")).await;
        let mut inside = connect(&server.clone().database(template)).await;
        migrate(&mut inside).await.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
        close(inside).await;
        run(connection, format!("alter database {template} is_template true")).await;
    }
    sqlx::query(UNLOCK).bind(TEMPLATE_LOCK).execute(&mut *connection).await.map_or_else(failed, |_| true);
}

/// Every statement that runs while jobs live, by what it does, for whoever looks at its plan.
#[must_use]
pub fn hot_statements() -> Vec<(&'static str, &'static str)> {
    use crate::{claim, load, lock, outbox, reader, shapes, specs, sweep, watch, write};
    let mut statements = vec![
        ("load jobs and workers", load::LOAD_JOBS_AND_WORKERS),
        ("load", load::LOAD),
        ("load jobs", load::LOAD_JOBS),
        ("load specs", specs::LOAD_SPECS),
        ("lock", lock::LOCK),
        ("lock, skipping", lock::LOCK_SKIPPING),
        ("write names", write::WRITE_NAMES),
        ("write deregistrations", write::WRITE_DEREGISTRATIONS),
        ("write worker events", write::WRITE_WORKER_EVENTS),
        ("write calls", write::WRITE_CALLS),
        ("claim: workers", claim::PICK_WORKERS),
        ("claim: candidates", claim::CANDIDATES),
        ("claim: candidates, locking", claim::CANDIDATES_LOCKING),
        ("look", watch::LOOK),
        ("the record of looks", watch::RECORD),
        ("sweep: heard of", sweep::HEARD_OF),
        ("sweep: workers", sweep::PICK_WORKERS),
        ("sweep: jobs", sweep::PICK_JOBS),
        ("callbacks: due", outbox::PICK_QUEUES),
        ("callbacks: next", outbox::NEXT_DUE),
        ("events of a job", reader::JOB_EVENTS),
        ("deliveries of a job", reader::DELIVERIES),
        ("figures", reader::FIGURES),
        ("a worker", reader::WORKER),
        ("workers", reader::WORKERS),
        ("events of a worker", reader::WORKER_EVENTS),
    ];
    statements.extend(shapes::statements().map(|sql| ("write", sql)));
    statements
}
