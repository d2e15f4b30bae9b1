//! The operator's list of destinations that are let through although they are not public, or not https.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use url::Host;

/// Addresses, networks and host names that callbacks may reach anyway, also over plain http.
///
/// As text: entries between commas, such as `127.0.0.1, ::1, 10.1.0.0/16, receiver.internal`. A host name stands for
/// itself only, not for names below it, and is trusted with whatever address it resolves to. The default is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallbackAllow {
    networks: BTreeSet<IpNet>,
    names: BTreeSet<String>,
}

/// Why a text is no [`CallbackAllow`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowError {
    /// An entry with a slash that is no network.
    #[error("'{0}' is not a network such as 10.0.0.0/8 (entries have no scheme and no path)")]
    Network(String),
    /// An entry that is neither an address nor a host name.
    #[error("'{0}' is neither an address, a network nor a host name (entries have no port and no wildcard)")]
    Host(String),
}

impl CallbackAllow {
    /// A list with this machine's own addresses, IPv4 and IPv6.
    #[must_use]
    pub fn loopback() -> Self {
        Self {
            networks: BTreeSet::from([
                IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
                IpNet::new_assert(IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
            ]),
            names: BTreeSet::new(),
        }
    }

    /// This list and another together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.networks.extend(other.networks);
        self.names.extend(other.names);
        self
    }

    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        let canonical = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&canonical) || network.contains(&address))
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.names.contains(plain_name(name).as_str())
    }

    pub(super) fn has_networks(&self) -> bool {
        !self.networks.is_empty()
    }

    fn add(&mut self, entry: &str) -> Result<(), AllowError> {
        if entry.contains('/') {
            let network: IpNet = entry.parse().map_err(|_| AllowError::Network(entry.to_owned()))?;
            self.networks.insert(network.trunc());
            return Ok(());
        }
        if let Ok(address) = entry.parse::<IpAddr>() {
            self.networks.insert(IpNet::from(address.to_canonical()));
            return Ok(());
        }
        let not_a_host = || AllowError::Host(entry.to_owned());
        match Host::parse(entry).map_err(|_| not_a_host())? {
            Host::Ipv4(address) => self.networks.insert(IpNet::from(IpAddr::V4(address))),
            Host::Ipv6(address) => self.networks.insert(IpNet::from(IpAddr::V6(address).to_canonical())),
            Host::Domain(name) => {
                let of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                if !name.chars().all(of_a_name) {
                    return Err(not_a_host());
                }
                self.names.insert(plain_name(&name))
            }
        };
        Ok(())
    }
}

impl FromStr for CallbackAllow {
    type Err = AllowError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut list = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            list.add(entry)?;
        }
        Ok(list)
    }
}

/// The spelling by which names are compared: lower case, without the dot of an absolute name.
fn plain_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_list_holds_addresses_networks_and_exact_host_names() {
        let list: CallbackAllow = " 127.0.0.1, ::1,[fd00::7] ,10.1.2.3/16,, Receiver.Internal. ".parse().unwrap();

        assert!(list.has_address(address("127.0.0.1")));
        assert!(list.has_address(address("::ffff:127.0.0.1")));
        assert!(!list.has_address(address("127.0.0.2")));
        assert!(list.has_address(address("::1")));
        assert!(list.has_address(address("fd00::7")));
        assert!(list.has_address(address("10.1.255.255")));
        assert!(!list.has_address(address("10.2.0.0")));
        assert!(list.has_name("receiver.internal"));
        assert!(list.has_name("RECEIVER.internal."));
        assert!(!list.has_name("other.receiver.internal"));
        assert!(!list.has_name("internal"));
    }

    #[test]
    fn an_empty_text_allows_nothing() {
        assert_eq!(" , ".parse(), Ok(CallbackAllow::default()));
        assert!(!CallbackAllow::default().has_address(address("127.0.0.1")));
    }

    #[test]
    fn entries_that_mean_nothing_are_named_in_the_error() {
        for entry in ["10.0.0.0/33", "http://receiver", "receiver/path", "10.0.0.0/"] {
            let error = format!("::1,{entry}").parse::<CallbackAllow>().unwrap_err();
            assert_eq!(error, AllowError::Network(entry.to_owned()));
            assert!(error.to_string().contains(entry));
        }
        for entry in ["receiver:8080", "*.internal", "two words", "1.2.3.4.5", "*"] {
            let error = format!("::1,{entry}").parse::<CallbackAllow>().unwrap_err();
            assert_eq!(error, AllowError::Host(entry.to_owned()));
            assert!(error.to_string().contains(entry));
        }
    }
}
