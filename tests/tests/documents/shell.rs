//! A bash that runs the commands of a document, block by block.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::Outcome;

/// Ends the output of a block; the exit status of its first failure follows.
const END: &str = "@@end-of-block";

/// Every failure counts, wherever in a block it is; whatever is complained about is in the output.
const PROLOGUE: &str = "exec 2>&1; set -Euo pipefail; failed=0; trap 'failed=$?' ERR\n";

/// One bash for all blocks of a document: what one block sets, the next one sees.
#[derive(Debug)]
pub(crate) struct Shell {
    _bash: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Shell {
    /// Starts a bash, which reads what it is to do from its stdin, that knows where the server and the receiver are.
    pub(crate) async fn start(server: &str, receiver: &str) -> Outcome<Self> {
        let mut bash = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .env("GH", server)
            .env("RECEIVER", receiver)
            .env("no_proxy", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut input = bash.stdin.take().ok_or("bash has no stdin")?;
        input.write_all(PROLOGUE.as_bytes()).await?;
        let output = bash.stdout.take().ok_or("bash has no stdout")?;
        Ok(Self { _bash: bash, input, output: BufReader::new(output).lines() })
    }

    /// Runs a block and gives back what it printed.
    pub(crate) async fn run(&mut self, block: &str) -> Outcome<String> {
        let script = format!("{block}\nprintf '\\n{END} %s\\n' \"$failed\"; failed=0\n");
        self.input.write_all(script.as_bytes()).await?;
        self.input.flush().await?;
        let mut printed = String::new();
        while let Some(line) = self.output.next_line().await? {
            match line.strip_prefix(END).map(str::trim) {
                None => {
                    printed.push_str(&line);
                    printed.push('\n');
                }
                Some("0") => return Ok(printed.trim_end().to_owned()),
                Some(status) => {
                    return Err(format!("exit status {status}:\n{block}\nprinted:\n{printed}").into());
                }
            }
        }
        Err(format!("bash gave up:\n{block}\nprinted:\n{printed}").into())
    }
}
