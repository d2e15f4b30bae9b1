//! The server's instructions: which were seen, which can be acknowledged, and the stream that brings them.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use eventsource_stream::Eventsource;
use futures_util::{StreamExt, TryStreamExt, future};
use gh_core::domain::ids::{Attempt, DirectiveId, Generation, JobId};

use super::backoff::Backoff;
use super::session::Session;
use super::wire::{Directive, DirectiveKind};

/// How many directives are remembered.
const MOST_REMEMBERED: usize = 1_000;
/// A stream that brings nothing for so long, not even a comment, is opened anew.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// A stream that brought so many bytes is opened anew, so that no unfinished frame grows without a limit.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// What a directive asks of this worker now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Cancel,
    Resume,
    Drain,
    Shutdown,
    /// It was seen before, or names something else, or is not known.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Obeyed when this attempt has ended.
    UntilEnded(JobId, Attempt),
    /// To be acknowledged with the next heartbeat.
    Due,
    Acknowledged,
}

/// The directives that a registration has seen.
#[derive(Debug)]
pub(super) struct Directives {
    generation: Generation,
    seen: HashMap<DirectiveId, Progress>,
    order: VecDeque<DirectiveId>,
}

impl Directives {
    pub(super) fn new(generation: Generation) -> Self {
        Self { generation, seen: HashMap::new(), order: VecDeque::new() }
    }

    /// Takes a directive in. `holds` is the attempt that the worker has.
    pub(super) fn receive(&mut self, directive: &Directive, holds: Option<(JobId, Attempt)>) -> Meaning {
        if let Some(progress) = self.seen.get_mut(&directive.id) {
            // It came again because its acknowledgement was lost.
            if *progress == Progress::Acknowledged {
                *progress = Progress::Due;
            }
            return Meaning::Nothing;
        }
        let named = holds.filter(|(job_id, attempt)| {
            directive.job_id == Some(*job_id) && directive.attempt.is_none_or(|named| named == *attempt)
        });
        let (meaning, progress) = match (&directive.kind, named) {
            _ if directive.generation != self.generation => (Meaning::Nothing, Progress::Due),
            (DirectiveKind::CancelJob, Some((job_id, attempt))) => {
                (Meaning::Cancel, Progress::UntilEnded(job_id, attempt))
            }
            (DirectiveKind::ResumeJob, Some(_)) => (Meaning::Resume, Progress::Due),
            (DirectiveKind::Drain, _) => (Meaning::Drain, Progress::Due),
            (DirectiveKind::Shutdown, _) => (Meaning::Shutdown, Progress::Due),
            _ => (Meaning::Nothing, Progress::Due),
        };
        self.remember(directive.id, progress);
        meaning
    }

    fn remember(&mut self, id: DirectiveId, progress: Progress) {
        if self.order.len() >= MOST_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back(id);
        self.seen.insert(id, progress);
    }

    /// The handler of this attempt has ended.
    pub(super) fn ended(&mut self, job_id: JobId, attempt: Attempt) {
        for progress in self.seen.values_mut() {
            if *progress == Progress::UntilEnded(job_id, attempt) {
                *progress = Progress::Due;
            }
        }
    }

    /// What the next heartbeat acknowledges.
    pub(super) fn to_acknowledge(&self) -> Vec<DirectiveId> {
        let due = |id: &&DirectiveId| self.seen.get(*id) == Some(&Progress::Due);
        self.order.iter().filter(due).take(500).copied().collect()
    }

    /// The heartbeat that acknowledged these was answered.
    pub(super) fn acknowledged(&mut self, ids: &[DirectiveId]) {
        for id in ids {
            self.seen.entry(*id).and_modify(|progress| *progress = Progress::Acknowledged);
        }
    }
}

/// Keeps the stream of directives open. Never returns; what ends the registration ends it.
pub(super) async fn listen(session: &Session) {
    let host = &*session.config.host;
    let limits = &session.config.limits;
    let mut backoff = Backoff::new(limits.backoff_base, limits.backoff_cap);
    loop {
        let retry_after = match session.link.directives().await {
            Ok(response) => {
                let opened_at = host.continuous_clock();
                follow(session, response).await;
                if host.continuous_clock().saturating_sub(opened_at) > limits.backoff_cap {
                    backoff.reset();
                }
                None
            }
            Err(refusal) => session.heed(&refusal),
        };
        tokio::time::sleep(backoff.next(host, retry_after)).await;
    }
}

/// Obeys what one stream brings, until it ends.
async fn follow(session: &Session, response: reqwest::Response) {
    let mut received = 0;
    let bytes = response
        .bytes_stream()
        .take_while(move |chunk| {
            received += chunk.as_ref().map_or(0, bytes::Bytes::len);
            future::ready(received <= MOST_BYTES)
        })
        .map_err(reqwest::Error::without_url);
    // The clock for silence runs over bytes, because comments are no events.
    let bytes = futures_util::stream::unfold(Box::pin(bytes), |mut bytes| async move {
        let chunk = tokio::time::timeout(LONGEST_SILENCE, bytes.next()).await.ok()??;
        Some((chunk, bytes))
    });
    let mut frames = std::pin::pin!(bytes.eventsource());
    while let Some(frame) = frames.next().await {
        let Ok(frame) = frame else {
            return;
        };
        match serde_json::from_str(&frame.data) {
            Ok(directive) => session.obey(&directive),
            Err(error) => tracing::warn!(%error, "a directive cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn directive(number: u128, kind: DirectiveKind, job_id: Option<JobId>) -> Directive {
        Directive {
            id: DirectiveId::new(Uuid::from_u128(number)),
            kind,
            generation: Generation(2),
            job_id,
            attempt: job_id.map(|_| Attempt(1)),
            reason: None,
        }
    }

    fn job(number: u128) -> JobId {
        JobId::new(Uuid::from_u128(number))
    }

    #[test]
    fn a_cancellation_is_acknowledged_when_the_handler_has_ended_and_not_before() {
        let mut directives = Directives::new(Generation(2));
        let cancel = directive(1, DirectiveKind::CancelJob, Some(job(7)));
        assert_eq!(directives.receive(&cancel, Some((job(7), Attempt(1)))), Meaning::Cancel);
        assert_eq!(directives.receive(&cancel, Some((job(7), Attempt(1)))), Meaning::Nothing);
        assert!(directives.to_acknowledge().is_empty());
        directives.ended(job(7), Attempt(1));
        assert_eq!(directives.to_acknowledge(), [cancel.id]);
    }

    #[test]
    fn what_names_something_else_is_acknowledged_and_ignored() {
        let mut directives = Directives::new(Generation(2));
        let other_job = directive(1, DirectiveKind::CancelJob, Some(job(8)));
        let other_life = Directive { generation: Generation(1), ..directive(2, DirectiveKind::Shutdown, None) };
        let unknown = directive(3, DirectiveKind::Other("dance".into()), None);
        for ignored in [&other_job, &other_life, &unknown] {
            assert_eq!(directives.receive(ignored, Some((job(7), Attempt(1)))), Meaning::Nothing);
        }
        assert_eq!(directives.to_acknowledge(), [other_job.id, other_life.id, unknown.id]);
    }

    #[test]
    fn a_lost_acknowledgement_is_sent_again_when_the_directive_comes_again() {
        let mut directives = Directives::new(Generation(2));
        let drain = directive(1, DirectiveKind::Drain, None);
        assert_eq!(directives.receive(&drain, None), Meaning::Drain);
        directives.acknowledged(&[drain.id]);
        assert!(directives.to_acknowledge().is_empty());
        assert_eq!(directives.receive(&drain, None), Meaning::Nothing);
        assert_eq!(directives.to_acknowledge(), [drain.id]);
    }

    #[test]
    fn memory_of_directives_has_a_limit() {
        let mut directives = Directives::new(Generation(2));
        for number in 0..3_000 {
            directives.receive(&directive(number, DirectiveKind::TakeScreenshot, None), None);
        }
        assert_eq!(directives.seen.len(), MOST_REMEMBERED);
        assert_eq!(directives.order.len(), MOST_REMEMBERED);
    }
}
