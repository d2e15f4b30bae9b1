//! Configuration as an operator meets it: the real program, its environment, its files, its output and exit codes.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Part of every secret in these tests, so that one search finds any of them.
const SECRET: &str = "hunter2";
/// All that `serve` needs.
const KEYS: [(&str, &str); 3] = [
    ("GH_SERVICE_KEYS", "valet:hunter2-service"),
    ("GH_WORKER_KEYS", "hunter2-worker"),
    ("DATABASE_URL", "postgres://gh:hunter2@127.0.0.1:1/gh"),
];

/// What the program answered.
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `gh-server` in `folder` with nothing but `variables` in its environment. No answer may ever hold a secret.
fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gh-server"));
    command.args(arguments).current_dir(folder).env_clear().envs(variables.iter().copied());
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8 output"));
    assert!(!out.contains(SECRET) && !err.contains(SECRET), "a secret was printed:\n{out}\n{err}");
    Answer { code: status.code(), out, err }
}

fn folder(file: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("gh-server.toml"), file).expect("the file is written");
    folder
}

/// An address that somebody has, so that `serve` ends where it would begin.
fn taken_address() -> (TcpListener, String) {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a bound address").to_string();
    (taken, address)
}

fn check(file: &str, variables: &[(&str, &str)]) -> Answer {
    let all: Vec<_> = KEYS.iter().chain(variables).copied().collect();
    run(folder(file).path(), &["check-config"], &all)
}

fn problems(answer: &Answer) -> Vec<&str> {
    answer.err.lines().filter_map(|line| line.strip_prefix("problem: ")).collect()
}

/// The line of the effective configuration that is about `key`, without its padding.
fn line(answer: &Answer, key: &str) -> String {
    let about = |line: &&str| line.trim_start_matches("# ").split(' ').next() == Some(key);
    let line = answer.out.lines().find(about).unwrap_or_else(|| panic!("no {key} in:\n{}", answer.out));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_sound_configuration_is_printed_as_toml_and_accepted() {
    let answer = check("[log]\nformat = \"json\"\n", &[]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    assert_eq!(line(&answer, "log.format"), "log.format = \"json\" # file gh-server.toml");
    assert_eq!(line(&answer, "listen"), "listen = \"127.0.0.1:3100\" # default");
    assert_eq!(line(&answer, "service_keys"), "service_keys = \"********\" # environment GH_SERVICE_KEYS");
    assert_eq!(line(&answer, "database_url"), "database_url = \"********\" # environment DATABASE_URL");
    assert_eq!(line(&answer, "database.migrate"), "database.migrate = true # default");
    assert_eq!(line(&answer, "retention.jobs"), "retention.jobs = \"90d\" # default");
    assert!(answer.out.parse::<toml::Table>().is_ok(), "{}", answer.out);
}

#[test]
fn an_unknown_key_is_refused_with_its_path_and_the_likely_right_one() {
    let answer = check("[worker]\nsuspect_aftre = \"10s\"\n[colours]\nred = 1\n", &[]);
    assert_eq!(answer.code, Some(2));
    assert_eq!(
        problems(&answer),
        ["colours: unknown key", "worker.suspect_aftre: unknown key; did you mean `worker.suspect_after`?"]
    );
}

#[test]
fn an_unknown_variable_is_a_warning_and_keeps_its_value_to_itself() {
    let answer = check("", &[("GH_SERVICE_KEY", "hunter2-mistyped"), ("OTHER", "x")]);
    assert_eq!(answer.code, Some(0));
    assert_eq!(answer.err, "warning: unknown variable GH_SERVICE_KEY is ignored; did you mean GH_SERVICE_KEYS?\n");
}

#[test]
fn an_unknown_variable_is_logged_when_the_server_starts() {
    let folder = folder("");
    let (_taken, address) = taken_address();
    let variables =
        [KEYS[0], KEYS[1], KEYS[2], ("GH_COLOUR", "red"), ("GH_LOG_FORMAT", "json"), ("GH_LISTEN", &address)];
    let answer = run(folder.path(), &["serve"], &variables);
    let logged: Vec<&str> = answer.err.lines().filter(|line| line.starts_with('{')).collect();
    assert!(matches!(logged[..], [one] if one.contains("WARN") && one.contains("GH_COLOUR is ignored")), "{logged:?}");
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let file = "listen = \"127.0.0.1:1\"\n[limits]\nbatch_items = 7\nbody_bytes = 2048\n";
    let answer = check(file, &[("GH_LISTEN", "127.0.0.1:2"), ("GH_LIMITS_BODY_BYTES", "")]);
    assert_eq!(line(&answer, "listen"), "listen = \"127.0.0.1:2\" # environment GH_LISTEN");
    assert_eq!(line(&answer, "limits.batch_items"), "limits.batch_items = 7 # file gh-server.toml");
    assert_eq!(line(&answer, "limits.body_bytes"), "limits.body_bytes = 2048 # file gh-server.toml");

    // The environment's value would be refused; a flag's would too, under the flag's name.
    let folder = folder(file);
    let wrong = [KEYS[0], KEYS[1], KEYS[2], ("GH_LISTEN", "nowhere")];
    let environment = run(folder.path(), &["serve"], &wrong);
    assert!(matches!(problems(&environment)[..], [one] if one.starts_with("GH_LISTEN: ")), "{}", environment.err);
    let flag = run(folder.path(), &["serve", "--listen", "elsewhere"], &wrong);
    assert!(matches!(problems(&flag)[..], [one] if one.starts_with("--listen: ")), "{}", flag.err);
    let (_taken, address) = taken_address();
    let flag = run(folder.path(), &["serve", "--listen", &address], &wrong);
    assert_eq!((flag.code, problems(&flag)), (Some(1), vec![]), "{}", flag.err);
    assert!(flag.err.contains(&format!("cannot listen on {address}")), "{}", flag.err);
}

#[test]
fn only_a_named_file_has_to_exist() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(run(empty.path(), &["check-config"], &KEYS).code, Some(0));
    let missing = run(empty.path(), &["check-config", "--config", "other.toml"], &KEYS);
    assert_eq!(missing.code, Some(2));
    assert!(
        matches!(problems(&missing)[..], [one] if one.starts_with("other.toml: cannot be read")),
        "{}",
        missing.err
    );
    fs::write(empty.path().join("other.toml"), "listen = \"127.0.0.1:9\"").unwrap();
    let named = run(empty.path(), &["check-config", "--config", "other.toml"], &KEYS);
    assert_eq!(line(&named, "listen"), "listen = \"127.0.0.1:9\" # file other.toml");
}

#[test]
fn a_secret_may_come_from_a_file() {
    let folder = folder("");
    fs::write(folder.path().join("url"), "postgres://gh:hunter2@host/gh\r\n").unwrap();
    fs::write(folder.path().join("keys"), "hunter2-a,ops:hunter2-b\n").unwrap();
    let variables = [("DATABASE_URL_FILE", "url"), ("GH_SERVICE_KEYS_FILE", "keys"), KEYS[1]];
    let answer = run(folder.path(), &["check-config"], &variables);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    assert_eq!(line(&answer, "database_url"), "database_url = \"********\" # environment DATABASE_URL_FILE");
    assert_eq!(line(&answer, "service_keys"), "service_keys = \"********\" # environment GH_SERVICE_KEYS_FILE");
}

#[test]
fn a_secret_file_that_is_empty_or_missing_is_a_problem() {
    let folder = folder("");
    fs::write(folder.path().join("empty"), "\n").unwrap();
    let variables = [("GH_SERVICE_KEYS_FILE", "empty"), ("GH_WORKER_KEYS_FILE", "hunter2-not-a-file")];
    let answer = run(folder.path(), &["check-config"], &variables);
    assert_eq!(answer.code, Some(2));
    assert_eq!(
        problems(&answer),
        [
            "GH_SERVICE_KEYS_FILE: the file it names is empty",
            "GH_WORKER_KEYS_FILE: the file it names cannot be read: entity not found"
        ]
    );
}

#[test]
fn a_secret_given_twice_is_a_problem() {
    let answer = check("", &[("GH_SERVICE_KEYS_FILE", "anything")]);
    assert_eq!(answer.code, Some(2));
    assert_eq!(problems(&answer), ["GH_SERVICE_KEYS: set together with GH_SERVICE_KEYS_FILE; keep one of the two"]);
}

#[test]
fn no_secret_is_printed_however_wrong_it_is() {
    let files = [
        "database_url = postgres://u:hunter2@h/d",
        "database_url = \"mysql://u:hunter2@h/d\"",
        "service_keys = [\"valet:hunter2 with spaces\"]",
        "service_keys = [{ hunter2 = \"valet\" }]",
        "service_keys = { hunter2 = \"valet\" }",
        "worker_keys = [\"hunter2\"]",
        "[callback_service_key]\n\"hunter2-key\" = \"https://valet.example\"",
        "public_base_url = \"https://u:hunter2@host\"",
        "callback_allow = [\"https://host/?token=hunter2\"]",
    ];
    for file in files {
        let folder = folder(file);
        // `dev` would run with some of these; an address that it refuses makes it stop and complain.
        for command in [&["check-config"][..], &["serve"], &["dev", "--listen", "0.0.0.0:0"]] {
            // `run` looks for the secret.
            let answer = run(folder.path(), command, &[]);
            assert_ne!(answer.code, Some(0), "{command:?} with {file}");
        }
    }
    for variables in [
        [("GH_SERVICE_KEYS", "bad name:hunter2-key"), KEYS[1]],
        [("GH_SERVICE_KEYS", "hunter2"), KEYS[1]],
        [("GH_SERVICE_KEYS", "a:hunter2-same"), ("GH_WORKER_KEYS", "hunter2-same")],
        [("DATABASE_URL", "hunter2"), KEYS[1]],
    ] {
        let answer = run(Path::new("/"), &["check-config"], &variables);
        assert_eq!(answer.code, Some(2), "{variables:?}");
    }
    for flags in [
        &["serve", "--database-url=hunter2"][..],
        &["serve", "--databse-url=postgres://u:hunter2@h/d"],
        &["serve", "postgres://u:hunter2@h/d"],
        &["postgres://u:hunter2@h/d"],
        &["dev", "--workers=postgres://u:hunter2@h/d"],
        &["migrate", "--database-url=hunter2"],
    ] {
        assert_eq!(run(Path::new("/"), flags, &KEYS).code, Some(2), "{flags:?}");
    }
}

#[test]
fn worker_times_out_of_order_are_refused() {
    let answer = check("[worker]\nheartbeat_interval = \"6s\"\n", &[]);
    assert_eq!(answer.code, Some(2));
    assert_eq!(
        problems(&answer),
        [
            "worker: 2 × heartbeat_interval (6s) ≤ suspect_after (10s) < self_fence_after (15s) < offline_after (20s) does not hold"
        ]
    );
}

#[test]
fn serve_and_migrate_without_a_database_say_what_they_need() {
    let folder = folder("");
    for command in ["serve", "migrate"] {
        let answer = run(folder.path(), &[command], &KEYS[..2]);
        assert_eq!(answer.code, Some(2));
        assert!(matches!(problems(&answer)[..], [one] if one.starts_with("database_url: ")), "{}", answer.err);
    }
}

#[test]
fn dev_stays_on_loopback() {
    let folder = folder("");
    let answer = run(folder.path(), &["dev", "--listen", "0.0.0.0:3100"], &[]);
    assert_eq!(answer.code, Some(2));
    assert!(matches!(problems(&answer)[..], [one] if one.contains("loopback only")), "{}", answer.err);
}

#[test]
fn help_tells_the_variables_and_exit_codes_and_a_wrong_command_line_ends_with_two() {
    let here = Path::new("/");
    let help = run(here, &["--help"], &[]);
    assert_eq!(help.code, Some(0));
    for word in ["GH_SERVICE_KEYS", "DATABASE_URL", "Exit codes", "gh-server dev", "check-config"] {
        assert!(help.out.contains(word), "{word} is missing in:\n{}", help.out);
    }
    assert!(run(here, &["--version"], &[]).out.starts_with("gh-server "));
    for wrong in [&["sevre"][..], &["dev", "--workers", "65"], &["dev", "--no-demo", "--exit-after-demo"], &[]] {
        assert_eq!(run(here, wrong, &[]).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn every_example_of_the_documentation_is_accepted() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap();
    let examples: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        let folder = folder(example);
        let keys = if example.contains("service_keys =") { &KEYS[1..] } else { &KEYS[..] };
        let answer = run(folder.path(), &["check-config"], keys);
        assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{example}");
    }
}
