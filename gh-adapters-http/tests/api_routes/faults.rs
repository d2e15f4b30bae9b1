//! Faults of our own: they are told apart, leak nothing, and the server lives on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::Method;
use gh_adapters_http::api::{MeasuredStore, Metrics};
use gh_core::domain::callback::Delivery;
use gh_core::domain::changeset::Changeset;
use gh_core::domain::commands::Watched;
use gh_core::domain::event::{JobEvent, WorkerEvent};
use gh_core::domain::ids::{DeregistrationId, InteractionId, JobId, WorkerId};
use gh_core::domain::job::{Job, JobState, Pause};
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::{Keys, Snapshot};
use gh_core::domain::time::Timestamp;
use gh_core::domain::watch::{FleetWatch, Lookout};
use gh_core::domain::worker::{Deregistration, WorkerView};
use gh_core::ports::clock::Clock;
use gh_core::ports::reader::{Figures, JobEventQuery, JobQuery, Reader, WorkerQuery};
use gh_core::ports::store::{ClaimRequest, Conflict, Dispatched, Store, StoreError, SweepRequest, Swept};
use gh_core::testing::ManualClock;
use serde_json::json;

use crate::support::{Api, SERVICE_KEY, config, ports};

/// A reader that is away or panics when it is told to, at the calls that these tests make.
#[derive(Debug)]
pub(crate) struct FaultyReader {
    inner: Arc<dyn Reader>,
    away: AtomicBool,
    panics: AtomicBool,
    hangs: AtomicBool,
}

impl FaultyReader {
    pub(crate) fn panic(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }

    pub(crate) fn go_away(&self) {
        self.away.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), StoreError> {
        assert!(!self.panics.load(Ordering::SeqCst), "secret detail");
        if self.away.load(Ordering::SeqCst) {
            Err(StoreError::Unavailable(Some("db-7.internal refused".into())))
        } else {
            Ok(())
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Reader for FaultyReader {
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.check()?;
        self.inner.now().await
    }

    async fn job(&self, id: JobId) -> Result<Option<Arc<Job>>, StoreError> {
        self.check()?;
        self.inner.job(id).await
    }

    async fn jobs(&self, query: &JobQuery) -> Result<Vec<Arc<Job>>, StoreError> {
        self.check()?;
        self.inner.jobs(query).await
    }

    async fn job_events(&self, query: &JobEventQuery) -> Result<Vec<JobEvent>, StoreError> {
        self.inner.job_events(query).await
    }

    async fn deliveries(
        &self,
        job_id: JobId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Arc<Delivery>>, StoreError> {
        self.inner.deliveries(job_id, before, limit).await
    }

    async fn workers(&self, query: &WorkerQuery) -> Result<(Timestamp, Vec<WorkerView>), StoreError> {
        self.check()?;
        self.inner.workers(query).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.check()?;
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.inner.ready().await
    }

    async fn glance(&self) -> Result<(Timestamp, Arc<Vec<WorkerView>>), StoreError> {
        self.check()?;
        self.inner.glance().await
    }

    async fn worker(&self, id: &WorkerId) -> Result<(Timestamp, Option<WorkerView>), StoreError> {
        self.inner.worker(id).await
    }

    async fn worker_events(
        &self,
        id: &WorkerId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<WorkerEvent>, StoreError> {
        self.inner.worker_events(id, before, limit).await
    }

    async fn deregistration(&self, id: DeregistrationId) -> Result<Option<Arc<Deregistration>>, StoreError> {
        self.inner.deregistration(id).await
    }

    async fn fleet_watch(&self) -> Result<Arc<FleetWatch>, StoreError> {
        self.check()?;
        self.inner.fleet_watch().await
    }

    async fn figures(&self) -> Result<Figures, StoreError> {
        self.check()?;
        self.inner.figures().await
    }
}

pub(crate) fn faulty_api() -> (Api, Arc<FaultyReader>) {
    let mut reader = None;
    let api = Api::with(
        |ports| {
            let faulty = Arc::new(FaultyReader {
                inner: Arc::clone(&ports.reader),
                away: AtomicBool::new(false),
                panics: AtomicBool::new(false),
                hangs: AtomicBool::new(false),
            });
            ports.reader = faulty.clone();
            reader = Some(faulty);
        },
        |_| {},
    );
    (api, reader.unwrap())
}

/// A store whose running jobs are paused for a person from some moment on, which no route does yet.
#[derive(Debug)]
pub(crate) struct PausingStore {
    inner: Arc<dyn Store>,
    pauses: AtomicBool,
}

impl PausingStore {
    pub(crate) fn pause(&self) {
        self.pauses.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Store for PausingStore {
    async fn load(&self, keys: &Keys) -> Result<Snapshot, StoreError> {
        let mut snapshot = self.inner.load(keys).await?;
        if self.pauses.load(Ordering::SeqCst) {
            let now = snapshot.now;
            for job in snapshot.jobs.values_mut() {
                if let JobState::Running(lease) = job.state.clone() {
                    let interaction_id = InteractionId::new(uuid::Uuid::nil());
                    let pause = Pause { interaction_id, since: now, expires_at: now + Duration::from_secs(60) };
                    Arc::make_mut(job).state = JobState::NeedsHuman(lease, pause);
                }
            }
        }
        Ok(snapshot)
    }

    fn recall(&self, keys: &Keys) -> Option<Snapshot> {
        self.inner.recall(keys)
    }

    async fn commit(&self, changes: Vec<Changeset>, rules: &Rules) -> Result<Vec<Result<(), Conflict>>, StoreError> {
        self.inner.commit(changes, rules).await
    }

    async fn claim(&self, request: ClaimRequest, rules: &Rules) -> Result<Dispatched, StoreError> {
        self.inner.claim(request, rules).await
    }

    async fn watch(&self, lookout: Lookout, rules: &Rules) -> Result<Watched, StoreError> {
        self.inner.watch(lookout, rules).await
    }

    async fn sweep(&self, request: SweepRequest, rules: &Rules) -> Result<Swept, StoreError> {
        self.inner.sweep(request, rules).await
    }

    async fn token_key(&self) -> Result<[u8; 32], StoreError> {
        self.inner.token_key().await
    }
}

pub(crate) fn pausing_api() -> (Api, Arc<PausingStore>) {
    let mut store = None;
    let api = Api::with(
        |ports| {
            let pausing = Arc::new(PausingStore { inner: Arc::clone(&ports.store), pauses: AtomicBool::new(false) });
            ports.store = pausing.clone();
            store = Some(pausing);
        },
        |_| {},
    );
    (api, store.unwrap())
}

#[tokio::test]
async fn a_panic_is_answered_and_the_server_lives_on() {
    let (api, reader) = faulty_api();
    reader.panic();
    let answer = api.get("/jobs").await;
    answer.problem(500, "INTERNAL_ERROR");
    assert!(!answer.text.contains("secret"), "{}", answer.text);
    reader.panics.store(false, Ordering::SeqCst);
    api.get("/jobs").await.expect(200);
}

#[tokio::test]
async fn a_store_that_is_away_is_unavailable_and_not_ready() {
    let (api, reader) = faulty_api();
    let ready = api.call(Method::GET, "/ready", "", "").await;
    assert_eq!(ready.expect(200), json!({"status": "ready", "checks": {"store": "ok"}}));
    reader.go_away();
    let answer = api.get("/jobs").await;
    answer.problem(503, "UNAVAILABLE");
    assert_eq!(answer.header("retry-after"), "1");
    assert!(!answer.text.contains("db-7"), "{}", answer.text);
    let ready = api.call(Method::GET, "/ready", "", "").await;
    assert_eq!(ready.expect(503), json!({"status": "unavailable", "checks": {"store": "unavailable"}}));
    let health = api.call(Method::GET, "/health", "", "").await.expect(200);
    assert_eq!(health["status"], "ok");
    assert!(health["version"].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_not_ready() {
    let (api, reader) = faulty_api();
    reader.hangs.store(true, Ordering::SeqCst);
    api.call(Method::GET, "/ready", "", "").await.expect(503);
    reader.hangs.store(false, Ordering::SeqCst);
    api.call(Method::GET, "/ready", "", "").await.expect(200);
}

#[tokio::test]
async fn metrics_tell_of_requests_jobs_workers_and_the_store() {
    let mut metrics = None;
    let api = Api::with(
        |_| {},
        |config| {
            config.public_metrics = true;
            metrics = Some(config.metrics.clone());
        },
    );
    // A second API in the same process measures by itself.
    let other = Api::new();
    let store = ports(&api.clock).store;
    let measured = MeasuredStore::new(store, metrics.unwrap(), config(&api.clock).clock);
    Store::token_key(&measured).await.unwrap();
    api.submit(json!({"unheard_of": 1, "also": 2})).await;
    api.clock.advance(Duration::from_secs(90));
    api.register("worker-a").await;
    api.get("/jobs/7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11").await;
    let answer = api.call(Method::GET, "/metrics", SERVICE_KEY, "").await;
    assert_eq!(answer.status, 200);
    for line in [
        r#"gh_http_requests_total{method="POST",route="/api/v1/jobs",status="201"} 1"#,
        r#"gh_http_requests_total{method="GET",route="/api/v1/jobs/{job_id}",status="404"} 1"#,
        r#"gh_http_request_duration_seconds_count{method="POST",route="/api/v1/jobs"} 1"#,
        r#"gh_http_unknown_fields_total{route="/api/v1/jobs"} 2"#,
        r#"gh_store_call_duration_seconds_count{operation="token_key",outcome="ok"} 1"#,
        r#"gh_jobs{status="pending"} 1"#,
        r#"gh_jobs{status="needs_human"} 0"#,
        r#"gh_jobs_waiting{reason="none_waiting"} 1"#,
        r#"gh_jobs_waiting_oldest_seconds{reason="none_waiting"} 90"#,
        r#"gh_workers{status="idle"} 1"#,
        r#"gh_workers{status="busy"} 0"#,
        "gh_callbacks_open 0",
        "gh_callbacks_due 0",
        "gh_brake 0",
        "gh_blind_seconds_total 0",
    ] {
        assert!(answer.text.lines().any(|known| known == line), "{line}\n{}", answer.text);
    }
    let second = other.call(Method::GET, "/metrics", SERVICE_KEY, "").await;
    assert!(!second.text.contains("/api/v1/jobs"), "{}", second.text);
}

#[tokio::test]
async fn metrics_tell_of_the_brake_and_of_put_backs_by_reason() {
    let metrics = Arc::new(Metrics::new());
    let stopwatch: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let api = Api::with(
        |ports| {
            ports.store = Arc::new(MeasuredStore::new(Arc::clone(&ports.store), Arc::clone(&metrics), stopwatch));
        },
        |config| {
            config.public_metrics = true;
            config.metrics = Arc::clone(&metrics);
        },
    );
    let told = async |line: &str| {
        let answer = api.call(Method::GET, "/metrics", SERVICE_KEY, "").await;
        assert!(answer.text.lines().any(|known| known == line), "{line}\n{}", answer.text);
    };
    let (token, job, attempt) = api.running_job("worker-00", json!({})).await;
    api.post_as(&token, &format!("{attempt}/release"), &json!({"reason": "an update"})).await.expect(200);
    told(r#"gh_job_requeues_total{reason="released"} 1"#).await;
    assert_eq!(api.claim("worker-00", &token).await["job"]["job_id"], job.as_str());
    for number in 1..12 {
        api.register(&format!("worker-{number:02}")).await;
    }
    api.control_plane.sweep_once().await.unwrap();
    told("gh_brake 0").await;
    api.clock.advance(Duration::from_secs(10));
    api.control_plane.sweep_once().await.unwrap();
    told("gh_brake 1").await;
    api.clock.advance(Duration::from_secs(20));
    while api.control_plane.sweep_once().await.unwrap() {}
    told("gh_brake 0").await;
    told(r#"gh_workers{status="offline"} 12"#).await;
    told(r#"gh_job_requeues_total{reason="worker_offline"} 1"#).await;
    told(r#"gh_store_call_duration_seconds_count{operation="watch",outcome="ok"} 3"#).await;
}
