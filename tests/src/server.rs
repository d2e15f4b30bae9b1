//! A real server process.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::client::Client;

/// The server's program, which cargo builds beside the tests.
///
/// # Panics
///
/// When it is not there.
#[must_use]
pub fn server_binary() -> PathBuf {
    let tests = std::env::current_exe().expect("a running test has a path");
    let target = tests.parent().and_then(|deps| deps.parent()).expect("tests lie in target/PROFILE/deps");
    let binary = target.join("gh-server");
    assert!(binary.exists(), "{} is missing: run the tests with --workspace, which builds it", binary.display());
    binary
}

/// A running `gh-server dev`; killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    base_url: String,
    /// Held open, as a terminal would be.
    _story: Lines<BufReader<ChildStdout>>,
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
        Self { child, base_url, _story: lines }
    }

    /// Where it listens.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// A client with the service key.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.base_url, "dev-service-key")
    }

    /// Asks it to stop, as a supervisor would.
    ///
    /// # Panics
    ///
    /// When it is gone already.
    pub async fn terminate(&self) {
        let id = self.child.id().expect("the server still runs").to_string();
        let status = Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs");
        assert!(status.success());
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
