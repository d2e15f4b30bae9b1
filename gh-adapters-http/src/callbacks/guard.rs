//! Which destinations may be called at all.

use std::net::IpAddr;
use std::sync::Arc;

use url::{Host, Url};

use super::address_ranges::is_public;
use super::allow::CallbackAllow;

/// Keeps callbacks away from addresses that only this machine or its network should reach.
///
/// Public destinations are called over https; those on the allow-list also over http. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allow: Arc<CallbackAllow>,
}

/// Why a destination may not be called. Its text names no part of the URL but an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// Neither http nor https.
    #[error("only http and https urls may be called")]
    Scheme,
    /// Plain http to a destination that is not on the allow-list.
    #[error("plain http is for allowed destinations only")]
    NotSecured,
    /// A user name or password in the URL.
    #[error("urls must not carry a user name or password")]
    UserInfo,
    /// No host to call.
    #[error("the url names no host")]
    NoHost,
    /// An address that is neither public nor on the allow-list.
    #[error("the address {0} is neither public nor allowed")]
    Address(IpAddr),
}

/// What an address must be to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requirement {
    /// For https.
    PublicOrAllowed,
    /// For plain http.
    Allowed,
}

impl Guard {
    /// Guards all destinations but those of the list.
    #[must_use]
    pub fn new(allow: CallbackAllow) -> Self {
        Self { allow: Arc::new(allow) }
    }

    /// Whether a URL may be called, as far as the URL itself tells. Resolves no name: what a name stands for is vetted
    /// when it is called.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the reason.
    pub fn permits(&self, url: &Url) -> Result<(), Refused> {
        let requirement = match url.scheme() {
            "https" => Requirement::PublicOrAllowed,
            "http" => Requirement::Allowed,
            _ => return Err(Refused::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::UserInfo);
        }
        match url.host().ok_or(Refused::NoHost)? {
            // A name that is not listed may still stand for listed addresses, as `localhost` does.
            Host::Domain(name) => {
                let may_be_allowed = self.allow.has_name(name) || self.allow.has_networks();
                if requirement == Requirement::Allowed && !may_be_allowed {
                    return Err(Refused::NotSecured);
                }
                Ok(())
            }
            Host::Ipv4(address) => self.vet_address(IpAddr::V4(address), requirement),
            Host::Ipv6(address) => self.vet_address(IpAddr::V6(address), requirement),
        }
    }

    /// Whether what a host name resolved to may be called: one bad address spoils all, because it shows a name that
    /// points where it should not.
    pub(super) fn vet_name(
        &self,
        name: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
        requirement: Requirement,
    ) -> Result<(), Refused> {
        if self.allow.has_name(name) {
            return Ok(());
        }
        addresses.into_iter().try_for_each(|address| self.vet_address(address, requirement))
    }

    fn vet_address(&self, address: IpAddr, requirement: Requirement) -> Result<(), Refused> {
        if self.allow.has_address(address) {
            return Ok(());
        }
        match (is_public(address), requirement) {
            (true, Requirement::PublicOrAllowed) => Ok(()),
            (true, Requirement::Allowed) => Err(Refused::NotSecured),
            (false, _) => Err(Refused::Address(address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: &str) -> Guard {
        Guard::new(allow.parse().unwrap())
    }

    fn verdict(guard: &Guard, url: &str) -> Result<(), Refused> {
        guard.permits(&Url::parse(url).unwrap())
    }

    #[test]
    fn https_may_go_anywhere_public() {
        let guard = guard("");
        for url in [
            "https://example.com/hook?token=x",
            "https://example.com:8443/",
            "https://8.8.8.8/",
            "https://[2606:4700:4700::1111]/",
        ] {
            assert_eq!(verdict(&guard, url), Ok(()), "{url}");
        }
    }

    #[test]
    fn every_spelling_of_an_inner_address_is_refused() {
        let guard = guard("");
        for url in [
            "https://127.0.0.1/",
            "https://127.0.0.1./",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0x7f000001/",
            "https://017700000001/",
            "https://0/",
            "https://%31%32%37.0.0.1/",
            "https://１２７.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:7f00:1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://169.254.169.254/latest/meta-data/",
            "https://[fd00:ec2::254]/",
            "http://10.0.0.1/",
        ] {
            assert!(matches!(verdict(&guard, url), Err(Refused::Address(_))), "{url}");
        }
    }

    #[test]
    fn plain_http_is_for_allowed_destinations_only() {
        assert_eq!(verdict(&guard(""), "http://example.com/"), Err(Refused::NotSecured));
        assert_eq!(verdict(&guard("other.example"), "http://example.com/"), Err(Refused::NotSecured));
        assert_eq!(verdict(&guard("127.0.0.0/8"), "http://8.8.8.8/"), Err(Refused::NotSecured));
        assert_eq!(verdict(&guard("example.com"), "http://EXAMPLE.com./"), Ok(()));
        assert_eq!(verdict(&guard("127.0.0.0/8"), "http://127.0.0.1:9/"), Ok(()));
        assert_eq!(verdict(&guard("127.0.0.0/8"), "http://localhost:9/"), Ok(()));
        assert_eq!(verdict(&guard("8.8.8.8"), "http://8.8.8.8/"), Ok(()));
    }

    #[test]
    fn other_schemes_and_user_info_are_refused() {
        let guard = guard("example.com");
        assert_eq!(verdict(&guard, "ftp://example.com/"), Err(Refused::Scheme));
        assert_eq!(verdict(&guard, "file:///etc/passwd"), Err(Refused::Scheme));
        assert_eq!(verdict(&guard, "https://me@example.com/"), Err(Refused::UserInfo));
        assert_eq!(verdict(&guard, "https://:word@example.com/"), Err(Refused::UserInfo));
    }

    #[test]
    fn one_bad_address_spoils_a_name() {
        let addresses = |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let vet = |allow: &str, texts: &[&str], requirement| {
            guard(allow).vet_name("a.example", addresses(texts), requirement)
        };
        let https = Requirement::PublicOrAllowed;
        let http = Requirement::Allowed;

        assert_eq!(vet("", &["8.8.8.8", "2606:4700::1"], https), Ok(()));
        assert_eq!(vet("", &["8.8.8.8", "10.0.0.1"], https), Err(Refused::Address("10.0.0.1".parse().unwrap())));
        assert_eq!(vet("10.0.0.0/8", &["8.8.8.8", "10.0.0.1"], https), Ok(()));
        assert_eq!(vet("10.0.0.0/8", &["10.0.0.1"], http), Ok(()));
        assert_eq!(vet("10.0.0.0/8", &["10.0.0.1", "8.8.8.8"], http), Err(Refused::NotSecured));
        assert_eq!(vet("a.example", &["10.0.0.1"], http), Ok(()));
    }
}
