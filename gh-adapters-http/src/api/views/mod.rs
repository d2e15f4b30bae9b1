//! What answers look like. Views borrow the core's types and are written straight to text.

mod callback;
mod job;
mod submission;
mod worker;

pub(super) use callback::CallbackView;
pub(super) use job::{ClaimedJobView, JobView};
pub(super) use submission::JobSubmission;
pub(super) use worker::WorkerEntry;

use std::time::Duration;

use serde::{Serialize, Serializer};

/// A duration in seconds: a whole number where it is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seconds(pub(super) Duration);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.subsec_nanos() == 0 {
            serializer.serialize_u64(self.0.as_secs())
        } else {
            serializer.serialize_f64(self.0.as_secs_f64())
        }
    }
}
