//! What every command does first and last: load the configuration, start logging, tell problems, choose the exit code.

use std::error::Error;
use std::io::{self, Write};
use std::iter;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::{CheckConfigArgs, DevArgs, ServeArgs};
use crate::config::{self, Config, Environment, Flag, Loaded, Profile};
use crate::logging;

/// The exit code for a wrong command line or configuration.
pub(crate) const USAGE: u8 = 2;

const NO_STORE: &str = "this build has no durable store yet, so `serve` cannot run; `gh-server dev` runs in memory";

/// How a command ends.
pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// Runs `work` with the configuration of `dev`.
pub(crate) fn dev(args: &DevArgs, work: impl FnOnce(Config) -> Outcome) -> ExitCode {
    run(load(Profile::Dev, args.config.as_deref(), &args.flags()), work)
}

/// Checks the configuration and says that there is no store to serve from.
pub(crate) fn serve(args: &ServeArgs) -> ExitCode {
    let loaded = load(Profile::Serve, args.config.as_deref(), &args.flags());
    if loaded.config.is_err() {
        // Nobody should mend a configuration only to learn this afterwards.
        eprintln!("gh-server: {NO_STORE}");
    }
    run(loaded, |_| Err(NO_STORE.into()))
}

/// Prints the configuration that `serve` would use to stdout, and what is wrong or odd with it to stderr.
pub(crate) fn check_config(args: &CheckConfigArgs) -> ExitCode {
    let loaded = load(Profile::Serve, args.config.as_deref(), &[]);
    let printed = io::stdout().write_all(config::effective(&loaded).as_bytes());
    print_warnings(&loaded.warnings);
    match &loaded.config {
        Ok(_) => end(printed.map_err(Into::into)),
        Err(problems) => refuse(problems),
    }
}

/// Turns a command's end into the exit code, telling an error with all its causes on one line.
pub(crate) fn end(outcome: Outcome) -> ExitCode {
    let Err(error) = outcome else {
        return ExitCode::SUCCESS;
    };
    let causes = iter::successors(error.source(), |cause| (*cause).source());
    let line = causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"));
    eprintln!("gh-server: {line}");
    ExitCode::FAILURE
}

fn load(profile: Profile, path: Option<&Path>, flags: &[Flag]) -> Loaded {
    config::load(profile, path, flags, &std::env::vars_os().collect::<Environment>())
}

fn run(loaded: Loaded, work: impl FnOnce(Config) -> Outcome) -> ExitCode {
    match loaded.config {
        Ok(config) => end(logging::start(&config).map_err(Into::into).and_then(|()| {
            loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            work(config)
        })),
        Err(problems) => {
            print_warnings(&loaded.warnings);
            refuse(&problems)
        }
    }
}

fn print_warnings(warnings: &[String]) {
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
}

fn refuse(problems: &[config::Problem]) -> ExitCode {
    problems.iter().for_each(|problem| eprintln!("problem: {problem}"));
    ExitCode::from(USAGE)
}
