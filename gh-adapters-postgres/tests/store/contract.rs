//! What clients read straight from the tables.

use gh_core::domain::commands::{EventReport, ReportEvents};
use gh_core::domain::ids::Attempt;
use gh_core::ports::reader::{JobEventQuery, Reader};
use gh_core::testing::submission;
use serde_json::value::RawValue;

use crate::world::World;

#[tokio::test]
async fn the_columns_that_clients_read_are_there_with_their_types() {
    let world = World::new().await;
    let contract = [
        (
            "gh_jobs",
            "job_id uuid, status text, run integer, attempt integer, worker_id text, target_worker_id text, \
            worker_affinity text, valet_task_id text, valet_user_id uuid, error_code text, \
            created_at timestamp with time zone, completed_at timestamp with time zone",
        ),
        (
            "gh_job_events",
            "id uuid, job_id uuid, seq bigint, event_type text, from_status text, to_status text, \
            message text, metadata jsonb, actor text, run integer, attempt integer, \
            occurred_at timestamp with time zone, created_at timestamp with time zone",
        ),
        (
            "gh_worker_events",
            "id uuid, worker_id text, generation integer, seq bigint, event_type text, message text, \
            metadata jsonb, actor text, created_at timestamp with time zone",
        ),
    ];
    for (table, columns) in contract {
        let there: Vec<String> = sqlx::query_scalar(
            "select attname || ' ' || format_type(atttypid, null) from pg_attribute
             where attrelid = to_regclass($1) and attnum > 0",
        )
        .bind(table)
        .fetch_all(world.pool())
        .await
        .unwrap();
        for column in columns.split(", ").map(str::trim) {
            assert!(there.iter().any(|known| known == column), "{table}: {column} is not among {there:?}");
        }
    }
}

#[tokio::test]
async fn metadata_that_jsonb_cannot_hold_are_stored_for_clients_and_read_back_exactly() {
    let world = World::new().await;
    let who = world.worker("w-1").await;
    let job_id = world.submit(submission()).await;
    assert_eq!(world.claim(&who).await, Some(job_id));
    let text = r#"{"great":1e999999,"half":"\ud800","small":-0.0}"#;
    let event = EventReport {
        event_type: "thought".into(),
        message: None,
        metadata: RawValue::from_string(text.into()).ok(),
        occurred_at: None,
        worker_seq: None,
    };
    world.run(&ReportEvents { who, job_id, attempt: Attempt::FIRST, events: vec![event] }).await;
    let query = JobEventQuery { job_id, after_seq: 2, event_types: Vec::new(), limit: 1 };
    let events = world.store.job_events(&query).await.unwrap();
    assert_eq!(events[0].metadata.extra.as_ref().unwrap().get(), text);
    let seen: String = sqlx::query_scalar(
        "select (metadata - array['elapsed_ms', 'step_index', 'total_steps', \
        'worker_id'])::text from gh_job_events where job_id = $1 and seq = 3",
    )
    .bind(job_id.as_uuid())
    .fetch_one(world.pool())
    .await
    .unwrap();
    assert_eq!(seen, "{\"half\": \"\u{fffd}\", \"great\": \"1e999999\", \"small\": 0.0}");
}
