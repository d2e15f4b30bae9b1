//! The scripted workers of `dev`: real clients of the HTTP API, in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use gh_adapters_http::tls;
use gh_adapters_http::worker::{Limits, ScriptedHandler, Worker, WorkerConfig};
use gh_core::domain::ids::Name;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::Config;

/// The name of the n-th worker, from 1.
pub(super) fn worker_name(n: u16) -> String {
    format!("dev-worker-{n}")
}

/// The target of the n-th worker, from 1.
pub(super) fn target_name(n: u16) -> String {
    format!("sandbox-{n}")
}

/// Runs the workers until they are told to stop.
pub(super) async fn run(
    config: &Config,
    address: SocketAddr,
    count: u16,
    stopping: CancellationToken,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut workers = Vec::new();
    for n in 1..=count {
        let client = tls::client_builder()?.no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        let key = config.worker_keys.first().ok_or("dev needs a worker key")?.key.clone();
        let base_url = Url::parse(&format!("http://{address}"))?;
        let mut worker = WorkerConfig::new(base_url, key, client);
        worker.worker_id = Some(Name::parse(&worker_name(n))?);
        worker.target_worker_id = Some(Name::parse(&target_name(n))?);
        worker.ec2_instance_id = Some(format!("i-dev{n:04}"));
        worker.ec2_ip = Some(address.ip().to_string());
        worker.environment = Some("dev".to_owned());
        worker.version = Some(env!("CARGO_PKG_VERSION").to_owned());
        worker.limits = Limits { stop_grace: Duration::from_secs(1), ..Limits::default() };
        workers.push(Worker::new(worker, Arc::new(ScriptedHandler::default())).run(stopping.clone()));
    }
    for exit in join_all(workers).await {
        tracing::info!(%exit, "a scripted worker ended");
    }
    // Workers may be retired one by one; the server is there until it is asked to stop.
    stopping.cancelled().await;
    Ok(())
}
