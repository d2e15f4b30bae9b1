//! Calling the API.

use gh_adapters_http::tls;
use gh_core::domain::usd::Usd;
use serde::Deserialize;
use serde_json::{Value, json};

/// Calls the API with one key or token.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base_url: String,
    key: String,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The `Retry-After` header.
    pub retry_after: Option<String>,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// The body as JSON; `null` when it is empty.
    ///
    /// # Panics
    ///
    /// When it is no JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        if self.text.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {}", self.text))
    }

    /// The `code` of a problem.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The body, after checking its status.
    ///
    /// # Panics
    ///
    /// When the status is another.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    /// `cost.total_cost_usd` of a job, every digit.
    #[must_use]
    pub fn total_cost(&self) -> Option<Usd> {
        #[derive(Deserialize)]
        struct Job {
            cost: Option<Cost>,
        }
        #[derive(Deserialize)]
        struct Cost {
            total_cost_usd: Usd,
        }
        let job: Job = serde_json::from_str(&self.text).ok()?;
        job.cost.map(|cost| cost.total_cost_usd)
    }
}

impl Client {
    /// A client of the server at this address.
    ///
    /// # Panics
    ///
    /// When no HTTP client can be made.
    #[must_use]
    pub fn new(base_url: &str, key: &str) -> Self {
        let http = tls::client_builder().expect("TLS is set up").no_proxy().build().expect("a client");
        Self { http, base_url: base_url.to_owned(), key: key.to_owned() }
    }

    /// The same connections with another key or token.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// The same key or token at another server.
    #[must_use]
    pub fn at(&self, other: &Self) -> Self {
        other.with_key(&self.key)
    }

    /// `GET` under `/api/v1`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(self.url(path))).await
    }

    /// `GET` of any path.
    pub async fn fetch(&self, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", self.base_url))).await
    }

    /// Opens a stream under `/api/v1`.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub async fn open(&self, path: &str) -> reqwest::Response {
        let answer = self.http.get(self.url(path)).bearer_auth(&self.key).send().await.expect("the server answers");
        assert_eq!(answer.status(), 200);
        answer
    }

    /// `POST` under `/api/v1`.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.http.post(self.url(path)).header("content-type", "application/json");
        self.send(request.body(body.to_string())).await
    }

    /// `DELETE` under `/api/v1`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.http.delete(self.url(path))).await
    }

    /// Submits a job; its id.
    ///
    /// # Panics
    ///
    /// When it is not accepted.
    pub async fn submit(&self, body: &Value) -> String {
        let job = self.post("/jobs", body).await.expect(201);
        job["job_id"].as_str().expect("a job has an id").to_owned()
    }

    /// Waits until a job has this status; the job.
    pub async fn job_when(&self, job_id: &str, status: &str) -> Answer {
        crate::eventually(&format!("job {job_id} to be {status}"), async || {
            let answer = self.get(&format!("/jobs/{job_id}")).await;
            (answer.expect(200)["status"] == status).then_some(answer)
        })
        .await
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.base_url)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.bearer_auth(&self.key).send().await.expect("the server answers");
        let status = answer.status().as_u16();
        let retry_after =
            answer.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        Answer { status, retry_after, text: answer.text().await.expect("the answer ends") }
    }
}

/// A submission with these fields beside the required ones.
///
/// # Panics
///
/// When `fields` is no object.
#[must_use]
pub fn submission(fields: &Value) -> Value {
    let mut body = json!({
        "valet_task_id": "task-1",
        "valet_user_id": "7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11",
        "job_type": "apply",
        "target_url": "https://jobs.example.com/1",
        "task_description": "Apply to the posting",
    });
    for (key, value) in fields.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}
