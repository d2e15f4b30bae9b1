//! The part of a receiver's answer that is kept for a person to read.

use url::Url;

/// Parameter values shorter than this guard nothing, and blanking them everywhere would make the text unreadable.
const SHORTEST_SECRET: usize = 4;

const BLANK: &str = "[redacted]";

/// Texts that receivers tend to echo and that must not be kept: the query of the URL, its parts, and the service key.
#[derive(Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    pub(super) fn of(url: &Url, service_key: Option<&str>) -> Self {
        let mut secrets: Vec<String> = service_key.map(str::to_owned).into_iter().collect();
        if let Some(query) = url.query().filter(|query| !query.is_empty()) {
            secrets.push(query.to_owned());
            for pair in query.split('&') {
                secrets.push(pair.to_owned());
                if let Some((_, value)) = pair.split_once('=') {
                    secrets.push(value.to_owned());
                }
            }
            for (name, value) in url.query_pairs() {
                secrets.push(format!("{name}={value}"));
                secrets.push(value.into_owned());
            }
        }
        secrets.retain(|secret| secret.chars().count() >= SHORTEST_SECRET);
        // The longest first: blanking a part would leave the rest of the whole unrecognised.
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Self(secrets)
    }

    fn blank(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), BLANK) } else { text }
        })
    }
}

/// At most `limit` characters from the beginning of a body: no control characters, no secrets, line breaks and tabs
/// as spaces, and a replacement character for what is not UTF-8.
pub(super) fn excerpt(body: &[u8], limit: usize, secrets: &Secrets) -> String {
    let readable: String = String::from_utf8_lossy(body)
        .chars()
        .map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c })
        .filter(|c| !c.is_control())
        .collect();
    secrets.blank(readable).chars().take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_readable_text() {
        let none = Secrets::default();
        assert_eq!(excerpt(b"all\r\n\tfine\0\x1b[31m", 100, &none), "all  fine[31m");
        assert_eq!(excerpt(b"a\xff\xfeb", 100, &none), "a\u{fffd}\u{fffd}b");
        assert_eq!(excerpt("é".repeat(2_000).as_bytes(), 1_000, &none), "é".repeat(1_000));
    }

    #[test]
    fn what_the_receiver_echoes_of_the_url_or_the_key_is_blanked() {
        let url = Url::parse("https://example.com/hook?token=s3cr%2Bet&v=1&flag").unwrap();
        let secrets = Secrets::of(&url, Some("the-key"));
        let kept = |body: &str| excerpt(body.as_bytes(), 1_000, &secrets);

        assert_eq!(kept("Cannot POST /hook?token=s3cr%2Bet&v=1&flag now"), "Cannot POST /hook?[redacted] now");
        assert_eq!(kept("bad s3cr+et"), "bad [redacted]");
        assert_eq!(kept("bad s3cr%2Bet"), "bad [redacted]");
        assert_eq!(kept("bad s3c\0r+et"), "bad [redacted]");
        assert_eq!(kept("no user has the-key"), "no user has [redacted]");
        assert_eq!(kept("1 error"), "1 error");
    }

    #[test]
    fn a_secret_across_the_end_of_the_excerpt_is_not_kept_in_part() {
        let url = Url::parse("https://example.com/?token=abcdefghijkl").unwrap();
        assert_eq!(excerpt(b"0123456abcdefghijkl", 10, &Secrets::of(&url, None)), "0123456[re");
    }
}
