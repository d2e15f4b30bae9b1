//! One call of a language model, as a worker reports it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::usage::{Usage, UsageCounts, UsageError};
use crate::domain::time::Timestamp;
use crate::domain::usd::Usd;

/// The service level that the provider billed the call under.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceTier {
    /// The ordinary one.
    #[default]
    Standard,
    /// Asynchronous batches.
    Batch,
    /// Slower and cheaper.
    Flex,
    /// Faster and dearer.
    Priority,
}

impl ServiceTier {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Priority => "priority",
        }
    }
}

impl fmt::Display for ServiceTier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The code that a refused call is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// A greater report of the same call is known.
    UsageShrank,
    /// Reported too long after its attempt ended, or not by its holder.
    UsageTooLate,
    /// Counts that contradict themselves.
    UsageImpossible,
    /// A value out of its bounds.
    InvalidRequest,
}

impl RefusalCode {
    /// The code on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UsageShrank => "USAGE_SHRANK",
            Self::UsageTooLate => "USAGE_TOO_LATE",
            Self::UsageImpossible => "USAGE_IMPOSSIBLE",
            Self::InvalidRequest => "INVALID_REQUEST",
        }
    }
}

/// Why a reported call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The token counts cannot be.
    #[error("impossible token counts")]
    Usage(#[from] UsageError),
    /// A text is empty, too long, or holds a control character.
    #[error("'{field}' must have {min} to {max} characters, none of them a control character")]
    Text {
        /// The name of the field.
        field: &'static str,
        /// The least length, in characters.
        min: usize,
        /// The greatest length, in characters.
        max: usize,
    },
    /// More web searches than [`CallReport::MAX_WEB_SEARCHES`].
    #[error("'web_searches' must be at most {}", CallReport::MAX_WEB_SEARCHES)]
    WebSearches,
    /// The worker's own figure is negative or above [`CallReport::MAX_CLAIM`] dollars.
    #[error("'claimed_cost_usd' must be 0 to {}", CallReport::MAX_CLAIM)]
    Claim,
    /// The call is said to have happened too long ago or in the future.
    #[error("'occurred_at' must be at most 30 days back and 5 minutes ahead")]
    OccurredAt,
}

impl ReportError {
    /// The code that the call is refused with.
    #[must_use]
    pub const fn code(&self) -> RefusalCode {
        match self {
            Self::Usage(_) => RefusalCode::UsageImpossible,
            Self::Text { .. } | Self::WebSearches | Self::Claim | Self::OccurredAt => RefusalCode::InvalidRequest,
        }
    }
}

/// A call as it arrives, of the right shape but unchecked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ReportedCall {
    /// The provider's id of the response, or one that the worker made up: 1–255 characters.
    pub call_id: String,
    /// Who served the call: 1–100 characters.
    pub provider: String,
    /// The model that answered, by the provider's name: 1–255 characters.
    pub model: String,
    /// The tokens.
    pub usage: UsageCounts,
    /// When the call was made.
    #[serde(default)]
    pub occurred_at: Option<Timestamp>,
    /// The service level; absent: standard.
    #[serde(default)]
    pub service_tier: Option<ServiceTier>,
    /// The place that served it, where that changes the price (`us`): at most 100 characters.
    #[serde(default)]
    pub inference_geo: Option<String>,
    /// The speed that was paid for (`fast`): at most 100 characters.
    #[serde(default)]
    pub speed: Option<String>,
    /// Web searches that the provider made for it.
    #[serde(default)]
    pub web_searches: Option<u32>,
    /// What the worker thinks it cost.
    #[serde(default)]
    pub claimed_cost_usd: Option<Usd>,
}

/// One call of a language model, checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallReport {
    call_id: Arc<str>,
    provider: Arc<str>,
    model: Arc<str>,
    usage: Usage,
    occurred_at: Option<Timestamp>,
    service_tier: ServiceTier,
    inference_geo: Option<Box<str>>,
    speed: Option<Box<str>>,
    web_searches: u32,
    claimed_cost_usd: Option<Usd>,
}

impl CallReport {
    /// The greatest number of web searches of one call.
    pub const MAX_WEB_SEARCHES: u32 = 1_000_000;
    /// The greatest figure a worker may claim, in US dollars.
    pub const MAX_CLAIM: i64 = 1_000_000_000;
    /// How far back a call may lie.
    pub const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    /// How far ahead of our clock a worker's clock may be.
    pub const MAX_AHEAD: Duration = Duration::from_secs(5 * 60);

    /// Checks everything but the time of the call, which [`CallReport::check_time`] does.
    ///
    /// # Errors
    ///
    /// [`ReportError`] for the first thing out of its bounds.
    pub fn new(call: ReportedCall) -> Result<Self, ReportError> {
        let claim_bounds = Decimal::ZERO..=Decimal::from(Self::MAX_CLAIM);
        if call.claimed_cost_usd.is_some_and(|claim| !claim_bounds.contains(&claim.amount())) {
            return Err(ReportError::Claim);
        }
        let web_searches = call.web_searches.unwrap_or(0);
        if web_searches > Self::MAX_WEB_SEARCHES {
            return Err(ReportError::WebSearches);
        }
        Ok(Self {
            call_id: text("call_id", &call.call_id, 1, 255)?.into(),
            provider: text("provider", &call.provider, 1, 100)?.into(),
            model: text("model", &call.model, 1, 255)?.into(),
            usage: call.usage.try_into()?,
            occurred_at: call.occurred_at,
            service_tier: call.service_tier.unwrap_or_default(),
            inference_geo: optional_text("inference_geo", call.inference_geo.as_deref())?,
            speed: optional_text("speed", call.speed.as_deref())?,
            web_searches,
            claimed_cost_usd: call.claimed_cost_usd,
        })
    }

    /// Checks that the call lies between [`CallReport::MAX_AGE`] before and [`CallReport::MAX_AHEAD`] after `now`.
    ///
    /// # Errors
    ///
    /// [`ReportError::OccurredAt`] when it does not. A call that does not say when it was made passes.
    pub fn check_time(&self, now: Timestamp) -> Result<(), ReportError> {
        let bounds = (now - Self::MAX_AGE)..=(now + Self::MAX_AHEAD);
        match self.occurred_at {
            Some(occurred_at) if !bounds.contains(&occurred_at) => Err(ReportError::OccurredAt),
            _ => Ok(()),
        }
    }

    /// The key of the call within its job.
    #[must_use]
    pub const fn call_id(&self) -> &Arc<str> {
        &self.call_id
    }

    /// Who served the call, as reported.
    #[must_use]
    pub const fn provider(&self) -> &Arc<str> {
        &self.provider
    }

    /// The model, as reported.
    #[must_use]
    pub const fn model(&self) -> &Arc<str> {
        &self.model
    }

    /// The tokens.
    #[must_use]
    pub const fn usage(&self) -> &Usage {
        &self.usage
    }

    /// When the call was made, if the worker said so.
    #[must_use]
    pub const fn occurred_at(&self) -> Option<Timestamp> {
        self.occurred_at
    }

    /// The service level.
    #[must_use]
    pub const fn service_tier(&self) -> ServiceTier {
        self.service_tier
    }

    /// The place that served it.
    #[must_use]
    pub fn inference_geo(&self) -> Option<&str> {
        self.inference_geo.as_deref()
    }

    /// The speed that was paid for.
    #[must_use]
    pub fn speed(&self) -> Option<&str> {
        self.speed.as_deref()
    }

    /// Web searches that the provider made for it.
    #[must_use]
    pub const fn web_searches(&self) -> u32 {
        self.web_searches
    }

    /// What the worker thinks it cost; kept beside our figure, never used for totals.
    #[must_use]
    pub const fn claimed_cost_usd(&self) -> Option<Usd> {
        self.claimed_cost_usd
    }
}

fn text<'text>(field: &'static str, value: &'text str, min: usize, max: usize) -> Result<&'text str, ReportError> {
    let length = value.chars().count();
    if length < min || length > max || value.chars().any(char::is_control) {
        return Err(ReportError::Text { field, min, max });
    }
    Ok(value)
}

fn optional_text(field: &'static str, value: Option<&str>) -> Result<Option<Box<str>>, ReportError> {
    value.filter(|value| !value.is_empty()).map(|value| text(field, value, 0, 100).map(Into::into)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(json: &str) -> ReportedCall {
        serde_json::from_str(json).unwrap()
    }

    fn plain() -> ReportedCall {
        reported(r#"{"call_id": "c", "provider": "anthropic", "model": "m", "usage": {}}"#)
    }

    #[test]
    fn the_documented_report_is_taken_as_it_is() {
        let call = CallReport::new(reported(
            r#"{"call_id": "msg_01", "provider": "anthropic", "model": "claude-haiku-4-5-20251001",
                "occurred_at": "2026-11-23T08:00:00Z",
                "usage": {"input": 2463, "cache_read": 20, "cache_write_5m": 0, "cache_write_1h": 0, "output": 747, "reasoning": 0},
                "service_tier": "standard", "inference_geo": "us", "speed": "fast", "web_searches": 2,
                "claimed_cost_usd": 0.0062, "a_later_field": true}"#,
        ))
        .unwrap();
        assert_eq!(&**call.call_id(), "msg_01");
        assert_eq!(call.usage().total_tokens(), 3230);
        assert_eq!(call.service_tier(), ServiceTier::Standard);
        assert_eq!(call.inference_geo(), Some("us"));
        assert_eq!(call.speed(), Some("fast"));
        assert_eq!(call.web_searches(), 2);
        assert_eq!(call.claimed_cost_usd(), Some("0.0062".parse().unwrap()));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_the_code_of_the_wire() {
        let refused = |change: fn(&mut ReportedCall)| {
            let mut call = plain();
            change(&mut call);
            CallReport::new(call).unwrap_err().code().as_str()
        };
        assert_eq!(refused(|call| call.model = "m".repeat(256)), "INVALID_REQUEST");
        assert_eq!(refused(|call| call.call_id.clear()), "INVALID_REQUEST");
        assert_eq!(refused(|call| call.provider = "p".repeat(101)), "INVALID_REQUEST");
        assert_eq!(refused(|call| call.model = "a\u{0}b".into()), "INVALID_REQUEST");
        assert_eq!(refused(|call| call.web_searches = Some(1_000_001)), "INVALID_REQUEST");
        assert_eq!(refused(|call| call.claimed_cost_usd = Some("-1".parse().unwrap())), "INVALID_REQUEST");
        assert_eq!(refused(|call| call.usage.reasoning = Some(1.into())), "USAGE_IMPOSSIBLE");
        assert!(CallReport::new(ReportedCall { model: "é".repeat(255), ..plain() }).is_ok());
    }

    #[test]
    fn a_call_lies_between_thirty_days_back_and_five_minutes_ahead() {
        let now = Timestamp::parse("2026-11-23T08:00:00Z").unwrap();
        let at = |occurred_at| CallReport::new(ReportedCall { occurred_at, ..plain() }).unwrap().check_time(now);
        let instant = Duration::from_micros(1);
        assert_eq!(at(None), Ok(()));
        assert_eq!(at(Some(now - CallReport::MAX_AGE)), Ok(()));
        assert_eq!(at(Some(now + CallReport::MAX_AHEAD)), Ok(()));
        assert_eq!(at(Some(now - CallReport::MAX_AGE - instant)), Err(ReportError::OccurredAt));
        assert_eq!(at(Some(now + CallReport::MAX_AHEAD + instant)), Err(ReportError::OccurredAt));
    }
}
