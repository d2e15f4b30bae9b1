//! What workers report of their jobs.

use super::{ControlPlane, UseCaseError};
use crate::domain::commands::{
    EventOutcome, ReportEvents, ReportOutcome, ReportUsage, SideEffectsStarted, UsageAnswer,
};
use crate::domain::job::OutcomeAnswer;

impl ControlPlane {
    /// Events of an attempt; one outcome each.
    ///
    /// # Errors
    ///
    /// The attempt is not the worker's, or the store is away.
    pub async fn report_events(&self, report: &ReportEvents) -> Result<Vec<EventOutcome>, UseCaseError> {
        self.execute(report).await
    }

    /// LLM calls of an attempt; one outcome each.
    ///
    /// # Errors
    ///
    /// There is no such job, or the store is away.
    pub async fn report_usage(&self, report: &ReportUsage) -> Result<UsageAnswer, UseCaseError> {
        self.execute(report).await
    }

    /// The point of no return; the worker acts only after `Ok`.
    ///
    /// # Errors
    ///
    /// The attempt is not the worker's, the job is paused, or the store is away.
    pub async fn side_effects_started(&self, report: &SideEffectsStarted) -> Result<(), UseCaseError> {
        self.execute(report).await
    }

    /// The end of an attempt.
    ///
    /// # Errors
    ///
    /// The attempt is not the worker's or ended otherwise, the job is paused, or the store is away.
    pub async fn report_outcome(&self, report: &ReportOutcome) -> Result<OutcomeAnswer, UseCaseError> {
        self.execute(report).await
    }
}
