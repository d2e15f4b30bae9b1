//! The private PostgreSQL: what it is set to, and a fresh database for each measurement.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use url::Url;

use crate::Failure;
use crate::options::Options;

/// The PostgreSQL that `scripts/with-postgres` started.
#[derive(Debug)]
pub(crate) struct Postgres {
    address: Url,
    programs: Option<PathBuf>,
    /// Its first process; unknown where only its address is known.
    pub(crate) postmaster: Option<u32>,
    /// What it is set to, and on which machine it runs.
    pub(crate) settings: Settings,
    databases: AtomicU32,
}

/// What a figure depends on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settings {
    measured_at: String,
    server_build: &'static str,
    postgres: String,
    fsync: String,
    synchronous_commit: String,
    full_page_writes: String,
    shared_buffers: String,
    wal_sync_method: String,
    file_system: String,
    cores: usize,
}

impl fmt::Display for Settings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{}, {} cores, {} build, PostgreSQL {} on {}",
            self.measured_at, self.cores, self.server_build, self.postgres, self.file_system
        )?;
        write!(
            out,
            "fsync {}, synchronous_commit {}, full_page_writes {}, wal_sync_method {}, shared_buffers {}",
            self.fsync, self.synchronous_commit, self.full_page_writes, self.wal_sync_method, self.shared_buffers
        )
    }
}

/// A database that nobody else uses.
#[derive(Debug)]
pub(crate) struct Database {
    name: String,
    /// How to reach it.
    pub(crate) url: String,
}

impl Postgres {
    /// Finds it by the variables of `scripts/with-postgres`, and refuses to measure where a figure would mean nothing.
    pub(crate) async fn find(options: &Options) -> Result<Self, Failure> {
        let unfit = |why: &str| {
            Failure::Unfit(format!("{why}; run scripts/bench, which builds and starts what it takes (or say --quick)"))
        };
        let address = std::env::var("TEST_DATABASE_URL").map_err(|_| unfit("there is no PostgreSQL to measure on"))?;
        let address = Url::parse(&address)
            .map_err(|error| Failure::Unfit(format!("TEST_DATABASE_URL is no address: {error}")))?;
        let data = std::env::var_os("TEST_DATABASE_DATA").map(PathBuf::from);
        let postmaster = data.as_deref().map(postmaster).transpose()?;
        let mut connection = PgConnection::connect(address.as_str()).await?;
        let settings = Settings::read(&mut connection, data.as_deref()).await?;
        connection.close().await?;
        if !options.quick {
            if cfg!(debug_assertions) {
                return Err(unfit("this is a debug build"));
            }
            if postmaster.is_none() {
                return Err(unfit("TEST_DATABASE_DATA does not say whose processor time is PostgreSQL's"));
            }
            if settings.fsync != "on" || settings.synchronous_commit != "on" || settings.full_page_writes != "on" {
                return Err(unfit("PostgreSQL does not write through to the disk (GH_TEST_POSTGRES_FSYNC=on)"));
            }
        }
        let programs = std::env::var_os("TEST_DATABASE_PROGRAMS").map(PathBuf::from);
        Ok(Self { address, programs, postmaster, settings, databases: AtomicU32::new(0) })
    }

    /// One of its programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.as_ref().map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
    }

    /// Makes an empty database.
    pub(crate) async fn fresh(&self) -> Result<Database, Failure> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("gh_bench_{}_{number}", std::process::id());
        self.run(&format!("create database {name}")).await?;
        let mut url = self.address.clone();
        url.set_path(&name);
        Ok(Database { name, url: url.into() })
    }

    /// Writes to the disk what is not there yet, so that nobody's measurement pays for what was before it.
    pub(crate) async fn checkpoint(&self) -> Result<(), Failure> {
        self.run("checkpoint").await
    }

    /// Removes a database, whoever is still connected to it.
    pub(crate) async fn remove(&self, database: Database) -> Result<(), Failure> {
        self.run(&format!("drop database {} with (force)", database.name)).await
    }

    async fn run(&self, statement: &str) -> Result<(), Failure> {
        let mut connection = PgConnection::connect(self.address.as_str()).await?;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }
}

impl Database {
    /// A connection to it.
    pub(crate) async fn connect(&self) -> Result<PgConnection, Failure> {
        Ok(PgConnection::connect(&self.url).await?)
    }
}

impl Settings {
    async fn read(connection: &mut PgConnection, data: Option<&Path>) -> Result<Self, Failure> {
        let statement = "select to_char(now() at time zone 'UTC', 'YYYY-MM-DD HH24:MI UTC'), \
             current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit'), \
             current_setting('full_page_writes'), current_setting('shared_buffers'), current_setting('wal_sync_method')";
        let row: (String, String, String, String, String, String, String) =
            sqlx::query_as(statement).fetch_one(connection).await?;
        let (measured_at, postgres, fsync, synchronous_commit, full_page_writes, shared_buffers, wal_sync_method) = row;
        Ok(Self {
            measured_at,
            server_build: if cfg!(debug_assertions) { "debug" } else { "release" },
            postgres,
            fsync,
            synchronous_commit,
            full_page_writes,
            shared_buffers,
            wal_sync_method,
            file_system: data.and_then(file_system).unwrap_or_else(|| "an unknown file system".into()),
            cores: std::thread::available_parallelism().map_err(Failure::system("cannot count the cores"))?.into(),
        })
    }
}

/// The first line of this file is the id of the first process.
fn postmaster(data: &Path) -> Result<u32, Failure> {
    let path = data.join("postmaster.pid");
    let text = std::fs::read_to_string(&path).map_err(Failure::system(format!("cannot read {}", path.display())))?;
    let first = text.lines().next().and_then(|line| line.trim().parse().ok());
    first.ok_or_else(|| Failure::Unfit(format!("{} holds no process", path.display())))
}

/// What the data lie on: on `tmpfs` a disk costs nothing, and a figure says so.
fn file_system(data: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let nearest = mounts.filter(|(place, _)| data.starts_with(place)).max_by_key(|(place, _)| place.len());
    nearest.map(|(_, kind)| kind.to_owned())
}
