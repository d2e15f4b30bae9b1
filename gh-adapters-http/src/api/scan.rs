//! One look at a whole body before it is read into types: is it JSON, and does any text in it hold U+0000?

use std::fmt::{self, Write};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// How many places are named at most.
const MAX_PLACES: usize = 20;

/// The longest name of a place, in characters.
const MAX_PLACE_CHARS: usize = 200;

/// Where texts or keys hold U+0000, which PostgreSQL cannot keep: `metadata.note`, `jobs[3].profile`.
///
/// # Errors
///
/// The text is not JSON.
pub(super) fn places_of_nul(json: &str) -> Result<Vec<String>, serde_json::Error> {
    let mut scan = Scan { path: String::new(), places: Vec::new() };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    (&mut scan).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(scan.places)
}

struct Scan {
    path: String,
    places: Vec<String>,
}

impl Scan {
    fn note(&mut self) {
        if self.places.len() < MAX_PLACES {
            let place = self.path.chars().filter(|letter| *letter != '\0');
            self.places.push(place.take(MAX_PLACE_CHARS).collect());
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Scan {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Scan {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') {
            self.note();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let length = self.path.len();
        for index in 0_usize.. {
            // Writing to a string cannot fail.
            let _written = write!(self.path, "[{index}]");
            let item = items.next_element_seed(&mut *self)?;
            self.path.truncate(length);
            if item.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let length = self.path.len();
        while let Some(key) = entries.next_key::<String>()? {
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if key.contains('\0') {
                self.note();
            }
            entries.next_value_seed(&mut *self)?;
            self.path.truncate(length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_and_key_that_holds_nul_is_named() {
        let json = r#"{"a": "x\u0000", "b": {"c": [1, "\u0000", {"d\u0000": null}]}, "e": "\\u0000"}"#;
        assert_eq!(places_of_nul(json).unwrap(), ["a", "b.c[1]", "b.c[2].d"]);
    }

    #[test]
    fn what_is_no_json_is_told_from_what_is() {
        for bad in ["", "{", "{\"a\": }", "{} x", "[1,]", "{\"a\": \"\\ud800\"}", "nul"] {
            assert!(places_of_nul(bad).is_err(), "{bad}");
        }
        assert!(places_of_nul(&"[".repeat(100_000)).is_err(), "depth has a limit");
        assert_eq!(places_of_nul(" {\"a\": [1, -2.5e3, true, null]} ").unwrap(), [""; 0]);
    }
}
