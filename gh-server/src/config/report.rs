//! The effective configuration as text: valid TOML, each value with where it came from.

use std::fmt::Write;

use super::Loaded;
use super::resolve::Shown;

/// One line a setting, in the order of the documentation; secrets are masked.
pub(crate) fn effective(loaded: &Loaded) -> String {
    let lines = loaded.effective.iter().map(|entry| {
        let line = match &entry.shown {
            Shown::Value(value) => format!("{} = {value}", entry.setting.key),
            Shown::NotSet => format!("# {} is not set", entry.setting.key),
            Shown::Invalid => format!("# {} is invalid", entry.setting.key),
        };
        (line, &entry.source)
    });
    let lines: Vec<_> = lines.collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
    lines.iter().fold(String::new(), |mut text, (line, source)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line:width$}  # {source}");
        text
    })
}
