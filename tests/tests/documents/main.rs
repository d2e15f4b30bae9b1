//! The documents are true: their commands run against a real server, and the answers in them are the real ones.
//!
//! In a document, every `sh` block is run, in order, in one bash. The block that follows it, `json` or `text`, is what it
//! prints; a `receiver` block is what the example receiver of callbacks has printed by then. Ids, times, tokens and ports
//! are compared by place, not by value. `UPDATE_GOLDEN=1 cargo test --workspace --test documents` writes the
//! answers anew after a wanted change.

mod answers;
mod markdown;
mod processes;
mod shell;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use answers::Comparison;
use gh_tests::{Client, submission};
use markdown::Document;
use processes::{Program, Receiver};
use serde_json::json;
use shell::Shell;
use tokio::process::Command;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// How long an answer that only looks may take to become the documented one.
const PATIENCE: Duration = Duration::from_secs(15);
/// The time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long an answer must stay the same before it is written into a document.
const SETTLED: Duration = Duration::from_secs(2);

#[tokio::test]
async fn the_walk_through_a_job_by_hand_is_true() -> Outcome {
    if !can_be_followed().await {
        return Ok(());
    }
    let patient =
        [("GH_WORKER_SUSPECT_AFTER", "40m"), ("GH_WORKER_SELF_FENCE_AFTER", "50m"), ("GH_WORKER_OFFLINE_AFTER", "1h")];
    let receiver = Receiver::start().await?;
    let server = Program::server(&["--workers", "0"], &patient).await?;
    walk("docs/job-by-hand.md", &server, &receiver).await
}

#[tokio::test]
async fn the_readme_follows_a_job_with_a_script_to_the_digit() -> Outcome {
    if !can_be_followed().await {
        return Ok(());
    }
    let receiver = Receiver::start().await?;
    let server = Program::server(&[], &[]).await?;
    // A reader is slower than a worker that has just started and does not ask for jobs yet.
    let client = Client::new(&server.address(), "dev-service-key");
    let first = json!({
        "target_worker_id": "sandbox-2",
        "worker_affinity": "strict",
        "affinity_wait_seconds": 60,
        "input_data": { "script": [] },
    });
    let first = client.submit(&submission(&first)).await;
    client.job_when(&first, "completed").await;
    walk("README.md", &server, &receiver).await
}

/// Whether a reader of this machine could follow the documents at all. Rust alone is enough to run the other tests.
async fn can_be_followed() -> bool {
    for tool in ["bash", "curl", "sed", "grep", "paste"] {
        let mut version = Command::new(tool);
        let version = version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        if version.status().await.is_err() {
            eprintln!("skipped: the documents' commands need {tool}, which is not installed");
            return false;
        }
    }
    true
}

/// Runs a document.
async fn walk(path: &str, server: &Program, receiver: &Receiver) -> Outcome {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let path = root().join(path);
    let mut document = Document::read(&path)?;
    let mut comparison = Comparison::new(&[(server.port, "3100"), (receiver.program.port, "3200")]);
    let mut shell = Shell::start(&server.address(), &receiver.program.address()).await?;
    let mut wrong = Vec::new();
    let mut answers = Vec::new();
    let mut ran = 0;
    for index in 0..document.blocks.len() {
        let block = document.blocks[index].clone();
        let answer = document.blocks.get(index + 1).cloned();
        let expected = answer.filter(|answer| matches!(&*answer.language, "json" | "text"));
        let (place, printed) = match &*block.language {
            "sh" => {
                let first = run(&mut shell, &block.text).await?;
                ran += 1;
                let Some(expected) = expected else { continue };
                let json = expected.language == "json";
                let again = is_look(&block.text).then_some(&mut shell);
                let printed = settle(first, &expected.text, json, again, &block.text, &comparison, update);
                (index + 1, printed.await?)
            }
            "receiver" => (index, receiver.printed(block.text.lines().count(), PATIENCE).await),
            _ => continue,
        };
        let expected = &document.blocks[place];
        if let Err(difference) = comparison.compare(&expected.text, &printed) {
            wrong.push(format!("{}:{}: {difference}", path.display(), expected.line));
        }
        answers.push((place, comparison.presentable(&printed)));
    }
    assert!(ran > 0, "{} has no commands", path.display());
    if update && !wrong.is_empty() {
        // All of them, so that the ids in one answer are those in the others.
        for (place, text) in answers {
            document.blocks[place].text = text;
        }
        return document.write(&path);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

/// Whether a block only looks: it may be run again until what happens meanwhile has happened.
fn is_look(block: &str) -> bool {
    let changes = [" -d ", "-X POST", "-X DELETE"];
    !changes.iter().any(|change| block.contains(change))
}

async fn run(shell: &mut Shell, block: &str) -> Outcome<String> {
    tokio::time::timeout(PATIENCE, shell.run(block)).await.map_err(|_| format!("takes too long:\n{block}"))?
}

/// What a block prints: at once, or, if it only looks, when it is what is expected (or, for writing it down, settled).
async fn settle(
    first: String,
    expected: &str,
    json: bool,
    again: Option<&mut Shell>,
    block: &str,
    comparison: &Comparison,
    update: bool,
) -> Outcome<String> {
    let form = |printed: String| {
        if json { answers::pretty(&printed) } else { Ok(printed) }
    };
    let mut printed = form(first)?;
    let Some(shell) = again else { return Ok(printed) };
    let (mut waited, mut unchanged) = (Duration::ZERO, Duration::ZERO);
    loop {
        let fits = comparison.clone().compare(expected, &printed).is_ok();
        if fits || waited >= PATIENCE || (update && unchanged >= SETTLED) {
            return Ok(printed);
        }
        tokio::time::sleep(LOOK_EVERY).await;
        waited += LOOK_EVERY;
        let next = form(run(shell, block).await?)?;
        let same = comparison.clone().compare(&printed, &next).is_ok();
        unchanged = if same { unchanged + LOOK_EVERY } else { Duration::ZERO };
        printed = next;
    }
}

#[test]
fn every_link_and_every_file_named_in_the_documents_is_there() -> Outcome {
    let pages = markdown::pages(root())?;
    assert!(pages.len() > 10, "only {} pages", pages.len());
    let broken: Vec<String> =
        pages.iter().map(|page| markdown::broken_links(page, root())).collect::<Result<Vec<_>, _>>()?.concat();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

#[test]
fn the_architecture_names_every_module_of_the_store_on_postgresql() -> Outcome {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let row = page.lines().find(|line| line.starts_with("| `gh-adapters-postgres/`")).ok_or("has no row for it")?;
    let mut modules = 0;
    for entry in std::fs::read_dir(root().join("gh-adapters-postgres/src"))? {
        let path = entry?.path();
        let module = path.file_stem().and_then(|name| name.to_str()).ok_or("a file without a name")?.to_owned();
        let named = [format!("`{module}`"), format!("`{module}/`"), format!("`{module}.rs`")];
        assert!(named.iter().any(|name| row.contains(name)), "ARCHITECTURE.md does not name {module}");
        modules += 1;
    }
    assert!(modules > 20, "only {modules} modules");
    Ok(())
}

/// The folder of the workspace.
fn root() -> &'static Path {
    static ROOT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    ROOT.get_or_init(|| {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        package.parent().unwrap_or(package).to_path_buf()
    })
}
