//! Clients that submit and workers that work, all as the API asks them to, whatever becomes of the servers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use crate::caller::{Addresses, Caller};
use crate::client::{Answer, submission};
use crate::ledger::Ledger;
use crate::receiver::Receiver;

/// How often a worker of a load sends a heartbeat.
const BEAT: Duration = Duration::from_millis(300);

/// How long after it asked a worker may act on what it was granted.
const ACT_WITHIN: Duration = Duration::from_secs(2);

/// The settings of servers for a load whose workers beat this often: loss of workers and of the database is noticed
/// within seconds.
pub const BRISK: [(&str, &str); 10] = [
    ("GH_WORKER_HEARTBEAT_INTERVAL", "300ms"),
    ("GH_WORKER_SUSPECT_AFTER", "2s"),
    ("GH_WORKER_SELF_FENCE_AFTER", "3s"),
    ("GH_WORKER_OFFLINE_AFTER", "4s"),
    ("GH_WORKER_PICKUP_TIMEOUT", "2s"),
    ("GH_WORKER_OUTCOME_GRACE", "4s"),
    ("GH_DATABASE_ACQUIRE_TIMEOUT", "1s"),
    ("GH_DATABASE_STATEMENT_TIMEOUT", "2s"),
    ("GH_DATABASE_LOCK_TIMEOUT", "1s"),
    ("GH_DATABASE_IDLE_IN_TRANSACTION_TIMEOUT", "1s"),
];

/// How much load.
#[derive(Clone, Debug)]
pub struct LoadSize {
    /// Clients that submit.
    pub clients: usize,
    /// Workers.
    pub workers: usize,
    /// Targets that workers share out among themselves, and that some jobs ask for.
    pub targets: usize,
    /// No client submits while so many jobs are on their way.
    pub open_jobs: usize,
}

/// A load that goes on until it is told to end.
#[derive(Debug)]
pub struct Load {
    ledger: Arc<Ledger>,
    submitting: watch::Sender<bool>,
    clients: JoinSet<()>,
    workers: JoinSet<()>,
}

#[derive(Debug)]
struct Surroundings {
    addresses: Addresses,
    ledger: Arc<Ledger>,
    callback_url: String,
    size: LoadSize,
    /// Jobs whose terminal callback did not come yet.
    open: Mutex<HashSet<String>>,
}

impl Load {
    /// Starts it; callbacks go to this receiver.
    #[must_use]
    pub fn start(addresses: &Addresses, receiver: &Arc<Receiver>, size: &LoadSize) -> Self {
        let ledger = Arc::new(Ledger::default());
        let surroundings = Arc::new(Surroundings {
            addresses: addresses.clone(),
            ledger: Arc::clone(&ledger),
            callback_url: receiver.url(),
            size: size.clone(),
            open: Mutex::default(),
        });
        let submitting = watch::Sender::new(true);
        let (mut clients, mut workers) = (JoinSet::new(), JoinSet::new());
        clients.spawn(follow(Arc::clone(receiver), Arc::clone(&surroundings), submitting.subscribe()));
        for number in 0..size.clients {
            clients.spawn(submit(Arc::clone(&surroundings), number, submitting.subscribe()));
        }
        for number in 0..size.workers {
            workers.spawn(work(Arc::clone(&surroundings), number));
        }
        Self { ledger, submitting, clients, workers }
    }

    /// What was acknowledged to anybody.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// No more is submitted; workers go on. What was sent is repeated until it is acknowledged.
    ///
    /// # Panics
    ///
    /// When a client met what it should not, or waits in vain.
    pub async fn stop_submitting(&mut self) {
        self.submitting.send_replace(false);
        let ended = async {
            while let Some(ended) = self.clients.join_next().await {
                ended.expect("no client met what it should not");
            }
        };
        tokio::time::timeout(crate::PATIENCE, ended).await.expect("every submission is acknowledged in the end");
    }

    /// Passes on what clients and workers found wrong so far.
    ///
    /// # Panics
    ///
    /// When one of them did.
    pub fn check(&mut self) {
        if let Some(ended) = self.clients.try_join_next() {
            ended.expect("no client met what it should not");
        }
        if let Some(ended) = self.workers.try_join_next() {
            ended.expect("no worker met what it should not");
        }
    }
}

/// Crosses out the jobs that have ended, by their callbacks.
async fn follow(receiver: Arc<Receiver>, around: Arc<Surroundings>, mut submitting: watch::Receiver<bool>) {
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let mut seen = 0;
    while *submitting.borrow_and_update() {
        pace.tick().await;
        let callbacks = receiver.after(seen);
        seen += callbacks.len();
        let mut open = around.open.lock().await;
        for callback in callbacks.iter().filter(|callback| callback.get("completed_at").is_some()) {
            if let Some(id) = callback["job_id"].as_str() {
                open.remove(id);
            }
        }
    }
}

/// Submits jobs of every kind, cancels some.
async fn submit(around: Arc<Surroundings>, client: usize, submitting: watch::Receiver<bool>) {
    let caller = Caller::new(&around.addresses, crate::server::SERVICE_KEY);
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    let mut number = 0;
    while *submitting.borrow() {
        pace.tick().await;
        if around.open.lock().await.len() >= around.size.open_jobs {
            continue;
        }
        number += 1;
        let key = format!("client-{client}-{number}");
        let plan = match number % 8 {
            1 | 2 | 5 => "act",
            3 => "fail",
            6 => "try again",
            _ => "complete",
        };
        let mut body = submission(&json!({
            "valet_task_id": key,
            "idempotency_key": key,
            "callback_url": around.callback_url,
            "input_data": { "plan": plan },
            "max_attempts": 10,
        }));
        if number % 4 == 0 {
            body["worker_affinity"] = "preferred".into();
            body["target_worker_id"] = format!("target-{}", number % around.size.targets).into();
        }
        let answer = caller.post("/jobs", &body).await;
        assert!(matches!(answer.status, 200 | 201), "{}: {}", answer.status, answer.text);
        let job = answer.json();
        let job_id = job["job_id"].as_str().expect("a job has an id");
        around.ledger.submitted(&key, job_id);
        around.open.lock().await.insert(job_id.to_owned());
        if number % 10 == 0 {
            let answer = caller.post(&format!("/jobs/{job_id}/cancel"), &json!({})).await;
            match answer.status {
                200 => around.ledger.cancelled(job_id),
                status => assert_eq!((status, answer.code().as_str()), (409, "JOB_NOT_CANCELLABLE")),
            }
        }
    }
}

/// Why a process of a worker does not go on as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// It was given up: it registers again.
    Replaced,
    /// It was retired for good.
    Retired,
}

/// What an answer other than the expected means for the worker; nothing if only this job is over.
fn gone(answer: &Answer) -> Option<Gone> {
    match (answer.status, answer.code().as_str()) {
        (_, "STALE_GENERATION" | "WORKER_NOT_FOUND") => Some(Gone::Replaced),
        (401 | 403 | 410, _) => Some(Gone::Retired),
        _ => None,
    }
}

/// A worker: when it is retired, a new one comes in its place.
async fn work(around: Arc<Surroundings>, number: usize) {
    let target = format!("target-{}", number % around.size.targets);
    for life in 0_u64.. {
        let id = format!("worker-{number}-{life}");
        while live(&around, &id, &target).await != Gone::Retired {}
    }
}

/// One generation of a worker.
async fn live(around: &Surroundings, id: &str, target: &str) -> Gone {
    let caller = Caller::new(&around.addresses, crate::server::WORKER_KEY);
    let body = json!({ "worker_id": id, "boot_id": format!("{id}-boot"), "target_worker_id": target });
    let answer = caller.post("/workers/register", &body).await;
    if !matches!(answer.status, 200 | 201) {
        assert_eq!(answer.code(), "WORKER_DEREGISTERED", "{}", answer.text);
        // Its name is held for a while.
        tokio::time::sleep(BEAT).await;
        return Gone::Retired;
    }
    let registered = answer.json();
    let caller = caller.with_key(registered["token"].as_str().expect("a token"));
    let worker = Worker { around, caller, id, job: watch::Sender::new(None) };
    tokio::select! {
        gone = worker.beat() => gone,
        gone = worker.take_jobs() => gone,
    }
}

#[derive(Debug)]
struct Worker<'l> {
    around: &'l Surroundings,
    caller: Caller,
    id: &'l str,
    /// What it works on.
    job: watch::Sender<Option<String>>,
}

impl Worker<'_> {
    async fn beat(&self) -> Gone {
        let mut pace = tokio::time::interval(BEAT);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let job = self.job.borrow().clone();
            let body = job.map_or_else(|| json!({}), |job_id| json!({ "current_job_id": job_id }));
            let answer = self.caller.post(&format!("/workers/{}/heartbeat", self.id), &body).await;
            if answer.status != 200 {
                return gone(&answer).unwrap_or_else(|| panic!("{}: {}", answer.status, answer.text));
            }
        }
    }

    async fn take_jobs(&self) -> Gone {
        loop {
            let answer = self.caller.post(&format!("/workers/{}/claim?wait=2", self.id), &json!({})).await;
            let outcome = match (answer.status, answer.code().as_str()) {
                (200, _) => self.run(&answer.json()).await,
                (204, _) => Ok(()),
                (409, "LEASE_HELD") => {
                    let held = answer.json();
                    let (job_id, attempt) = (held["job_id"].as_str().expect("a job"), held["attempt"].as_u64());
                    let attempt = attempt.expect("an attempt");
                    self.report(job_id, attempt, "release", &json!({ "reason": "unknown" })).await.map(drop)
                }
                (409, "WORKER_DRAINING") => {
                    tokio::time::sleep(BEAT).await;
                    Ok(())
                }
                _ => Err(Some(gone(&answer).unwrap_or_else(|| panic!("{}: {}", answer.status, answer.text)))),
            };
            self.job.send_replace(None);
            if let Err(Some(gone)) = outcome {
                return gone;
            }
        }
    }

    /// Runs a job. `Err(None)`: it is over without a further act.
    async fn run(&self, granted: &Value) -> Result<(), Option<Gone>> {
        let job = &granted["job"];
        let job_id = job["job_id"].as_str().expect("a job has an id");
        let attempt = granted["attempt"].as_u64().expect("an attempt has a number");
        self.job.send_replace(Some(job_id.to_owned()));
        let step = json!({ "event_type": "step_started", "message": "Opening the page", "worker_seq": 1 });
        self.report(job_id, attempt, "events", &json!({ "events": [step] })).await?;
        let tokens = (1000 + attempt, 10 + attempt);
        let call_id = format!("call-{attempt}");
        let call = json!({ "call_id": call_id, "provider": "anthropic", "model": "claude-haiku-4-5-20251001",
            "usage": { "input": tokens.0, "output": tokens.1 } });
        let answer = self.report(job_id, attempt, "usage", &json!({ "calls": [call] })).await?;
        let outcome = answer.json()["results"][0]["outcome"].clone();
        assert!(outcome == "recorded" || outcome == "unchanged", "{}", answer.text);
        self.around.ledger.called(job_id, &call_id, tokens);
        let plan = job["input_data"]["plan"].as_str().expect("a plan");
        if plan == "act" {
            self.act(job_id, attempt).await?;
        }
        let (what, body) = match plan {
            "fail" => ("fail", json!({ "error_code": "rejected", "error_message": "It says no", "retryable": false })),
            "try again" if attempt == 1 => {
                ("fail", json!({ "error_code": "flaky", "error_message": "It was away", "retryable": true }))
            }
            _ => ("complete", json!({ "result_data": { "attempt": attempt } })),
        };
        let answer = self.report(job_id, attempt, what, &body).await?;
        let status = answer.json()["status"].as_str().expect("a status").to_owned();
        self.around.ledger.ended(job_id, attempt, &status);
        Ok(())
    }

    /// Passes the point of no return, and acts if it may still do so.
    async fn act(&self, job_id: &str, attempt: u64) -> Result<(), Option<Gone>> {
        let path = format!("/jobs/{job_id}/attempts/{attempt}/side-effects-started");
        loop {
            let asked = tokio::time::timeout(ACT_WITHIN, self.caller.post_once(&path, &json!({}))).await;
            match asked.ok().flatten() {
                Some(answer) if answer.status == 200 => {
                    self.around.ledger.acted(job_id, attempt);
                    return Ok(());
                }
                Some(answer) if matches!(answer.status, 401 | 403 | 404 | 409 | 410) => return Err(gone(&answer)),
                Some(answer) => assert!(answer.status > 500, "{}: {}", answer.status, answer.text),
                None => {}
            }
        }
    }

    async fn report(&self, job_id: &str, attempt: u64, what: &str, body: &Value) -> Result<Answer, Option<Gone>> {
        let answer = self.caller.post(&format!("/jobs/{job_id}/attempts/{attempt}/{what}"), body).await;
        match answer.status {
            200 => Ok(answer),
            401 | 403 | 404 | 409 | 410 => Err(gone(&answer)),
            status => panic!("{what}: {status}: {}", answer.text),
        }
    }
}
