//! Workers for the tests: a handler made of a closure, a clock that the test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use gh_adapters_http::worker::{
    ClaimedJob, Completion, Failure, Host, JobContext, JobHandler, Limits, SystemHost, Worker, WorkerConfig, WorkerExit,
};
use gh_core::domain::ids::{JobId, Name};
use gh_core::domain::time::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::control_plane::{PATIENCE, Running};

type Performance = BoxFuture<'static, Result<Completion, Failure>>;

/// Performs jobs with a closure, and counts what becomes of them.
pub(crate) struct Handler {
    perform: Box<dyn Fn(ClaimedJob, JobContext) -> Performance + Send + Sync>,
    pub(crate) started: watch::Sender<u32>,
    pub(crate) dropped: watch::Sender<u32>,
    pub(crate) cleaned_up: AtomicU32,
    /// Cleaning up waits for this; true from the start.
    pub(crate) may_clean_up: watch::Sender<bool>,
}

/// Counts a performance that did not come to its end.
struct Witness {
    handler: watch::Sender<u32>,
    ended: bool,
}

impl Drop for Witness {
    fn drop(&mut self) {
        if !self.ended {
            self.handler.send_modify(|count| *count += 1);
        }
    }
}

impl Handler {
    pub(crate) fn new<F, P>(perform: F) -> Arc<Self>
    where
        F: Fn(ClaimedJob, JobContext) -> P + Send + Sync + 'static,
        P: Future<Output = Result<Completion, Failure>> + Send + 'static,
    {
        Arc::new(Self {
            perform: Box::new(move |job, context| Box::pin(perform(job, context))),
            started: watch::Sender::new(0),
            dropped: watch::Sender::new(0),
            cleaned_up: AtomicU32::new(0),
            may_clean_up: watch::Sender::new(true),
        })
    }

    /// A job that never ends by itself.
    pub(crate) fn endless() -> Arc<Self> {
        Self::new(|_, _| std::future::pending())
    }

    /// A job that is done at once.
    pub(crate) fn quick() -> Arc<Self> {
        Self::new(|_, _| async { Ok(Completion::new("done")) })
    }

    pub(crate) async fn wait_started(&self, count: u32) {
        wait(&self.started, count, "a started job").await;
    }

    pub(crate) async fn wait_dropped(&self, count: u32) {
        wait(&self.dropped, count, "a dropped job").await;
    }
}

async fn wait(sender: &watch::Sender<u32>, count: u32, what: &str) {
    let mut receiver = sender.subscribe();
    let reached = receiver.wait_for(|now| *now >= count);
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "{what} did not come");
}

#[async_trait]
impl JobHandler for Handler {
    async fn run(&self, job: ClaimedJob, context: JobContext) -> Result<Completion, Failure> {
        self.started.send_modify(|count| *count += 1);
        let mut witness = Witness { handler: self.dropped.clone(), ended: false };
        let result = (self.perform)(job, context).await;
        witness.ended = true;
        result
    }

    async fn clean_up(&self, _job_id: JobId) {
        let mut may = self.may_clean_up.subscribe();
        may.wait_for(|may| *may).await.expect("the sender lives");
        self.cleaned_up.fetch_add(1, Ordering::SeqCst);
    }
}

/// The machine's randomness with a continuous clock that the test moves.
#[derive(Debug, Default)]
pub(crate) struct ManualHost {
    millis: AtomicU64,
}

impl ManualHost {
    pub(crate) fn advance(&self, seconds: u64) {
        self.millis.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }
}

impl Host for ManualHost {
    fn wall_clock(&self) -> Timestamp {
        SystemHost.wall_clock()
    }

    fn continuous_clock(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }

    fn random_bits(&self) -> u128 {
        SystemHost.random_bits()
    }

    fn memory_usage(&self) -> Option<u64> {
        Some(123_456_789)
    }
}

/// Short times, so that repetitions come soon.
pub(crate) fn limits() -> Limits {
    Limits {
        request_timeout: Duration::from_secs(2),
        backoff_base: Duration::from_millis(10),
        backoff_cap: Duration::from_millis(100),
        ..Limits::default()
    }
}

pub(crate) fn config(server: &Running) -> WorkerConfig {
    // Reqwest wants a provider even where no TLS is spoken; another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = WorkerConfig::new(server.url.clone(), "worker-key".to_owned().into(), reqwest::Client::new());
    config.worker_id = Some(Name::parse("worker-1").expect("a name"));
    config.limits = limits();
    config
}

/// A worker that runs.
pub(crate) struct Live {
    pub(crate) shutdown: CancellationToken,
    task: JoinSet<WorkerExit>,
}

impl Live {
    /// Waits until it exits by itself.
    pub(crate) async fn exit(mut self) -> WorkerExit {
        tokio::time::timeout(PATIENCE, self.task.join_next())
            .await
            .expect("the worker exits")
            .expect("a task")
            .expect("no panic")
    }

    /// Ends it like a crash would.
    pub(crate) async fn stop_at_once(mut self) {
        self.task.shutdown().await;
    }

    /// Asks it to stop and waits.
    pub(crate) async fn stop(self) -> WorkerExit {
        self.shutdown.cancel();
        self.exit().await
    }
}

pub(crate) fn run(config: WorkerConfig, handler: Arc<dyn JobHandler>) -> Live {
    let shutdown = CancellationToken::new();
    let mut task = JoinSet::new();
    task.spawn(Worker::new(config, handler).run(shutdown.clone()));
    Live { shutdown, task }
}

/// A handler in lockstep with its test: each word makes it do one thing, and it says when that is done.
pub(crate) struct Puppet {
    pub(crate) words: mpsc::UnboundedSender<Word>,
    pub(crate) done: mpsc::UnboundedReceiver<()>,
    pub(crate) handler: Arc<Handler>,
    frozen: Arc<AtomicBool>,
}

/// What a puppet can do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Word {
    Checkpoint,
    PassNoReturn,
    Event,
    Complete,
    LookWhetherFrozen,
}

pub(crate) fn puppet() -> Puppet {
    let (words, heard) = mpsc::unbounded_channel();
    let (did, done) = mpsc::unbounded_channel();
    let heard = Arc::new(tokio::sync::Mutex::new(heard));
    let frozen = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&frozen);
    let handler = Handler::new(move |_, context| {
        let (heard, did, seen) = (Arc::clone(&heard), did.clone(), Arc::clone(&seen));
        async move {
            while let Some(word) = heard.lock().await.recv().await {
                match word {
                    Word::Checkpoint => context.checkpoint().await?,
                    Word::PassNoReturn => {
                        context.side_effects_started(None).await?;
                    }
                    Word::Event => context.thought("hm"),
                    Word::Complete => return Ok(Completion::new("done")),
                    Word::LookWhetherFrozen => seen.store(context.is_frozen(), Ordering::SeqCst),
                }
                did.send(()).expect("the test listens");
            }
            std::future::pending().await
        }
    });
    Puppet { words, done, handler, frozen }
}

impl Puppet {
    pub(crate) fn say(&self, word: Word) {
        self.words.send(word).expect("the handler listens");
    }

    pub(crate) async fn wait_done(&mut self) {
        let done = tokio::time::timeout(PATIENCE, self.done.recv()).await;
        done.expect("the handler goes on").expect("the handler lives");
    }

    pub(crate) async fn perform(&mut self, word: Word) {
        self.say(word);
        self.wait_done().await;
    }

    pub(crate) async fn is_frozen(&mut self) -> bool {
        self.perform(Word::LookWhetherFrozen).await;
        self.frozen.load(Ordering::SeqCst)
    }
}
