//! What the tests of the callback sender share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gh_adapters_http::callbacks::{CallbackAllow, Guard, HttpCallbackSender, SendLimits, ServiceKeys};
use gh_core::domain::ids::DeliveryId;
use gh_core::ports::callback_sender::{CallbackSender, OutgoingCallback, SendError, SendOutcome};
use url::Url;
use uuid::Uuid;

/// What the senders of the tests believe the time to be: Sun, 06 Nov 1994 08:49:37 GMT.
pub(crate) const NOW: i64 = 784_111_777;

pub(crate) const WEBHOOK_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// Limits that let a test of a stalling receiver end soon.
pub(crate) fn short_limits() -> SendLimits {
    SendLimits { total: Duration::from_millis(300), ..SendLimits::default() }
}

pub(crate) fn sender(allow: CallbackAllow, keys: ServiceKeys, limits: SendLimits) -> HttpCallbackSender {
    HttpCallbackSender::new(Guard::new(allow), keys, limits, Arc::new(|| NOW)).unwrap()
}

/// A sender that may call this machine.
pub(crate) fn loopback_sender(limits: SendLimits) -> HttpCallbackSender {
    sender(CallbackAllow::loopback(), ServiceKeys::default(), limits)
}

pub(crate) fn callback(url: &str, body: impl Into<Bytes>) -> OutgoingCallback {
    OutgoingCallback {
        webhook_id: DeliveryId::new(Uuid::parse_str(WEBHOOK_ID).unwrap()),
        url: Url::parse(url).unwrap(),
        body: body.into(),
        attempt: 1,
    }
}

/// Sends a callback of which only the outcome matters.
pub(crate) async fn send(sender: &HttpCallbackSender, url: &str) -> SendOutcome {
    sender.send(callback(url, "{}")).await
}

/// The error of an outcome without an answer.
#[track_caller]
pub(crate) fn error_of(outcome: &SendOutcome) -> SendError {
    match outcome {
        SendOutcome::Unanswered { error, .. } => *error,
        SendOutcome::Answered { .. } => panic!("answered: {outcome:?}"),
    }
}
