//! What is measured, as Prometheus reads it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gh_core::application::FleetFigures;
use gh_core::domain::changeset::Changeset;
use gh_core::domain::commands::Watched;
use gh_core::domain::event::EventType;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::{Keys, Snapshot};
use gh_core::domain::watch::Lookout;
use gh_core::ports::clock::Clock;
use gh_core::ports::store::{ClaimRequest, Conflict, Dispatched, Store, StoreError, SweepRequest, Swept};
use metrics::{counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use serde::Deserialize;

use super::codes::ErrorCode;

/// Upper bounds of the buckets of all durations, in seconds. Claims wait up to 30 s.
const BUCKETS: [f64; 13] = [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 30.0];

/// After how many observations the recorder folds them into its buckets, so that memory does not grow unscraped.
const FOLD_EVERY: u64 = 1024;

/// What one process has measured so far. Owned by whoever serves it: two in one process do not mix.
pub struct Metrics {
    recorder: PrometheusRecorder,
    observations: AtomicU64,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn recorder() -> PrometheusRecorder {
    let builder = PrometheusBuilder::new();
    // Only an empty list is refused; without buckets durations would show as summaries.
    let builder = builder.set_buckets(&BUCKETS).unwrap_or_else(|_| PrometheusBuilder::new());
    builder.build_recorder()
}

impl Metrics {
    /// Nothing is measured yet.
    #[must_use]
    pub fn new() -> Self {
        Self { recorder: recorder(), observations: AtomicU64::new(0) }
    }

    /// A request was answered. `route` is the matched path, never the path itself.
    pub(super) fn request(&self, method: &'static str, route: String, status: u16, took: Duration) {
        with_local_recorder(&self.recorder, || {
            let status = status.to_string();
            let labels = [("method", method.to_owned()), ("route", route), ("status", status)];
            counter!("gh_http_requests_total", &labels).increment(1);
            histogram!("gh_http_request_duration_seconds", &labels[..2]).record(took);
        });
        self.observed();
    }

    /// Fields of a request were ignored because nobody knows them.
    pub(super) fn unknown_fields(&self, route: &str, count: u64) {
        if count > 0 {
            with_local_recorder(&self.recorder, || {
                counter!("gh_http_unknown_fields_total", "route" => route.to_owned()).increment(count);
            });
        }
    }

    /// A route answered a code that it does not declare: a defect.
    pub(super) fn undeclared_code(&self, route: &str, code: &'static ErrorCode) {
        with_local_recorder(&self.recorder, || {
            counter!("gh_http_undeclared_codes_total", "route" => route.to_owned(), "code" => code.as_str())
                .increment(1);
        });
    }

    /// The store was asked for something.
    fn store_call(&self, operation: &'static str, took: Duration, succeeded: bool) {
        with_local_recorder(&self.recorder, || {
            let outcome = if succeeded { "ok" } else { "error" };
            histogram!("gh_store_call_duration_seconds", "operation" => operation, "outcome" => outcome).record(took);
        });
        self.observed();
    }

    /// Jobs were put back, for these reasons.
    fn put_back(&self, reasons: Vec<String>) {
        with_local_recorder(&self.recorder, || {
            for reason in reasons {
                counter!("gh_job_requeues_total", "reason" => reason).increment(1);
            }
        });
    }

    fn observed(&self) {
        if self.observations.fetch_add(1, Ordering::Relaxed) % FOLD_EVERY == FOLD_EVERY - 1 {
            self.recorder.handle().run_upkeep();
        }
    }

    /// Everything as Prometheus reads it; `figures` are of this moment.
    pub(super) fn render(&self, figures: &FleetFigures) -> String {
        let mut text = self.recorder.handle().render();
        // A recorder of their own: what is not there any more disappears instead of keeping its last value.
        let present = recorder();
        with_local_recorder(&present, || tell(figures));
        text.push_str(&present.handle().render());
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats, and counts stay far below 2^53")]
fn tell(figures: &FleetFigures) {
    for (status, count) in &figures.jobs {
        gauge!("gh_jobs", "status" => status.as_str()).set(*count as f64);
    }
    for (status, count) in &figures.workers {
        gauge!("gh_workers", "status" => status.as_str()).set(*count as f64);
    }
    for (code, waiting) in &figures.waiting {
        gauge!("gh_jobs_waiting", "reason" => code.as_str()).set(waiting.jobs as f64);
        gauge!("gh_jobs_waiting_oldest_seconds", "reason" => code.as_str()).set(waiting.oldest_age.as_secs_f64());
    }
    gauge!("gh_callbacks_open").set(figures.callbacks_open as f64);
    gauge!("gh_callbacks_due").set(figures.callbacks_due as f64);
    gauge!("gh_brake").set(if figures.brake { 1.0 } else { 0.0 });
    counter!("gh_blind_seconds_total").absolute(figures.blind_time.as_secs());
}

/// Why jobs are put back by these changes.
fn put_back_for(changes: &Changeset) -> Vec<String> {
    #[derive(Deserialize)]
    struct Facts {
        reason: String,
    }
    let put_back = changes.job_events().iter().filter(|event| event.event_type == EventType::JOB_REQUEUED);
    let facts = put_back.filter_map(|event| event.metadata.extra.as_deref());
    facts.filter_map(|facts| serde_json::from_str(facts.get()).ok()).map(|Facts { reason }| reason).collect()
}

/// A store that is asked through its measure: how long each call takes, and whether it succeeds.
#[derive(Debug)]
pub struct MeasuredStore {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl MeasuredStore {
    /// Measures the calls of `inner` by `clock`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, metrics, clock }
    }

    async fn measured<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = self.clock.now();
        let outcome = call.await;
        let took = self.clock.now().since(started);
        self.metrics.store_call(operation, took, outcome.is_ok());
        outcome
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Store for MeasuredStore {
    async fn load(&self, keys: &Keys) -> Result<Snapshot, StoreError> {
        self.measured("load", self.inner.load(keys)).await
    }

    fn recall(&self, keys: &Keys) -> Option<Snapshot> {
        self.inner.recall(keys)
    }

    async fn commit(&self, changes: Vec<Changeset>, rules: &Rules) -> Result<Vec<Result<(), Conflict>>, StoreError> {
        let put_back: Vec<Vec<String>> = changes.iter().map(put_back_for).collect();
        let stored = self.measured("commit", self.inner.commit(changes, rules)).await?;
        for (reasons, stored) in put_back.into_iter().zip(&stored) {
            if stored.is_ok() && !reasons.is_empty() {
                self.metrics.put_back(reasons);
            }
        }
        Ok(stored)
    }

    async fn claim(&self, request: ClaimRequest, rules: &Rules) -> Result<Dispatched, StoreError> {
        self.measured("claim", self.inner.claim(request, rules)).await
    }

    async fn watch(&self, lookout: Lookout, rules: &Rules) -> Result<Watched, StoreError> {
        self.measured("watch", self.inner.watch(lookout, rules)).await
    }

    async fn sweep(&self, request: SweepRequest, rules: &Rules) -> Result<Swept, StoreError> {
        let swept = self.measured("sweep", self.inner.sweep(request, rules)).await?;
        self.metrics.put_back(swept.committed.iter().flat_map(put_back_for).collect());
        Ok(swept)
    }

    async fn token_key(&self) -> Result<[u8; 32], StoreError> {
        self.measured("token_key", self.inner.token_key()).await
    }
}
