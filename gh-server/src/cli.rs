//! The command line.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{StringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;

use crate::config::{Flag, MASK, SETTINGS};
use crate::startup::USAGE;

/// The GhostHands control plane: it takes jobs over HTTP, gives each to a worker, follows it, counts what it costs and
/// tells the client.
#[derive(Debug, Parser)]
#[command(name = "gh-server", version, after_help = EXAMPLES, after_long_help = long_help())]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in memory on this machine, with scripted workers and a demo.
    Dev(DevArgs),
    /// Run the server on PostgreSQL; any number of servers may share a database.
    Serve(ServeArgs),
    /// Bring the tables of the database up to date, and exit.
    Migrate(MigrateArgs),
    /// Print the configuration that `serve` would use, where each value comes from, and what is wrong with it.
    CheckConfig(CheckConfigArgs),
    /// Print the API's OpenAPI document as JSON.
    Openapi,
}

/// Options of `dev`.
#[derive(Debug, Args)]
#[command(
    after_help = "The keys are `dev-service-key` and `dev-worker-key` unless GH_SERVICE_KEYS and GH_WORKER_KEYS say otherwise. \
    Nothing is kept when it stops."
)]
pub(crate) struct DevArgs {
    /// Configuration file [default: gh-server.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Loopback address and port to listen on; port 0 picks a free one [default: 127.0.0.1:3100]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Number of scripted workers to start, 0 to 64
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=64))]
    pub(crate) workers: u16,
    /// Do not run the demo
    #[arg(long, conflicts_with = "exit_after_demo")]
    pub(crate) no_demo: bool,
    /// Exit when the demo is over: with 0 only if every job ended as it should
    #[arg(long)]
    pub(crate) exit_after_demo: bool,
}

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "`gh-server --help` lists the environment variables, `gh-server check-config` tells what is in effect."
)]
pub(crate) struct ServeArgs {
    /// Configuration file [default: gh-server.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address and port to listen on; port 0 picks a free one [default: 127.0.0.1:3100]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// PostgreSQL to store everything in; others on this machine can see a flag, so prefer DATABASE_URL
    #[arg(long, value_name = "URL", value_parser = StringValueParser::new().map(SecretString::from))]
    pub(crate) database_url: Option<SecretString>,
    /// Leave the tables as they are, and wait until they are up to date
    #[arg(long)]
    pub(crate) no_migrate: bool,
}

/// Options of `migrate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Run it under the role that owns the tables. What it applies, it applies whole or not at all; running it twice \
    does nothing. Waits up to 30 s for a database that is not up yet."
)]
pub(crate) struct MigrateArgs {
    /// Configuration file [default: gh-server.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// PostgreSQL to bring up to date; others on this machine can see a flag, so prefer DATABASE_URL
    #[arg(long, value_name = "URL", value_parser = StringValueParser::new().map(SecretString::from))]
    pub(crate) database_url: Option<SecretString>,
}

/// Options of `check-config`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 0 if `serve` would accept the configuration, else with 2. Secrets are shown as ********."
)]
pub(crate) struct CheckConfigArgs {
    /// Configuration file [default: gh-server.toml if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Reads the command line; else tells what is wrong with it, or prints the help asked for, and returns the exit code.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        // The message quotes the argument that it does not understand: a URL among them may hold a password.
        let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
        let urls = arguments.filter_map(|argument| {
            let value = if argument.starts_with('-') { argument.split_once('=')?.1 } else { &argument };
            value.contains("://").then(|| value.to_owned())
        });
        let message = urls.fold(error.render().to_string(), |message, url| message.replace(&url, MASK));
        eprint!("{message}");
        ExitCode::from(USAGE)
    })
}

impl DevArgs {
    /// The settings that flags give.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        self.listen.iter().map(|text| listen_flag(text)).collect()
    }
}

impl ServeArgs {
    /// The settings that flags give.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let no_migrate = self.no_migrate.then(|| Flag {
            key: "database.migrate",
            flag: "--no-migrate",
            text: SecretString::from("false"),
        });
        let listen = self.listen.iter().map(|text| listen_flag(text));
        listen.chain(database_url_flag(self.database_url.as_ref())).chain(no_migrate).collect()
    }
}

impl MigrateArgs {
    /// The settings that flags give.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        database_url_flag(self.database_url.as_ref()).into_iter().collect()
    }
}

fn database_url_flag(text: Option<&SecretString>) -> Option<Flag> {
    text.map(|text| Flag { key: "database_url", flag: "--database-url", text: text.clone() })
}

fn listen_flag(text: &str) -> Flag {
    Flag { key: "listen", flag: "--listen", text: SecretString::from(text) }
}

const EXAMPLES: &str = "Examples:
  gh-server dev                      a whole job's life, in memory, then curl lines to try
  gh-server dev --no-demo --workers 0
                                     an empty server to play client and worker with
  gh-server check-config --config /etc/gh-server.toml
  DATABASE_URL=postgres://… GH_SERVICE_KEYS=valet:… GH_WORKER_KEYS=… gh-server serve

Exit codes:
  0  all went well
  1  it failed while running
  2  the command line or the configuration is wrong";

/// The examples and every environment variable, straight from the table of settings.
fn long_help() -> String {
    let mut help = format!("{EXAMPLES}\n\nEnvironment (flags win over it, it wins over the file):\n");
    for setting in SETTINGS {
        let file = if setting.secret { ", or in the file that …_FILE names" } else { "" };
        let default = match setting.default {
            "" => String::new(),
            default => format!(" [default: {default}]"),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(help, "  {}{file}\n          {}{default}", setting.variable, setting.doc.replace('`', ""));
    }
    help.push_str("\nIn the TOML file the same settings have the keys that `gh-server check-config` prints.");
    help
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_documents_every_variable() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        for setting in SETTINGS {
            assert!(help.contains(setting.variable), "{}", setting.variable);
        }
    }

    #[test]
    fn debug_output_hides_the_database_url() {
        let cli = Cli::try_parse_from(["gh-server", "serve", "--database-url", "postgres://u:hunter2@h/d"]).unwrap();
        assert!(!format!("{cli:?}").contains("hunter2"));
    }
}
