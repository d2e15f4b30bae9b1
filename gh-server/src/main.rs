//! The GhostHands control plane server: reads the configuration, wires adapters to the core, runs, and shuts down.
//!
//! Exit codes: 0 all went well, 1 it failed while running, 2 the command line or the configuration is wrong.

mod cli;
mod config;
mod dev;
mod logging;
mod retention;
mod service;
mod serving;
mod startup;
mod system;
mod wiring;

use std::io::Write;
use std::process::ExitCode;

use cli::{Cli, Command};
use startup::Outcome;

/// Requests and batches are made of many small and short-lived pieces.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = match cli::parse() {
        Ok(Cli { command }) => command,
        Err(code) => return code,
    };
    match command {
        Command::Dev(args) => startup::dev(&args, |config| dev::run(&config, &args)),
        Command::Serve(args) => startup::serve(&args),
        Command::Migrate(args) => startup::migrate(&args),
        Command::CheckConfig(args) => startup::check_config(&args),
        Command::Openapi => startup::end(openapi()),
    }
}

/// Prints the API's description; nothing needs to be configured for that.
fn openapi() -> Outcome {
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, &gh_adapters_http::api::openapi())?;
    Ok(writeln!(stdout)?)
}
