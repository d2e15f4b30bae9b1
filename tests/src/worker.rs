//! A worker that a test drives by hand, call by call.

use serde_json::{Value, json};

use crate::client::{Answer, Client};

/// A registered worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its name.
    pub id: String,
    /// Calls with its token.
    pub client: Client,
}

impl Worker {
    /// Registers a worker, with a target if it has one.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub async fn register(client: &Client, id: &str, target: Option<&str>) -> Self {
        let body = json!({ "worker_id": id, "boot_id": format!("{id}-boot"), "target_worker_id": target });
        let answer = client.with_key("dev-worker-key").post("/workers/register", &body).await.expect(201);
        let token = answer["token"].as_str().expect("a token");
        Self { id: id.to_owned(), client: client.with_key(token) }
    }

    /// The same worker, talking to another server.
    #[must_use]
    pub fn at(&self, other: &Client) -> Self {
        Self { id: self.id.clone(), client: self.client.at(other) }
    }

    /// Asks for a job and waits so many seconds.
    pub async fn claim(&self, wait: u32) -> Answer {
        self.client.post(&format!("/workers/{}/claim?wait={wait}", self.id), &json!({})).await
    }

    /// Asks for a job until there is one; its id.
    pub async fn job(&self) -> String {
        let granted = crate::eventually("a job", async || {
            let answer = self.claim(5).await;
            (answer.status == 200).then(|| answer.json())
        })
        .await;
        granted["job"]["job_id"].as_str().expect("a job has an id").to_owned()
    }

    /// A heartbeat that says this.
    pub async fn beat(&self, body: &Value) -> Answer {
        self.client.post(&format!("/workers/{}/heartbeat", self.id), body).await
    }

    /// A report on the first attempt of a job.
    pub async fn report(&self, job_id: &str, what: &str, body: &Value) -> Answer {
        self.client.post(&format!("/jobs/{job_id}/attempts/1/{what}"), body).await
    }
}
