//! What holds of a call that is made twice.

use super::call::{Answer, Call};
use super::driver::Failure;
use super::reference::ensure;
use crate::domain::commands::ClaimAnswer;
use crate::domain::rejection::Rejection;

/// A call that was answered with success, once more: the same answer, and nothing changes.
pub(super) fn judge_repetition(
    call: &Call,
    first: &Result<Answer, Rejection>,
    second: &Result<Answer, Rejection>,
    changed: bool,
) -> Result<(), Failure> {
    let Ok(first) = first else { return Ok(()) };
    ensure!(!changed || !call.is_repeatable(), "a repetition changed something: {call:?}");
    let same = match (first, second) {
        (Answer::Register(first), Ok(Answer::Register(second))) => first.credential == second.credential,
        (Answer::ReportOutcome(first), Ok(Answer::ReportOutcome(second))) => first == second,
        (Answer::Deregister(first), Ok(Answer::Deregister(second))) => {
            first.dry_run || first.deregistration.id == second.deregistration.id
        }
        (Answer::Claim(ClaimAnswer::Granted(first)), Ok(Answer::Claim(ClaimAnswer::Granted(second)))) => {
            (first.job.id, first.job.attempt) == (second.job.id, second.job.attempt)
        }
        (Answer::Submit(_) | Answer::Cancel(_) | Answer::ReportEvents(_) | Answer::ReportUsage(_), second) => {
            second.is_ok()
        }
        (Answer::SideEffectsStarted(()) | Answer::Goodbye(_) | Answer::LiftHold(_), second) => second.is_ok(),
        (Answer::Retry(_) | Answer::Undrain(()) | Answer::Drain(()), _) => true,
        (Answer::Heartbeat(_) | Answer::ConnectionNews(()) | Answer::Claim(ClaimAnswer::Waiting), _) => true,
        _ => false,
    };
    ensure!(same, "a repetition was answered otherwise: {call:?}: first {first:?}, then {second:?}");
    Ok(())
}
