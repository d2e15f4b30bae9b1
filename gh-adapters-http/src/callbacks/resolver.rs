//! Name resolution that hands out vetted addresses only.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::guard::{Guard, Requirement};

/// Resolves names as the system does and lets through what the guard permits.
///
/// The client dials exactly the addresses given here, so a name that changes between look and use gains nothing.
#[derive(Debug)]
pub(super) struct VettingResolver {
    pub(super) guard: Guard,
    pub(super) requirement: Requirement,
    pub(super) limit: Duration,
}

/// Why a name gave no addresses.
#[derive(Debug, thiserror::Error)]
enum ResolveError {
    #[error("the name was not resolved within its time limit")]
    TimedOut,
    #[error("the name has no address")]
    NoAddress,
}

impl Resolve for VettingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.guard.clone();
        let requirement = self.requirement;
        let limit = self.limit;
        Box::pin(async move {
            // Port 0 means: the port of the URL.
            let found = tokio::time::timeout(limit, tokio::net::lookup_host((name.as_str(), 0)))
                .await
                .map_err(|_| ResolveError::TimedOut)??;
            let addresses: Vec<SocketAddr> = found.collect();
            if addresses.is_empty() {
                return Err(ResolveError::NoAddress.into());
            }
            guard.vet_name(name.as_str(), addresses.iter().map(SocketAddr::ip), requirement)?;
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}
