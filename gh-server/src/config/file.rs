//! The configuration file: reading it within limits, and refusing keys that nothing reads.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Problem;
use super::settings::SETTINGS;
use super::suggest::nearest;
use super::values::type_name;

/// The file that is read when `--config` names none, if it exists.
pub(super) const DEFAULT_PATH: &str = "gh-server.toml";
/// Most bytes of a configuration file, and of a file that holds a secret.
pub(super) const LARGEST_FILE: u64 = 1 << 20;
/// Longest part of an unknown name that is repeated in a message.
const LONGEST_NAME: usize = 100;

/// A file that was read. It has no `Debug`, because it holds secrets.
pub(super) struct ConfigFile {
    /// Where it lies.
    pub(super) path: PathBuf,
    /// What it says.
    pub(super) table: Table,
}

/// Reads the named file, or the default one if it exists.
pub(super) fn read(named: Option<&Path>) -> Result<Option<ConfigFile>, Problem> {
    let path = named.unwrap_or(Path::new(DEFAULT_PATH));
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Problem::new(path.display(), format!("cannot be read: {}", error.kind())));
        }
    };
    let table = text.parse::<Table>().map_err(|error| {
        // The library's own display quotes the line, which may hold a secret.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Problem::new(path.display(), format!("line {line} is not valid TOML: {}", error.message()))
    })?;
    Ok(Some(ConfigFile { path: path.to_owned(), table }))
}

/// Reads a whole text file of bounded size.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LARGEST_FILE) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

impl ConfigFile {
    /// What the file says at a dotted path.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let mut parts = key.split('.');
        let first = self.table.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.as_table()?.get(part))
    }

    /// One problem for each key that is no setting's.
    pub(super) fn unknown_keys(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        walk(&self.table, "", &mut problems);
        problems
    }
}

fn walk(table: &Table, prefix: &str, problems: &mut Vec<Problem>) {
    for (key, value) in table {
        let path = format!("{prefix}{}", quoted(key));
        let group = format!("{path}.");
        if SETTINGS.iter().any(|setting| setting.key == path) {
            continue;
        }
        if SETTINGS.iter().any(|setting| setting.key.starts_with(&group)) {
            match value {
                Value::Table(inner) => walk(inner, &group, problems),
                other => problems.push(Problem::new(path, format!("expected a table, found {}", type_name(other)))),
            }
            continue;
        }
        let message = match suggestion(&path, key) {
            Some(meant) => format!("unknown key; did you mean `{meant}`?"),
            None => "unknown key".to_owned(),
        };
        problems.push(Problem::new(path, message));
    }
}

fn suggestion(path: &str, last_part: &str) -> Option<&'static str> {
    let keys = || SETTINGS.iter().map(|setting| setting.key);
    nearest(path, keys())
        .or_else(|| keys().find(|key| key.rsplit_once('.').is_some_and(|(_, last)| last == last_part)))
        .or_else(|| {
            // A misspelt table: name the table.
            let groups = keys().filter_map(|key| key.split_once('.').map(|(group, _)| group));
            nearest(path, groups)
        })
}

/// A key as it stands in a dotted path: quoted where TOML asks for it, and cut where it is very long.
fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let short: String = key.chars().take(LONGEST_NAME).collect();
    if !short.is_empty() && short.chars().all(bare) { short } else { format!("{short:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(text: &str) -> Vec<String> {
        let file = ConfigFile { path: PathBuf::new(), table: text.parse().unwrap() };
        file.unknown_keys().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unknown_keys_are_named_with_their_path_and_the_likely_right_one() {
        assert_eq!(unknown("listen = 'x'\n[log]\nfilter = 'x'\n[callback_service_key]\n'https://a' = 'x'"), [""; 0]);
        assert_eq!(unknown("lisen = 1"), ["lisen: unknown key; did you mean `listen`?"]);
        assert_eq!(unknown("[log]\nfromat = 1"), ["log.fromat: unknown key; did you mean `log.format`?"]);
        assert_eq!(unknown("suspect_after = 1"), ["suspect_after: unknown key; did you mean `worker.suspect_after`?"]);
        assert_eq!(unknown("[workers]\nx = 1"), ["workers: unknown key; did you mean `worker`?"]);
        assert_eq!(
            unknown("[log.deep]\ncolour = 1\n['a b']\nx = 1"),
            ["\"a b\": unknown key", "log.deep: unknown key"]
        );
        assert_eq!(unknown("log = 'info'"), ["log: expected a table, found a string"]);
    }

    #[test]
    fn a_file_that_does_not_parse_is_refused_without_repeating_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.toml");
        for line in [
            "database_url = postgres://u:hunter2@host/db",
            "database_url = \"postgres://u:hunter2@host/db",
            "database_url = hunter2",
            "database_url = \"hunter2\" hunter2",
            "database_url = \"hun\\qter2 hunter2\"",
            "database_url = 'a'\ndatabase_url = 'hunter2'",
            "database_url 'hunter2'",
            "database_url = 12hunter2",
            "database_url = 2020-13-hunter2",
            "[database_url\n'hunter2' = 1",
        ] {
            std::fs::write(&path, format!("listen = 'x'\n{line}\n")).unwrap();
            let problem = read(Some(&path)).err().unwrap().to_string();
            assert!(problem.contains("line ") && !problem.contains("hunter2"), "{line}: {problem}");
        }
    }

    #[test]
    fn a_huge_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("huge.toml");
        std::fs::write(&path, vec![b'#'; usize::try_from(LARGEST_FILE).unwrap() + 1]).unwrap();
        assert!(read(Some(&path)).err().unwrap().to_string().contains("cannot be read"));
    }
}
