//! `gh-server serve` and `gh-server migrate`: on PostgreSQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gh_adapters_postgres::{DatabaseReport, PgConnectOptions, PgStore, StartError, parse_address};
use gh_core::application::{BackgroundLoops, ControlPlane};
use secrecy::ExposeSecret;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::Url;

use crate::config::Config;
use crate::startup::{Outcome, in_one_line};
use crate::{retention, serving, wiring};

/// How often a database that is away is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often somebody is told that it still is away.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// How long a host may be unknown before it counts as a mistake: networks come up, too.
const HOST_PATIENCE: Duration = Duration::from_secs(5);

/// How long `migrate` waits for the database.
const MIGRATE_PATIENCE: Duration = Duration::from_secs(30);

/// Serves until the process is asked to stop.
pub(crate) fn run(config: &Config) -> Outcome {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))
}

/// Brings the tables of the database up to date.
pub(crate) fn migrate(config: &Config) -> Outcome {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let store = PgStore::connect_with(address(config)?, &config.database());
        let began = now();
        let report = wait_for(&store, true, |_| began.elapsed() < MIGRATE_PATIENCE).await?;
        let what = if report.migrated { "brought up to date" } else { "up to date already" };
        info!(database = store.place(), "the tables are {what}");
        Ok(())
    })
}

/// The address was read once before, when the configuration was checked.
fn address(config: &Config) -> Result<PgConnectOptions, Box<dyn std::error::Error>> {
    let url = config.database_url.as_ref().ok_or("database_url is not set")?;
    Ok(parse_address(url.expose_secret())?)
}

async fn serve(config: &Config) -> Outcome {
    let (wiring::Assembly { control_plane, router }, store, signals) = wiring::on_postgres(config, address(config)?)?;
    // From here on somebody answers: who looks at `/ready` sees that it is not yet time.
    let listener = serving::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let reached_at = config.public_base_url.as_ref().map_or_else(|| format!("http://{address}"), Url::to_string);
    info!(%address, reached_at, database = store.place(), "listening");
    let beside = async {
        let report = tokio::select! {
            report = wait_for(&store, config.database_migrate, |_| true) => report?,
            () = control_plane.closed() => return Ok(()),
        };
        info!(
            database = store.place(),
            postgresql = report.server_version,
            role = report.role,
            migrated = report.migrated,
            "ready"
        );
        let retention = retention::run(&store, config.retention(), config.retention_every);
        let beside_loops = async { tokio::join!(signals.run(), retention) };
        tokio::select! {
            // These end with the control plane and have something to finish; what is beside them has not.
            ended = run_loops(&control_plane) => ended,
            _ = beside_loops => Ok(()),
        }
    };
    let stop = async {
        if let Err(error) = serving::stop_requested().await {
            warn!(error = &error as &dyn std::error::Error, "signals cannot be heard; stopping");
        }
    };
    Box::pin(serving::serve(control_plane.clone(), listener, router, beside, stop)).await
}

/// Runs every loop: one that decides does not wait for one that sends, and those that every command waits for have a
/// thread of their own, so that they are not queued behind requests.
async fn run_loops(control_plane: &Arc<ControlPlane>) -> Outcome {
    let mut loops = JoinSet::new();
    for each in [BackgroundLoops::SWEEP, BackgroundLoops::DELIVER] {
        let control_plane = Arc::clone(control_plane);
        loops.spawn(async move { each.run(&control_plane).await });
    }
    let apart = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cut_off = CancellationToken::new();
    // Unlike a task, a thread is not ended by nobody waiting for it any more.
    let _cut_off_with_the_rest = cut_off.clone().drop_guard();
    let control_plane = Arc::clone(control_plane);
    loops.spawn_blocking(move || {
        let each = BackgroundLoops::DISPATCH.and(BackgroundLoops::COMMIT);
        let _ended_or_cut_off = apart.block_on(cut_off.run_until_cancelled(each.run(&control_plane)));
    });
    loops.join_all().await;
    Ok(())
}

/// Waits until work on the database can begin, for as long as `patient` says; every few seconds tells what it waits for.
async fn wait_for(
    store: &PgStore,
    migrate: bool,
    patient: impl Fn(&StartError) -> bool,
) -> Result<DatabaseReport, WaitError> {
    let began = now();
    let mut told: Option<Instant> = None;
    loop {
        let error = match store.start(migrate).await {
            Ok(report) => return Ok(report),
            Err(error) => error,
        };
        let passing = match &error {
            StartError::NoHost(..) => began.elapsed() < HOST_PATIENCE,
            other => other.may_pass() && patient(other),
        };
        if !passing {
            return Err(WaitError { place: store.place(), source: error });
        }
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            told = Some(now());
            let waited_s = began.elapsed().as_secs();
            warn!(waited_s, "waiting for the database {}: {}", store.place(), in_one_line(&error));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "it counts how long the start takes, which no rule depends on")]
fn now() -> Instant {
    Instant::now()
}

/// Work on the database cannot begin.
#[derive(Debug, thiserror::Error)]
#[error("the database {place}")]
struct WaitError {
    place: String,
    source: StartError,
}
