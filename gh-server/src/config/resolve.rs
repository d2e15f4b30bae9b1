//! Finding each setting's value: flag before environment before file before default.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use toml::Value;

use super::file::{ConfigFile, read_text};
use super::settings::{SETTINGS, Setting};
use super::suggest::nearest;
use super::values::{Invalid, Kind, Show};
use super::{Problem, Profile};

/// What stands in place of every secret.
pub(crate) const MASK: &str = "********";
/// What a secret variable's name ends in when it names a file.
const FILE_SUFFIX: &str = "_FILE";
/// Longest name of an unknown variable that is repeated in a warning.
const LONGEST_NAME: usize = 100;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nobody set it.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
    /// The command line flag of this name.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A setting with what it is now, fit to be printed.
#[derive(Debug)]
pub(crate) struct Effective {
    /// Which setting.
    pub(crate) setting: &'static Setting,
    /// Its value, a mask if it is a secret.
    pub(crate) shown: Shown,
    /// Where it came from.
    pub(crate) source: Source,
}

/// A value fit to be printed.
#[derive(Debug)]
pub(crate) enum Shown {
    /// As it would stand in the file.
    Value(Value),
    /// There is none.
    NotSet,
    /// It was refused; the list of problems says why.
    Invalid,
}

/// A value given on the command line.
#[derive(Debug)]
pub(crate) struct Flag {
    /// The TOML key of the setting it gives.
    pub(crate) key: &'static str,
    /// The flag as it is written.
    pub(crate) flag: &'static str,
    /// What it says.
    pub(crate) text: SecretString,
}

/// The variables of the environment that concern us. It has no `Debug`, because it holds secrets.
pub(crate) struct Environment(BTreeMap<String, OsString>);

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Self {
        let ours = |name: &str| name.starts_with("GH_") || name.starts_with("DATABASE_URL");
        let named = variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self(named.filter(|(name, _)| ours(name)).collect())
    }
}

impl Environment {
    /// The value of a variable; an empty one counts as not set.
    fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// One warning for each `GH_*` variable that no setting reads.
    pub(super) fn unknown_variables(&self) -> Vec<String> {
        let known = |name: &str| {
            SETTINGS.iter().any(|setting| {
                setting.variable == name
                    || setting.secret && name.strip_suffix(FILE_SUFFIX).is_some_and(|stem| stem == setting.variable)
            })
        };
        // The common prefix would make every name look near to every other.
        let stems = || SETTINGS.iter().filter_map(|setting| setting.variable.strip_prefix("GH_"));
        let unknown = self.0.keys().filter(|name| name.starts_with("GH_") && !known(name));
        unknown
            .map(|name| {
                let shown: String = name.chars().take(LONGEST_NAME).collect();
                match name.strip_prefix("GH_").and_then(|stem| nearest(stem, stems())) {
                    Some(meant) => format!("unknown variable {shown} is ignored; did you mean GH_{meant}?"),
                    None => format!("unknown variable {shown} is ignored"),
                }
            })
            .collect()
    }
}

/// A value before it is read.
enum Raw<'a> {
    Text(SecretString),
    Toml(&'a Value),
}

/// Looks every setting up and remembers what it found and what was wrong.
pub(super) struct Resolver<'a> {
    pub(super) profile: Profile,
    pub(super) flags: &'a [Flag],
    pub(super) environment: &'a Environment,
    pub(super) file: Option<&'a ConfigFile>,
    pub(super) effective: Vec<Effective>,
    pub(super) problems: Vec<Problem>,
}

impl Resolver<'_> {
    /// Reads a setting whose value may be shown.
    pub(super) fn public<K: Show>(&mut self, setting: &'static Setting, kind: &K) -> Option<K::Value> {
        self.read(setting, kind, |value, _| kind.show(value))
    }

    /// Reads a setting whose value must not be shown.
    pub(super) fn secret<K: Kind>(&mut self, setting: &'static Setting, kind: &K) -> Option<K::Value> {
        self.read(setting, kind, |_, is_set| is_set.then(|| Value::String(MASK.to_owned())))
    }

    fn read<K: Kind>(
        &mut self,
        setting: &'static Setting,
        kind: &K,
        show: impl FnOnce(&K::Value, bool) -> Option<Value>,
    ) -> Option<K::Value> {
        let (source, raw) = self.find(setting);
        let value = match &raw {
            Ok(Raw::Text(text)) => kind.parse_text(text.expose_secret()),
            Ok(Raw::Toml(value)) => kind.parse_toml(value),
            Err(message) => Err(Invalid::new(message.clone())),
        };
        let is_set = !matches!(&raw, Ok(Raw::Text(text)) if text.expose_secret().is_empty());
        let (value, shown) = match value {
            Ok(value) => {
                let shown = show(&value, is_set).map_or(Shown::NotSet, Shown::Value);
                (Some(value), shown)
            }
            Err(Invalid { at, message }) => {
                let place = match &source {
                    Source::Default | Source::File(_) => format!("{}{at}", setting.key),
                    Source::Environment(variable) => format!("{variable}{at}"),
                    Source::Flag(flag) => format!("{flag}{at}"),
                };
                self.problems.push(Problem::new(place, message));
                (None, Shown::Invalid)
            }
        };
        self.effective.push(Effective { setting, shown, source });
        value
    }

    fn find(&self, setting: &'static Setting) -> (Source, Result<Raw<'_>, String>) {
        if let Some(flag) = self.flags.iter().find(|flag| flag.key == setting.key) {
            return (Source::Flag(flag.flag), Ok(Raw::Text(flag.text.clone())));
        }
        let file_variable = format!("{}{FILE_SUFFIX}", setting.variable);
        let named_file = self.environment.get(&file_variable).filter(|_| setting.secret);
        match (self.environment.get(setting.variable), named_file) {
            (Some(_), Some(_)) => {
                let message = format!("set together with {file_variable}; keep one of the two");
                return (Source::Environment(setting.variable.to_owned()), Err(message));
            }
            (Some(value), None) => {
                let text = value.to_str().map(|text| Raw::Text(SecretString::from(text)));
                return (
                    Source::Environment(setting.variable.to_owned()),
                    text.ok_or_else(|| "not valid UTF-8".to_owned()),
                );
            }
            (None, Some(path)) => {
                return (Source::Environment(file_variable), secret_from(Path::new(path)).map(Raw::Text));
            }
            (None, None) => {}
        }
        match self.file.and_then(|file| Some((file, file.get(setting.key)?))) {
            Some((file, value)) => (Source::File(file.path.clone()), Ok(Raw::Toml(value))),
            None => (Source::Default, Ok(Raw::Text(SecretString::from(self.profile.default_of(setting))))),
        }
    }
}

/// The path is not repeated: somebody may have put the secret itself where its file belongs.
fn secret_from(path: &Path) -> Result<SecretString, String> {
    let text = read_text(path).map_err(|error| format!("the file it names cannot be read: {}", error.kind()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("the file it names is empty".to_owned()),
        secret => Ok(SecretString::from(secret)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_variables_are_named_with_the_likely_right_one() {
        let names = ["GH_LISTEN", "GH_LISEN", "GH_SERVICE_KEYS_FILE", "GH_LISTEN_FILE", "GH_COLOUR", "PATH"];
        let environment: Environment = names.iter().map(|name| (name.into(), "value".into())).collect();
        assert_eq!(
            environment.unknown_variables(),
            [
                "unknown variable GH_COLOUR is ignored",
                "unknown variable GH_LISEN is ignored; did you mean GH_LISTEN?",
                "unknown variable GH_LISTEN_FILE is ignored",
            ]
        );
    }
}
