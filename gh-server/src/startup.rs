//! What every command does first and last: load the configuration, start logging, tell problems, choose the exit code.

use std::error::Error;
use std::io::{self, Write};
use std::iter;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::{CheckConfigArgs, DevArgs, MigrateArgs, ServeArgs};
use crate::config::{self, Config, Environment, Flag, Loaded, Profile};
use crate::{logging, service};

/// The exit code for a wrong command line or configuration.
pub(crate) const USAGE: u8 = 2;

/// How a command ends.
pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// Runs `work` with the configuration of `dev`.
pub(crate) fn dev(args: &DevArgs, work: impl FnOnce(Config) -> Outcome) -> ExitCode {
    run(load(Profile::Dev, args.config.as_deref(), &args.flags()), work)
}

/// Runs the server.
pub(crate) fn serve(args: &ServeArgs) -> ExitCode {
    run(load(Profile::Serve, args.config.as_deref(), &args.flags()), |config| service::run(&config))
}

/// Brings the tables of the database up to date.
pub(crate) fn migrate(args: &MigrateArgs) -> ExitCode {
    run(load(Profile::Migrate, args.config.as_deref(), &args.flags()), |config| service::migrate(&config))
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
    eprintln!("gh-server: {}", in_one_line(error.as_ref()));
    ExitCode::FAILURE
}

/// An error with all its causes. Some libraries repeat the cause in what it causes; here it stands once.
pub(crate) fn in_one_line(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string);
    let line = causes.fold(
        error.to_string(),
        |line, cause| {
            if line.ends_with(&cause) { line } else { format!("{line}: {cause}") }
        },
    );
    line.replace('\n', " ")
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
