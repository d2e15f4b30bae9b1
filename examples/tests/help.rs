//! The example programs say what they do and how they are configured.

use std::process::Command;

#[test]
fn each_program_explains_itself() {
    let programs = [
        (env!("CARGO_BIN_EXE_scripted_worker"), "GH_WORKER_KEY"),
        (env!("CARGO_BIN_EXE_callback_receiver"), "GH_RECEIVER_LISTEN"),
        (env!("CARGO_BIN_EXE_embedded_service"), "CAREERS_USERS"),
    ];
    for (program, variable) in programs {
        let output = Command::new(program).arg("--help").output().unwrap();
        assert!(output.status.success());
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Usage:") && help.contains(variable), "{help}");
    }
}
