//! What one call costs: exact arithmetic, no rounding, with the reasons kept.
//!
//! Every amount fits a decimal's 28 digits: a call has at most 5 × 10⁹ tokens at no more than $10,000 per million and
//! two factors of at most 10, so a cost has at most 10 digits before the point and 14 after it.

use std::fmt;
use std::sync::Arc;

use rust_decimal::Decimal;

use super::call::{CallReport, ServiceTier};
use super::price_book::{PriceBook, Rule};
use super::rates::{ModelPrice, Multiplier, Rates};
use super::usage::Bucket;
use crate::domain::time::Timestamp;
use crate::domain::usd::Usd;

/// One millionth: rates are per million tokens.
const PER_MILLION: Decimal = Decimal::from_parts(1, 0, 0, false, 6);

/// A call with a price.
#[derive(Debug, Clone, PartialEq)]
pub struct Priced {
    /// The exact cost.
    pub cost: Usd,
    /// The price that was applied.
    pub price_id: Arc<str>,
    /// How the price was found.
    pub rule: Rule,
    /// The arithmetic.
    pub explanation: Explanation,
}

/// Why a call has no price. It is never free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unpriced {
    /// The price book does not know the model.
    #[error("the model has no price")]
    Model,
    /// The model is known, but not what a web search costs with it.
    #[error("the model's web searches have no price")]
    WebSearch,
}

/// The arithmetic behind a cost: the parts are summed, then the token parts are multiplied by the factors.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The service level of the call.
    pub service_tier: ServiceTier,
    /// Whether off-peak rates held.
    pub off_peak: bool,
    /// The buckets that were not empty.
    pub parts: Vec<Part>,
    /// The factors on the sum of the parts, for place and speed.
    pub multipliers: Vec<Multiplier>,
    /// Web searches, the price of one in US dollars, and their sum; `None` when there were none.
    pub web_searches: Option<(u32, Decimal, Usd)>,
    /// The whole.
    pub total: Usd,
}

/// The cost of one bucket before multipliers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// The bucket. Output is without its reasoning where that has a rate of its own.
    pub bucket: Bucket,
    /// Tokens.
    pub tokens: u64,
    /// US dollars per million tokens.
    pub rate: Decimal,
    /// The threshold of the long-context tier that the rate is from, in tokens of total input.
    pub above_input_tokens: Option<u64>,
    /// `tokens` × `rate` ÷ 1,000,000.
    pub cost: Usd,
}

impl Explanation {
    /// The threshold of the long-context tier that was applied, in tokens of total input.
    #[must_use]
    pub fn tier_applied(&self) -> Option<u64> {
        self.parts.iter().filter_map(|part| part.above_input_tokens).max()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let grouped = !self.multipliers.is_empty() && !self.parts.is_empty();
        if grouped {
            formatter.write_str("(")?;
        }
        for part in &self.parts {
            write!(
                formatter,
                "{separator}{} {} × ${}/1M",
                part.tokens,
                part.bucket.as_str().replace('_', " "),
                part.rate
            )?;
            separator = " + ";
        }
        if grouped {
            formatter.write_str(")")?;
            for multiplier in &self.multipliers {
                write!(formatter, " × {} ({})", multiplier.factor, multiplier.name)?;
            }
        }
        if let Some((searches, price, _)) = &self.web_searches {
            write!(formatter, "{separator}{searches} web searches × ${price}")?;
            separator = " + ";
        }
        if separator.is_empty() {
            formatter.write_str("no tokens")?;
        }
        write!(formatter, " = ${}", self.total)?;
        if self.service_tier != ServiceTier::Standard {
            write!(formatter, "; {} rates", self.service_tier)?;
        }
        if self.off_peak {
            formatter.write_str("; off-peak rates")?;
        }
        if let Some(threshold) = self.tier_applied() {
            write!(formatter, "; long-context rates from {threshold} input tokens")?;
        }
        Ok(())
    }
}

/// Prices a call that was made at `at`.
///
/// # Errors
///
/// [`Unpriced`] when the book does not know what the call costs.
pub fn price(call: &CallReport, book: &PriceBook, at: Timestamp) -> Result<Priced, Unpriced> {
    let resolved = book.resolve(call.provider(), call.model()).ok_or(Unpriced::Model)?;
    let web_searches = match call.web_searches() {
        0 => None,
        searches => {
            let price = resolved.price.web_search().ok_or(Unpriced::WebSearch)?;
            Some((searches, price, Usd::new(Decimal::from(searches) * price)))
        }
    };
    let off_peak = resolved.price.off_peak().filter(|off_peak| off_peak.holds_at(at));
    let layers = Layers::new(call, resolved.price, off_peak.map(|off_peak| off_peak.rates()));
    let parts = parts(call, &layers);
    let multipliers: Vec<_> = [
        call.inference_geo().and_then(|place| resolved.price.multipliers().for_place(place)),
        call.speed().and_then(|speed| resolved.price.multipliers().for_speed(speed)),
    ]
    .into_iter()
    .flatten()
    .cloned()
    .collect();

    let tokens: Usd = parts.iter().map(|part| part.cost).sum();
    let multiplied = multipliers.iter().fold(tokens.amount(), |amount, multiplier| amount * multiplier.factor);
    let searches = web_searches.map_or(Usd::ZERO, |(_, _, cost)| cost);
    let total = Usd::new(multiplied) + searches;
    Ok(Priced {
        cost: total,
        price_id: Arc::clone(resolved.price.price_id()),
        rule: resolved.rule,
        explanation: Explanation {
            service_tier: call.service_tier(),
            off_peak: off_peak.is_some(),
            parts,
            multipliers,
            web_searches,
            total,
        },
    })
}

fn parts(call: &CallReport, layers: &Layers<'_>) -> Vec<Part> {
    let usage = call.usage();
    let reasoning = layers.stated(Bucket::Reasoning).map_or(0, |_| usage.reasoning());
    [
        (Bucket::Input, usage.input()),
        (Bucket::CacheRead, usage.cache_read()),
        (Bucket::CacheWrite5m, usage.cache_write_5m()),
        (Bucket::CacheWrite1h, usage.cache_write_1h()),
        (Bucket::Output, usage.output() - reasoning),
        (Bucket::Reasoning, reasoning),
    ]
    .into_iter()
    .filter(|(_, tokens)| *tokens > 0)
    .map(|(bucket, tokens)| {
        let (above_input_tokens, rate) = layers.rate(bucket);
        Part { bucket, tokens, rate, above_input_tokens, cost: Usd::new(Decimal::from(tokens) * rate * PER_MILLION) }
    })
    .collect()
}

/// The rates that may apply to one call, the most particular first. A rate that one does not state is the next one's.
struct Layers<'price> {
    price: &'price ModelPrice,
    layers: [Option<(Option<u64>, &'price Rates)>; 5],
}

impl<'price> Layers<'price> {
    fn new(call: &CallReport, price: &'price ModelPrice, off_peak: Option<&'price Rates>) -> Self {
        let total_input = call.usage().total_input();
        let service = price.service_card(call.service_tier());
        let tier_of = |card: &'price super::rates::RateCard| {
            card.tier_for(total_input).map(|tier| (Some(tier.above_input_tokens()), tier.rates()))
        };
        // A service tier that states a rate and no tier of its own means that rate for input of any length.
        let layers = [
            service.and_then(tier_of),
            service.map(|card| (None, card.rates())),
            tier_of(price.base()),
            off_peak.map(|rates| (None, rates)),
            Some((None, price.base().rates())),
        ];
        Self { price, layers }
    }

    fn stated(&self, bucket: Bucket) -> Option<(Option<u64>, Decimal)> {
        self.layers.iter().flatten().find_map(|(tier, rates)| Some((*tier, rates.get(bucket)?)))
    }

    /// The rate of a bucket, with the threshold of the tier it is from. Caches without a rate of their own cost what
    /// input costs, and reasoning what output does; for an hour in the cache Anthropic takes twice the input rate.
    fn rate(&self, bucket: Bucket) -> (Option<u64>, Decimal) {
        self.stated(bucket).unwrap_or_else(|| match bucket {
            Bucket::Input => (None, self.price.input()),
            Bucket::Output => (None, self.price.output()),
            Bucket::CacheRead | Bucket::CacheWrite5m => self.rate(Bucket::Input),
            Bucket::CacheWrite1h if self.price.terms.hour_doubles_input => {
                let (tier, input) = self.rate(Bucket::Input);
                (tier, input * Decimal::TWO)
            }
            Bucket::CacheWrite1h => self.rate(Bucket::CacheWrite5m),
            Bucket::Reasoning => self.rate(Bucket::Output),
        })
    }
}
