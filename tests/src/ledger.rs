//! What servers acknowledged, kept by those who were told.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// One attempt of a job.
pub type Attempt = (String, u64);

/// Everything that was acknowledged, by job.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    /// Submissions: the key against double submission, and the job.
    pub submissions: BTreeMap<String, String>,
    /// What must not happen twice, in the order in which it happened.
    pub acts: Vec<Attempt>,
    /// Outcomes of attempts, with the status that the job has by them.
    pub outcomes: BTreeMap<Attempt, String>,
    /// Calls of language models by job and call: the tokens that went in and came out.
    pub calls: BTreeMap<(String, String), (u64, u64)>,
    /// Cancellations.
    pub cancelled: Vec<String>,
}

/// Takes down what is acknowledged, and tells how much it is.
#[derive(Debug, Default)]
pub struct Ledger {
    acknowledged: Mutex<Acknowledged>,
    count: watch::Sender<u64>,
}

impl Ledger {
    fn note(&self) -> MutexGuard<'_, Acknowledged> {
        self.count.send_modify(|count| *count += 1);
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A submission was accepted.
    ///
    /// # Panics
    ///
    /// When the same key made another job before.
    pub fn submitted(&self, key: &str, job_id: &str) {
        let before = self.note().submissions.insert(key.to_owned(), job_id.to_owned());
        assert!(before.is_none_or(|before| before == job_id), "{key} made two jobs");
    }

    /// Something was done that must not happen twice.
    pub fn acted(&self, job_id: &str, attempt: u64) {
        self.note().acts.push((job_id.to_owned(), attempt));
    }

    /// An attempt's outcome was taken, and the job has this status now.
    pub fn ended(&self, job_id: &str, attempt: u64, status: &str) {
        self.note().outcomes.insert((job_id.to_owned(), attempt), status.to_owned());
    }

    /// A call of a language model was recorded.
    pub fn called(&self, job_id: &str, call_id: &str, tokens: (u64, u64)) {
        self.note().calls.insert((job_id.to_owned(), call_id.to_owned()), tokens);
    }

    /// A cancellation was accepted.
    pub fn cancelled(&self, job_id: &str) {
        self.note().cancelled.push(job_id.to_owned());
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> Acknowledged {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How much was acknowledged.
    #[must_use]
    pub fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// Waits until so much more is acknowledged than now: the load is in full swing.
    ///
    /// # Panics
    ///
    /// When nothing goes on any more.
    pub async fn grows_by(&self, more: u64) {
        let goal = self.count() + more;
        let mut count = self.count.subscribe();
        let grown = tokio::time::timeout(crate::PATIENCE, count.wait_for(|count| *count >= goal)).await;
        assert!(grown.is_ok(), "nothing goes on: {} of {goal} acknowledged", self.count());
    }
}
