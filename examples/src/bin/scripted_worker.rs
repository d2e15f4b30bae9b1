//! A worker without a browser. It performs `input_data.script` of its jobs, or plays a job application.
//!
//! ```text
//! GH_WORKER_KEY=dev-worker-key scripted_worker --server-url http://127.0.0.1:3100 --target-worker-id sandbox-1
//! ```
//!
//! SIGTERM and Ctrl-C let the job finish (or give it back) and say goodbye. The exit code is 0 after that; 64, 65 and 78
//! tell a supervisor not to start it again.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use gh_adapters_http::tls;
use gh_adapters_http::worker::{ScriptedHandler, Worker, WorkerConfig};
use gh_core::domain::ids::Name;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use url::Url;

/// Takes jobs from a GhostHands control plane and performs their scripts.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Where the control plane listens.
    #[arg(long, env = "GH_SERVER_URL", default_value = "http://127.0.0.1:3100")]
    server_url: Url,
    /// The worker key.
    #[arg(long, env = "GH_WORKER_KEY", hide_env_values = true)]
    worker_key: SecretString,
    /// The worker's name; without one the control plane gives it one.
    #[arg(long, env = "GH_WORKER_ID", value_parser = Name::parse)]
    worker_id: Option<Name>,
    /// The client's routing key.
    #[arg(long, env = "GH_TARGET_WORKER_ID", value_parser = Name::parse)]
    target_worker_id: Option<Name>,
    /// The machine's id at its provider.
    #[arg(long, env = "GH_EC2_INSTANCE_ID")]
    ec2_instance_id: Option<String>,
    /// The machine's address.
    #[arg(long, env = "GH_EC2_IP")]
    ec2_ip: Option<String>,
    /// What the control plane is told when this process stops: shutdown, deploy, scale-down.
    #[arg(long, env = "GH_STOP_REASON", default_value = "shutdown")]
    stop_reason: String,
    /// Milliseconds between two acts of the played application.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pace_ms: u64,
}

/// Why the worker could not be started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the HTTP client cannot be built")]
    Client(#[from] reqwest::Error),
    #[error("the TLS settings cannot be built")]
    Tls(#[from] tls::TlsError),
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let client = match http_client() {
        Ok(client) => client,
        Err(error) => {
            eprintln!("{error}: {:?}", std::error::Error::source(&error));
            return ExitCode::FAILURE;
        }
    };
    let mut config = WorkerConfig::new(options.server_url, options.worker_key, client);
    config.worker_id = options.worker_id;
    config.target_worker_id = options.target_worker_id;
    config.ec2_instance_id = options.ec2_instance_id;
    config.ec2_ip = options.ec2_ip;
    config.stop_reason = options.stop_reason;
    config.version = Some(env!("CARGO_PKG_VERSION").to_owned());

    let handler = ScriptedHandler::new(Duration::from_millis(options.pace_ms));
    let shutdown = CancellationToken::new();
    let signalled = async {
        if let Err(error) = gh_examples::asked_to_stop().await {
            eprintln!("signals cannot be listened for: {error}");
        }
        shutdown.cancel();
        std::future::pending().await
    };
    tokio::select! {
        exit = Worker::new(config, Arc::new(handler)).run(shutdown.clone()) => exit.into(),
        never = signalled => never,
    }
}

/// An HTTP client that trusts what the machine trusts, and follows no redirects.
fn http_client() -> Result<reqwest::Client, StartError> {
    let client = tls::client_builder()?
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(5))
        .build()?;
    Ok(client)
}
