//! Loading as a whole, without a process; `gh-server/tests` runs the binary.

use std::time::Duration;

use super::values::{Kind, Span};
use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Loads without any file: the folder of the tests has no `gh-server.toml`.
fn load_from(profile: Profile, variables: &[(&str, &str)]) -> Loaded {
    load(profile, None, &[], &environment(variables))
}

fn problems(profile: Profile, variables: &[(&str, &str)]) -> Vec<String> {
    load_from(profile, variables).config.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

const DATABASE: (&str, &str) = ("DATABASE_URL", "postgres://gh@localhost/gh");

const KEYS: [(&str, &str); 3] = [("GH_SERVICE_KEYS", "valet:service-key"), ("GH_WORKER_KEYS", "worker-key"), DATABASE];

fn with_keys<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    KEYS.iter().chain(more).copied().collect()
}

#[test]
fn dev_needs_no_setting_at_all() {
    let config = load_from(Profile::Dev, &[]).config.unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:3100");
    assert_eq!((config.service_keys.len(), config.worker_keys.len()), (1, 1));
    assert_eq!(config.callback_allow.hosts, ["localhost"]);
    assert_eq!(config.limits_body_bytes, 1024 * 1024);
    assert_eq!(config.limits_batch_items, 500);
    assert_eq!(config.worker_outcome_grace, Duration::from_secs(300));
    assert!(config.database_url.is_none() && config.public_base_url.is_none());
}

#[test]
fn the_defaults_of_dev_belong_to_settings() {
    for (key, _) in DEV_DEFAULTS {
        assert!(SETTINGS.iter().any(|setting| setting.key == *key), "{key}");
    }
}

#[test]
fn dev_refuses_other_addresses_than_loopback() {
    for refused in ["0.0.0.0:3100", "[::]:3100", "10.0.0.1:80", "[::ffff:10.0.0.1]:80"] {
        assert_eq!(problems(Profile::Dev, &[("GH_LISTEN", refused)]).len(), 1, "{refused}");
        assert_eq!(problems(Profile::Serve, &with_keys(&[("GH_LISTEN", refused)])), [""; 0], "{refused}");
    }
    for fine in ["127.0.0.2:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        assert_eq!(problems(Profile::Dev, &[("GH_LISTEN", fine)]), [""; 0], "{fine}");
    }
}

#[test]
fn serve_needs_keys_that_are_long_enough_and_dev_does_not() {
    assert_eq!(
        problems(Profile::Serve, &[DATABASE]),
        ["service_keys: at least one key is needed", "worker_keys: at least one key is needed"]
    );
    let short = [
        ("GH_SERVICE_KEYS", "a-key-of-11,7-chars"),
        ("GH_WORKER_KEYS", "8-chars-"),
        ("GH_CALLBACK_SERVICE_KEY", "x"),
        DATABASE,
    ];
    assert_eq!(
        problems(Profile::Serve, &short),
        [
            "service_keys[1]: the key is shorter than 8 characters",
            "callback_service_key: the key is shorter than 8 characters"
        ]
    );
    assert_eq!(problems(Profile::Dev, &short), [""; 0]);
}

#[test]
fn serve_and_migrate_need_a_postgresql_and_dev_does_not_care() {
    let none = ["database_url: `serve` needs a PostgreSQL; `gh-server dev` runs in memory"];
    assert_eq!(problems(Profile::Serve, &KEYS[..2]), none);
    assert_eq!(problems(Profile::Migrate, &[]), none, "and no keys");
    assert_eq!(problems(Profile::Dev, &[]), [""; 0]);
    let cases = [
        ("postgres://u:p@h/d", 0),
        ("postgresql:///d", 0),
        ("postgres://u:p@h/d?sslmode=verify-full&sslrootcert=/etc/ca.pem", 0),
        ("postgres://u:p@h/d?sslmode=perhaps", 1),
        ("postgres://u:p@h/d?statement_timeout=1s", 1),
        ("mysql://u:p@h/d", 1),
        ("h:5432", 1),
    ];
    for (url, refused) in cases {
        let variables = [KEYS[0], KEYS[1], ("DATABASE_URL", url)];
        assert_eq!(problems(Profile::Serve, &variables).len(), refused, "{url}");
        assert_eq!(problems(Profile::Migrate, &[("DATABASE_URL", url)]).len(), refused, "{url}");
        assert_eq!(problems(Profile::Dev, &[("DATABASE_URL", url)]), [""; 0], "{url}");
    }
}

#[test]
fn debug_output_of_all_that_was_loaded_holds_no_secret() {
    let secrets = [
        ("GH_SERVICE_KEYS", "valet:hunter2-a"),
        ("GH_WORKER_KEYS", "hunter2-b"),
        ("GH_CALLBACK_SERVICE_KEY", "hunter2-c"),
        ("DATABASE_URL", "postgres://u:hunter2@h/d"),
    ];
    let loaded = load_from(Profile::Serve, &secrets);
    assert!(loaded.config.is_ok());
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

#[test]
fn a_key_names_one_client_and_one_kind() {
    let shared =
        [("GH_SERVICE_KEYS", "a:same-key-1,b:same-key-1,a:other-key"), ("GH_WORKER_KEYS", "other-key"), DATABASE];
    assert_eq!(
        problems(Profile::Serve, &shared),
        [
            "service_keys[1]: the same key stands under another name too",
            "worker_keys[0]: the same key stands in `service_keys`"
        ]
    );
    let rotation = [("GH_SERVICE_KEYS", "a:old-key-1,a:new-key-1"), ("GH_WORKER_KEYS", "worker-key"), DATABASE];
    assert_eq!(problems(Profile::Serve, &rotation), [""; 0]);
}

#[test]
fn worker_times_keep_their_order_up_to_the_edge() {
    let times = |heartbeat, suspect, fence, offline| {
        problems(
            Profile::Dev,
            &[
                ("GH_WORKER_HEARTBEAT_INTERVAL", heartbeat),
                ("GH_WORKER_SUSPECT_AFTER", suspect),
                ("GH_WORKER_SELF_FENCE_AFTER", fence),
                ("GH_WORKER_OFFLINE_AFTER", offline),
            ],
        )
    };
    assert_eq!(times("50ms", "100ms", "101ms", "102ms"), [""; 0]);
    for (heartbeat, suspect, fence, offline) in [
        ("51ms", "100ms", "101ms", "102ms"),
        ("50ms", "100ms", "100ms", "102ms"),
        ("50ms", "100ms", "102ms", "102ms"),
        ("50ms", "100ms", "103ms", "102ms"),
    ] {
        let found = times(heartbeat, suspect, fence, offline);
        assert!(matches!(found.as_slice(), [one] if one.starts_with("worker: 2 × heartbeat_interval")), "{found:?}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let wrong = [("GH_LISTEN", "nowhere"), ("GH_LOG_FORMAT", "xml"), ("GH_LIMITS_BATCH_ITEMS", "0")];
    assert_eq!(problems(Profile::Serve, &with_keys(&wrong)).len(), 3);
}

#[test]
fn variables_are_named_after_their_keys() {
    for setting in SETTINGS {
        let regular = format!("GH_{}", setting.key.replace('.', "_").to_uppercase());
        let expected = match setting.key {
            "database_url" => "DATABASE_URL",
            "log.filter" => "GH_LOG",
            _ => &regular,
        };
        assert_eq!(setting.variable, expected);
        assert_eq!(SETTINGS.iter().filter(|other| other.key == setting.key).count(), 1, "{}", setting.key);
    }
}

#[test]
fn spans_of_the_table_are_shown_as_they_are_written() {
    let loaded = load_from(Profile::Dev, &[("GH_WORKER_OUTCOME_GRACE", "90s")]);
    let text = effective(&loaded);
    assert!(text.contains("worker.outcome_grace = \"90s\""), "{text}");
    assert!(Span { least_ms: 1, most_ms: 1 }.parse_text("2ms").is_err());
    let table: toml::Table = text.parse().unwrap();
    assert_eq!(table["worker"]["heartbeat_interval"].as_str(), Some("5s"));
}

#[test]
fn the_documentation_lists_exactly_the_settings() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md")).unwrap();
    let found: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = SETTINGS.iter().map(documentation_row).collect();
    assert_eq!(found, expected, "the table in docs/configuration.md should read:\n{}\n", expected.join("\n"));
}

fn documentation_row(setting: &Setting) -> String {
    let variable = match setting.secret {
        true => format!("`{0}`, `{0}_FILE`", setting.variable),
        false => format!("`{}`", setting.variable),
    };
    let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
    let secret = if setting.secret { "yes" } else { "" };
    format!("| `{}` | {variable} | {default} | {secret} | {} |", setting.key, setting.doc)
}

#[test]
fn the_page_on_operations_tells_how_long_each_thing_is_kept_by_default() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).unwrap();
    let kept =
        SETTINGS.iter().filter(|setting| setting.key.starts_with("retention.") && setting.default.ends_with('d'));
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with('|') && line.contains("`retention.")).collect();
    let mut found = 0;
    for Setting { key, default, .. } in kept {
        let told = format!("| {} days | `{key}` |", default.trim_end_matches('d'));
        assert!(rows.iter().any(|row| row.contains(&told)), "no row with {told}");
        found += 1;
    }
    assert_eq!(found, rows.len());
}

#[test]
fn retention_and_connections_have_the_defaults_of_the_store() {
    let config = load_from(Profile::Dev, &[]).config.unwrap();
    assert_eq!(config.retention(), gh_adapters_postgres::Retention::default());
    assert_eq!(config.database(), gh_adapters_postgres::PgOptions::default());
}
