//! No statement that runs while jobs live looks through history.

use gh_adapters_postgres::testing::hot_statements;
use gh_core::domain::ids::ServerId;
use gh_core::domain::job::Completion;
use gh_core::domain::watch::Lookout;
use gh_core::ports::outbox::Outbox;
use gh_core::ports::reader::{JobQuery, Reader, WorkerQuery};
use gh_core::ports::store::{Store, SweepRequest};
use gh_core::testing::submission;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use crate::world::World;

const FINISHED: u32 = 200_000;

/// Workers that were forgotten.
const FORGOTTEN: u32 = 20_000;

/// Copies of a job that ran its whole life, with everything that belongs to them, and of a worker that was forgotten.
async fn make_history(world: &World) {
    let who = world.worker("w-old").await;
    let id = world.submit(submission()).await;
    assert_eq!(world.claim(&who).await, Some(id));
    world.complete(&who, id, Completion::default()).await;
    // Without the limits that the store's connections have.
    let mut connection = PgConnection::connect_with(&world.database.address()).await.unwrap();
    let id = ("job_id", "lpad(to_hex(n), 32, '0')::uuid");
    let at = ("created_at", "t.created_at - n * interval '1 second'");
    let queue = "'{\"open\":[],\"lease\":null,\"cost_sent_at\":null}'";
    let copies = [
        ("gh_jobs", vec![id, at, ("completed_at", "t.completed_at - n * interval '1 second'")]),
        ("gh_job_specs", vec![id, at]),
        ("gh_callback_queues", vec![id, ("due_at", "null"), ("open_deliveries", "0"), ("body", queue)]),
        ("gh_job_events_default", vec![id, ("id", "gen_random_uuid()")]),
    ];
    let mut statements = Vec::new();
    for (table, changed) in copies {
        let columns: Vec<String> = sqlx::query_scalar(
            "select attname::text from pg_attribute where attrelid = to_regclass($1) and attnum > 0 order by attnum",
        )
        .bind(table)
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let value = |column: &String| match changed.iter().find(|(known, _)| known == column) {
            Some((_, value)) => (*value).to_owned(),
            None => format!("t.{column}"),
        };
        let values = columns.iter().map(value).collect::<Vec<_>>().join(", ");
        statements
            .push(format!("insert into {table} select {values} from {table} t, generate_series(1, {FINISHED}) n"));
    }
    let deliveries = "insert into gh_deliveries
        select job_id, 1, gen_random_uuid(), 'delivered', created_at, '{}' from gh_jobs";
    let workers = format!(
        "insert into gh_workers (worker_id, version, present, gone_since, deregistered, forgotten, body)
        select 'gone-' || n, version, false, now(), false, true, body from gh_workers w, generate_series(1, {FORGOTTEN}) n"
    );
    statements.extend([deliveries.to_owned(), workers, "analyze".to_owned()]);
    for sql in statements {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
}

/// Whether a node of a plan, or one below it, reads a table without a condition that an index answers, and which.
fn scans(plan: &Value, found: &mut Vec<String>) {
    let text = |key: &str| plan[key].as_str().unwrap_or_default();
    let index = text("Index Name");
    // Indexes that hold what lives only, and workers that are not forgotten.
    let live = ["_ready", "_ready_for", "_delayed", "_delayed_for", "_fenced", "_due", "_silent", "_waiting_for"];
    let of_live = live.iter().chain(&["_known"]).any(|suffix| index.ends_with(suffix));
    let bounded = of_live || plan.get("Index Cond").is_some();
    match text("Node Type") {
        // One row each.
        "Seq Scan" if ["gh_clock", "gh_fleet_watch"].contains(&text("Relation Name")) => {}
        "Seq Scan" => found.push(format!("seq scan of {}", text("Relation Name"))),
        "Index Scan" | "Index Only Scan" | "Bitmap Index Scan" if !bounded => found.push(format!("all of {index}")),
        _ => {}
    }
    for below in plan["Plans"].as_array().into_iter().flatten() {
        scans(below, found);
    }
}

async fn plan(connection: &mut PgConnection, sql: &str) -> Value {
    let parameters = (1..200).take_while(|number| sql.contains(&format!("${number}"))).count();
    let nulls = vec!["null"; parameters].join(", ");
    let arguments = if parameters == 0 { String::new() } else { format!("({nulls})") };
    sqlx::raw_sql(AssertSqlSafe(format!("prepare looked_at as {sql}"))).execute(&mut *connection).await.unwrap();
    let explain = AssertSqlSafe(format!("explain (format json) execute looked_at{arguments}"));
    let rows = sqlx::raw_sql(explain).fetch_one(&mut *connection).await.unwrap();
    let text: String = sqlx::Row::try_get_unchecked(&rows, 0).unwrap();
    sqlx::raw_sql("deallocate looked_at").execute(connection).await.unwrap();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn no_hot_statement_scans_history() {
    let world = World::new().await;
    make_history(&world).await;
    assert!(world.count("gh_jobs").await > i64::from(FINISHED));

    let mut connection = world.pool().acquire().await.unwrap();
    for (what, sql) in hot_statements() {
        let plan = plan(&mut connection, sql).await;
        let mut found = Vec::new();
        scans(&plan[0]["Plan"], &mut found);
        assert!(found.is_empty(), "{what}: {found:?}\n{plan:#}");
    }
    drop(connection);
    world.pool().close().await;
    let world = World { store: world.database.store(Some(world.clock.clone())), ..world };

    // What the plans promise: a whole life, a sweep and pages of lists touch few rows.
    let before = rows_read(&world).await;
    let who = world.worker("w-1").await;
    let id = world.submit(submission()).await;
    assert_eq!(world.claim(&who).await, Some(id));
    world.complete(&who, id, Completion::default()).await;
    let sight = world.store.watch(Lookout::by_hand(ServerId::new(Uuid::nil())), &world.rules).await.unwrap().sight;
    let sweep = SweepRequest { limit: 100, sight };
    world.store.sweep(sweep, &world.rules).await.unwrap();
    world.store.lease_due(100, &world.rules).await.unwrap();
    world.store.next_due().await.unwrap();
    let page = JobQuery { limit: 10, ..JobQuery::default() };
    let of_status = JobQuery { status: Some(gh_core::domain::job::JobStatus::Completed), ..page.clone() };
    let of_task = JobQuery { valet_task_id: Some("task-1".into()), ..page.clone() };
    for query in [&page, &of_status, &of_task] {
        assert_eq!(world.store.jobs(query).await.unwrap().len(), 10);
    }
    assert_eq!(world.store.figures().await.unwrap().jobs.iter().map(|(_, jobs)| jobs).sum::<u64>(), 0);
    assert_eq!(world.store.workers(&WorkerQuery::default()).await.unwrap().1.len(), 2);
    world.pool().close().await;
    let read = rows_read(&world).await - before;
    assert!(read < 2_000, "{read} rows were read");
}

/// How many rows and index entries were read in this database so far.
async fn rows_read(world: &World) -> i64 {
    // What a connection has counted is told when it ends, so each look has one of its own.
    let mut connection = PgConnection::connect_with(&world.database.address()).await.unwrap();
    sqlx::query("select pg_stat_force_next_flush()").execute(&mut connection).await.unwrap();
    let read = "select (coalesce((select sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) from pg_stat_user_tables), 0)
        + coalesce((select sum(idx_tup_read) from pg_stat_user_indexes), 0))::bigint";
    let rows = sqlx::query_scalar(read).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows
}
