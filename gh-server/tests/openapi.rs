//! The API's description, as the real program prints it.

use std::process::Command;

#[test]
fn openapi_prints_the_document_of_the_repository() {
    let printed = Command::new(env!("CARGO_BIN_EXE_gh-server")).arg("openapi").env_clear().output();
    let printed = printed.expect("the program starts");
    assert!(printed.status.success(), "{printed:?}");
    let printed: serde_json::Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    let known = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    let known = std::fs::read_to_string(known).expect("the document is in the repository");
    let known: serde_json::Value = serde_json::from_str(&known).expect("JSON");
    // Not assert_eq, which would print both in full.
    assert!(printed == known, "see the_document_in_the_repository_is_the_one_that_is_served of gh-adapters-http");
}
