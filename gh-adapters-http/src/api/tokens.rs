//! The tokens of workers: who they are, sealed by a secret that all servers on one store share.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gh_core::domain::commands::Credential;
use gh_core::domain::ids::{Generation, Name};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;

const PREFIX: &str = "ghw_";

/// Makes and reads tokens. A token holds on every server on the same store, and across restarts: nothing is stored.
#[derive(Debug)]
pub(super) struct TokenSeal {
    key: SecretBox<[u8; 32]>,
}

impl TokenSeal {
    /// Seals with the store's secret.
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key: SecretBox::new(Box::new(key)) }
    }

    /// The token that a worker's process presents.
    pub(super) fn seal(&self, credential: &Credential) -> String {
        let Credential { worker_id, generation } = credential;
        let name = URL_SAFE_NO_PAD.encode(worker_id.as_str());
        let tag = URL_SAFE_NO_PAD.encode(self.tag(worker_id, *generation).finalize().into_bytes());
        format!("{PREFIX}{name}.{generation}.{tag}")
    }

    /// Whose token it is; none for one that we did not make.
    pub(super) fn open(&self, token: &str) -> Option<Credential> {
        let mut parts = token.strip_prefix(PREFIX)?.split('.');
        let (name, generation, tag) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let name = String::from_utf8(URL_SAFE_NO_PAD.decode(name).ok()?).ok()?;
        let worker_id = Name::parse(&name).ok()?;
        let generation = Generation(generation.parse().ok()?);
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        self.tag(&worker_id, generation).verify_slice(&tag).ok()?;
        Some(Credential { worker_id, generation })
    }

    fn tag(&self, worker_id: &Name, generation: Generation) -> Hmac<Sha256> {
        let mut tag = Hmac::<Sha256>::new_from_slice(self.key.expose_secret())
            .unwrap_or_else(|_| unreachable!("any length is a key"));
        tag.update(b"ghosthands worker token v1");
        tag.update(&generation.0.to_be_bytes());
        // The name comes last, so that no two pairs give the same bytes.
        tag.update(worker_id.as_str().as_bytes());
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(name: &str, generation: u32) -> Credential {
        Credential { worker_id: Name::parse(name).unwrap(), generation: Generation(generation) }
    }

    #[test]
    fn a_token_opens_with_the_key_that_sealed_it_and_with_no_other() {
        let seal = TokenSeal::new([7; 32]);
        for credential in [credential("worker-a", 1), credential("été 1.2", u32::MAX)] {
            let token = seal.seal(&credential);
            assert_eq!(seal.open(&token), Some(credential));
            assert_eq!(TokenSeal::new([8; 32]).open(&token), None);
        }
    }

    #[test]
    fn a_token_with_another_name_or_generation_is_not_ours() {
        let seal = TokenSeal::new([7; 32]);
        let token = seal.seal(&credential("worker-a", 1));
        let tag = token.rsplit('.').next().unwrap();
        let other = URL_SAFE_NO_PAD.encode("worker-b");
        let own = URL_SAFE_NO_PAD.encode("worker-a");
        for forged in [
            format!("ghw_{other}.1.{tag}"),
            format!("ghw_{own}.2.{tag}"),
            format!("ghw_{own}.1."),
            format!("{token}.x"),
            token.replace("ghw_", ""),
            String::new(),
        ] {
            assert_eq!(seal.open(&forged), None, "{forged}");
        }
    }
}
