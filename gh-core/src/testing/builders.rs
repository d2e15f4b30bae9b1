//! Valid requests, to be changed where a test wants something special.

use std::sync::Arc;

use super::SequentialIds;
use crate::domain::commands::Register;
use crate::domain::cost::PriceBook;
use crate::domain::ids::Name;
use crate::domain::policy::Policy;
use crate::domain::rules::Rules;
use crate::domain::submission::SubmissionRequest;
use crate::domain::worker::WorkerIdentity;

/// The default policy, the embedded prices, and ids of their own that count from 1.
#[must_use]
pub fn rules() -> Rules {
    Rules {
        policy: Arc::new(Policy::default()),
        prices: PriceBook::embedded(),
        ids: Arc::new(SequentialIds::default()),
    }
}

/// A name.
///
/// # Panics
///
/// When the text is none.
#[must_use]
pub fn name(text: &str) -> Name {
    match Name::parse(text) {
        Ok(name) => name,
        Err(error) => panic!("{text:?} is no name: {error}"),
    }
}

/// A job for anyone, with a callback address and every optional field absent.
#[must_use]
pub fn submission() -> SubmissionRequest {
    SubmissionRequest {
        valet_task_id: Some("task-1".into()),
        valet_user_id: Some("7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11".into()),
        job_type: Some("apply".into()),
        target_url: Some("https://jobs.example.com/1".into()),
        task_description: Some("Apply to the posting with the given profile".into()),
        callback_url: Some("https://client.example.com/callbacks".into()),
        ..SubmissionRequest::default()
    }
}

/// The same for workers of one target: `affinity` is `strict` or `preferred`.
#[must_use]
pub fn submission_to(target: &str, affinity: &str) -> SubmissionRequest {
    SubmissionRequest { target_worker_id: Some(target.into()), worker_affinity: Some(affinity.into()), ..submission() }
}

/// The first registration of a worker without target and machine.
///
/// # Panics
///
/// When the text is no name.
#[must_use]
pub fn registration(worker_id: &str) -> Register {
    Register {
        worker_id: name(worker_id),
        boot_id: name(&format!("{worker_id}-boot-1")),
        identity: WorkerIdentity::default(),
        metadata: None,
    }
}
