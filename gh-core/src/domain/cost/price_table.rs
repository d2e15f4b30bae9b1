//! The JSON form of a price table, and the checks a table must pass.
//!
//! The bounds keep every amount exact: a rate has at most 6 decimals and a multiplier 1, so a call's cost has at most
//! 14 (6 of the rate, 6 for "per million", 2 for two multipliers) and at most 10 digits before the point.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::price_book::PriceBookError;
use super::rates::{
    ContextTier, MINUTES_PER_DAY, ModelPrice, Multiplier, Multipliers, OffPeak, RateCard, Rates, Terms, Window,
};

/// The greatest rate, in US dollars per million tokens, and the greatest price of a web search, in US dollars.
const MAX_RATE: Decimal = Decimal::from_parts(10_000, 0, 0, false, 0);
const MAX_RATE_DECIMALS: u32 = 6;
const MAX_MULTIPLIER: Decimal = Decimal::from_parts(10, 0, 0, false, 0);
const MAX_MULTIPLIER_DECIMALS: u32 = 1;

/// A table as its file has it.
#[derive(Deserialize)]
pub(super) struct PriceTable {
    format: u32,
    currency: Box<str>,
    pub(super) models: Vec<Entry>,
    #[serde(default)]
    pub(super) aliases: Vec<Alias>,
}

/// Another name for a model, chosen by an operator.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alias {
    pub(super) provider: Box<str>,
    pub(super) alias: Box<str>,
    pub(super) model: Box<str>,
    /// The provider of `model`; absent: the same.
    #[serde(default)]
    pub(super) model_provider: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    provider: Box<str>,
    model: Box<str>,
    source: Box<str>,
    input: Box<str>,
    output: Box<str>,
    #[serde(default)]
    cache_read: Option<Box<str>>,
    #[serde(default)]
    cache_write_5m: Option<Box<str>>,
    #[serde(default)]
    cache_write_1h: Option<Box<str>>,
    #[serde(default)]
    reasoning: Option<Box<str>>,
    #[serde(default)]
    tiers: Vec<TierEntry>,
    #[serde(default)]
    service_tiers: ServiceTiers,
    #[serde(default)]
    off_peak: Option<OffPeakEntry>,
    #[serde(default)]
    multipliers: BTreeMap<Box<str>, Box<str>>,
    #[serde(default)]
    web_search_per_request: Option<Box<str>>,
    // Known keys that change no price. The history has no dates, so it cannot be priced by.
    #[serde(default, rename = "history")]
    _history: IgnoredAny,
    #[serde(default, rename = "max_input_tokens")]
    _max_input_tokens: IgnoredAny,
    #[serde(default, rename = "deprecation_date")]
    _deprecation_date: IgnoredAny,
    #[serde(default, rename = "dropped_from_latest")]
    _dropped_from_latest: IgnoredAny,
}

/// Rates by the name of their bucket.
type RateEntries = BTreeMap<Box<str>, Box<str>>;

#[derive(Deserialize)]
struct TierEntry {
    above_input_tokens: u64,
    #[serde(default)]
    inclusive: bool,
    #[serde(flatten)]
    rates: RateEntries,
}

#[derive(Deserialize)]
struct CardEntry {
    #[serde(default)]
    tiers: Vec<TierEntry>,
    #[serde(flatten)]
    rates: RateEntries,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ServiceTiers {
    batch: Option<CardEntry>,
    flex: Option<CardEntry>,
    priority: Option<CardEntry>,
}

#[derive(Deserialize)]
struct OffPeakEntry {
    windows_utc: Vec<WindowEntry>,
    #[serde(flatten)]
    rates: RateEntries,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowEntry {
    hours: Vec<Box<str>>,
    iso_weekdays: Vec<u8>,
}

impl PriceTable {
    pub(super) fn parse(json: &str) -> Result<Self, PriceBookError> {
        let table: Self = serde_json::from_str(json)?;
        if table.format != 1 {
            return Err(PriceBookError::Format(table.format));
        }
        if &*table.currency != "USD" {
            return Err(PriceBookError::Currency(table.currency));
        }
        Ok(table)
    }
}

impl Entry {
    pub(super) fn into_price(self) -> Result<ModelPrice, PriceBookError> {
        match self.terms() {
            Ok(terms) => Ok(ModelPrice {
                price_id: format!("{}/{}@{}", self.provider, self.model, version(&self.source)).into(),
                source: Arc::from(self.source),
                provider: self.provider,
                model: self.model,
                terms,
            }),
            Err(reason) => Err(PriceBookError::Model { provider: self.provider, model: self.model, reason }),
        }
    }

    fn terms(&self) -> Result<Terms, &'static str> {
        let (input, output) = (rate(&self.input)?, rate(&self.output)?);
        let rates = Rates {
            input: Some(input),
            cache_read: optional_rate(self.cache_read.as_deref())?,
            cache_write_5m: optional_rate(self.cache_write_5m.as_deref())?,
            cache_write_1h: optional_rate(self.cache_write_1h.as_deref())?,
            output: Some(output),
            reasoning: optional_rate(self.reasoning.as_deref())?,
        };
        let card = |card: &Option<CardEntry>| card.as_ref().map(CardEntry::card).transpose();
        Ok(Terms {
            input,
            output,
            base: RateCard { rates, tiers: tiers(&self.tiers)? },
            batch: card(&self.service_tiers.batch)?,
            flex: card(&self.service_tiers.flex)?,
            priority: card(&self.service_tiers.priority)?,
            off_peak: self.off_peak.as_ref().map(OffPeakEntry::off_peak).transpose()?,
            multipliers: multipliers(&self.multipliers)?,
            web_search: optional_rate(self.web_search_per_request.as_deref())?,
            hour_doubles_input: is_anthropic(&self.provider, &self.model),
        })
    }
}

impl CardEntry {
    fn card(&self) -> Result<RateCard, &'static str> {
        Ok(RateCard { rates: rates(&self.rates)?, tiers: tiers(&self.tiers)? })
    }
}

impl OffPeakEntry {
    fn off_peak(&self) -> Result<OffPeak, &'static str> {
        let mut windows = Vec::new();
        for entry in &self.windows_utc {
            let mut weekdays = 0;
            for day in &entry.iso_weekdays {
                if !(1..=7).contains(day) {
                    return Err("weekdays are numbered 1 (Monday) to 7");
                }
                weekdays |= 1 << (day - 1);
            }
            for hours in &entry.hours {
                let (from_minute, to_minute) = window(hours).ok_or("a window reads HH:MM-HH:MM")?;
                windows.push(Window { weekdays, from_minute, to_minute });
            }
        }
        Ok(OffPeak { rates: rates(&self.rates)?, windows: windows.into() })
    }
}

fn tiers(entries: &[TierEntry]) -> Result<Box<[ContextTier]>, &'static str> {
    let mut tiers = entries
        .iter()
        .map(|entry| {
            Ok(ContextTier {
                above_input_tokens: entry.above_input_tokens,
                inclusive: entry.inclusive,
                rates: rates(&entry.rates)?,
            })
        })
        .collect::<Result<Box<[_]>, &'static str>>()?;
    tiers.sort_by_key(|tier| tier.above_input_tokens);
    if tiers.windows(2).any(|pair| pair[0].above_input_tokens == pair[1].above_input_tokens) {
        return Err("two tiers have the same threshold");
    }
    Ok(tiers)
}

fn multipliers(entries: &BTreeMap<Box<str>, Box<str>>) -> Result<Multipliers, &'static str> {
    let mut multipliers = Multipliers::default();
    for (name, factor) in entries {
        let factor = decimal(factor, MAX_MULTIPLIER, MAX_MULTIPLIER_DECIMALS)
            .filter(|factor| !factor.is_zero())
            .ok_or("a multiplier is above 0, at most 10, with at most 1 decimal")?;
        let multiplier = Multiplier { name: name.as_ref().into(), factor };
        let place = name.strip_prefix("inference_geo_").or_else(|| name.strip_prefix("data_residency_"));
        if let Some(place) = place {
            multipliers.places.push((place.into(), multiplier));
        } else if let Some(speed) = name.strip_prefix("speed_") {
            multipliers.speeds.push((speed.into(), multiplier));
        } else if &**name == "non_global_endpoint" {
            multipliers.not_global = Some(multiplier);
        } else {
            return Err("a multiplier has an unknown name");
        }
    }
    Ok(multipliers)
}

fn rate(text: &str) -> Result<Decimal, &'static str> {
    decimal(text, MAX_RATE, MAX_RATE_DECIMALS).ok_or("a price is 0 to 10000, with at most 6 decimals")
}

fn rates(entries: &RateEntries) -> Result<Rates, &'static str> {
    let mut rates = Rates::default();
    for (bucket, text) in entries {
        let slot = match &**bucket {
            "input" => &mut rates.input,
            "cache_read" => &mut rates.cache_read,
            "cache_write_5m" => &mut rates.cache_write_5m,
            "cache_write_1h" => &mut rates.cache_write_1h,
            "output" => &mut rates.output,
            "reasoning" => &mut rates.reasoning,
            _ => return Err("a rate has an unknown name"),
        };
        *slot = Some(rate(text)?);
    }
    Ok(rates)
}

fn optional_rate(text: Option<&str>) -> Result<Option<Decimal>, &'static str> {
    text.map(rate).transpose()
}

fn decimal(text: &str, max: Decimal, max_decimals: u32) -> Option<Decimal> {
    let value = Decimal::from_str_exact(text).ok()?.normalize();
    (value >= Decimal::ZERO && value <= max && value.scale() <= max_decimals).then_some(value)
}

/// Reads `22:00-02:00`. An end at or before the start lies on the next day, so equal ends are a whole day.
fn window(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute_of_day(from)?, minute_of_day(to)?);
    Some((from, if to <= from { to + MINUTES_PER_DAY } else { to }))
}

fn minute_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |text: &str| match text.as_bytes() {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Some(u16::from(tens - b'0') * 10 + u16::from(ones - b'0')),
        _ => None,
    };
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

/// The version a source names (`LiteLLM price table v1.109.1` → `1.109.1`), else the whole of it.
fn version(source: &str) -> &str {
    source.rsplit_once(" v").map_or(source, |(_, version)| version)
}

fn is_anthropic(provider: &str, model: &str) -> bool {
    match provider {
        "anthropic" => true,
        "bedrock" | "vertex_ai" => model.split(['.', '/']).any(|part| part.starts_with("claude")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_end_on_the_next_day_when_they_do_not_end_after_their_start() {
        assert_eq!(window("04:00-06:00"), Some((240, 360)));
        assert_eq!(window("10:00-00:00"), Some((600, 1440)));
        assert_eq!(window("22:30-01:00"), Some((1350, 1500)));
        assert_eq!(window("00:00-00:00"), Some((0, 1440)));
        for text in ["24:00-01:00", "1:00-2:00", "01:00", "+1:00-02:00", "01:60-02:00"] {
            assert_eq!(window(text), None, "{text}");
        }
    }

    #[test]
    fn rates_that_could_not_be_summed_exactly_are_refused() {
        for text in ["-1", "10000.1", "0.0000001", "NaN", "1e3", ""] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert!(rate("0").is_ok());
        assert!(rate("10000").is_ok());
        assert!(rate("0.003625").is_ok());
    }
}
