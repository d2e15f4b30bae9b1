//! From what the HTTP client says to the classes of the port.

use std::error::Error;
use std::io;

use gh_core::ports::callback_sender::SendError;

use super::guard::Refused;

/// The class of a failed exchange, by the types of the errors in it, never by their text.
pub(super) fn classify(error: &reqwest::Error) -> SendError {
    if caused_by::<Refused>(error) {
        SendError::BlockedAddress
    } else if caused_by::<rustls::Error>(error) {
        SendError::Tls
    } else if error.is_dns() {
        SendError::Dns
    } else if error.is_connect() {
        // Also when the time for connecting was over: no connection came about.
        SendError::Connect
    } else if error.is_timeout() {
        SendError::Timeout
    } else {
        SendError::Internal
    }
}

fn caused_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<E>() {
            return true;
        }
        // An I/O error names as its source the source of what it wraps, and so hides the wrapped error itself.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_cause_is_found_behind_wrappers_that_hide_it() {
        let hidden = Outer(io::Error::other(Outer(io::Error::other(Refused::Scheme))));
        assert!(caused_by::<Refused>(&hidden));
        assert!(!caused_by::<rustls::Error>(&hidden));
        assert!(!caused_by::<Refused>(&Outer(io::Error::from(io::ErrorKind::TimedOut))));
    }
}
