//! Money: exact decimals of US dollars, never a float, never a cent.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// An exact amount in US dollars.
///
/// In JSON it is a number that carries every digit (`0.0342`), never a float on the way. That needs `serde_json` as
/// the format and a text (not a [`serde_json::Value`]) as its target.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(Decimal);

impl Usd {
    /// No money.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// An amount from an exact decimal; trailing zeros are dropped, so equal amounts are written alike.
    #[must_use]
    pub fn new(amount: Decimal) -> Self {
        Self(amount.normalize())
    }

    /// The exact decimal.
    #[must_use]
    pub const fn amount(self) -> Decimal {
        self.0
    }

    /// The amount as JSON number text, all digits.
    #[must_use]
    pub fn to_json(self) -> Box<RawValue> {
        // A decimal's text is a JSON number: digits, an optional sign, an optional point, no exponent.
        RawValue::from_string(self.0.to_string()).unwrap_or_else(|_| unreachable!("a decimal is a JSON number"))
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Debug for Usd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "${}", self.0)
    }
}

impl FromStr for Usd {
    type Err = rust_decimal::Error;

    /// Reads plain (`0.0062`) and scientific (`6.2e-3`) notation, exactly.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let amount =
            if text.contains(['e', 'E']) { Decimal::from_scientific(text)? } else { Decimal::from_str_exact(text)? };
        Ok(Self::new(amount))
    }
}

impl Add for Usd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::new(self.0 + other.0)
    }
}

impl Sub for Usd {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self::new(self.0 - other.0)
    }
}

impl AddAssign for Usd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Usd {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        raw.get().parse().map_err(|_| serde::de::Error::custom("expected an amount in US dollars as a JSON number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_survives_the_wire() {
        for text in ["0.0062", "0.000000000006", "12345678.12345678", "0", "1.222506"] {
            let amount: Usd = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&amount).unwrap(), text);
        }
        assert_eq!("6.2e-3".parse::<Usd>().unwrap().to_string(), "0.0062");
    }

    #[test]
    fn equal_amounts_are_written_alike() {
        let sum: Usd = ["0.05", "0.05"].iter().map(|text| text.parse::<Usd>().unwrap()).sum();
        assert_eq!(serde_json::to_string(&sum).unwrap(), "0.1");
    }

    #[test]
    fn words_and_strings_are_no_amounts() {
        for text in ["\"0.5\"", "null", "true", "NaN"] {
            assert!(serde_json::from_str::<Usd>(text).is_err(), "{text}");
        }
    }
}
