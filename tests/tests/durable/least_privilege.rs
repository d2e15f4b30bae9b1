//! `docs/operations.md`, followed as written.

use gh_adapters_postgres::testing::TestDatabase;
use gh_tests::{Server, Worker, serve_command, server_binary, submission};
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const PAGE: &str = include_str!("../../../docs/operations.md");

/// The blocks of one language, in order, with names that no other test has on this database server.
fn blocks(language: &str, suffix: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    let blocks = PAGE.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks
        .map(|block| {
            let names = ["gh_owner", "gh_app", "ghosthands"];
            names.iter().fold(block.to_owned(), |block, name| block.replace(name, &format!("{name}_{suffix}")))
        })
        .collect()
}

/// The address in the line of the page that ends with this command.
fn address(commands: &str, ending: &str, server: &PgConnectOptions) -> String {
    let line = commands.lines().find(|line| line.ends_with(ending)).unwrap();
    let url = line.strip_prefix("DATABASE_URL=").unwrap().split(' ').next().unwrap();
    url.replace("localhost:5432", &format!("{}:{}", server.get_host(), server.get_port()))
}

async fn run(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    // One by one: a database cannot be created together with something else.
    for statement in sql.split_inclusive(";\n") {
        let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await;
        done.unwrap_or_else(|error| panic!("{error} in {statement}"));
    }
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listed_privileges_are_enough_to_run_and_too_few_to_migrate() {
    let admin = TestDatabase::create_empty().await;
    let suffix = admin.address().get_database().unwrap().to_owned();
    let (sql, bash) = (blocks("sql", &suffix), blocks("bash", &suffix));
    let [create, grant] = sql.as_slice() else { panic!("{} blocks of SQL", sql.len()) };
    let commands = &bash[0];
    let as_owner = address(commands, "gh-server migrate", &admin.address());
    let as_app = address(commands, "gh-server serve --no-migrate", &admin.address());

    run(&admin.url(), create).await;
    let migrate = tokio::process::Command::new(server_binary())
        .arg("migrate")
        .env_clear()
        .env("DATABASE_URL", &as_owner)
        .output();
    let migrated = migrate.await.unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    run(&as_owner, grant).await;

    // One that is missing has to be made by a server that owns nothing.
    let latest = "select max(relname::text) from pg_class where relname ~ '^gh_job_events_[0-9]{8}$'";
    let mut owner = PgConnection::connect(&as_owner).await.unwrap();
    let partition: String = sqlx::query_scalar(latest).fetch_one(&mut owner).await.unwrap();
    run(&as_owner, &format!("drop table {partition};\n")).await;

    let server = Server::ready_on(&as_app, &[("GH_DATABASE_MIGRATE", "false")]).await;
    gh_tests::eventually("the partition to be made", async || {
        let found: Option<String> = sqlx::query_scalar(latest).fetch_one(&mut owner).await.unwrap();
        (found.as_ref() == Some(&partition)).then_some(())
    })
    .await;
    let worker = Worker::register(&server.client(), "worker-a", None).await;
    let job = server.client().submit(&submission(&json!({}))).await;
    assert_eq!(worker.job().await, job);
    worker.report(&job, "complete", &json!({})).await.expect(200);
    server.client().job_when(&job, "completed").await;
    let complaints: Vec<String> =
        server.log().into_iter().filter(|line| !line.contains("\"level\":\"INFO\"")).collect();
    assert_eq!(complaints, [""; 0]);

    // It may not change the tables, nor say that they were changed.
    let mut app = PgConnection::connect(&as_app).await.unwrap();
    for forbidden in [
        "create table gh_more (id int)",
        "alter table gh_jobs add column more int",
        "drop table gh_jobs",
        "truncate gh_jobs",
        "delete from _sqlx_migrations",
        "select gh_drop_partition('gh_jobs', current_date)",
    ] {
        assert!(sqlx::raw_sql(forbidden).execute(&mut app).await.is_err(), "{forbidden}");
    }
    run(&as_owner, "delete from _sqlx_migrations where version = 3;\n").await;
    let refused = serve_command(&as_app, &[]).kill_on_drop(true).output().await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("its tables cannot be brought up to date"), "{said}");

    drop(server);
    for connection in [owner, app] {
        connection.close().await.unwrap();
    }
    run(
        &admin.url(),
        &format!("drop database ghosthands_{suffix} with (force);\ndrop role gh_owner_{suffix};\ndrop role gh_app_{suffix};\n"),
    )
    .await;
}
