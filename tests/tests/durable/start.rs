//! Starting on databases that will not do: one clear line, an exit code, and no password.

use std::process::Output;

use gh_adapters_postgres::testing::TestDatabase;
use gh_tests::serve_command;
use sqlx::AssertSqlSafe;

/// What `serve` says and ends with. It must end by itself, and never tell the password.
async fn refused(url: &str, variables: &[(&str, &str)]) -> String {
    let ended = tokio::time::timeout(gh_tests::PATIENCE, serve_command(url, variables).kill_on_drop(true).output());
    let Output { status, stderr, .. } = ended.await.unwrap().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!stderr.contains("hunter2"), "{stderr}");
    assert!(matches!(status.code(), Some(1 | 2)), "{status}: {stderr}");
    let said: Vec<&str> = stderr.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(said.len(), 1, "{stderr}");
    said[0].to_owned()
}

fn url_with(database: &TestDatabase, change: impl FnOnce(&mut String, &mut String, &mut String)) -> String {
    let address = database.address();
    let (mut user, mut host, mut name) = (
        format!("{}:hunter2", address.get_username()),
        address.get_host().to_owned(),
        address.get_database().unwrap().to_owned(),
    );
    change(&mut user, &mut host, &mut name);
    format!("postgres://{user}@{host}:{}/{name}", address.get_port())
}

#[tokio::test]
async fn a_wrong_address_is_one_clear_line_without_its_password() {
    let database = TestDatabase::create_empty().await;
    let cases = [
        ("mysql://gh:hunter2@localhost/gh".to_owned(), "problem: database_url: not of the form postgres://"),
        ("postgres://gh:hunter2@localhost:port/gh".to_owned(), "problem: database_url: not of the form postgres://"),
        ("postgres://gh@localhost/gh?pasword=hunter2".to_owned(), "problem: database_url: the parameter `pasword`"),
        (
            url_with(&database, |_, host, _| *host = "no-such-host.invalid".into()),
            "its host no-such-host.invalid cannot be found",
        ),
        (url_with(&database, |_, _, name| *name = "gh_nowhere".into()), "database \"gh_nowhere\" does not exist"),
        (url_with(&database, |user, _, _| *user = "gh_nobody:hunter2".into()), "gh_nobody"),
        (
            format!("{}?sslmode=verify-full&sslrootcert=/dev/null", url_with(&database, |_, _, _| ())),
            "it cannot be used",
        ),
    ];
    for (url, expected) in cases {
        let said = refused(&url, &[]).await;
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn a_database_newer_than_the_program_is_left_alone() {
    let database = TestDatabase::create().await;
    let store = database.store(None);
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (9000, 'of the future', true, 'x', 0)",
    )
    .execute(store.pool())
    .await
    .unwrap();
    let said = refused(&database.url(), &[]).await;
    assert!(said.contains("the database has migration 9000") && said.contains("too old for it"), "{said}");
}

#[tokio::test]
async fn a_missing_privilege_is_named() {
    let database = TestDatabase::create().await;
    let store = database.store(None);
    let role = format!("{}_app", database.address().get_database().unwrap());
    let run = async |sql: String| sqlx::raw_sql(AssertSqlSafe(sql)).execute(store.pool()).await.unwrap();
    run(format!("create role {role} login password 'hunter2'; grant select on all tables in schema public to {role}"))
        .await;
    let url = url_with(&database, |user, _, _| *user = format!("{role}:hunter2"));
    let said = refused(&url, &[]).await;
    assert!(said.contains(&format!("the role {role} lacks privileges")), "{said}");
    assert!(said.contains("INSERT on gh_jobs") && said.contains("EXECUTE on gh_make_partition"), "{said}");
    run(format!("drop owned by {role}; drop role {role}")).await;

    let empty = TestDatabase::create_empty().await;
    run(format!("create role {role} login password 'hunter2'")).await;
    let url = url_with(&empty, |user, _, _| *user = format!("{role}:hunter2"));
    let said = refused(&url, &[]).await;
    assert!(said.contains("cannot be brought up to date") && said.contains("permission denied"), "{said}");
    run(format!("drop role {role}")).await;
}
