//! Workers report what their LLM calls used.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use gh_core::domain::commands::{CallResult, ReportUsage};
use gh_core::domain::cost::provider_usage::{self, ProviderUsageError};
use gh_core::domain::cost::{CallReport, CostBlock, Outcome, RefusalCode, ReportedCall, ServiceTier, UsageCounts};
use gh_core::domain::field::FieldError;
use gh_core::domain::time::Timestamp;
use gh_core::domain::usd::Usd;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::super::ApiState;
use super::super::body::{JsonBody, json_answer};
use super::super::codes::{ErrorCode, INVALID_REQUEST, USAGE_IMPOSSIBLE, USAGE_SHRANK, USAGE_TOO_LATE};
use super::super::declared::with_items;
use super::super::paths::AttemptPath;
use super::super::problem::Problem;
use super::jobs::check_count;

#[derive(Deserialize, ToSchema)]
pub(in super::super) struct UsageRequest {
    /// At most 500; each stands alone.
    calls: Vec<CallRequest>,
}

/// One LLM call: its tokens in `usage`, or the provider's own object in `provider_usage`.
#[derive(Deserialize, ToSchema)]
struct CallRequest {
    call_id: String,
    provider: String,
    model: String,
    #[schema(value_type = Option<Object>)]
    usage: Option<UsageCounts>,
    #[schema(value_type = Option<Object>)]
    provider_usage: Option<Box<RawValue>>,
    #[schema(value_type = Option<String>, format = DateTime)]
    occurred_at: Option<Timestamp>,
    /// `standard`, `batch`, `flex` or `priority`
    #[schema(value_type = Option<String>)]
    service_tier: Option<ServiceTier>,
    inference_geo: Option<String>,
    speed: Option<String>,
    web_searches: Option<u32>,
    #[schema(value_type = Option<f64>)]
    claimed_cost_usd: Option<Usd>,
}

impl CallRequest {
    /// The call with its tokens in our buckets. What it says itself goes before what the provider's object says.
    fn normalised(self) -> Result<ReportedCall, RefusalCode> {
        let mut call = ReportedCall {
            call_id: self.call_id,
            provider: self.provider,
            model: self.model,
            usage: self.usage.unwrap_or_default(),
            occurred_at: self.occurred_at,
            service_tier: self.service_tier,
            inference_geo: self.inference_geo,
            speed: self.speed,
            web_searches: self.web_searches,
            claimed_cost_usd: self.claimed_cost_usd,
        };
        let Some(object) = self.provider_usage else {
            return Ok(call);
        };
        let object = serde_json::from_str(object.get()).map_err(|_| RefusalCode::InvalidRequest)?;
        let said = provider_usage::normalise(&call.provider, &object).map_err(|error| match error {
            ProviderUsageError::UnknownShape => RefusalCode::InvalidRequest,
            ProviderUsageError::NotACount(_) | ProviderUsageError::Exceeds { .. } | ProviderUsageError::Usage(_) => {
                RefusalCode::UsageImpossible
            }
        })?;
        call.usage = said.usage.into();
        call.service_tier = call.service_tier.or(said.service_tier);
        call.inference_geo = call.inference_geo.or_else(|| said.inference_geo.map(Into::into));
        call.speed = call.speed.or_else(|| said.speed.map(Into::into));
        if call.web_searches.is_none() {
            let searches = u32::try_from(said.web_searches).map_err(|_| RefusalCode::UsageImpossible)?;
            call.web_searches = Some(searches);
        }
        Ok(call)
    }
}

#[derive(Serialize, ToSchema)]
struct UsageView {
    results: Vec<CallView>,
    /// As callbacks tell it.
    #[schema(value_type = Object)]
    cost: CostBlock,
    /// The worker makes no further call.
    stop: bool,
}

/// What became of one call.
#[derive(Serialize, ToSchema)]
struct CallView {
    call_id: String,
    /// `recorded`, `unchanged`, `replaced`, `unpriced` or `refused`
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    code: Option<&'static ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    cost_usd: Option<Usd>,
}

impl CallView {
    fn refused(call_id: String, code: RefusalCode) -> Self {
        Self {
            call_id,
            outcome: Outcome::Refused(code).as_str(),
            code: Some(ErrorCode::named(code.as_str())),
            cost_usd: None,
        }
    }

    fn of(result: &CallResult) -> Self {
        let code = match result.outcome {
            Outcome::Refused(code) => Some(ErrorCode::named(code.as_str())),
            _ => None,
        };
        Self { call_id: result.call_id.to_string(), outcome: result.outcome.as_str(), code, cost_usd: result.cost_usd }
    }
}

/// LLM calls of an attempt, also after it ended; each gets an outcome.
#[utoipa::path(
    post,
    path = "/jobs/{job_id}/attempts/{attempt}/usage",
    tag = "worker",
    params(("job_id" = Uuid, Path), ("attempt" = u32, Path)),
    request_body = UsageRequest,
    responses((status = OK, body = UsageView)),
    extensions(("x-item-error-codes" = json!([USAGE_SHRANK, USAGE_TOO_LATE, USAGE_IMPOSSIBLE, INVALID_REQUEST]))),
)]
pub(in super::super) async fn usage(
    State(state): State<Arc<ApiState>>,
    path: AttemptPath,
    JsonBody(body): JsonBody<UsageRequest>,
) -> Result<Response, Problem> {
    check_count("calls", body.calls.len(), state.limits.batch_items)?;
    check_shape(&body.calls)?;
    let mut calls = Vec::with_capacity(body.calls.len());
    let mut refused = Vec::with_capacity(body.calls.len());
    for call in body.calls {
        let call_id = call.call_id.clone();
        let checked = call.normalised().and_then(|call| CallReport::new(call).map_err(|error| error.code()));
        refused.push(match checked {
            Ok(call) => {
                calls.push(call);
                None
            }
            Err(code) => Some(CallView::refused(call_id, code)),
        });
    }
    let report = ReportUsage { who: path.who, job_id: path.job_id, attempt: path.attempt, calls };
    let answer = state.control_plane.report_usage(&report).await?;
    let mut booked = answer.results.iter().map(CallView::of);
    let results = refused.into_iter();
    let view = UsageView {
        results: results.filter_map(|refused| refused.or_else(|| booked.next())).collect(),
        cost: answer.cost,
        stop: answer.stop,
    };
    let refused: Vec<_> = view.results.iter().filter_map(|result| result.code).collect();
    Ok(with_items(json_answer(StatusCode::OK, &view), refused))
}

/// Each call has its tokens in exactly one of two places.
fn check_shape(calls: &[CallRequest]) -> Result<(), Problem> {
    let wrong: Vec<FieldError> = calls
        .iter()
        .enumerate()
        .filter_map(|(index, call)| {
            let message = match (&call.usage, &call.provider_usage) {
                (None, None) => "is required, or provider_usage",
                (Some(_), Some(_)) => "must be absent when provider_usage is given",
                _ => return None,
            };
            Some(FieldError::new(format!("calls[{index}].usage"), message))
        })
        .collect();
    if wrong.is_empty() { Ok(()) } else { Err(Problem::invalid(wrong)) }
}
