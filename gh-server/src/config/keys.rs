//! Lists of named keys. No message here repeats any part of what it refuses: it could be the key itself.

use secrecy::SecretString;
use toml::Value;

use super::suggest::nearest;
use super::values::{Invalid, Kind};

/// The client that a key without a name stands for.
pub(crate) const UNNAMED: &str = "default";
/// Most characters of a client's name.
const LONGEST_NAME: usize = 64;
/// Most characters of a key.
const LONGEST_KEY: usize = 512;
/// Most keys in one list.
const MOST_KEYS: usize = 1000;

/// A key and whom it stands for. Several keys may carry one name: that is how a key is rotated.
#[derive(Debug, Clone)]
pub(crate) struct NamedKey {
    /// The client's name, 1 to 64 letters, digits, `-`, `_` or `.`.
    pub(crate) name: String,
    /// The key as it is sent in a header.
    pub(crate) key: SecretString,
}

/// Reads `name:key` and `key`, separated by commas; in TOML also a list of these or of `{name, key}` tables.
pub(super) struct KeyList;

impl Kind for KeyList {
    type Value = Vec<NamedKey>;

    fn parse_text(&self, text: &str) -> Result<Vec<NamedKey>, Invalid> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let entries = text.split(',').enumerate();
        bounded(entries.map(|(index, entry)| from_entry(entry).map_err(|e| e.within(&format!("[{index}]")))))
    }

    fn parse_toml(&self, value: &Value) -> Result<Vec<NamedKey>, Invalid> {
        match value {
            Value::String(text) => self.parse_text(text),
            Value::Array(items) => bounded(items.iter().enumerate().map(|(index, item)| {
                let key = match item {
                    Value::String(entry) => from_entry(entry),
                    Value::Table(table) => from_table(table),
                    other => Err(Invalid::wrong_type("a string or a table with `name` and `key`", other)),
                };
                key.map_err(|e| e.within(&format!("[{index}]")))
            })),
            other => Err(Invalid::wrong_type("a list of strings or of tables with `name` and `key`", other)),
        }
    }
}

fn bounded(keys: impl Iterator<Item = Result<NamedKey, Invalid>>) -> Result<Vec<NamedKey>, Invalid> {
    let keys = keys.take(MOST_KEYS + 1).collect::<Result<Vec<_>, _>>()?;
    if keys.len() > MOST_KEYS {
        return Err(Invalid::new(format!("more than {MOST_KEYS} keys")));
    }
    Ok(keys)
}

fn from_entry(entry: &str) -> Result<NamedKey, Invalid> {
    let (name, key) = entry.trim().split_once(':').unwrap_or((UNNAMED, entry.trim()));
    Ok(NamedKey { name: client_name(name)?, key: header_key(key)? })
}

fn from_table(table: &toml::Table) -> Result<NamedKey, Invalid> {
    let text = |field: &str| match table.get(field) {
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => Err(Invalid::wrong_type("a string", other).within(&format!(".{field}"))),
        None => Ok(None),
    };
    if let Some(unknown) = table.keys().find(|field| !matches!(field.as_str(), "name" | "key")) {
        return Err(match nearest(unknown, ["name", "key"]) {
            Some(meant) => Invalid::new(format!("unknown key; did you mean `{meant}`?")).within(&format!(".{unknown}")),
            // A field this far off could be a key that stands on the wrong side of its `=`.
            None => Invalid::new("has an unknown key; only `name` and `key` are known"),
        });
    }
    let key = text("key")?.ok_or_else(|| Invalid::new("`key` is missing"))?;
    Ok(NamedKey { name: client_name(text("name")?.unwrap_or(UNNAMED))?, key: header_key(key)? })
}

fn client_name(name: &str) -> Result<String, Invalid> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(allowed) {
        Ok(name.to_owned())
    } else {
        Err(Invalid::new(format!("a name is 1 to {LONGEST_NAME} letters, digits, `-`, `_` or `.`")))
    }
}

/// A key that can stand in a header: visible ASCII, no commas (they separate keys in the environment).
pub(super) fn header_key(key: &str) -> Result<SecretString, Invalid> {
    if key.is_empty() {
        return Err(Invalid::new("the key is empty"));
    }
    if key.len() > LONGEST_KEY {
        return Err(Invalid::new(format!("the key is longer than {LONGEST_KEY} characters")));
    }
    if !key.chars().all(|c| c.is_ascii_graphic() && c != ',') {
        return Err(Invalid::new("the key has a space, a comma or a character outside of visible ASCII"));
    }
    Ok(SecretString::from(key))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn pairs(keys: &[NamedKey]) -> Vec<(&str, &str)> {
        keys.iter().map(|key| (key.name.as_str(), key.key.expose_secret())).collect()
    }

    fn parse_toml(text: &str) -> Result<Vec<NamedKey>, Invalid> {
        KeyList.parse_toml(&text.parse::<toml::Table>().unwrap()["keys"])
    }

    #[test]
    fn named_and_unnamed_keys_are_read_parse_text() {
        let keys = KeyList.parse_text("valet:one, valet:two,three,ops.team:a:b").unwrap();
        assert_eq!(pairs(&keys), [("valet", "one"), ("valet", "two"), ("default", "three"), ("ops.team", "a:b")]);
        assert!(KeyList.parse_text("").unwrap().is_empty());
    }

    #[test]
    fn the_file_may_hold_strings_and_tables() {
        let keys =
            parse_toml(r#"keys = ["valet:one", "two", { name = "ops", key = "three" }, { key = "four" }]"#).unwrap();
        assert_eq!(pairs(&keys), [("valet", "one"), ("default", "two"), ("ops", "three"), ("default", "four")]);
        assert_eq!(pairs(&parse_toml(r#"keys = "a:one,two""#).unwrap()), [("a", "one"), ("default", "two")]);
    }

    #[test]
    fn a_refused_key_is_located_and_not_repeated() {
        for (text, at) in [
            (r#"keys = ["fine", "bad name:hunter2"]"#, "[1]"),
            (r#"keys = ["hunter2 hunter2"]"#, "[0]"),
            (r#"keys = "fine,,""#, "[1]"),
            (r#"keys = [{ name = "a", kye = "hunter2" }]"#, "[0].kye"),
            (r#"keys = [{ hunter2 = "a" }]"#, "[0]"),
            (r#"keys = [{ name = 5, key = "hunter2" }]"#, "[0].name"),
            (r#"keys = [{ name = "a" }]"#, "[0]"),
            (r#"keys = { hunter2 = "a" }"#, ""),
            (r#"keys = ["hünter2"]"#, "[0]"),
        ] {
            let refusal = parse_toml(text).unwrap_err();
            assert_eq!(refusal.at, at, "{text}");
            assert!(!refusal.message.contains("nter2"), "{text}: {refusal}");
        }
        let too_long = "x".repeat(LONGEST_KEY + 1);
        assert!(KeyList.parse_text(&too_long).is_err());
        assert!(KeyList.parse_text(&vec!["key"; MOST_KEYS + 1].join(",")).is_err());
    }

    #[test]
    fn debug_output_hides_the_key() {
        assert!(!format!("{:?}", KeyList.parse_text("valet:hunter2").unwrap()).contains("hunter2"));
    }
}
