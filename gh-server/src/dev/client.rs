//! The demo as a client: what VALET would do over HTTP, with nothing but the API.

use gh_adapters_http::tls;
use gh_core::domain::usd::Usd;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;

/// Calls the API with a service key.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base_url: Url,
    key: SecretString,
}

/// A job as the API answers it, as far as the demo looks at it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct JobView {
    pub(super) job_id: String,
    pub(super) status: String,
    pub(super) worker_id: Option<String>,
    pub(super) cost: Option<CostView>,
}

/// The cost of a job.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct CostView {
    pub(super) total_cost_usd: Usd,
}

/// An event of the activity feed.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct EventView {
    pub(super) seq: u64,
    pub(super) event_type: String,
    pub(super) message: String,
    pub(super) metadata: Box<RawValue>,
}

/// What a submission was answered with.
#[derive(Debug)]
pub(super) enum Submission {
    /// The job waits or runs.
    Accepted(JobView),
    /// A strict job that nobody can take: recorded as failed.
    Refused {
        /// The job.
        job_id: String,
        /// What the target's workers do instead.
        worker_status: String,
    },
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    job_id: Option<String>,
    worker_status: Option<String>,
    detail: Option<String>,
}

#[derive(Deserialize)]
struct Events {
    events: Vec<EventView>,
}

#[derive(Deserialize)]
struct Workers {
    workers: Vec<WorkerView>,
}

#[derive(Deserialize)]
struct WorkerView {
    status: String,
}

type Failed = Box<dyn std::error::Error>;

impl Client {
    pub(super) fn new(base_url: Url, key: SecretString) -> Result<Self, Failed> {
        Ok(Self { http: tls::client_builder()?.no_proxy().build()?, base_url, key })
    }

    pub(super) async fn submit(&self, body: &Value) -> Result<Submission, Failed> {
        let request = self.http.post(self.url("/api/v1/jobs")?).header("content-type", "application/json");
        let answer = self.send(request.body(body.to_string())).await?;
        let status = answer.status();
        let text = answer.text().await?;
        if status.is_success() {
            return Ok(Submission::Accepted(serde_json::from_str(&text)?));
        }
        let refusal: Refusal = serde_json::from_str(&text)?;
        match (refusal.code.as_str(), refusal.job_id, refusal.worker_status) {
            ("WORKER_UNAVAILABLE", Some(job_id), Some(worker_status)) => {
                Ok(Submission::Refused { job_id, worker_status })
            }
            (code, ..) => Err(format!("{status} {code}: {}", refusal.detail.unwrap_or_default()).into()),
        }
    }

    pub(super) async fn job(&self, job_id: &str) -> Result<JobView, Failed> {
        self.get(&format!("/api/v1/jobs/{job_id}")).await
    }

    pub(super) async fn events(&self, job_id: &str, after_seq: u64) -> Result<Vec<EventView>, Failed> {
        let page: Events = self.get(&format!("/api/v1/jobs/{job_id}/events?after_seq={after_seq}&limit=200")).await?;
        Ok(page.events)
    }

    /// How many workers are idle.
    pub(super) async fn idle_workers(&self) -> Result<usize, Failed> {
        let registry: Workers = self.get("/api/v1/monitoring/workers").await?;
        Ok(registry.workers.iter().filter(|worker| worker.status == "idle").count())
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, Failed> {
        let answer = self.send(self.http.get(self.url(path)?)).await?.error_for_status()?;
        Ok(serde_json::from_str(&answer.text().await?)?)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failed> {
        Ok(request.header("x-gh-service-key", self.key.expose_secret()).send().await?)
    }

    fn url(&self, path: &str) -> Result<Url, url::ParseError> {
        self.base_url.join(path)
    }
}
