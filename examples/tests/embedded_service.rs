//! The service with the control plane in it, driven over HTTP as its customers, its staff and a worker would.
#![expect(clippy::unwrap_used, reason = "a test may stop where its world is not as it made it")]

use std::path::Path;
use std::process::Stdio;

use gh_adapters_http::tls;
use gh_tests::eventually;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const USERS: &str =
    "customer:ada:key-of-ada,customer:bob:key-of-bob,staff:grace:key-of-grace,robots:fleet:key-of-fleet";

/// A running service; killed when it is dropped.
struct Service {
    process: Child,
    address: String,
    http: reqwest::Client,
    _output: Lines<BufReader<ChildStdout>>,
}

impl Service {
    async fn start(log: Option<&Path>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_embedded_service"));
        command.args(["--listen", "127.0.0.1:0"]).env("CAREERS_USERS", USERS).env("RUST_LOG", "warn");
        if let Some(log) = log {
            command.arg("--log").arg(log);
        }
        let mut process = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = output.next_line().await.unwrap().unwrap();
        let address = first.strip_prefix("listening on ").unwrap().to_owned();
        let http = tls::client_builder().unwrap().no_proxy().build().unwrap();
        Self { process, address, http, _output: output }
    }

    /// Status and body of an answer.
    async fn ask(&self, method: Method, path: &str, key: &str, body: &Value) -> (u16, Value) {
        let request = self.http.request(method, format!("{}{path}", self.address)).bearer_auth(key);
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str, key: &str) -> (u16, Value) {
        self.ask(Method::GET, path, key, &json!({})).await
    }

    /// A customer applies; where the application is.
    async fn apply(&self, key: &str) -> String {
        let posting = json!({ "posting": "https://jobs.example.com/1" });
        let (status, application) = self.ask(Method::POST, "/applications", key, &posting).await;
        assert_eq!((status, &application["state"]), (201, &json!("waiting")), "{application}");
        format!("/applications/{}", application["id"].as_str().unwrap())
    }

    /// The scripted worker of these examples, talking to the nested API.
    fn worker(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_scripted_worker"))
            .args(["--server-url", &format!("{}/automation", self.address), "--pace-ms", "1"])
            .env("GH_WORKER_KEY", "key-of-fleet")
            .env("RUST_LOG", "warn")
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Asks it to stop, as a supervisor would; its exit code.
    async fn stop(mut self) -> Option<i32> {
        let id = self.process.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
        tokio::time::timeout(gh_tests::PATIENCE, self.process.wait()).await.unwrap().unwrap().code()
    }

    async fn is_sent(&self, path: &str) {
        eventually("the application to be sent", async || {
            let (status, application) = self.get(path, "key-of-ada").await;
            (status == 200 && application["state"] == "sent" && application["note"].is_string()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_customer_applies_and_sees_what_a_worker_did_in_the_nested_api() {
    let service = Service::start(None).await;
    let path = service.apply("key-of-ada").await;
    let _worker = service.worker();
    service.is_sent(&path).await;
    assert_eq!(service.get(&path, "key-of-bob").await.0, 404, "others do not see it");
    let (status, jobs) = service.get("/automation/api/v1/jobs", "key-of-grace").await;
    assert_eq!((status, &jobs["jobs"][0]["status"]), (200, &json!("completed")), "{jobs}");
}

#[tokio::test]
async fn what_is_kept_in_a_file_outlives_the_service_and_its_worker_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("careers.log");
    let service = Service::start(Some(&log)).await;
    let path = service.apply("key-of-ada").await;
    let before = service.get(&path, "key-of-ada").await;
    assert_eq!(service.stop().await, Some(0));
    let service = Service::start(Some(&log)).await;
    assert_eq!(service.get(&path, "key-of-ada").await, before);
    let _worker = service.worker();
    service.is_sent(&path).await;
}

#[tokio::test]
async fn every_route_under_the_prefix_is_guarded_by_the_users_of_the_service() {
    let service = Service::start(None).await;
    let asked = [
        (Method::GET, "/automation/api/v1/jobs", "key-of-grace", 200),
        (Method::GET, "/automation/api/v1/jobs", "key-of-ada", 403),
        (Method::GET, "/automation/api/v1/jobs", "key-of-fleet", 403),
        (Method::GET, "/automation/api/v1/jobs", "unknown", 401),
        (Method::GET, "/automation/metrics", "key-of-grace", 200),
        (Method::GET, "/automation/metrics", "key-of-ada", 403),
        (Method::GET, "/automation/openapi.json", "unknown", 401),
        (Method::POST, "/automation/api/v1/workers/register", "key-of-fleet", 201),
        (Method::POST, "/automation/api/v1/workers/register", "key-of-grace", 403),
        (Method::POST, "/automation/api/v1/workers/register", "unknown", 401),
        (Method::GET, "/applications/7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11", "key-of-ada", 404),
        (Method::GET, "/applications/7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11", "key-of-grace", 403),
        (Method::GET, "/applications/7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11", "unknown", 401),
    ];
    let body = json!({ "worker_id": "worker-a", "boot_id": "boot-1" });
    for (method, path, key, expected) in asked {
        let (status, answer) = service.ask(method.clone(), path, key, &body).await;
        assert_eq!(status, expected, "{method} {path} as {key}: {answer}");
    }
}

#[tokio::test]
async fn a_list_of_users_that_is_wrong_is_refused_without_showing_a_key() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embedded_service"));
    let output = command.env("CAREERS_USERS", "staff:grace:secret-1,ada:secret-2").output().await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.starts_with("user 2 of CAREERS_USERS is not"), "{told}");
    assert!(!told.contains("secret-"), "{told}");
}
