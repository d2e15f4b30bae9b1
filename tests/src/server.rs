//! A real server process.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;

use crate::client::Client;

/// The key of clients, which `dev` has by itself and `serve` is told.
pub const SERVICE_KEY: &str = "dev-service-key";

/// The key that workers register with, in the same way.
pub const WORKER_KEY: &str = "dev-worker-key";

/// The server's program, which cargo builds beside the tests and the programs of this package.
///
/// # Panics
///
/// When it is not there.
#[must_use]
pub fn server_binary() -> PathBuf {
    let running = std::env::current_exe().expect("what runs has a path");
    let folder = running.parent().expect("a program lies in a folder");
    // Programs lie in target/PROFILE, tests in target/PROFILE/deps.
    let profile = if folder.ends_with("deps") { folder.parent().expect("deps lies in a folder") } else { folder };
    let binary = profile.join("gh-server");
    assert!(binary.exists(), "{} is missing: build with --workspace, which builds it", binary.display());
    binary
}

/// `gh-server serve` on a database, on a free port, logging as JSON, with these variables beside.
#[must_use]
pub fn serve_command(database_url: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(server_binary());
    command
        .arg("serve")
        .env_clear()
        .env("DATABASE_URL", database_url)
        .env("GH_LISTEN", "127.0.0.1:0")
        .env("GH_SERVICE_KEYS", SERVICE_KEY)
        .env("GH_WORKER_KEYS", WORKER_KEY)
        .env("GH_CALLBACK_ALLOW", "127.0.0.0/8")
        .env("GH_LOG", "info,gh_adapters_http=warn")
        .env("GH_LOG_FORMAT", "json")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// A running `gh-server`; killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    base_url: String,
    output: Output,
}

/// Somebody reads what the server writes, as a terminal would.
#[derive(Debug)]
enum Output {
    Story { _held_open: Lines<BufReader<ChildStdout>> },
    Log { lines: Arc<Mutex<Vec<String>>>, _reading: JoinSet<()> },
}

impl Server {
    /// Starts `gh-server dev --no-demo` with so many scripted workers, on a free port.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub async fn start(workers: u16) -> Self {
        let mut child = Command::new(server_binary())
            .args(["dev", "--no-demo", "--listen", "127.0.0.1:0", "--workers", &workers.to_string()])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the server starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        let first = lines.next_line().await.expect("stdout is readable").expect("the server says where it listens");
        let base_url = first.split_whitespace().find(|word| word.starts_with("http://")).map(ToOwned::to_owned);
        let base_url = base_url.unwrap_or_else(|| panic!("no address in {first:?}"));
        Self { child, base_url, output: Output::Story { _held_open: lines } }
    }

    /// Starts `gh-server serve` on a database, on a free port, and waits until it listens; with these variables beside.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub async fn serve(database_url: &str, variables: &[(&str, &str)]) -> Self {
        let mut child = serve_command(database_url, variables)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the server starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (kept, mut reading) = (Arc::clone(&lines), JoinSet::new());
        reading.spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let mut server = Self { child, base_url: String::new(), output: Output::Log { lines, _reading: reading } };
        let base_url = crate::eventually("the server to listen", async || {
            let ended = server.child.try_wait().expect("its end can be looked for");
            assert!(ended.is_none(), "the server ended: {:?}", server.log());
            let listening = |line: &String| line.contains("\"message\":\"listening\"");
            let line = server.log().into_iter().find(listening)?;
            let line: Value = serde_json::from_str(&line).ok()?;
            Some(line["reached_at"].as_str()?.to_owned())
        })
        .await;
        server.base_url = base_url;
        server
    }

    /// The same, and waits until it is ready.
    pub async fn ready_on(database_url: &str, variables: &[(&str, &str)]) -> Self {
        let server = Self::serve(database_url, variables).await;
        server.until_ready(true).await;
        server
    }

    /// Waits until `/ready` says that it can serve, or that it cannot.
    pub async fn until_ready(&self, ready: bool) {
        let status = if ready { 200 } else { 503 };
        let answer = crate::eventually(&format!("/ready to answer {status}"), async || {
            let answer = self.client().fetch("/ready").await;
            (answer.status == status).then_some(answer)
        })
        .await;
        let check = if ready { "ok" } else { "unavailable" };
        assert_eq!(answer.json()["checks"]["store"], check);
    }

    /// What it has logged so far, as lines of JSON; nothing for `dev`.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        match &self.output {
            Output::Story { .. } => Vec::new(),
            Output::Log { lines, .. } => lines.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The id of its process.
    ///
    /// # Panics
    ///
    /// When it is gone already.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.child.id().expect("the server still runs")
    }

    /// A client with the service key.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.base_url, SERVICE_KEY)
    }

    /// Asks it to stop, as a supervisor would.
    ///
    /// # Panics
    ///
    /// When it is gone already.
    pub async fn terminate(&self) {
        let id = self.process_id().to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs");
        assert!(status.success());
    }

    /// Ends it with SIGKILL: it can do nothing any more, and nothing is said to those who wait for it.
    ///
    /// # Panics
    ///
    /// When it cannot be killed.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("the server can be killed");
    }

    /// Waits for its end; its exit code.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub async fn exit_code(mut self) -> Option<i32> {
        let ended = tokio::time::timeout(crate::PATIENCE, self.child.wait()).await;
        ended.expect("the server ends").expect("its end can be waited for").code()
    }
}
