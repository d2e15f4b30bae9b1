//! The one command that a newcomer types.

use gh_tests::server_binary;
use tokio::process::Command;

#[tokio::test]
async fn the_demo_tells_its_story_and_ends_well() {
    let output = Command::new(server_binary())
        .args(["dev", "--listen", "127.0.0.1:0", "--exit-after-demo"])
        .env_clear()
        .output()
        .await
        .unwrap();
    let story = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{story}\n{complaints}");
    for expected in [
        "GhostHands control plane, in memory, on http://127.0.0.1:",
        "submitted (strict, sandbox-1)",
        "submitted (preferred, sandbox-1)",
        "submitted (any worker)",
        "409 WORKER_UNAVAILABLE",
        "Job assigned to dev-worker-1",
        "Job assigned to dev-worker-2",
        "worker_id=dev-worker-2 target_worker_id=sandbox-1",
        "error_code=WORKER_UNAVAILABLE",
        "side_effects_started",
        "tokens_used",
        "cost=$0.",
    ] {
        assert!(story.contains(expected), "{expected:?} is missing in\n{story}");
    }
    assert!(!story.contains("WRONG"), "{story}");
}

#[tokio::test]
async fn the_demo_refuses_to_run_without_workers() {
    let output = Command::new(server_binary())
        .args(["dev", "--listen", "127.0.0.1:0", "--workers", "0"])
        .env_clear()
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--no-demo"));
}
