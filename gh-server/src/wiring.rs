//! Putting the server together: adapters around the core.

use std::sync::Arc;

use axum::Router;
use gh_adapters_http::api::{self, ApiConfig, KeyRing, Limits, MeasuredStore, Metrics};
use gh_adapters_http::callbacks::{
    CallbackAllow, Guard, HttpCallbackSender, KeyScope, SendLimits, SenderError, ServiceKeys,
};
use gh_adapters_postgres::{PgConnectOptions, PgSignals, PgStore};
use gh_core::application::{ControlPlane, GroupCommit, Ports, Wakeups};
use gh_core::domain::cost::PriceBook;
use gh_core::domain::rules::Rules;
use gh_core::memory::MemoryStore;
use gh_core::ports::clock::Clock;
use gh_core::ports::ids::IdSource;
use gh_core::ports::outbox::Outbox;
use gh_core::ports::reader::Reader;
use gh_core::ports::signals::Signals;
use gh_core::ports::store::Store;

use crate::config::{self, Config};
use crate::system::{SystemClock, SystemIds, random_key};

/// Why the parts do not fit together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WiringError {
    /// The callback sender could not be made.
    #[error("the callback sender cannot be set up")]
    Sender(#[from] SenderError),
    /// The list of allowed callback addresses does not parse.
    #[error("callback_allow is not valid")]
    Allow(#[from] gh_adapters_http::callbacks::AllowError),
    /// The destinations of the callback service keys do not parse.
    #[error("callback_service_key is not valid")]
    Destination(#[from] gh_adapters_http::callbacks::DestinationError),
    /// Two keys for one destination, or a key that is no header value.
    #[error("callback_service_key is not valid")]
    ServiceKey(#[from] gh_adapters_http::callbacks::ServiceKeyError),
}

/// The server's parts, ready to be served.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// Every use case, and the loops.
    pub(crate) control_plane: Arc<ControlPlane>,
    /// The API over it.
    pub(crate) router: Router,
}

/// What differs between the ways to run.
struct Storage {
    store: Arc<dyn Store>,
    reader: Arc<dyn Reader>,
    outbox: Arc<dyn Outbox>,
    signals: Arc<dyn Signals>,
    wakeups: Arc<Wakeups>,
    clock: Arc<dyn Clock>,
    group_commit: Option<GroupCommit>,
}

/// A server with everything in memory: nothing outlives the process.
pub(crate) fn in_memory(config: &Config) -> Result<Assembly, WiringError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let store = Arc::new(MemoryStore::new(Arc::clone(&clock), random_key()));
    let wakeups = Arc::new(Wakeups::new());
    assemble(
        config,
        Storage {
            store: store.clone(),
            reader: store.clone(),
            outbox: store,
            signals: wakeups.clone(),
            wakeups,
            clock,
            group_commit: None,
        },
    )
}

/// A server on PostgreSQL, beside any number of others. Nothing is connected yet.
pub(crate) fn on_postgres(
    config: &Config,
    address: PgConnectOptions,
) -> Result<(Assembly, PgStore, Arc<PgSignals>), WiringError> {
    let store = PgStore::connect_with(address, &config.database());
    let wakeups = Arc::new(Wakeups::new());
    let signals = Arc::new(PgSignals::new(&store, Arc::clone(&wakeups), SystemIds.uuid()));
    let shared = Arc::new(store.clone());
    let assembly = assemble(
        config,
        Storage {
            store: shared.clone(),
            reader: shared.clone(),
            outbox: shared,
            signals: signals.clone(),
            wakeups,
            clock: Arc::new(SystemClock::start()),
            group_commit: Some(GroupCommit::default()),
        },
    )?;
    Ok((assembly, store, signals))
}

fn assemble(config: &Config, storage: Storage) -> Result<Assembly, WiringError> {
    let Storage { store, reader, outbox, signals, wakeups, clock, group_commit } = storage;
    let metrics = Arc::new(Metrics::new());
    let measured = MeasuredStore::new(store, Arc::clone(&metrics), Arc::clone(&clock));
    let guard = guard(config)?;
    let sender_clock = Arc::clone(&clock);
    let unix_seconds = Arc::new(move || sender_clock.now().as_micros().div_euclid(1_000_000));
    let sender = HttpCallbackSender::new(guard.clone(), service_keys(config)?, SendLimits::default(), unix_seconds)?;
    let ports = Ports { store: Arc::new(measured), reader, outbox, sender: Arc::new(sender), signals, wakeups };
    let control_plane = ControlPlane::new(ports, rules(config));
    let control_plane = Arc::new(match group_commit {
        Some(settings) => control_plane.with_group_commit(&settings),
        None => control_plane,
    });
    let api = ApiConfig {
        auth: Arc::new(KeyRing::new(&named(&config.service_keys), &named(&config.worker_keys))),
        limits: Limits { body_bytes: config.limits_body_bytes, batch_items: config.limits_batch_items },
        public_metrics: config.listen.ip().is_loopback(),
        callback_guard: guard,
        ids: Arc::new(SystemIds),
        clock,
        metrics,
    };
    let router = api::router(Arc::clone(&control_plane), api);
    Ok(Assembly { control_plane, router })
}

fn named(keys: &[config::NamedKey]) -> Vec<api::NamedKey> {
    keys.iter().map(|named| api::NamedKey { name: named.name.clone(), key: named.key.clone() }).collect()
}

/// Which addresses callbacks may go to.
fn guard(config: &Config) -> Result<Guard, WiringError> {
    let networks = config.callback_allow.networks.iter().map(ToString::to_string);
    let hosts = config.callback_allow.hosts.iter().map(ToString::to_string);
    let allow: CallbackAllow = networks.chain(hosts).collect::<Vec<_>>().join(",").parse()?;
    Ok(Guard::new(allow))
}

fn service_keys(config: &Config) -> Result<ServiceKeys, WiringError> {
    let keys = &config.callback_service_key;
    let mut scoped = Vec::new();
    if let Some(key) = &keys.any {
        scoped.push(("*".parse::<KeyScope>()?, key.clone()));
    }
    for (destination, key) in &keys.by_destination {
        scoped.push((destination.parse::<KeyScope>()?, key.clone()));
    }
    Ok(ServiceKeys::new(scoped)?)
}

fn rules(config: &Config) -> Rules {
    Rules { policy: Arc::new(config.policy()), prices: PriceBook::embedded(), ids: Arc::new(SystemIds) }
}
