//! A command that the database refuses, among good ones.

use futures_util::future::{join, join_all};
use gh_adapters_postgres::testing::TestDatabase;
use gh_tests::{Server, submission};
use serde_json::json;
use sqlx::PgConnection;

/// Everything that is written of a job with this task is refused.
const REFUSE: &str = "
    create function refuse() returns trigger language plpgsql as $$
    begin
        if new.valet_task_id = 'poison' then
            raise exception 'not this one';
        end if;
        return new;
    end
    $$;
    create trigger refuse before insert on gh_job_specs for each row execute function refuse()";

/// Waits until a statement of somebody else waits for a lock.
async fn somebody_waits(connection: &mut PgConnection) {
    const WAITING: &str = "select exists (select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock')";
    gh_tests::eventually("somebody to wait for a lock", async || {
        let waits: bool = sqlx::query_scalar(WAITING).fetch_one(&mut *connection).await.unwrap();
        waits.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_command_fails_alone_among_good_ones_of_its_batch() {
    let database = TestDatabase::create().await;
    let pool = database.store(None).pool().clone();
    sqlx::raw_sql(REFUSE).execute(&pool).await.unwrap();
    let server = Server::ready_on(&database.url(), &[]).await;
    let client = server.client();
    let task = |number: usize| if number % 20 == 7 { "poison".to_owned() } else { format!("task-{number}") };
    let body = |number| submission(&json!({ "valet_task_id": task(number), "idempotency_key": number.to_string() }));

    // The first holds up the others, which come together meanwhile.
    let mut blocking = pool.begin().await.unwrap();
    sqlx::raw_sql("lock table gh_job_specs in share mode").execute(&mut *blocking).await.unwrap();
    let mut looking = pool.acquire().await.unwrap();
    let first = body(0);
    let first = client.post("/jobs", &first);
    let others = async {
        somebody_waits(&mut looking).await;
        let posts = (1..60).map(async |number| (number, client.post("/jobs", &body(number)).await));
        let let_go = async { blocking.rollback().await.unwrap() };
        join(join_all(posts), let_go).await.0
    };
    let (first, others) = join(first, others).await;
    first.expect(201);
    for (number, answer) in others {
        if task(number) == "poison" {
            assert_eq!((answer.status, answer.code().as_str()), (500, "INTERNAL_ERROR"), "{}", answer.text);
            assert!(!answer.text.contains("not this one"), "{}", answer.text);
        } else {
            answer.expect(201);
        }
    }

    // The same in one request.
    let jobs: Vec<_> = (100..160).map(body).collect();
    let answer = client.post("/jobs/batch", &json!({ "jobs": jobs })).await.expect(200);
    for result in answer["results"].as_array().unwrap() {
        let number = usize::try_from(result["index"].as_u64().unwrap()).unwrap();
        let expected = if task(100 + number) == "poison" { 500 } else { 201 };
        assert_eq!(result["status"], expected, "{result}");
    }
    let stored: Vec<String> =
        sqlx::query_scalar("select valet_task_id from gh_jobs order by 1").fetch_all(&pool).await.unwrap();
    let mut expected: Vec<String> = (0..60).chain(100..160).map(task).filter(|task| task != "poison").collect();
    expected.sort();
    assert_eq!(stored, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_job_waits_for_its_locked_target_and_is_never_refused_for_the_lock() {
    let database = TestDatabase::create().await;
    let pool = database.store(None).pool().clone();
    let server = Server::ready_on(&database.url(), &[("GH_DATABASE_LOCK_TIMEOUT", "1s")]).await;
    let client = server.client();
    let worker = gh_tests::Worker::register(&client, "worker-a", Some("sandbox-a")).await;
    let _listening = worker.client.open("/workers/worker-a/directives").await;
    let body = |key: &str| {
        let fields = json!({ "worker_affinity": "strict", "target_worker_id": "sandbox-a", "idempotency_key": key });
        submission(&fields)
    };
    let mut tries = 0;
    let admitted = gh_tests::eventually("a strict job to be admitted", async || {
        tries += 1;
        let answer = client.post("/jobs", &body(&format!("try-{tries}"))).await;
        (answer.status == 201).then(|| answer.json())
    })
    .await;
    let run = async |expected: &serde_json::Value| {
        assert_eq!(&json!(worker.job().await), expected);
        worker.report(expected.as_str().unwrap(), "complete", &json!({})).await.expect(200);
    };
    run(&admitted["job_id"]).await;

    let lock = async || {
        let mut blocking = pool.begin().await.unwrap();
        let lock = "select from gh_workers where worker_id = 'worker-a' for update";
        sqlx::raw_sql(lock).execute(&mut *blocking).await.unwrap();
        blocking
    };
    let blocking = lock().await;
    let refused = client.post("/jobs", &body("locked")).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "UNAVAILABLE"), "{}", refused.text);
    blocking.rollback().await.unwrap();
    run(&client.post("/jobs", &body("locked")).await.expect(201)["job_id"]).await;

    let blocking = lock().await;
    let mut looking = pool.acquire().await.unwrap();
    let let_go = async {
        somebody_waits(&mut looking).await;
        blocking.rollback().await.unwrap();
    };
    let waiting = body("waiting");
    let (answer, ()) = tokio::join!(client.post("/jobs", &waiting), let_go);
    run(&answer.expect(201)["job_id"]).await;
}
