//! Sending one callback, once.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use url::Url;

use crate::domain::ids::DeliveryId;

/// One attempt to deliver one callback.
#[derive(Clone)]
pub struct OutgoingCallback {
    /// `webhook-id`: the same at every attempt of a delivery.
    pub webhook_id: DeliveryId,
    /// Where it goes.
    pub url: Url,
    /// The exact bytes of the body: the same at every attempt.
    pub body: Bytes,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

impl fmt::Debug for OutgoingCallback {
    /// Without the address and the body: both may hold secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { webhook_id, attempt, .. } = self;
        formatter
            .debug_struct("OutgoingCallback")
            .field("webhook_id", webhook_id)
            .field("attempt", attempt)
            .finish_non_exhaustive()
    }
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The receiver answered; 2xx means delivered, anything else does not.
    Answered {
        /// The HTTP status.
        status: u16,
        /// `Retry-After` of the answer, as a time from now.
        retry_after: Option<Duration>,
        /// The first characters of the answer's body, at most 1,000, for the person who looks why it failed.
        excerpt: String,
        /// How long the exchange took, its body included.
        took: Duration,
    },
    /// No answer came.
    Unanswered {
        /// What went wrong.
        error: SendError,
        /// How long it took to find out.
        took: Duration,
    },
}

/// Why no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SendError {
    /// The host name did not resolve.
    #[error("dns")]
    Dns,
    /// The address may not be called; another attempt would not help.
    #[error("blocked_ip")]
    BlockedAddress,
    /// No connection came about.
    #[error("connect")]
    Connect,
    /// The connection could not be secured.
    #[error("tls")]
    Tls,
    /// The time for the whole exchange was over.
    #[error("timeout")]
    Timeout,
    /// Anything else, for instance a connection closed in mid-answer.
    #[error("internal")]
    Internal,
}

/// Sends callbacks. One call is one attempt: retries, order and pace are decided elsewhere.
///
/// It keeps no state between calls, holds no lock while it sends, and always returns within its time limit (at most
/// 25 s, less than the lease of a delivery). Secrets in the URL never reach logs, errors or excerpts.
///
/// # Example
///
/// Callbacks need not travel by HTTP. This sender hands them to a task in the same process, and gives up on one that
/// does not listen; the core tries again later.
///
/// ```
/// use std::time::Duration;
///
/// use async_trait::async_trait;
/// use bytes::Bytes;
/// use gh_core::domain::ids::DeliveryId;
/// use gh_core::ports::callback_sender::{CallbackSender, OutgoingCallback, SendError, SendOutcome};
/// use tokio::sync::mpsc::{self, error::SendTimeoutError};
///
/// #[derive(Debug)]
/// struct Inbox(mpsc::Sender<Bytes>);
///
/// #[async_trait]
/// impl CallbackSender for Inbox {
///     async fn send(&self, callback: OutgoingCallback) -> SendOutcome {
///         const LIMIT: Duration = Duration::from_secs(5);
///         match self.0.send_timeout(callback.body, LIMIT).await {
///             Ok(()) => SendOutcome::Answered {
///                 status: 204,
///                 retry_after: None,
///                 excerpt: String::new(),
///                 took: Duration::ZERO,
///             },
///             Err(SendTimeoutError::Timeout(_)) => {
///                 SendOutcome::Unanswered { error: SendError::Timeout, took: LIMIT }
///             }
///             Err(SendTimeoutError::Closed(_)) => {
///                 SendOutcome::Unanswered { error: SendError::Connect, took: Duration::ZERO }
///             }
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), url::ParseError> {
/// let (inbox, mut received) = mpsc::channel(8);
/// let callback = OutgoingCallback {
///     webhook_id: DeliveryId::new(uuid::Uuid::from_u128(1)),
///     url: "inbox://callbacks".parse()?,
///     body: Bytes::from_static(br#"{"status": "running"}"#),
///     attempt: 1,
/// };
/// let outcome = Inbox(inbox).send(callback).await;
/// assert!(matches!(outcome, SendOutcome::Answered { status: 204, .. }));
/// assert!(received.recv().await.is_some());
/// # Ok(())
/// # }
/// ```
#[cfg_attr(feature = "testing", mockall::automock)]
#[async_trait]
pub trait CallbackSender: Send + Sync + fmt::Debug {
    /// Sends one callback once.
    async fn send(&self, callback: OutgoingCallback) -> SendOutcome;
}
