//! Every command as one type, so that histories can hold any of them.

use crate::domain::changeset::Changeset;
use crate::domain::commands::{
    Cancel, Claim, Command, ConnectionNews, Credential, Deregister, Drain, Goodbye, Heartbeat, LiftHold, Register,
    ReportEvents, ReportOutcome, ReportUsage, Retry, SideEffectsStarted, Submit, Undrain, decide, decide_recalled,
};
use crate::domain::ids::{Attempt, JobId};
use crate::domain::rejection::Rejection;
use crate::domain::rules::Rules;
use crate::domain::snapshot::{Keys, Snapshot};

macro_rules! calls {
    ($($name:ident)*) => {
        /// A command with all that it says.
        #[derive(Clone, Debug)]
        pub(super) enum Call {
            $($name($name),)*
        }

        /// What it was answered.
        #[derive(Clone, Debug)]
        pub(super) enum Answer {
            $($name(<$name as Command>::Answer),)*
        }

        impl Call {
            pub(super) fn keys(&self) -> Keys {
                match self {
                    $(Self::$name(command) => command.keys(),)*
                }
            }

            pub(super) fn decide(&self, snapshot: &Snapshot, rules: &Rules) -> (Result<Answer, Rejection>, Changeset) {
                match self {
                    $(Self::$name(command) => {
                        let decision = decide(snapshot, command, rules);
                        (decision.answer.map(Answer::$name), decision.changes)
                    })*
                }
            }

            /// On what a store remembers; `None` where that is not enough.
            pub(super) fn decide_recalled(
                &self,
                snapshot: &Snapshot,
                rules: &Rules,
            ) -> Option<(Result<Answer, Rejection>, Changeset)> {
                match self {
                    $(Self::$name(command) => {
                        let decision = decide_recalled(snapshot, command, rules)?;
                        Some((decision.answer.map(Answer::$name), decision.changes))
                    })*
                }
            }
        }
    };
}

calls! {
    Submit Cancel Retry Register Claim ConnectionNews Heartbeat ReportEvents SideEffectsStarted ReportUsage
    ReportOutcome Goodbye Drain Undrain Deregister LiftHold
}

impl Call {
    /// The process that calls, where a worker does, other than to register.
    pub(super) const fn process(&self) -> Option<&Credential> {
        match self {
            Self::Claim(Claim { who, .. })
            | Self::ConnectionNews(ConnectionNews { who, .. })
            | Self::Heartbeat(Heartbeat { who, .. })
            | Self::ReportEvents(ReportEvents { who, .. })
            | Self::SideEffectsStarted(SideEffectsStarted { who, .. })
            | Self::ReportUsage(ReportUsage { who, .. })
            | Self::ReportOutcome(ReportOutcome { who, .. })
            | Self::Goodbye(Goodbye { who, .. }) => Some(who),
            Self::Submit(_)
            | Self::Cancel(_)
            | Self::Retry(_)
            | Self::Register(_)
            | Self::Drain(_)
            | Self::Undrain(_)
            | Self::Deregister(_)
            | Self::LiftHold(_) => None,
        }
    }

    /// The attempt that a report names. Usage is not among them: it is about the past.
    pub(super) const fn report(&self) -> Option<(&Credential, JobId, Attempt)> {
        match self {
            Self::ReportEvents(ReportEvents { who, job_id, attempt, .. })
            | Self::SideEffectsStarted(SideEffectsStarted { who, job_id, attempt, .. })
            | Self::ReportOutcome(ReportOutcome { who, job_id, attempt, .. }) => Some((who, *job_id, *attempt)),
            _ => None,
        }
    }

    /// Whether the same call once more must change nothing, once it was answered with success.
    pub(super) const fn is_repeatable(&self) -> bool {
        match self {
            Self::Submit(submit) => submit.idempotency_key.is_some(),
            // What a worker says of itself is news each time; a claim may find what came meanwhile.
            Self::Heartbeat(_) | Self::ConnectionNews(_) | Self::Claim(_) => false,
            _ => true,
        }
    }
}
