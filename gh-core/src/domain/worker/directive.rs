//! What the server tells a worker.

use serde::{Deserialize, Serialize};

use crate::domain::ids::{Attempt, DirectiveId, Generation, InteractionId, JobId};
use crate::domain::time::Timestamp;

/// What a directive tells a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectiveType {
    /// End the job: it is cancelled.
    CancelJob,
    /// A person says that the blocker is gone.
    ResumeJob,
    /// Make a fresh picture.
    TakeScreenshot,
    /// A person has taken the interaction.
    InteractionClaimed,
    /// Take no more jobs, finish the present one.
    Drain,
    /// Stop.
    Shutdown,
}

impl DirectiveType {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CancelJob => "cancel_job",
            Self::ResumeJob => "resume_job",
            Self::TakeScreenshot => "take_screenshot",
            Self::InteractionClaimed => "interaction_claimed",
            Self::Drain => "drain",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Something the server tells a worker, until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// Its id: a repetition has the same.
    pub id: DirectiveId,
    /// What is to be done.
    #[serde(rename = "type")]
    pub directive_type: DirectiveType,
    /// The generation it is meant for.
    pub generation: Generation,
    /// The job it names.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub job_id: Option<JobId>,
    /// The attempt it names.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<Attempt>,
    /// The interaction it names.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interaction_id: Option<InteractionId>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Box<str>>,
    /// Until when.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deadline: Option<Timestamp>,
    /// Since when.
    pub issued_at: Timestamp,
}
