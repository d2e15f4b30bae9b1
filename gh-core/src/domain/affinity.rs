//! Which worker a client wants for a job.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::TargetName;

/// `worker_affinity` and its target. A strict or preferred job without a target cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Routing {
    /// Only workers of the target, or not at all.
    Strict {
        /// The client's routing key.
        target: TargetName,
        /// How long it waits for the target to become idle before it fails.
        wait: Duration,
    },
    /// Workers of the target first, then anyone.
    Preferred {
        /// The client's routing key.
        target: TargetName,
        /// How long it waits for the target to become idle before anyone may take it.
        wait: Duration,
    },
    /// Whoever is free.
    Any {
        /// What the client named all the same; told back, not routed by.
        target: Option<TargetName>,
    },
}

impl Routing {
    /// The word on the wire.
    #[must_use]
    pub const fn affinity(&self) -> &'static str {
        match self {
            Self::Strict { .. } => "strict",
            Self::Preferred { .. } => "preferred",
            Self::Any { .. } => "any",
        }
    }

    /// `target_worker_id` as the client sent it.
    #[must_use]
    pub const fn target(&self) -> Option<&TargetName> {
        match self {
            Self::Strict { target, .. } | Self::Preferred { target, .. } => Some(target),
            Self::Any { target } => target.as_ref(),
        }
    }
}
