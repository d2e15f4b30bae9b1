//! What a model's tokens cost: base rates, long-context tiers, service tiers, off-peak hours and multipliers.

use std::sync::Arc;

use chrono::{Datelike, Timelike};
use rust_decimal::Decimal;

use super::call::ServiceTier;
use super::usage::Bucket;
use crate::domain::time::Timestamp;

/// Rates in US dollars per million tokens. Absent means unknown; 0 means free.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rates {
    pub(super) input: Option<Decimal>,
    pub(super) cache_read: Option<Decimal>,
    pub(super) cache_write_5m: Option<Decimal>,
    pub(super) cache_write_1h: Option<Decimal>,
    pub(super) output: Option<Decimal>,
    pub(super) reasoning: Option<Decimal>,
}

impl Rates {
    /// The rate stated for a bucket, in US dollars per million tokens.
    #[must_use]
    pub const fn get(&self, bucket: Bucket) -> Option<Decimal> {
        match bucket {
            Bucket::Input => self.input,
            Bucket::CacheRead => self.cache_read,
            Bucket::CacheWrite5m => self.cache_write_5m,
            Bucket::CacheWrite1h => self.cache_write_1h,
            Bucket::Output => self.output,
            Bucket::Reasoning => self.reasoning,
        }
    }
}

/// Rates for the whole of a call whose total input passes a threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct ContextTier {
    pub(super) above_input_tokens: u64,
    pub(super) inclusive: bool,
    pub(super) rates: Rates,
}

impl ContextTier {
    /// The threshold, in tokens of total input.
    #[must_use]
    pub const fn above_input_tokens(&self) -> u64 {
        self.above_input_tokens
    }

    /// Whether the threshold itself is already in the tier.
    #[must_use]
    pub const fn is_inclusive(&self) -> bool {
        self.inclusive
    }

    /// The rates of the tier; those it does not state are the ones below it.
    #[must_use]
    pub const fn rates(&self) -> &Rates {
        &self.rates
    }

    fn holds(&self, total_input: u64) -> bool {
        total_input > self.above_input_tokens || (self.inclusive && total_input == self.above_input_tokens)
    }
}

/// Rates, with tiers by the length of the input.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RateCard {
    pub(super) rates: Rates,
    /// Ascending by threshold.
    pub(super) tiers: Box<[ContextTier]>,
}

impl RateCard {
    /// The rates below every tier.
    #[must_use]
    pub const fn rates(&self) -> &Rates {
        &self.rates
    }

    /// The long-context tiers, lowest threshold first.
    #[must_use]
    pub const fn tiers(&self) -> &[ContextTier] {
        &self.tiers
    }

    /// The highest tier that a call with this total input is in.
    #[must_use]
    pub fn tier_for(&self, total_input: u64) -> Option<&ContextTier> {
        self.tiers.iter().rev().find(|tier| tier.holds(total_input))
    }
}

/// A span of hours that starts on certain days of the week, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Bit 0 is Monday.
    pub(super) weekdays: u8,
    /// The first minute of the day that is inside.
    pub(super) from_minute: u16,
    /// The first minute that is outside; above 1,440 it lies on the next day.
    pub(super) to_minute: u16,
}

pub(super) const MINUTES_PER_DAY: u16 = 24 * 60;

impl Window {
    fn holds(self, weekday: u8, minute: u16) -> bool {
        let starts_on = |day: u8| self.weekdays & (1 << day) != 0;
        let inside = |minute| (self.from_minute..self.to_minute).contains(&minute);
        (starts_on(weekday) && inside(minute)) || (starts_on((weekday + 6) % 7) && inside(minute + MINUTES_PER_DAY))
    }
}

/// Rates that hold at certain hours, instead of the base rates.
#[derive(Debug, Clone, PartialEq)]
pub struct OffPeak {
    pub(super) rates: Rates,
    pub(super) windows: Box<[Window]>,
}

impl OffPeak {
    /// The rates; those it does not state are the base rates.
    #[must_use]
    pub const fn rates(&self) -> &Rates {
        &self.rates
    }

    /// Whether the rates hold at an instant.
    #[must_use]
    pub fn holds_at(&self, at: Timestamp) -> bool {
        let at = at.to_datetime();
        let weekday = u8::try_from(at.weekday().num_days_from_monday()).unwrap_or_default();
        let minute = u16::try_from(at.hour() * 60 + at.minute()).unwrap_or_default();
        self.windows.iter().any(|window| window.holds(weekday, minute))
    }
}

/// A factor on the token cost of a call that names its cause.
#[derive(Debug, Clone, PartialEq)]
pub struct Multiplier {
    /// Its name in the price table (`inference_geo_us`).
    pub name: Arc<str>,
    /// The factor.
    pub factor: Decimal,
}

/// The factors of one model. A call gets at most one for its place and one for its speed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Multipliers {
    /// By the place a call names.
    pub(super) places: Vec<(Box<str>, Multiplier)>,
    /// For every place but `global`.
    pub(super) not_global: Option<Multiplier>,
    /// By the speed a call names.
    pub(super) speeds: Vec<(Box<str>, Multiplier)>,
}

impl Multipliers {
    /// The factor for the place that served a call.
    #[must_use]
    pub fn for_place(&self, place: &str) -> Option<&Multiplier> {
        find(&self.places, place).or_else(|| self.not_global.as_ref().filter(|_| !place.eq_ignore_ascii_case("global")))
    }

    /// The factor for the speed that was paid for.
    #[must_use]
    pub fn for_speed(&self, speed: &str) -> Option<&Multiplier> {
        find(&self.speeds, speed)
    }
}

fn find<'multipliers>(among: &'multipliers [(Box<str>, Multiplier)], wanted: &str) -> Option<&'multipliers Multiplier> {
    among.iter().find(|(cause, _)| cause.eq_ignore_ascii_case(wanted)).map(|(_, multiplier)| multiplier)
}

/// Everything that one version of the price table says about one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelPrice {
    pub(super) provider: Box<str>,
    pub(super) model: Box<str>,
    pub(super) price_id: Arc<str>,
    pub(super) source: Arc<str>,
    pub(super) terms: Terms,
}

/// The terms of a price, apart from whose they are: two names with equal terms cost the same.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Terms {
    pub(super) input: Decimal,
    pub(super) output: Decimal,
    pub(super) base: RateCard,
    pub(super) batch: Option<RateCard>,
    pub(super) flex: Option<RateCard>,
    pub(super) priority: Option<RateCard>,
    pub(super) off_peak: Option<OffPeak>,
    pub(super) multipliers: Multipliers,
    pub(super) web_search: Option<Decimal>,
    /// Without a rate of its own, an hour in the cache costs twice the input rate (Anthropic's rule).
    pub(super) hour_doubles_input: bool,
}

impl ModelPrice {
    /// The provider the price is of.
    #[must_use]
    pub const fn provider(&self) -> &str {
        &self.provider
    }

    /// The model's name in the table.
    #[must_use]
    pub const fn model(&self) -> &str {
        &self.model
    }

    /// Names this price for ever: `provider/model@version of the source`.
    #[must_use]
    pub const fn price_id(&self) -> &Arc<str> {
        &self.price_id
    }

    /// Where the price was read.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The base input rate, in US dollars per million tokens.
    #[must_use]
    pub const fn input(&self) -> Decimal {
        self.terms.input
    }

    /// The base output rate, in US dollars per million tokens.
    #[must_use]
    pub const fn output(&self) -> Decimal {
        self.terms.output
    }

    /// The base rates and their tiers.
    #[must_use]
    pub const fn base(&self) -> &RateCard {
        &self.terms.base
    }

    /// The rates that a service tier has of its own.
    #[must_use]
    pub const fn service_card(&self, service_tier: ServiceTier) -> Option<&RateCard> {
        match service_tier {
            ServiceTier::Standard => None,
            ServiceTier::Batch => self.terms.batch.as_ref(),
            ServiceTier::Flex => self.terms.flex.as_ref(),
            ServiceTier::Priority => self.terms.priority.as_ref(),
        }
    }

    /// Rates at certain hours.
    #[must_use]
    pub const fn off_peak(&self) -> Option<&OffPeak> {
        self.terms.off_peak.as_ref()
    }

    /// Factors on the token cost.
    #[must_use]
    pub const fn multipliers(&self) -> &Multipliers {
        &self.terms.multipliers
    }

    /// One web search, in US dollars.
    #[must_use]
    pub const fn web_search(&self) -> Option<Decimal> {
        self.terms.web_search
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRIDAY: u8 = 1 << 4;

    fn holds(window: Window, at: &str) -> bool {
        let off_peak = OffPeak { rates: Rates::default(), windows: [window].into() };
        off_peak.holds_at(Timestamp::parse(at).unwrap())
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_starts_on() {
        let window = Window { weekdays: FRIDAY, from_minute: 22 * 60, to_minute: 26 * 60 };
        for (at, inside) in [
            ("2026-11-20T21:59:59.999999Z", false),
            ("2026-11-20T22:00:00Z", true),
            ("2026-11-20T23:59:59Z", true),
            ("2026-11-21T00:00:00Z", true),
            ("2026-11-21T01:59:59.999999Z", true),
            ("2026-11-21T02:00:00Z", false),
            ("2026-11-20T01:00:00Z", false),
            ("2026-11-21T22:00:00Z", false),
        ] {
            assert_eq!(holds(window, at), inside, "{at}");
        }
    }

    #[test]
    fn a_sunday_window_reaches_into_monday() {
        let window = Window { weekdays: 1 << 6, from_minute: 23 * 60, to_minute: 25 * 60 };
        assert!(holds(window, "2026-11-23T00:30:00Z"));
        assert!(!holds(window, "2026-11-24T00:30:00Z"));
    }

    #[test]
    fn the_highest_passed_tier_counts_and_the_threshold_is_in_it_only_where_the_table_says_so() {
        let tier =
            |above_input_tokens, inclusive| ContextTier { above_input_tokens, inclusive, rates: Rates::default() };
        let card = RateCard { rates: Rates::default(), tiers: [tier(100, false), tier(200, true)].into() };
        let threshold = |total_input| card.tier_for(total_input).map(ContextTier::above_input_tokens);
        assert_eq!(threshold(0), None);
        assert_eq!(threshold(100), None);
        assert_eq!(threshold(101), Some(100));
        assert_eq!(threshold(199), Some(100));
        assert_eq!(threshold(200), Some(200));
        assert_eq!(threshold(1_000_000), Some(200));
    }
}
