//! The error codes of the API: one table from code to status and title.

use std::cmp::Ordering;

use axum::http::StatusCode;
use serde::{Serialize, Serializer};

/// One error code.
#[derive(Debug, PartialEq, Eq)]
pub struct ErrorCode {
    code: &'static str,
    status: StatusCode,
    title: &'static str,
}

impl ErrorCode {
    /// The stable word that programs look at.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.code
    }

    /// The HTTP status that it is answered with; 200 for a code that only items of an answer carry.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The same for people: the same for every occurrence.
    #[must_use]
    pub const fn title(&self) -> &'static str {
        self.title
    }

    /// The URI that RFC 9457 asks for.
    #[must_use]
    pub fn type_uri(&self) -> String {
        format!("urn:ghosthands:error:{}", self.code)
    }

    /// Where the code is explained: the page's path from the root of the repository.
    #[must_use]
    pub fn page(&self) -> String {
        format!("docs/errors/{}.md", self.code)
    }

    /// The entry of a code that the core names; an unknown one is our fault.
    pub(super) fn named(code: &str) -> &'static Self {
        ALL.iter().copied().find(|known| known.code == code).unwrap_or(&INTERNAL_ERROR)
    }
}

impl PartialOrd for ErrorCode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By status, then by name.
impl Ord for ErrorCode {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.status.as_u16(), self.code).cmp(&(other.status.as_u16(), other.code))
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code)
    }
}

macro_rules! error_codes {
    ($($name:ident $status:ident $title:literal;)*) => {
        $(pub(super) static $name: ErrorCode = ErrorCode {
            code: stringify!($name),
            status: StatusCode::$status,
            title: $title,
        };)*

        static ALL: &[&ErrorCode] = &[$(&$name),*];
    };
}

error_codes! {
    USAGE_IMPOSSIBLE OK "The counts contradict themselves";
    USAGE_SHRANK OK "The report that is known for this call is the greater one";
    USAGE_TOO_LATE OK "The attempt ended too long ago, or was another worker's";
    MALFORMED_JSON BAD_REQUEST "The body is not JSON";
    INVALID_CURSOR BAD_REQUEST "The cursor is not one of ours";
    UNAUTHENTICATED UNAUTHORIZED "A known key is required";
    WRONG_KEY_KIND FORBIDDEN "This kind of key does not open this route";
    NOT_YOUR_WORKER FORBIDDEN "The token belongs to another worker";
    NOT_FOUND NOT_FOUND "Nothing is here";
    JOB_NOT_FOUND NOT_FOUND "There is no such job";
    WORKER_NOT_FOUND NOT_FOUND "There is no such worker";
    METHOD_NOT_ALLOWED METHOD_NOT_ALLOWED "The path does not take this method";
    REQUEST_TIMEOUT REQUEST_TIMEOUT "The body did not arrive in time";
    WORKER_UNAVAILABLE CONFLICT "No worker of the target can take the job";
    JOB_NOT_CANCELLABLE CONFLICT "The job cannot be cancelled";
    JOB_NOT_RETRYABLE CONFLICT "The job cannot be retried";
    SIDE_EFFECTS_STARTED CONFLICT "The job passed its point of no return";
    JOB_PAUSED CONFLICT "The job waits for a person";
    STALE_LEASE CONFLICT "The attempt is not the current one";
    STALE_GENERATION CONFLICT "The registration was replaced or given up";
    LEASE_HELD CONFLICT "The worker holds a job";
    WORKER_DRAINING CONFLICT "The worker takes no more jobs";
    WORKER_NOT_DRAINING CONFLICT "There is no drain to take back";
    WORKER_ID_CONTESTED CONFLICT "Two living processes use this worker_id";
    WORKER_DEREGISTERED GONE "The worker was deregistered";
    PAYLOAD_TOO_LARGE PAYLOAD_TOO_LARGE "The body or a list in it is over its limit";
    UNSUPPORTED_MEDIA_TYPE UNSUPPORTED_MEDIA_TYPE "The body must be application/json";
    INVALID_REQUEST UNPROCESSABLE_ENTITY "Fields are missing or out of range";
    IDEMPOTENCY_KEY_REUSED UNPROCESSABLE_ENTITY "The idempotency key was used for another body";
    CALLBACK_URL_REFUSED UNPROCESSABLE_ENTITY "The callback URL may not be called";
    INTERNAL_ERROR INTERNAL_SERVER_ERROR "The control plane failed";
    UNAVAILABLE SERVICE_UNAVAILABLE "The control plane cannot answer now";
}

/// Every code that the routes of this API answer with.
pub fn error_codes() -> impl Iterator<Item = &'static ErrorCode> {
    ALL.iter().copied()
}

#[cfg(test)]
mod tests {
    use gh_core::domain::cost::RefusalCode;
    use gh_core::domain::ids::{Attempt, JobId};
    use gh_core::domain::job::JobStatus;
    use gh_core::domain::rejection::Rejection;
    use gh_core::domain::time::Timestamp;

    use super::*;

    #[test]
    fn every_rejection_of_the_core_has_its_line_in_the_table() {
        let job_id = JobId::new(uuid::Uuid::nil());
        let now = Timestamp::from_micros(0);
        let rejections = [
            Rejection::Invalid(Vec::new()),
            Rejection::JobNotFound,
            Rejection::WorkerNotFound,
            Rejection::NameNotFound,
            Rejection::IdempotencyKeyReused,
            Rejection::WorkerUnavailable { worker_status: "busy" },
            Rejection::JobNotCancellable { status: JobStatus::Completed },
            Rejection::JobNotRetryable { reason: "" },
            Rejection::SideEffectsStarted,
            Rejection::JobPaused,
            Rejection::StaleLease,
            Rejection::StaleGeneration,
            Rejection::LeaseHeld { job_id, attempt: Attempt::FIRST },
            Rejection::WorkerDraining,
            Rejection::WorkerNotDraining,
            Rejection::WorkerIdContested { retry_at: now },
            Rejection::WorkerDeregistered { retry_at: None },
        ];
        for rejection in rejections {
            assert_eq!(ErrorCode::named(rejection.code()).as_str(), rejection.code());
        }
    }

    #[test]
    fn every_refusal_of_a_call_has_its_line_in_the_table() {
        for refusal in [
            RefusalCode::UsageShrank,
            RefusalCode::UsageTooLate,
            RefusalCode::UsageImpossible,
            RefusalCode::InvalidRequest,
        ] {
            assert_eq!(ErrorCode::named(refusal.as_str()).as_str(), refusal.as_str());
        }
    }

    #[test]
    fn no_code_is_listed_twice() {
        let mut codes: Vec<_> = error_codes().map(ErrorCode::as_str).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ALL.len());
    }
}
