//! JSON texts whose exact form `jsonb` does not keep, or cannot hold at all.
//!
//! Clients read the metadata of events as `jsonb`, which knows values and not texts: it writes every number out
//! (`1e400` with four hundred zeros), drops the sign of a negative zero, and refuses U+0000 and halves of surrogate
//! pairs. So where a text has something of the kind, the exact text is kept beside.

use std::borrow::Cow;

/// The greatest exponent that is written out as a number.
const MAX_EXPONENT: u32 = 400;

/// What is stored of a JSON text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored<'t> {
    /// What `jsonb` gets: the text itself, but for what it cannot hold.
    pub(crate) jsonb: Cow<'t, str>,
    /// The exact text, where `jsonb` does not give it back.
    pub(crate) exact: Option<&'t str>,
}

impl<'t> Stored<'t> {
    /// Numbers beyond the greatest exponent become texts, and characters that PostgreSQL does not have become U+FFFD.
    pub(crate) fn of(text: &'t str) -> Self {
        let mut replaced: Vec<(usize, usize, String)> = Vec::new();
        let mut inexact = false;
        let bytes = text.as_bytes();
        let mut at = 0;
        let mut in_string = false;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => in_string = !in_string,
                b'\\' if in_string => {
                    let (length, fits) = escape(&bytes[at..]);
                    if !fits {
                        replaced.push((at, at + length, "\\ufffd".into()));
                    }
                    at += length;
                    continue;
                }
                b'-' | b'0'..=b'9' if !in_string => {
                    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                    let length = bytes[at..].iter().take_while(|byte| is_part(byte)).count();
                    let number = &text[at..at + length];
                    inexact |= number.contains(['e', 'E']) || number.starts_with("-0");
                    if exponent(number) > MAX_EXPONENT {
                        replaced.push((at, at + length, format!("\"{number}\"")));
                    }
                    at += length;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        let exact = (inexact || !replaced.is_empty()).then_some(text);
        Self { jsonb: replace(text, &replaced), exact }
    }
}

/// How long an escape is, and whether PostgreSQL has its character. A pair of surrogates is one escape.
fn escape(bytes: &[u8]) -> (usize, bool) {
    let unit = |at: usize| -> Option<u32> {
        let digits = bytes.get(at..at + 6).filter(|unit| unit.starts_with(b"\\u"))?;
        u32::from_str_radix(std::str::from_utf8(&digits[2..]).ok()?, 16).ok()
    };
    match (unit(0), unit(6)) {
        (None, _) => (2, true),
        (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => (12, true),
        (Some(0 | 0xD800..=0xDFFF), _) => (6, false),
        (Some(_), _) => (6, true),
    }
}

/// The exponent of a number without its sign; 0 where there is none.
fn exponent(number: &str) -> u32 {
    let digits = number.split_once(['e', 'E']).map_or("0", |(_, exponent)| exponent.trim_start_matches(['+', '-']));
    digits.parse().unwrap_or(u32::MAX)
}

fn replace<'t>(text: &'t str, parts: &[(usize, usize, String)]) -> Cow<'t, str> {
    if parts.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len() + 2 * parts.len());
    let mut rest = 0;
    for (from, to, instead) in parts {
        result.push_str(&text[rest..*from]);
        result.push_str(instead);
        rest = *to;
    }
    result.push_str(&text[rest..]);
    Cow::Owned(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_texts_are_stored_once() {
        for text in ["{}", r#"{"a":1.50,"b":"-0 1e5 \\u0000 \"","c":[true,null,-7],"d":"😀\ud83d\ude00"}"#] {
            assert_eq!(Stored::of(text), Stored { jsonb: Cow::Borrowed(text), exact: None });
        }
    }

    #[test]
    fn numbers_that_jsonb_writes_otherwise_are_kept_exactly_beside() {
        for text in [r#"{"a":1E2}"#, r#"{"a":[-0]}"#, r#"{"a":-0.0}"#, r#"{"a":1e-400}"#] {
            assert_eq!(Stored::of(text), Stored { jsonb: Cow::Borrowed(text), exact: Some(text) });
        }
    }

    #[test]
    fn what_jsonb_cannot_hold_is_replaced_there_and_kept_beside() {
        let cases = [
            (r#"{"a":1e401,"b":2}"#, r#"{"a":"1e401","b":2}"#),
            (r#"[-1E-99999999999999]"#, r#"["-1E-99999999999999"]"#),
            (r#"["a\u0000b\\u0000"]"#, r#"["a\ufffdb\\u0000"]"#),
            (r#"["\ud800x","\udc00\ud800"]"#, r#"["\ufffdx","\ufffd\ufffd"]"#),
        ];
        for (text, jsonb) in cases {
            assert_eq!(Stored::of(text), Stored { jsonb: Cow::Owned(jsonb.to_owned()), exact: Some(text) });
        }
    }
}
