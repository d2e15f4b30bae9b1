//! Fields that several requests share.

use gh_core::domain::field::Fields;
use gh_core::domain::ids::Name;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use url::Url;

/// A field that says something else when it is `null` than when it is absent (with `#[serde(default)]`).
pub(super) fn present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// The name of a worker, target or machine.
pub(super) fn name(fields: &mut Fields, field: &'static str, text: Option<&str>) -> Option<Name> {
    fields.optional(field, text, |text| Name::parse(text).map_err(|error| error.to_string()))
}

/// An http or https address of at most 2,048 characters, shown to people.
pub(super) fn web_address(fields: &mut Fields, field: &'static str, text: Option<&str>) -> Option<Box<str>> {
    fields.optional(field, text, |text| {
        let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if text.chars().count() > 2048 {
            Err("must have at most 2,048 characters".into())
        } else if Url::parse(text).is_ok_and(|url| is_web(&url)) {
            Ok(text.into())
        } else {
            Err("must be an http or https address".into())
        }
    })
}

/// A JSON object of at most 8 KiB.
pub(super) fn small_object(
    fields: &mut Fields,
    field: &'static str,
    json: Option<Box<RawValue>>,
) -> Option<Box<RawValue>> {
    let json = json?;
    if json.get().len() > 8 * 1024 {
        fields.refuse(field, "must have at most 8 KiB");
    } else if !json.get().starts_with('{') {
        fields.refuse(field, "must be a JSON object");
    }
    Some(json)
}
