//! The tokens of one call, split so that no token is counted twice.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Number;

/// A kind of tokens in a usage report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// Input that was neither read from nor written to a cache.
    Input,
    /// Input read from a cache.
    CacheRead,
    /// Input written to a cache that keeps it for five minutes.
    CacheWrite5m,
    /// Input written to a cache that keeps it for one hour.
    CacheWrite1h,
    /// All output, reasoning included.
    Output,
    /// The part of the output that was reasoning.
    Reasoning,
}

impl Bucket {
    /// The name of the bucket on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CacheRead => "cache_read",
            Self::CacheWrite5m => "cache_write_5m",
            Self::CacheWrite1h => "cache_write_1h",
            Self::Output => "output",
            Self::Reasoning => "reasoning",
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Why counts are no usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// A count is negative or has a fraction.
    #[error("'{0}' must be a whole number of tokens, 0 or more")]
    NotACount(Bucket),
    /// A count is above [`Usage::MAX_COUNT`].
    #[error("'{0}' must be at most {max} tokens", max = Usage::MAX_COUNT)]
    TooLarge(Bucket),
    /// Reasoning is part of the output and cannot exceed it.
    #[error("'reasoning' is part of 'output' and must not exceed it")]
    ReasoningExceedsOutput,
}

/// The tokens of one call in disjoint buckets, each 0 to [`Usage::MAX_COUNT`]; `reasoning` is part of `output`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "UsageCounts")]
pub struct Usage {
    input: u64,
    cache_read: u64,
    cache_write_5m: u64,
    cache_write_1h: u64,
    output: u64,
    reasoning: u64,
}

impl Usage {
    /// The greatest count of one bucket, in tokens.
    pub const MAX_COUNT: u64 = 1_000_000_000;

    /// Takes counts of tokens.
    ///
    /// # Errors
    ///
    /// [`UsageError`] when a count is above [`Usage::MAX_COUNT`] or the counts contradict each other.
    pub fn new(
        input: u64,
        cache_read: u64,
        cache_write_5m: u64,
        cache_write_1h: u64,
        output: u64,
        reasoning: u64,
    ) -> Result<Self, UsageError> {
        let counts = [
            (Bucket::Input, input),
            (Bucket::CacheRead, cache_read),
            (Bucket::CacheWrite5m, cache_write_5m),
            (Bucket::CacheWrite1h, cache_write_1h),
            (Bucket::Output, output),
            (Bucket::Reasoning, reasoning),
        ];
        if let Some((bucket, _)) = counts.into_iter().find(|(_, count)| *count > Self::MAX_COUNT) {
            return Err(UsageError::TooLarge(bucket));
        }
        if reasoning > output {
            return Err(UsageError::ReasoningExceedsOutput);
        }
        Ok(Self { input, cache_read, cache_write_5m, cache_write_1h, output, reasoning })
    }

    /// Input tokens that no cache was involved in.
    #[must_use]
    pub const fn input(&self) -> u64 {
        self.input
    }

    /// Input tokens read from a cache.
    #[must_use]
    pub const fn cache_read(&self) -> u64 {
        self.cache_read
    }

    /// Input tokens written to a five-minute cache.
    #[must_use]
    pub const fn cache_write_5m(&self) -> u64 {
        self.cache_write_5m
    }

    /// Input tokens written to a one-hour cache.
    #[must_use]
    pub const fn cache_write_1h(&self) -> u64 {
        self.cache_write_1h
    }

    /// Input tokens written to any cache.
    #[must_use]
    pub const fn cache_write(&self) -> u64 {
        self.cache_write_5m + self.cache_write_1h
    }

    /// Output tokens, reasoning included.
    #[must_use]
    pub const fn output(&self) -> u64 {
        self.output
    }

    /// The output tokens that were reasoning.
    #[must_use]
    pub const fn reasoning(&self) -> u64 {
        self.reasoning
    }

    /// All input tokens, cached or not: what long-context tiers are measured by.
    #[must_use]
    pub const fn total_input(&self) -> u64 {
        self.input + self.cache_read + self.cache_write()
    }

    /// The sum of the disjoint buckets.
    #[must_use]
    pub const fn total_tokens(&self) -> u64 {
        self.total_input() + self.output
    }
}

/// Which of two reports of one call counts: the greater one. The sum of the disjoint buckets decides, then the
/// buckets one by one, input first, reasoning last.
impl Ord for Usage {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |usage: &Self| {
            (
                usage.total_tokens(),
                usage.input,
                usage.cache_read,
                usage.cache_write_5m,
                usage.cache_write_1h,
                usage.output,
                usage.reasoning,
            )
        };
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Usage {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Counts as they arrive: any number, absent ones are 0. [`Usage`] is what they become once checked.
///
/// The two are apart so that one call with impossible counts is refused alone, not with the body it came in.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct UsageCounts {
    /// See [`Bucket::Input`].
    pub input: Option<Number>,
    /// See [`Bucket::CacheRead`].
    pub cache_read: Option<Number>,
    /// See [`Bucket::CacheWrite5m`].
    pub cache_write_5m: Option<Number>,
    /// See [`Bucket::CacheWrite1h`].
    pub cache_write_1h: Option<Number>,
    /// See [`Bucket::Output`].
    pub output: Option<Number>,
    /// See [`Bucket::Reasoning`].
    pub reasoning: Option<Number>,
}

impl TryFrom<UsageCounts> for Usage {
    type Error = UsageError;

    fn try_from(counts: UsageCounts) -> Result<Self, UsageError> {
        Self::new(
            count(Bucket::Input, counts.input.as_ref())?,
            count(Bucket::CacheRead, counts.cache_read.as_ref())?,
            count(Bucket::CacheWrite5m, counts.cache_write_5m.as_ref())?,
            count(Bucket::CacheWrite1h, counts.cache_write_1h.as_ref())?,
            count(Bucket::Output, counts.output.as_ref())?,
            count(Bucket::Reasoning, counts.reasoning.as_ref())?,
        )
    }
}

impl From<Usage> for UsageCounts {
    fn from(usage: Usage) -> Self {
        Self {
            input: Some(usage.input.into()),
            cache_read: Some(usage.cache_read.into()),
            cache_write_5m: Some(usage.cache_write_5m.into()),
            cache_write_1h: Some(usage.cache_write_1h.into()),
            output: Some(usage.output.into()),
            reasoning: Some(usage.reasoning.into()),
        }
    }
}

/// [`Usage::MAX_COUNT`], for numbers that arrive as floats.
const LARGEST: f64 = 1e9;

fn count(bucket: Bucket, number: Option<&Number>) -> Result<u64, UsageError> {
    let Some(number) = number else { return Ok(0) };
    if let Some(count) = number.as_u64() {
        return Ok(count);
    }
    // What is left is negative, fractional, or beyond 64 bits (which arrives as a float).
    match number.as_f64() {
        Some(value) if value > LARGEST && value.fract() == 0.0 => Err(UsageError::TooLarge(bucket)),
        _ => Err(UsageError::NotACount(bucket)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: &str) -> Result<Usage, UsageError> {
        serde_json::from_str::<UsageCounts>(json).unwrap().try_into()
    }

    #[test]
    fn absent_buckets_are_zero() {
        assert_eq!(usage(r#"{"input": 3, "output": 2}"#), Usage::new(3, 0, 0, 0, 2, 0));
        assert_eq!(usage("{}"), Ok(Usage::default()));
        assert_eq!(usage(r#"{"input": null}"#), Ok(Usage::default()));
    }

    #[test]
    fn counts_that_cannot_be_are_refused_by_name() {
        use UsageError::{NotACount, ReasoningExceedsOutput, TooLarge};
        for (json, error) in [
            (r#"{"input": -1}"#, NotACount(Bucket::Input)),
            (r#"{"cache_read": 1.5}"#, NotACount(Bucket::CacheRead)),
            (r#"{"cache_write_5m": 1000000001}"#, TooLarge(Bucket::CacheWrite5m)),
            (r#"{"cache_write_1h": 18446744073709551616}"#, TooLarge(Bucket::CacheWrite1h)),
            (r#"{"output": 1e300}"#, TooLarge(Bucket::Output)),
            (r#"{"output": 9, "reasoning": 10}"#, ReasoningExceedsOutput),
        ] {
            assert_eq!(usage(json), Err(error), "{json}");
            assert!(serde_json::from_str::<Usage>(json).is_err(), "{json}");
        }
        assert!(usage(r#"{"output": 1000000000, "reasoning": 1000000000}"#).is_ok());
    }

    #[test]
    fn sums_count_each_token_once() {
        let usage = Usage::new(1, 20, 300, 4_000, 50_000, 7).unwrap();
        assert_eq!(usage.total_input(), 4_321);
        assert_eq!(usage.total_tokens(), 54_321);
        assert_eq!(usage.cache_write(), 4_300);
    }

    #[test]
    fn the_greater_report_is_the_one_with_more_tokens_then_with_more_of_the_first_bucket() {
        let ascending = [
            Usage::new(0, 0, 0, 0, 10, 0),
            Usage::new(0, 0, 0, 0, 10, 4),
            Usage::new(0, 0, 0, 10, 0, 0),
            Usage::new(0, 0, 10, 0, 0, 0),
            Usage::new(0, 10, 0, 0, 0, 0),
            Usage::new(10, 0, 0, 0, 0, 0),
            Usage::new(0, 0, 0, 0, 11, 0),
        ]
        .map(Result::unwrap);
        assert!(ascending.is_sorted_by(|lesser, greater| lesser < greater));
    }

    #[test]
    fn usage_round_trips_on_the_wire() {
        let usage = Usage::new(1, 2, 3, 4, 6, 5).unwrap();
        let json = serde_json::to_string(&usage).unwrap();
        assert_eq!(serde_json::from_str::<Usage>(&json).unwrap(), usage);
        assert_eq!(Usage::try_from(UsageCounts::from(usage)).unwrap(), usage);
    }
}
