//! Configuration: flags over environment over a TOML file over defaults.
//!
//! The table in [`settings`] is the only place that knows which settings exist. [`load`] looks each up, collects
//! *every* problem instead of stopping at the first, and keeps what it found for `check-config`. No secret leaves
//! this module except inside a [`secrecy::SecretString`]; messages never repeat one, and neither does what libraries
//! say about a line that they cannot read.

mod callbacks;
mod check;
mod file;
mod keys;
mod report;
mod resolve;
mod settings;
mod suggest;
mod values;

use std::path::Path;

pub(crate) use keys::NamedKey;
pub(crate) use report::effective;
pub(crate) use resolve::{Effective, Environment, Flag, MASK};
pub(crate) use settings::{Config, SETTINGS, Setting};
pub(crate) use values::LogFormat;

use resolve::Resolver;

/// What the configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// `gh-server dev`: loopback only, with keys that everybody knows.
    Dev,
    /// `gh-server serve`.
    Serve,
    /// `gh-server migrate`: needs the database and no keys.
    Migrate,
}

/// The defaults of `dev` that differ from the table, by TOML key.
const DEV_DEFAULTS: &[(&str, &str)] = &[
    ("service_keys", "dev-service-key"),
    ("worker_keys", "dev-worker-key"),
    ("callback_allow", "127.0.0.0/8,::1,localhost"),
    // The story is on stdout; on a terminal every line of information would stand between its lines.
    ("log.filter", "warn"),
];

impl Profile {
    fn default_of(self, setting: &Setting) -> &'static str {
        let own = DEV_DEFAULTS.iter().find(|(key, _)| self == Self::Dev && *key == setting.key);
        own.map_or(setting.default, |(_, text)| text)
    }
}

/// One thing that is wrong with the configuration. It never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub(crate) struct Problem {
    place: String,
    message: String,
}

impl Problem {
    fn new(place: impl ToString, message: impl Into<String>) -> Self {
        Self { place: place.to_string(), message: message.into() }
    }
}

/// Everything that came out of loading.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The settings, or all that is wrong with them (then not empty).
    pub(crate) config: Result<Config, Vec<Problem>>,
    /// Every setting with its value fit to be printed, in the order of the table.
    pub(crate) effective: Vec<Effective>,
    /// What is odd but harmless, such as an unknown variable; to be logged at start.
    pub(crate) warnings: Vec<String>,
}

/// Reads the configuration: `path` is what `--config` names (else `gh-server.toml`, if it exists).
pub(crate) fn load(profile: Profile, path: Option<&Path>, flags: &[Flag], environment: &Environment) -> Loaded {
    let (file, mut problems) = match file::read(path) {
        Ok(file) => (file, Vec::new()),
        Err(problem) => (None, vec![problem]),
    };
    if let Some(file) = &file {
        problems.extend(file.unknown_keys());
    }
    let file = file.as_ref();
    let mut resolver = Resolver { profile, flags, environment, file, effective: Vec::new(), problems };
    let config = Config::read(&mut resolver);
    let Resolver { effective, mut problems, .. } = resolver;
    if let Some(config) = &config {
        problems.extend(check::problems(config, profile));
    }
    let config = match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(problems),
    };
    Loaded { config, effective, warnings: environment.unknown_variables() }
}

#[cfg(test)]
mod tests;
