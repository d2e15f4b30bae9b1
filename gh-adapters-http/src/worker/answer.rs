//! What a refusal of the control plane means to a worker: the one place that reads status and `code`.

use std::time::Duration;

use gh_core::domain::ids::{Attempt, JobId};
use serde::Deserialize;

/// The longest wait that a server can ask for with `Retry-After`.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Why a call did not do what it asked for, in terms of what the worker does next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `STALE_LEASE`: the attempt is over. The job ends without a further act, and the worker claims again.
    #[error("the lease of this attempt is over")]
    LeaseLost,
    /// `STALE_GENERATION`: this registration is over. The worker registers again, or exits if it was replaced.
    #[error("this registration was given up or replaced")]
    GenerationStale,
    /// `WORKER_DEREGISTERED`: the job ends and the process exits, not to be restarted.
    #[error("this worker was deregistered")]
    Deregistered,
    /// `401` or `403`: the job ends and the process exits, not to be restarted.
    #[error("the credentials were refused")]
    Unauthorized,
    /// `WORKER_NOT_FOUND`: the worker registers again.
    #[error("the control plane does not know this worker")]
    WorkerUnknown,
    /// `LEASE_HELD`: the worker goes on with that job or releases it.
    #[error("the worker already holds job {job_id}, attempt {attempt}")]
    LeaseHeld {
        /// The job that it holds.
        job_id: JobId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// `WORKER_DRAINING`: the worker claims no more.
    #[error("the worker is draining")]
    Draining,
    /// `WORKER_ID_CONTESTED`: the worker waits and tries again.
    #[error("the worker id is contested")]
    Contested {
        /// How long to wait, when the server said so.
        retry_after: Option<Duration>,
    },
    /// `JOB_PAUSED`: the worker waits for `resume_job`.
    #[error("the job waits for a person")]
    Paused,
    /// `BUDGET_EXCEEDED` or `MODEL_UNPRICED`: no further LLM call; before the point of no return the job ends.
    #[error("no further LLM call is allowed")]
    SpendingStopped,
    /// Any other `4xx`: the report is dropped and counted; an outcome is sent once more in its bare form.
    #[error("the report was rejected with {status} {}", code.as_deref().unwrap_or("without a code"))]
    Rejected {
        /// The HTTP status; 0 when the request could not even be built.
        status: u16,
        /// The `code` of the problem document, if there was one.
        code: Option<String>,
    },
    /// `408`, `429`, `5xx`, an answer that cannot be read, or none: the call is repeated.
    #[error("no usable answer")]
    Unanswered {
        /// The least wait before the repetition, when the server said so.
        retry_after: Option<Duration>,
    },
}

/// The members of a problem document that a worker reads.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    code: Option<String>,
    job_id: Option<JobId>,
    attempt: Option<Attempt>,
}

impl Refusal {
    /// Reads a refusing answer. `retry_after` is the header's wait, `body` whatever came with the answer.
    #[must_use]
    pub fn of(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        let retry_after = retry_after.map(|wait| wait.min(LONGEST_RETRY_AFTER));
        let code = problem.code.as_deref().unwrap_or_default();
        match (status, code) {
            (408 | 429 | 500.., _) => Self::Unanswered { retry_after },
            (401 | 403, _) => Self::Unauthorized,
            (_, "STALE_LEASE") => Self::LeaseLost,
            (_, "STALE_GENERATION") => Self::GenerationStale,
            (_, "WORKER_DEREGISTERED") => Self::Deregistered,
            (_, "WORKER_NOT_FOUND") => Self::WorkerUnknown,
            (_, "WORKER_DRAINING") => Self::Draining,
            (_, "WORKER_ID_CONTESTED") => Self::Contested { retry_after },
            (_, "JOB_PAUSED") => Self::Paused,
            (_, "BUDGET_EXCEEDED" | "MODEL_UNPRICED") => Self::SpendingStopped,
            (_, "LEASE_HELD") => match (problem.job_id, problem.attempt) {
                (Some(job_id), Some(attempt)) => Self::LeaseHeld { job_id, attempt },
                _ => Self::Unanswered { retry_after },
            },
            (400..=499, _) => Self::Rejected { status, code: problem.code },
            // Neither a success nor an error of ours: something between the worker and the server answered.
            _ => Self::Unanswered { retry_after },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(status: u16, code: &str) -> Refusal {
        Refusal::of(status, None, format!(r#"{{"code":"{code}"}}"#).as_bytes())
    }

    #[test]
    fn every_row_of_the_table_has_its_meaning() {
        let job = "8c5f0a3e-0000-4000-8000-000000000001";
        let held = format!(r#"{{"code":"LEASE_HELD","job_id":"{job}","attempt":3}}"#);
        let rejected = |status, code: &str| Refusal::Rejected { status, code: Some(code.to_owned()) };
        let table = [
            (coded(409, "STALE_LEASE"), Refusal::LeaseLost),
            (coded(409, "STALE_GENERATION"), Refusal::GenerationStale),
            (coded(410, "WORKER_DEREGISTERED"), Refusal::Deregistered),
            (coded(401, "UNAUTHENTICATED"), Refusal::Unauthorized),
            (coded(403, "NOT_YOUR_WORKER"), Refusal::Unauthorized),
            (coded(404, "WORKER_NOT_FOUND"), Refusal::WorkerUnknown),
            (
                Refusal::of(409, None, held.as_bytes()),
                Refusal::LeaseHeld { job_id: job.parse().unwrap(), attempt: Attempt(3) },
            ),
            (coded(409, "WORKER_DRAINING"), Refusal::Draining),
            (coded(409, "WORKER_ID_CONTESTED"), Refusal::Contested { retry_after: None }),
            (coded(409, "JOB_PAUSED"), Refusal::Paused),
            (coded(409, "BUDGET_EXCEEDED"), Refusal::SpendingStopped),
            (coded(409, "MODEL_UNPRICED"), Refusal::SpendingStopped),
            (coded(404, "JOB_NOT_FOUND"), rejected(404, "JOB_NOT_FOUND")),
            (coded(413, "PAYLOAD_TOO_LARGE"), rejected(413, "PAYLOAD_TOO_LARGE")),
            (coded(422, "INVALID_REQUEST"), rejected(422, "INVALID_REQUEST")),
            (coded(408, "REQUEST_TIMEOUT"), Refusal::Unanswered { retry_after: None }),
            (coded(429, "RATE_LIMITED"), Refusal::Unanswered { retry_after: None }),
            (coded(500, "INTERNAL_ERROR"), Refusal::Unanswered { retry_after: None }),
            (coded(503, "UNAVAILABLE"), Refusal::Unanswered { retry_after: None }),
        ];
        for (read, meant) in table {
            assert_eq!(read, meant);
        }
    }

    #[test]
    fn an_answer_that_is_not_ours_is_no_answer() {
        assert_eq!(Refusal::of(302, None, b"<html>"), Refusal::Unanswered { retry_after: None });
        assert_eq!(Refusal::of(404, None, b"<html>"), Refusal::Rejected { status: 404, code: None });
    }

    #[test]
    fn a_server_cannot_silence_a_worker_for_ever() {
        let asked = Some(Duration::from_secs(86_400));
        assert_eq!(Refusal::of(503, asked, b""), Refusal::Unanswered { retry_after: Some(Duration::from_secs(300)) });
    }
}
