//! What callers send: the names of things, and the bodies that a history only hints at.

use super::history::{Ends, Order, Tokens, Wish};
use crate::domain::code::{ClientName, ErrorCode};
use crate::domain::commands::{
    Credential, DrainWish, FailureReport, Heartbeat, JobClaim, JobLeft, Report, Submit, UsageClosing,
};
use crate::domain::cost::{CallReport, ReportedCall};
use crate::domain::ids::{Name, WorkerId};
use crate::domain::job::Completion;
use crate::domain::worker::Beat;
use crate::testing::{name, submission};

pub(super) fn worker_name(worker: u8) -> WorkerId {
    name(&format!("worker-{worker}"))
}

pub(super) fn worker_index(id: &WorkerId) -> Option<usize> {
    (0..3_u8).find(|worker| worker_name(*worker) == *id).map(usize::from)
}

/// Two targets, then a worker that is meant by its own id, then nobody.
pub(super) fn target_name(target: u8) -> Name {
    match target {
        0 | 1 => name(&format!("target-{target}")),
        2 => worker_name(2),
        _ => name("target-of-nobody"),
    }
}

pub(super) fn machine_name(machine: u8) -> Name {
    name(&format!("machine-{machine}"))
}

pub(super) fn heartbeat(who: Credential) -> Heartbeat {
    Heartbeat { who, beat: Beat::default(), job: JobClaim::Silent, drain: DrainWish::Silent, acknowledged: Vec::new() }
}

pub(super) fn submit(order: &Order) -> Option<Submit> {
    let mut request = submission();
    let (affinity, target) = match order.wish {
        Wish::Anyone => ("any", None),
        Wish::Only(target) => ("strict", Some(target)),
        Wish::First(target) => ("preferred", Some(target)),
    };
    request.worker_affinity = Some(affinity.into());
    request.target_worker_id = target.map(|target| target_name(target).to_string());
    request.affinity_wait_seconds = order.waits.then_some(20);
    request.expires_in_seconds = order.expires.then_some(30);
    request.max_attempts = Some(order.attempts.into());
    request.budget_usd = if order.budget { "0.00001".parse().ok() } else { None };
    request.callback_url = request.callback_url.filter(|_| order.callback);
    request.idempotency_key = order.key.map(|key| format!("key-{key}"));
    Some(Submit::new(ClientName::new("valet"), request.validate().ok()?))
}

/// The model is Claude Haiku 4.5, or one that has no price.
pub(super) fn usage(tokens: Tokens) -> Option<CallReport> {
    let model = if tokens.priced { "claude-haiku-4-5" } else { "nobody-knows-1" };
    let Tokens { call, input, cache_read, output, .. } = tokens;
    let call: ReportedCall = serde_json::from_value(serde_json::json!({
        "call_id": format!("call-{call}"),
        "provider": "anthropic",
        "model": model,
        "usage": { "input": input, "cache_read": cache_read, "output": output },
    }))
    .ok()?;
    CallReport::new(call).ok()
}

pub(super) fn report(ends: Ends) -> Option<Report> {
    let failure = |retryable| {
        let error_code = ErrorCode::parse("network_error")?;
        let failure = FailureReport { error_code, error_message: "the page did not load".into(), retryable };
        Some(Report::Fail(failure, UsageClosing::default()))
    };
    match ends {
        Ends::Completed => Some(Report::Complete(Completion::default(), UsageClosing::default())),
        Ends::CompletedWithCallsOpen => {
            let closing = UsageClosing { calls_in_flight: vec!["call-2".into()], ..UsageClosing::default() };
            Some(Report::Complete(Completion::default(), closing))
        }
        Ends::FailedRetryable => failure(true),
        Ends::Failed => failure(false),
        Ends::Released => Some(Report::Release(JobLeft { reason: "shutdown".into() })),
    }
}
