//! Settings about where callbacks may go and what they carry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use secrecy::SecretString;
use toml::Value;
use url::{Host, Url};

use super::keys::header_key;
use super::values::{Invalid, Kind, Show};

/// Most entries of a list or table here.
const MOST_ENTRIES: usize = 1000;

/// What the address guard lets through although it would refuse it otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AllowedAddressees {
    /// Networks; a single address is a network of one.
    pub(crate) networks: Vec<IpNet>,
    /// Host names in lower case (international ones in their ASCII form), matched whole.
    pub(crate) hosts: Vec<String>,
}

/// Reads addresses, CIDRs and host names, separated by commas or as a TOML list.
pub(super) struct AllowList;

impl AllowList {
    fn collect<'a>(entries: impl Iterator<Item = (usize, &'a str)>) -> Result<AllowedAddressees, Invalid> {
        let mut allowed = AllowedAddressees::default();
        for (index, entry) in entries {
            if index >= MOST_ENTRIES {
                return Err(Invalid::new(format!("more than {MOST_ENTRIES} entries")));
            }
            match addressee(entry.trim()).map_err(|e| e.within(&format!("[{index}]")))? {
                Addressee::Network(network) => allowed.networks.push(network),
                Addressee::Host(host) => allowed.hosts.push(host),
            }
        }
        Ok(allowed)
    }
}

enum Addressee {
    Network(IpNet),
    Host(String),
}

fn addressee(entry: &str) -> Result<Addressee, Invalid> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Ok(Addressee::Network(IpNet::from(address)));
    }
    if let Ok(network) = entry.parse::<IpNet>() {
        return if network.addr() == network.network() {
            Ok(Addressee::Network(network))
        } else {
            Err(Invalid::new(format!("{entry:?} names a host inside its network; did you mean `{}`?", network.trunc())))
        };
    }
    let is_name = !entry.is_empty() && entry.len() <= 253 && !entry.contains(['/', ':', '@', '?', '#', '*']);
    match Host::parse(entry) {
        Ok(Host::Domain(name)) if is_name => Ok(Addressee::Host(name)),
        // Not repeated: a URL may carry a secret.
        _ => Err(Invalid::new("not an address, a CIDR such as `10.0.0.0/8`, or a host name (no scheme, port or path)")),
    }
}

impl Kind for AllowList {
    type Value = AllowedAddressees;

    fn parse_text(&self, text: &str) -> Result<AllowedAddressees, Invalid> {
        if text.is_empty() {
            return Ok(AllowedAddressees::default());
        }
        Self::collect(text.split(',').enumerate())
    }

    fn parse_toml(&self, value: &Value) -> Result<AllowedAddressees, Invalid> {
        match value {
            Value::String(text) => self.parse_text(text),
            Value::Array(items) => {
                let entries = items.iter().enumerate().map(|(index, item)| {
                    item.as_str()
                        .map(|entry| (index, entry))
                        .ok_or_else(|| Invalid::wrong_type("a string", item).within(&format!("[{index}]")))
                });
                Self::collect(entries.collect::<Result<Vec<_>, _>>()?.into_iter())
            }
            other => Err(Invalid::wrong_type("a list of strings", other)),
        }
    }
}

impl Show for AllowList {
    fn show(&self, value: &AllowedAddressees) -> Option<Value> {
        let networks = value.networks.iter().map(|network| match network.prefix_len() {
            whole if whole == network.max_prefix_len() => network.addr().to_string(),
            _ => network.to_string(),
        });
        Some(Value::Array(networks.chain(value.hosts.iter().cloned()).map(Value::String).collect()))
    }
}

/// The `X-GH-Service-Key` for each destination of callbacks.
#[derive(Debug, Clone, Default)]
pub(crate) struct DestinationKeys {
    /// For every destination that has no key of its own.
    pub(crate) any: Option<SecretString>,
    /// By destination, written `scheme://host:port` in lower case and always with its port.
    pub(crate) by_destination: BTreeMap<String, SecretString>,
}

/// Reads one key for all destinations, or a TOML table of keys by `scheme://host:port` or `*`.
pub(super) struct DestinationKeyList;

impl Kind for DestinationKeyList {
    type Value = DestinationKeys;

    fn parse_text(&self, text: &str) -> Result<DestinationKeys, Invalid> {
        let any = if text.is_empty() { None } else { Some(header_key(text)?) };
        Ok(DestinationKeys { any, by_destination: BTreeMap::new() })
    }

    fn parse_toml(&self, value: &Value) -> Result<DestinationKeys, Invalid> {
        let table = match value {
            Value::String(text) => return self.parse_text(text),
            Value::Table(table) if table.len() > MOST_ENTRIES => {
                return Err(Invalid::new(format!("more than {MOST_ENTRIES} entries")));
            }
            Value::Table(table) => table,
            other => {
                return Err(Invalid::wrong_type("a string or a table of keys by destination", other));
            }
        };
        let mut keys = DestinationKeys::default();
        for (destination, key) in table {
            let key = key.as_str().ok_or_else(|| Invalid::wrong_type("a string as each key", key))?;
            let key = header_key(key)?;
            if destination == "*" {
                keys.any = Some(key);
            } else if keys.by_destination.insert(normal_destination(destination)?, key).is_some() {
                return Err(Invalid::new("one destination is named twice"));
            }
        }
        Ok(keys)
    }
}

/// The refused text is not repeated: it may be a key that stands on the wrong side of its `=`.
fn normal_destination(text: &str) -> Result<String, Invalid> {
    let refused =
        || Invalid::new("each destination is `*` or a URL's `scheme://host:port` without user, path or query");
    let url = Url::parse(text).map_err(|_| refused())?;
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    match (url.scheme(), url.host_str(), url.port_or_known_default()) {
        (scheme @ ("http" | "https"), Some(host), Some(port)) if bare => Ok(format!("{scheme}://{host}:{port}")),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn keys(text: &str) -> Result<DestinationKeys, Invalid> {
        DestinationKeyList.parse_toml(&text.parse::<toml::Table>().unwrap()["keys"])
    }

    #[test]
    fn addresses_networks_and_host_names_are_told_apart() {
        let allowed = AllowList.parse_text("127.0.0.1, 10.0.0.0/8,::1,fd00::/8,Valet.Internal,localhost").unwrap();
        assert_eq!(
            allowed.networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.1/32", "10.0.0.0/8", "::1/128", "fd00::/8"]
        );
        assert_eq!(allowed.hosts, ["valet.internal", "localhost"]);
        let shown = AllowList.show(&allowed).unwrap();
        assert_eq!(AllowList.parse_toml(&shown).unwrap(), allowed);
    }

    #[test]
    fn what_is_no_addressee_is_refused() {
        for entry in ["10.0.0.0/33", "10.0.0.5/8", "http://host", "host:80", "*.host", "a b", "1.2.3", "user@host"] {
            let refusal = AllowList.parse_text(&format!("localhost,{entry}")).unwrap_err();
            assert_eq!(refusal.at, "[1]", "{entry}");
        }
        assert!(AllowList.parse_text("10.0.0.5/8").unwrap_err().message.contains("`10.0.0.0/8`"));
        assert!(AllowList.parse_text("localhost,,").is_err());
    }

    #[test]
    fn destinations_are_brought_to_one_form() {
        let keys =
            keys(r#"keys = { "*" = "any-key", "https://VALET.example" = "one-key", "http://h:8080" = "two-key" }"#)
                .unwrap();
        assert_eq!(keys.any.unwrap().expose_secret(), "any-key");
        let by: Vec<_> = keys.by_destination.iter().map(|(at, key)| (at.as_str(), key.expose_secret())).collect();
        assert_eq!(by, [("http://h:8080", "two-key"), ("https://valet.example:443", "one-key")]);
    }

    #[test]
    fn a_refused_destination_or_key_is_not_repeated() {
        for text in [
            r#"keys = { "hunter2" = "https://valet.example" }"#,
            r#"keys = { "https://user:hunter2@valet.example" = "key" }"#,
            r#"keys = { "https://valet.example/hunter2" = "key" }"#,
            r#"keys = { "*" = "hunter2 with spaces" }"#,
            r#"keys = { "*" = ["hunter2"] }"#,
            r#"keys = { "https://a" = "hunter2", "https://a:443" = "hunter2" }"#,
            r#"keys = ["hunter2"]"#,
        ] {
            assert!(!keys(text).unwrap_err().message.contains("hunter2"), "{text}");
        }
    }
}
