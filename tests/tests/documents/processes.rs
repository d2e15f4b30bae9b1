//! The real programs that a document talks to.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use gh_tests::server_binary;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{Mutex, OnceCell};

use super::{Outcome, root};

/// A program that listens; it ends with this value.
#[derive(Debug)]
pub(crate) struct Program {
    _process: Child,
    output: Mutex<Lines<BufReader<ChildStdout>>>,
    pub(crate) port: u16,
}

impl Program {
    /// A fresh `gh-server dev` without the demo.
    pub(crate) async fn server(arguments: &[&str], settings: &[(&str, &str)]) -> Outcome<Self> {
        let fixed = ["dev", "--no-demo", "--listen", "127.0.0.1:0"];
        let arguments: Vec<&str> = fixed.iter().chain(arguments).copied().collect();
        Self::start(server_binary(), &arguments, settings).await
    }

    async fn start(binary: PathBuf, arguments: &[&str], settings: &[(&str, &str)]) -> Outcome<Self> {
        let mut command = Command::new(&binary);
        // The settings of whoever runs the tests are not the document's.
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with("GH_") || text.eq_ignore_ascii_case("http_proxy") {
                command.env_remove(&variable);
            }
        }
        let mut process = command
            .args(arguments)
            .env("GH_LOG", "warn")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process.stdout.take().ok_or("no stdout")?;
        let mut output = BufReader::new(output).lines();
        let first = output.next_line().await?.ok_or_else(|| format!("{} ended at once", binary.display()))?;
        let port = first
            .rsplit(':')
            .next()
            .and_then(|port| port.trim_end_matches('/').parse().ok())
            .ok_or_else(|| format!("no address in {first:?}"))?;
        Ok(Self { _process: process, output: Mutex::new(output), port })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// The example receiver of callbacks.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) program: Program,
}

impl Receiver {
    /// Starts one on a free port.
    pub(crate) async fn start() -> Outcome<Self> {
        let program = Program::start(receiver_binary().await?, &["--listen", "127.0.0.1:0"], &[]).await?;
        Ok(Self { program })
    }

    /// What it printed: so many lines, or as many as come in that time, and whatever comes right after.
    pub(crate) async fn printed(&self, lines: usize, patience: Duration) -> String {
        let mut output = self.program.output.lock().await;
        let mut printed: Vec<String> = Vec::new();
        loop {
            let more = Duration::from_millis(200);
            let wait = if printed.len() < lines { patience } else { more };
            match tokio::time::timeout(wait, output.next_line()).await {
                Ok(Ok(Some(line))) => printed.push(line),
                _ => return printed.join("\n"),
            }
        }
    }
}

/// The example receiver's program. Cargo does not build it for tests as it does with the server, so this does, when it
/// is not there or older than its source.
async fn receiver_binary() -> Outcome<PathBuf> {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let built = BUILT.get_or_try_init(|| async {
        let binary = server_binary().with_file_name("callback_receiver");
        let source = root().join("examples/src/bin/callback_receiver.rs");
        let changed = fs::metadata(source)?.modified()?;
        let made = fs::metadata(&binary).and_then(|binary| binary.modified());
        if made.is_ok_and(|made| made > changed) {
            return Ok(binary);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--workspace", "--bins", "--quiet"]);
        if binary.parent().is_some_and(|profile| profile.ends_with("release")) {
            command.arg("--release");
        }
        let ended = command.current_dir(root()).status().await?;
        if ended.success() { Ok(binary) } else { Err("the receiver cannot be built".into()) }
    });
    built.await.cloned()
}
