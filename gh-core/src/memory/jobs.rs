//! Jobs with their events and LLM calls, the order of lists, and deadlines.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::waiting::{Standing, Waiting};
use crate::domain::changeset::JobWrite;
use crate::domain::cost::LedgerEntry;
use crate::domain::event::JobEvent;
use crate::domain::ids::{JobId, Version};
use crate::domain::job::{Job, JobStatus};
use crate::domain::time::Timestamp;
use crate::ports::reader::JobPosition;

/// One job and what belongs to it.
#[derive(Debug)]
struct JobRow {
    job: Arc<Job>,
    next_deadline: Option<Timestamp>,
    standing: Option<Standing>,
    /// The event with number `n` is at `n - 1`.
    events: Vec<JobEvent>,
    /// Ordered by call id.
    #[expect(clippy::vec_box, reason = "inserting in order moves what follows: pointers, not entries")]
    calls: Vec<Box<LedgerEntry>>,
}

/// All jobs.
#[derive(Debug, Default)]
pub(super) struct JobTable {
    rows: HashMap<JobId, JobRow>,
    /// One list for each status, in [`JobStatus::ALL`]'s order.
    lists: [BTreeSet<JobPosition>; JobStatus::ALL.len()],
    deadlines: BTreeSet<(Timestamp, JobId)>,
    waiting: Waiting,
}

impl JobTable {
    pub(super) fn get(&self, id: JobId) -> Option<&Arc<Job>> {
        self.rows.get(&id).map(|row| &row.job)
    }

    pub(super) fn version(&self, id: JobId) -> Version {
        self.get(id).map_or(Version::ABSENT, |job| job.version)
    }

    /// Writes a job; gives back what it was before.
    pub(super) fn write(&mut self, write: &JobWrite, now: Timestamp) -> Option<Arc<Job>> {
        let job = &write.job;
        let standing = match self.rows.get(&job.id) {
            Some(row) => {
                if let Some(standing) = row.standing {
                    self.waiting.remove(&row.job, standing);
                }
                if let Some(deadline) = row.next_deadline {
                    self.deadlines.remove(&(deadline, job.id));
                }
                if row.job.status() != job.status() {
                    self.lists[row.job.status() as usize].remove(&JobPosition::of(&row.job));
                }
                self.waiting.insert(job, now)
            }
            None => self.waiting.insert(job, now),
        };
        self.lists[job.status() as usize].insert(JobPosition::of(job));
        if let Some(deadline) = write.next_deadline {
            self.deadlines.insert((deadline, job.id));
        }
        match self.rows.get_mut(&job.id) {
            Some(row) => {
                row.next_deadline = write.next_deadline;
                row.standing = standing;
                Some(std::mem::replace(&mut row.job, Arc::clone(job)))
            }
            None => {
                let row = JobRow {
                    job: Arc::clone(job),
                    next_deadline: write.next_deadline,
                    standing,
                    events: Vec::new(),
                    calls: Vec::new(),
                };
                self.rows.insert(job.id, row);
                None
            }
        }
    }

    /// Appends an event; one of a job that does not exist belongs nowhere.
    pub(super) fn append(&mut self, event: JobEvent) {
        if let Some(row) = self.rows.get_mut(&event.job_id) {
            debug_assert_eq!(event.seq, row.events.len() as u64 + 1, "events are numbered without gaps");
            row.events.push(event);
        }
    }

    /// Inserts or replaces an LLM call; one of a job that does not exist belongs nowhere.
    pub(super) fn record(&mut self, id: JobId, entry: &LedgerEntry) {
        if let Some(row) = self.rows.get_mut(&id) {
            let place = row.calls.binary_search_by(|known| call_id(known).cmp(call_id(entry)));
            match place {
                Ok(index) => *row.calls[index] = entry.clone(),
                Err(index) => row.calls.insert(index, Box::new(entry.clone())),
            }
        }
    }

    /// Gives back memory that a job which ended does not need any more.
    pub(super) fn compact(&mut self, id: JobId) {
        if let Some(row) = self.rows.get_mut(&id)
            && row.job.ending().is_some()
        {
            row.events.shrink_to_fit();
            row.calls.shrink_to_fit();
        }
    }

    /// The events of a job with a number above `after_seq`, oldest first.
    pub(super) fn events(&self, id: JobId, after_seq: u64) -> &[JobEvent] {
        let start = usize::try_from(after_seq).unwrap_or(usize::MAX);
        self.rows.get(&id).and_then(|row| row.events.get(start..)).unwrap_or_default()
    }

    /// An LLM call of a job.
    pub(super) fn call(&self, id: JobId, wanted: &str) -> Option<&LedgerEntry> {
        let calls = &self.rows.get(&id)?.calls;
        let index = calls.binary_search_by(|known| call_id(known).cmp(wanted)).ok()?;
        Some(&calls[index])
    }

    /// Moves jobs whose backoff or fence is over to the lane from which they can be taken now.
    pub(super) fn take_turns(&mut self, now: Timestamp) {
        while let Some(id) = self.waiting.turn(now) {
            let Some(row) = self.rows.get_mut(&id) else { break };
            let Some(standing) = row.standing else { break };
            self.waiting.remove(&row.job, standing);
            row.standing = self.waiting.insert(&row.job, now);
        }
    }

    /// The jobs that wait, in the lanes where the last turns left them.
    pub(super) const fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Jobs whose deadline is over, longest over first.
    pub(super) fn due(&self, now: Timestamp) -> impl Iterator<Item = JobId> {
        self.deadlines.iter().take_while(move |(deadline, _)| *deadline <= now).map(|(_, id)| *id)
    }

    /// How many jobs have each live status.
    pub(super) fn counts(&self) -> Vec<(JobStatus, u64)> {
        JobStatus::LIVE.into_iter().map(|status| (status, self.lists[status as usize].len() as u64)).collect()
    }

    /// Jobs before `before` in time, newest first, of one status or of all.
    pub(super) fn newest_first(
        &self,
        status: Option<JobStatus>,
        before: JobPosition,
    ) -> impl Iterator<Item = &Arc<Job>> {
        let lists = match status {
            Some(status) => std::slice::from_ref(&self.lists[status as usize]),
            None => &self.lists[..],
        };
        let mut heads: Vec<_> = lists
            .iter()
            .map(|list| {
                let mut rest = list.range(..before).rev();
                (rest.next(), rest)
            })
            .collect();
        std::iter::from_fn(move || {
            let (newest, rest) = heads.iter_mut().max_by_key(|(head, _)| *head)?;
            std::mem::replace(newest, rest.next())
        })
        .filter_map(|position| self.get(position.id))
    }
}

/// By what a call is known among those of its job.
fn call_id(entry: &LedgerEntry) -> &str {
    entry.report.call_id()
}
