//! The one table of settings. Everything else (the typed [`Config`], the refusal of unknown keys, `check-config`,
//! `--help`, the table in `docs/configuration.md`) is derived from it, so a new setting is one new row.

use std::net::SocketAddr;
use std::time::Duration;

use gh_adapters_postgres::{PgOptions, Retention};
use gh_core::domain::policy::Policy;
use secrecy::SecretString;
use url::Url;

use super::callbacks::{AllowList, AllowedAddressees, DestinationKeyList, DestinationKeys};
use super::keys::{KeyList, NamedKey};
use super::resolve::Resolver;
use super::values::{
    Address, BaseUrl, DAY, Format, HOUR, LogFilter, LogFormat, Number, Optional, SECOND, SecretText, Span, Switch,
};

/// One row of the table: where a setting may come from and what it means.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its TOML key, as a dotted path.
    pub(crate) key: &'static str,
    /// Its environment variable.
    pub(crate) variable: &'static str,
    /// Whether its value must never be shown. Secret variables also have a `_FILE` form.
    pub(crate) secret: bool,
    /// What it is when nobody sets it, written as in the environment; empty for "not set".
    pub(crate) default: &'static str,
    /// What it means, in one line of Markdown.
    pub(crate) doc: &'static str,
}

/// Each row: the doc line, then the field, its type, `public` or `secret` and how it is read, the TOML key, the
/// variable, the default. A kind that holds a secret does not implement `Show`, so marking it `public` does not compile.
macro_rules! settings {
    ($(
        #[doc = $doc:literal]
        $name:ident: $value:ty = $secrecy:ident $kind:expr, $key:literal, $variable:literal, $default:literal;
    )+) => {
        /// Every setting, in the order of the documentation.
        pub(crate) const SETTINGS: &[Setting] = &[$(
            Setting {
                key: $key,
                variable: $variable,
                secret: settings!(@is_secret $secrecy),
                default: $default,
                doc: $doc.trim_ascii(),
            },
        )+];

        /// The settings as the server uses them: each valid alone and all of them together.
        #[derive(Debug)]
        pub(crate) struct Config {
            $( #[doc = $doc] pub(crate) $name: $value, )+
        }

        impl Config {
            /// Reads every setting, so that all problems are found in one go; `None` if one of them has no valid value.
            pub(super) fn read(resolver: &mut Resolver<'_>) -> Option<Self> {
                let mut rows = SETTINGS.iter();
                $( let $name = rows.next().and_then(|row| resolver.$secrecy(row, &$kind)); )+
                Some(Self { $( $name: $name?, )+ })
            }
        }
    };
    (@is_secret secret) => { true };
    (@is_secret public) => { false };
}

/// How long something may be kept that is over.
const KEPT: Span = Span { least_ms: DAY, most_ms: 3650 * DAY };

settings! {
    /// Address and port the API listens on; port 0 picks a free one. `dev` refuses anything but loopback.
    listen: SocketAddr = public Address, "listen", "GH_LISTEN", "127.0.0.1:3100";
    /// Where clients and workers reach this server from outside; if not set, `http://` and the bound address.
    public_base_url: Option<Url> = public Optional(BaseUrl), "public_base_url", "GH_PUBLIC_BASE_URL", "";
    /// PostgreSQL to store everything in: `postgres://user:password@host/database`. `dev` does not use it.
    database_url: Option<SecretString> = secret Optional(SecretText), "database_url", "DATABASE_URL", "";
    /// Whether `serve` brings the tables up to date when it starts; if not, `gh-server migrate` does.
    database_migrate: bool = public Switch, "database.migrate", "GH_DATABASE_MIGRATE", "true";
    /// Most connections of this server to the database, 2 to 1,000; one more listens for the other servers.
    database_max_connections: usize = public Number { least: 2, most: 1000 }, "database.max_connections", "GH_DATABASE_MAX_CONNECTIONS", "16";
    /// How long a call waits for a free connection before it is answered with `503`, 100 ms to 1 min.
    database_acquire_timeout: Duration = public Span { least_ms: 100, most_ms: 60 * SECOND }, "database.acquire_timeout", "GH_DATABASE_ACQUIRE_TIMEOUT", "5s";
    /// How long one statement may take, 100 ms to 10 min.
    database_statement_timeout: Duration = public Span { least_ms: 100, most_ms: 600 * SECOND }, "database.statement_timeout", "GH_DATABASE_STATEMENT_TIMEOUT", "10s";
    /// How long a statement waits for a lock, 100 ms to 10 min.
    database_lock_timeout: Duration = public Span { least_ms: 100, most_ms: 600 * SECOND }, "database.lock_timeout", "GH_DATABASE_LOCK_TIMEOUT", "3s";
    /// How long the database waits for a server in the middle of a transaction before it gives its locks free, 1 s to 10 min.
    database_idle_in_transaction_timeout: Duration = public Span { least_ms: SECOND, most_ms: 600 * SECOND }, "database.idle_in_transaction_timeout", "GH_DATABASE_IDLE_IN_TRANSACTION_TIMEOUT", "10s";
    /// Keys of the clients that submit jobs: `name:key` or `key`, separated by commas.
    service_keys: Vec<NamedKey> = secret KeyList, "service_keys", "GH_SERVICE_KEYS", "";
    /// Keys that workers register with: `name:key` or `key`, separated by commas.
    worker_keys: Vec<NamedKey> = secret KeyList, "worker_keys", "GH_WORKER_KEYS", "";
    /// Addresses, CIDRs and host names that callbacks may go to although they are private or plain http.
    callback_allow: AllowedAddressees = public AllowList, "callback_allow", "GH_CALLBACK_ALLOW", "";
    /// The `X-GH-Service-Key` sent with callbacks: one key, or in TOML a table of keys by destination.
    callback_service_key: DestinationKeys = secret DestinationKeyList, "callback_service_key", "GH_CALLBACK_SERVICE_KEY", "";
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`, `off`) or levels by target.
    log_filter: String = public LogFilter, "log.filter", "GH_LOG", "info";
    /// How log lines are written to stderr: `text` or `json`.
    log_format: LogFormat = public Format, "log.format", "GH_LOG_FORMAT", "text";
    /// Largest request body in bytes, 1 KiB to 64 MiB.
    limits_body_bytes: usize = public Number { least: 1024, most: 64 << 20 }, "limits.body_bytes", "GH_LIMITS_BODY_BYTES", "1048576";
    /// Most jobs in one batch, 1 to 10,000.
    limits_batch_items: usize = public Number { least: 1, most: 10_000 }, "limits.batch_items", "GH_LIMITS_BATCH_ITEMS", "500";
    /// How often a worker sends a heartbeat, 10 ms to 1 h; at most half of `worker.suspect_after`.
    worker_heartbeat_interval: Duration = public Span { least_ms: 10, most_ms: HOUR }, "worker.heartbeat_interval", "GH_WORKER_HEARTBEAT_INTERVAL", "5s";
    /// Silence after which a worker gets no new job, 10 ms to 1 h; below `worker.self_fence_after`.
    worker_suspect_after: Duration = public Span { least_ms: 10, most_ms: HOUR }, "worker.suspect_after", "GH_WORKER_SUSPECT_AFTER", "10s";
    /// Silence of the server after which a worker freezes its job by itself, 10 ms to 1 h; below `worker.offline_after`.
    worker_self_fence_after: Duration = public Span { least_ms: 10, most_ms: HOUR }, "worker.self_fence_after", "GH_WORKER_SELF_FENCE_AFTER", "15s";
    /// Silence after which a worker is offline and its job is handled as lost, 10 ms to 1 h.
    worker_offline_after: Duration = public Span { least_ms: 10, most_ms: HOUR }, "worker.offline_after", "GH_WORKER_OFFLINE_AFTER", "20s";
    /// How long a reserved job waits for its worker to pick it up, 10 ms to 1 h.
    worker_pickup_timeout: Duration = public Span { least_ms: 10, most_ms: HOUR }, "worker.pickup_timeout", "GH_WORKER_PICKUP_TIMEOUT", "10s";
    /// How long the outcome of a lost worker's own job is still accepted, 1 s to 24 h.
    worker_outcome_grace: Duration = public Span { least_ms: SECOND, most_ms: 24 * HOUR }, "worker.outcome_grace", "GH_WORKER_OUTCOME_GRACE", "5m";
    /// Whether silent workers keep their jobs while it may be the server that does not hear; off is for tests.
    worker_brake: bool = public Switch, "worker.brake", "GH_WORKER_BRAKE", "true";
    /// How often this server looks for what is to be forgotten, 1 min to 24 h.
    retention_every: Duration = public Span { least_ms: 60 * SECOND, most_ms: DAY }, "retention.every", "GH_RETENTION_EVERY", "1h";
    /// How long ended jobs are kept, with what belongs to them, 1 d to 3,650 d.
    retention_jobs: Duration = public KEPT, "retention.jobs", "GH_RETENTION_JOBS", "90d";
    /// How long events of jobs are kept, by whole weeks, 1 d to 3,650 d.
    retention_job_events: Duration = public KEPT, "retention.job_events", "GH_RETENTION_JOB_EVENTS", "90d";
    /// How long events of workers are kept, by whole weeks, 1 d to 3,650 d.
    retention_worker_events: Duration = public KEPT, "retention.worker_events", "GH_RETENTION_WORKER_EVENTS", "30d";
    /// How long callbacks that are through are kept, 1 d to 3,650 d.
    retention_deliveries: Duration = public KEPT, "retention.deliveries", "GH_RETENTION_DELIVERIES", "30d";
    /// How long calls of language models are kept, also beyond their job, 1 d to 3,650 d.
    retention_llm_calls: Duration = public KEPT, "retention.llm_calls", "GH_RETENTION_LLM_CALLS", "400d";
    /// How long workers that went offline are shown, 1 d to 3,650 d.
    retention_offline_workers: Duration = public KEPT, "retention.offline_workers", "GH_RETENTION_OFFLINE_WORKERS", "7d";
    /// How long deregistered workers are shown, 1 d to 3,650 d; which of their processes may never come back is never forgotten.
    retention_deregistered_workers: Duration = public KEPT, "retention.deregistered_workers", "GH_RETENTION_DEREGISTERED_WORKERS", "90d";
    /// Most rows that one statement forgets, 1 to 100,000.
    retention_batch: usize = public Number { least: 1, most: 100_000 }, "retention.batch", "GH_RETENTION_BATCH", "1000";
}

impl Config {
    /// The rules' times, as configured; what is not configurable has its default.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            heartbeat_interval: self.worker_heartbeat_interval,
            suspect_after: self.worker_suspect_after,
            self_fence_after: self.worker_self_fence_after,
            offline_after: self.worker_offline_after,
            pickup_timeout: self.worker_pickup_timeout,
            outcome_grace: self.worker_outcome_grace,
            brake: self.worker_brake,
            ..Policy::default()
        }
    }

    /// How the connections to the database are set up.
    pub(crate) fn database(&self) -> PgOptions {
        PgOptions {
            max_connections: u32::try_from(self.database_max_connections).unwrap_or(u32::MAX),
            acquire_timeout: self.database_acquire_timeout,
            statement_timeout: self.database_statement_timeout,
            lock_timeout: self.database_lock_timeout,
            idle_in_transaction_timeout: self.database_idle_in_transaction_timeout,
            ..PgOptions::default()
        }
    }

    /// How long what is over is kept.
    pub(crate) fn retention(&self) -> Retention {
        Retention {
            jobs: self.retention_jobs,
            job_events: self.retention_job_events,
            worker_events: self.retention_worker_events,
            deliveries: self.retention_deliveries,
            llm_calls: self.retention_llm_calls,
            offline_workers: self.retention_offline_workers,
            deregistered_workers: self.retention_deregistered_workers,
            batch: u32::try_from(self.retention_batch).unwrap_or(u32::MAX),
        }
    }
}
