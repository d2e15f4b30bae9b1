//! `gh-server dev`: the whole system in one process, and a demo of a job's life.

mod client;
mod demo;
mod narrator;
mod output;
mod receiver;
mod workers;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gh_core::application::BackgroundLoops;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::cli::DevArgs;
use crate::config::Config;
use crate::{serving, wiring};

/// The demo must be over within this time.
const DEMO_TIME: Duration = Duration::from_secs(20);

/// Runs `dev` until it is asked to stop, or until the demo is over where that was asked for.
pub(crate) fn run(config: &Config, args: &DevArgs) -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run_async(config, args))
}

async fn run_async(config: &Config, args: &DevArgs) -> Result<(), Box<dyn Error>> {
    let with_demo = !args.no_demo;
    if with_demo && args.workers == 0 {
        return Err("the demo needs a worker: use --workers 1 or more, or --no-demo".into());
    }
    let wiring::Assembly { control_plane, router } = wiring::in_memory(config)?;
    let listener = serving::bind(config.listen).await?;
    let address = listener.local_addr()?;
    output::line(format_args!("GhostHands control plane, in memory, on http://{address}"));
    let stopping = CancellationToken::new();
    let workers_stopping = CancellationToken::new();
    let loops = async {
        BackgroundLoops::ALL.run(&control_plane).await;
        Ok(())
    };
    let server =
        serving::serve(Arc::clone(&control_plane), listener, router, loops, stopping.clone().cancelled_owned());
    let workers = workers::run(config, address, args.workers, workers_stopping.clone());
    let story = async {
        let told = tell(config, address, args, with_demo).await;
        // Workers first: they give back what they have while the server still listens.
        workers_stopping.cancel();
        told
    };
    let (told, worked, served) = tokio::join!(
        story,
        async {
            let worked = workers.await;
            stopping.cancel();
            worked
        },
        server
    );
    served?;
    worked?;
    told
}

/// The demo, if wanted; then what one can try, until the process is asked to stop.
async fn tell(config: &Config, address: SocketAddr, args: &DevArgs, with_demo: bool) -> Result<(), Box<dyn Error>> {
    let stop = serving::stop_requested();
    tokio::pin!(stop);
    if with_demo {
        let base_url = Url::parse(&format!("http://{address}"))?;
        let key = config.service_keys.first().ok_or("dev needs a service key")?.key.clone();
        let demo = tokio::time::timeout(DEMO_TIME, demo::run(base_url, key, args.workers));
        let outcome = tokio::select! {
            outcome = demo => outcome,
            stopped = &mut stop => return Ok(stopped?),
        };
        let outcome = outcome.map_err(|_| format!("the demo was not over after {} s", DEMO_TIME.as_secs()))?;
        if args.exit_after_demo {
            return outcome;
        }
        if let Err(error) = outcome {
            eprintln!("The demo did not end as it should: {error}");
        }
    }
    print_what_to_try(config, address);
    Ok(stop.await?)
}

fn print_what_to_try(config: &Config, address: SocketAddr) {
    let is_known = |key: &str| key.starts_with("dev-");
    let key = config.service_keys.first().map(|named| named.key.expose_secret()).filter(|key| is_known(key));
    let key = key.unwrap_or("$GH_SERVICE_KEY");
    output::line(format_args!(
        r#"
Everything is in memory and gone when this stops (Ctrl-C). Try:

  # Submit a job; a worker takes it at once.
  curl -s http://{address}/api/v1/jobs -H 'X-GH-Service-Key: {key}' -H 'content-type: application/json' \
    -d '{{"valet_task_id": "mine-1", "valet_user_id": "7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11", "job_type": "apply",
         "target_url": "https://jobs.example.com/1", "task_description": "Apply to the posting"}}'

  # Follow it, with the job_id of the answer.
  curl -s http://{address}/api/v1/jobs/JOB_ID -H 'X-GH-Service-Key: {key}'
  curl -s http://{address}/api/v1/jobs/JOB_ID/events -H 'X-GH-Service-Key: {key}'

  # Who works here, and the API's description.
  curl -s http://{address}/api/v1/monitoring/workers -H 'X-GH-Service-Key: {key}'
  curl -s http://{address}/openapi.json"#
    ));
}
