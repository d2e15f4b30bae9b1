//! `gh-bench` measures the control plane side by side with a yardstick: the real server process and something known run
//! in turn on one PostgreSQL, round by round in shuffled order. The ratio of the two is what counts, since it moves far less
//! from machine to machine than either of them.
//!
//! A measurement is a module with a function `run` and a subcommand: [`lives`]. What they share: [`rounds`] (turns, order,
//! repetition of disturbed rounds), [`report`] (table and JSON), [`cpu`] (who spent the processor's time), [`database`]
//! (fresh databases), [`pgbench`] (yardsticks in SQL), [`connection`] and [`sink`] (callers and receivers that cost little).

mod connection;
mod cpu;
mod database;
mod lives;
mod options;
mod pgbench;
mod report;
mod rounds;
mod sink;

use std::process::ExitCode;

use clap::Parser;

use crate::database::Postgres;
use crate::options::{Cli, Measurement};

/// Why a measurement came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A figure cannot be told, or would mean nothing, as things are.
    #[error("{0}")]
    Unfit(String),
    /// What is measured did not do what it should.
    #[error("wrong: {0}")]
    Wrong(String),
    /// The database.
    #[error("the database does not answer as it should")]
    Database(#[from] sqlx::Error),
    /// The system.
    #[error("{what}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A connection to the server.
    #[error("a connection to the server failed")]
    Connection(#[from] hyper::Error),
}

impl Failure {
    /// Says what was tried when the system refuses.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        |source| Self::System { what, source }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match measure(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("gh-bench: {failure}");
            let mut cause = std::error::Error::source(&failure);
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn measure(cli: &Cli) -> Result<(), Failure> {
    // Two threads for what calls the server: it shares the machine with what it measures.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::system("cannot start threads"))?;
    runtime.block_on(async {
        match &cli.measurement {
            Measurement::Lives(options) => {
                let postgres = Postgres::find(&options.common).await?;
                let report = lives::run(options, &postgres).await?;
                report.publish(options.common.json.as_deref())
            }
        }
    })
}
