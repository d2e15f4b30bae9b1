//! TLS for everything this crate calls: one place decides on cryptography and trust.

use std::sync::{Arc, Once};

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// Why no HTTP client could be prepared.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The cryptography in use offers none of the protocol versions this crate speaks.
    #[error("no usable tls protocol version")]
    ProtocolVersions(#[source] rustls::Error),
}

/// Begins a reqwest client that secures connections with rustls and ring and trusts the certificates of the system.
///
/// Nothing process-wide is touched, so programs that embed this crate keep their own choice of cryptography. On a
/// system without any root certificate the client still speaks plain HTTP; every HTTPS server is then untrusted, which
/// the log says once. Reads the certificates from disk: call it once per client, not per request.
///
/// # Errors
///
/// [`TlsError`] when the TLS library is unusable.
pub fn client_builder() -> Result<reqwest::ClientBuilder, TlsError> {
    builder_trusting(system_roots())
}

fn builder_trusting(roots: RootCertStore) -> Result<reqwest::ClientBuilder, TlsError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::ProtocolVersions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(reqwest::Client::builder().tls_backend_preconfigured(config))
}

fn system_roots() -> RootCertStore {
    static WARN_ONCE: Once = Once::new();

    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Stores of real systems hold certificates rustls cannot read; one of them must not cost the others.
    let (usable, unusable) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        WARN_ONCE.call_once(|| {
            tracing::warn!(
                unusable,
                errors = ?found.errors,
                "the system has no usable root certificate: no https server can be trusted"
            );
        });
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_root_certificates_plain_http_still_works() {
        let receiver = wiremock::MockServer::start().await;
        wiremock::Mock::given(wiremock::matchers::any())
            .respond_with(wiremock::ResponseTemplate::new(204))
            .mount(&receiver)
            .await;
        let client = builder_trusting(RootCertStore::empty()).unwrap().no_proxy().build().unwrap();

        let answer = client.get(receiver.uri()).send().await.unwrap();

        assert_eq!(answer.status().as_u16(), 204);
    }

    #[test]
    fn a_client_of_the_systems_trust_is_built_without_a_process_wide_provider() {
        assert!(client_builder().unwrap().build().is_ok());
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    }
}
