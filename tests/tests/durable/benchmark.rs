//! `gh-bench` still measures what it says, and what it measures is whole; how fast is nobody's business here.

use serde_json::Value;
use tokio::process::Command;

const GH_BENCH: &str = env!("CARGO_BIN_EXE_gh-bench");

async fn bench(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn lives_of_the_server_and_of_the_yardstick_are_counted_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lives.json");
    let json = file.to_str().unwrap();
    let arguments = ["lives", "--quick", "--in-flight=4", "--yardstick-clients=4", "--json", json];
    let (code, table, progress) = bench(Command::new(GH_BENCH).args(arguments)).await;
    assert_eq!(code, Some(0), "{progress}");
    assert!(table.contains("figures mean nothing"), "{table}");
    let report: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let figures = report["kept"][0]["figures"].as_array().unwrap();
    assert_eq!(figures.len(), 3);
    assert!(figures.iter().all(|figure| figure["rate"].as_f64() > Some(0.0)), "{report:#}");
    assert!(report["summaries"][1]["ratio"]["median"].as_f64() > Some(0.0), "{report:#}");
}

#[tokio::test]
async fn nothing_is_measured_where_figures_would_mean_nothing() {
    // Nobody could tell which processes are PostgreSQL's.
    let (code, table, said) = bench(Command::new(GH_BENCH).arg("lives").env_remove("TEST_DATABASE_DATA")).await;
    assert_eq!((code, table.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("scripts/bench"), "{said}");
}
