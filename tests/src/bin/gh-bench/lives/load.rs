//! Workers that submit a job, claim one and complete it, again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gh_tests::{PATIENCE, SERVICE_KEY, WORKER_KEY};
use hyper::StatusCode;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Failure;
use crate::connection::{Connection, Key};

/// The size of a submission, in bytes.
const SUBMISSION: usize = 2048;

/// A load that goes on until it is told to end.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<Result<(), Failure>>,
}

#[derive(Debug)]
struct Shared {
    base_url: String,
    submission: Bytes,
    ending: AtomicBool,
    submitted: AtomicU64,
    claimed: AtomicU64,
    completed: AtomicU64,
    /// What the calls of each kind took together, in microseconds.
    submitting: AtomicU64,
    claiming: AtomicU64,
    completing: AtomicU64,
}

/// What was done so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    /// Jobs whose submission was acknowledged.
    pub(crate) submitted: u64,
    /// Jobs that were granted.
    pub(crate) claimed: u64,
    /// Jobs whose completion was acknowledged.
    pub(crate) completed: u64,
    microseconds: [u64; 3],
}

impl Tally {
    /// What one call of each kind took on average since an earlier tally, in milliseconds.
    pub(crate) fn milliseconds_since(&self, earlier: &Self) -> [f64; 3] {
        let calls =
            [self.submitted - earlier.submitted, self.claimed - earlier.claimed, self.completed - earlier.completed];
        std::array::from_fn(|kind| {
            (self.microseconds[kind] - earlier.microseconds[kind]) as f64 / 1000.0 / calls[kind].max(1) as f64
        })
    }
}

impl Load {
    /// Registers so many workers, each with a connection, and lets them begin.
    pub(crate) async fn start(base_url: &str, workers: u16, callback_url: &str) -> Result<Self, Failure> {
        let shared = Arc::new(Shared {
            base_url: base_url.to_owned(),
            submission: submission(callback_url),
            ending: AtomicBool::new(false),
            submitted: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            submitting: AtomicU64::new(0),
            claiming: AtomicU64::new(0),
            completing: AtomicU64::new(0),
        });
        let mut ready = Vec::new();
        for number in 0..workers {
            ready.push(Worker::register(&shared, number).await?);
        }
        let mut workers = JoinSet::new();
        for worker in ready {
            workers.spawn(worker.live());
        }
        Ok(Self { shared, workers })
    }

    /// Lets them go on for so long; at once back when one of them met what it should not.
    pub(crate) async fn go_on(&mut self, seconds: u32) -> Result<(), Failure> {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(seconds.into())) => Ok(()),
            ended = self.workers.join_next() => {
                outcome(ended)?;
                Err(Failure::Wrong("a worker ended too early".into()))
            }
        }
    }

    /// Lets each worker end its life, so that no job is left.
    pub(crate) async fn end(mut self) -> Result<Tally, Failure> {
        self.shared.ending.store(true, Ordering::Relaxed);
        let ended = async {
            while let Some(ended) = self.workers.join_next().await {
                outcome(Some(ended))?;
            }
            Ok(self.shared.tally())
        };
        let late = |_| Failure::Wrong("jobs are not completed long after the last was submitted".into());
        tokio::time::timeout(PATIENCE, ended).await.map_err(late)?
    }

    /// What was done so far.
    pub(crate) fn tally(&self) -> Tally {
        self.shared.tally()
    }
}

fn outcome(ended: Option<Result<Result<(), Failure>, tokio::task::JoinError>>) -> Result<(), Failure> {
    ended.unwrap_or(Ok(Ok(()))).unwrap_or_else(|error| Err(Failure::Wrong(error.to_string())))
}

impl Shared {
    fn tally(&self) -> Tally {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally {
            submitted: read(&self.submitted),
            claimed: read(&self.claimed),
            completed: read(&self.completed),
            microseconds: [read(&self.submitting), read(&self.claiming), read(&self.completing)],
        }
    }
}

/// A submission of exactly the size that is promised, with text that does not repeat in what an applicant's profile is.
fn submission(callback_url: &str) -> Bytes {
    let body = |filling: &str| {
        gh_tests::submission(&json!({ "callback_url": callback_url, "profile": { "text": filling } })).to_string()
    };
    let room = SUBMISSION.saturating_sub(body("").len());
    let mut state: u32 = 1;
    let letters = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'a' + (state >> 24) as u8 % 26)
    });
    body(&letters.take(room).collect::<String>()).into()
}

#[derive(Debug)]
struct Worker {
    shared: Arc<Shared>,
    connection: Connection,
    service: Key,
    token: Key,
    claim: String,
}

#[derive(Deserialize)]
struct Registered {
    token: String,
}

#[derive(Deserialize)]
struct Claimed {
    job: ClaimedJob,
    attempt: u32,
}

#[derive(Deserialize)]
struct ClaimedJob {
    job_id: String,
}

impl Worker {
    async fn register(shared: &Arc<Shared>, number: u16) -> Result<Self, Failure> {
        let mut connection = Connection::open(&shared.base_url).await?;
        let id = format!("bench-{number}");
        let body = json!({ "worker_id": id, "boot_id": format!("{id}-boot") }).to_string();
        let path = "/api/v1/workers/register";
        let (_, answer) = connection.post(path, &Key::new(WORKER_KEY)?, body.into()).await?;
        let registered: Registered = read(&answer)?;
        Ok(Self {
            shared: Arc::clone(shared),
            connection,
            service: Key::new(SERVICE_KEY)?,
            token: Key::new(&registered.token)?,
            claim: format!("/api/v1/workers/{id}/claim?wait=5"),
        })
    }

    async fn live(mut self) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        while !shared.ending.load(Ordering::Relaxed) {
            let begun = now();
            let body = shared.submission.clone();
            self.connection.expect("/api/v1/jobs", &self.service, body, StatusCode::CREATED).await?;
            count(&shared.submitted, &shared.submitting, begun);

            let begun = now();
            let answer = loop {
                let (status, answer) =
                    self.connection.post(&self.claim, &self.token, Bytes::from_static(b"{}")).await?;
                match status {
                    StatusCode::OK => break answer,
                    // Another has the job that it waited for, and its own is still to be found.
                    StatusCode::NO_CONTENT => {}
                    _ => {
                        return Err(Failure::Wrong(format!("a claim: {status}: {}", String::from_utf8_lossy(&answer))));
                    }
                }
            };
            let claimed: Claimed = read(&answer)?;
            count(&shared.claimed, &shared.claiming, begun);

            let begun = now();
            let path = format!("/api/v1/jobs/{}/attempts/{}/complete", claimed.job.job_id, claimed.attempt);
            let body = Bytes::from_static(br#"{"llm_calls":0,"result_data":{"ok":true}}"#);
            self.connection.expect(&path, &self.token, body, StatusCode::OK).await?;
            count(&shared.completed, &shared.completing, begun);
        }
        Ok(())
    }
}

fn count(calls: &AtomicU64, microseconds: &AtomicU64, begun: Instant) {
    let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    microseconds.fetch_add(took, Ordering::Relaxed);
    calls.fetch_add(1, Ordering::Relaxed);
}

#[expect(clippy::disallowed_methods, reason = "a measurement takes real time")]
fn now() -> Instant {
    Instant::now()
}

fn read<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(answer)
        .map_err(|error| Failure::Wrong(format!("{error} in {}", String::from_utf8_lossy(answer))))
}

#[cfg(test)]
mod tests {
    use super::{SUBMISSION, submission};

    #[test]
    fn a_submission_has_the_size_that_is_promised() {
        assert_eq!(submission("http://127.0.0.1:40000/answered").len(), SUBMISSION);
    }
}
