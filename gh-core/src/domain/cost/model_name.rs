//! Different spellings of one model's name, without ever guessing at another model.

use std::borrow::Cow;

/// The profiles of Bedrock that a model may be served through; each has prices of its own.
const BEDROCK_PLACES: [&str; 7] = ["us", "eu", "apac", "jp", "au", "global", "us-gov"];

/// The form in which spellings of one model are equal: lower case, without the provider's prefix, without `models/`,
/// on Bedrock without the vendor and the revision `v1`. The place of a Bedrock profile stays, as it has its own price.
pub(super) fn normal_form(provider: &str, model: &str) -> String {
    let lower = model.to_lowercase();
    let mut name = lower.as_str();
    while let Some(rest) =
        name.strip_prefix(provider).and_then(|rest| rest.strip_prefix('/')).or_else(|| name.strip_prefix("models/"))
    {
        name = rest;
    }
    if provider != "bedrock" {
        return name.to_owned();
    }
    let name = without_vendor(name);
    match without_revision(&name) {
        Some(shorter) => shorter.to_owned(),
        None => name.into_owned(),
    }
}

/// The name without the version that Vertex AI writes behind an `@`, when that is a date.
pub(super) fn without_at_date(name: &str) -> Option<&str> {
    let (name, date) = name.rsplit_once('@')?;
    (!name.is_empty() && is_date(date)).then_some(name)
}

/// The name without one date (`-20250514` or `-2025-05-14`) at its end.
pub(super) fn without_date(name: &str) -> Option<&str> {
    ["-YYYYMMDD".len(), "-YYYY-MM-DD".len()]
        .into_iter()
        .filter_map(|length| name.split_at_checked(name.len().checked_sub(length)?))
        .find(|(name, date)| !name.is_empty() && date.strip_prefix('-').is_some_and(is_date))
        .map(|(name, _)| name)
}

fn without_vendor(name: &str) -> Cow<'_, str> {
    const VENDOR: &str = "anthropic.";
    if let Some(rest) = name.strip_prefix(VENDOR) {
        return rest.into();
    }
    match name.split_once('.') {
        Some((place, rest)) if BEDROCK_PLACES.contains(&place) => match rest.strip_prefix(VENDOR) {
            Some(rest) => format!("{place}.{rest}").into(),
            None => name.into(),
        },
        _ => name.into(),
    }
}

fn without_revision(name: &str) -> Option<&str> {
    let shorter = name.strip_suffix("-v1:0").or_else(|| name.strip_suffix("-v1"))?;
    // The first models are told apart by this suffix alone (`claude-v1`, `claude-instant-v1`).
    shorter.contains(|letter: char| letter.is_ascii_digit()).then_some(shorter)
}

fn is_date(text: &str) -> bool {
    let digits = match text.as_bytes() {
        [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] => [*y1, *y2, *y3, *y4, *m1, *m2, *d1, *d2],
        compact => match <[u8; 8]>::try_from(compact) {
            Ok(digits) => digits,
            Err(_) => return false,
        },
    };
    let number = |digits: &[u8]| digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    digits.iter().all(u8::is_ascii_digit)
        && (1990..2100).contains(&number(&digits[..4]))
        && (1..=12).contains(&number(&digits[4..6]))
        && (1..=31).contains(&number(&digits[6..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_model_are_equal() {
        for (provider, model, normal) in [
            ("anthropic", "Claude-Haiku-4-5", "claude-haiku-4-5"),
            ("anthropic", "anthropic/claude-haiku-4-5", "claude-haiku-4-5"),
            ("gemini", "gemini/models/gemini-2.5-pro", "gemini-2.5-pro"),
            ("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0", "us.claude-haiku-4-5-20251001"),
            ("bedrock", "bedrock/anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
            ("bedrock", "anthropic.claude-v1", "claude-v1"),
            ("bedrock", "anthropic.claude-instant-v1", "claude-instant-v1"),
            ("bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet-20241022-v2:0"),
            ("anthropic", "openrouter/claude-haiku-4-5", "openrouter/claude-haiku-4-5"),
            ("anthropic", "claude-x-v1:0", "claude-x-v1:0"),
        ] {
            assert_eq!(normal_form(provider, model), normal, "{model}");
        }
    }

    #[test]
    fn only_dates_are_taken_for_dates() {
        assert_eq!(without_date("claude-sonnet-4-5-20250929"), Some("claude-sonnet-4-5"));
        assert_eq!(without_date("gpt-4o-2024-05-13"), Some("gpt-4o"));
        for name in ["gpt-4-0613", "model-20251301", "model-12345678", "-20250929", "claude-sonnet-4-5", "é-2025092"] {
            assert_eq!(without_date(name), None, "{name}");
        }
        assert_eq!(without_at_date("claude-opus-4-1@20250805"), Some("claude-opus-4-1"));
        assert_eq!(without_at_date("claude-opus-4-6@default"), None);
    }
}
