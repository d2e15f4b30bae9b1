//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

/// Measures the control plane side by side with a yardstick, on a private PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "gh-bench", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) measurement: Measurement,
}

const AFTER_HELP: &str = "\
`scripts/bench MEASUREMENT [OPTIONS]` builds the release programs, starts a PostgreSQL that writes through to the disk, and \
runs this with it. The table goes to stdout, progress to stderr.

Exit code: 0 measured, and every count is right; 1 something is wrong, and there is no figure; 2 wrong command line.

Read docs/performance.md for what the columns mean.";

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Measurement {
    /// Whole lives of jobs by the single-job API: submit, claim, complete, one HTTP call each
    ///
    /// The yardstick is pgbench with the same work in three statements on plain tables (tests/bench/lives.sql), which
    /// stores the two callbacks of a life and delivers none.
    Lives(LivesOptions),
}

/// Options of `lives`.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct LivesOptions {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) common: Options,
    /// How many workers live at once; each submits a job, claims one and completes it, over one connection
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) in_flight: u16,
    /// How many connections pgbench has
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(crate) yardstick_clients: u16,
}

/// Options of every measurement.
#[derive(Clone, Debug, Args, Serialize)]
pub(crate) struct Options {
    /// How many rounds to measure; each has the server and the yardstick once, in shuffled order
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// How long each is measured, after a second of warm-up
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// The order of the turns follows from this number
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Repeat a round while others on this machine take more than so many cores
    #[arg(long, value_name = "CORES", default_value_t = 0.25)]
    pub(crate) others: f64,
    /// Repeat at most so many rounds; those that are disturbed after that are kept and marked
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) repeats: u32,
    /// Write everything to this file too, as JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
    /// One short round that checks the counts; its figures mean nothing. Debug builds and a database that does not write
    /// through to the disk will do
    #[arg(long)]
    pub(crate) quick: bool,
}

impl Options {
    /// How long something runs before it is measured, in seconds.
    pub(crate) const fn warm_up(&self) -> u32 {
        if self.quick { 0 } else { 1 }
    }

    /// How long something is measured, in seconds.
    pub(crate) const fn measured(&self) -> u32 {
        if self.quick { 1 } else { self.seconds }
    }
}
