//! Speed is worth nothing if something is missing: what every measurement must have left in its database.

use gh_tests::eventually;
use sqlx::PgConnection;

use super::load::Tally;
use crate::Failure;
use crate::sink::Sink;

/// Events of one life, and callbacks of one.
const EVENTS: i64 = 3;
const CALLBACKS: i64 = 2;

fn agree<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    Err(Failure::Wrong(format!("{what}: found {found:?}, expected {expected:?}")))
}

/// Every job that was acknowledged was completed exactly once, with all its events and callbacks.
pub(super) async fn server(connection: &mut PgConnection, tally: &Tally) -> Result<(), Failure> {
    let jobs = i64::try_from(tally.submitted).unwrap_or(i64::MAX);
    if jobs == 0 {
        return Err(Failure::Wrong("no job lived".into()));
    }
    agree("jobs claimed and completed", (tally.claimed, tally.completed), (tally.submitted, tally.submitted))?;
    let stored: (i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where status = 'completed' and run = 1 and attempt = 1) from gh_jobs",
    )
    .fetch_one(&mut *connection)
    .await?;
    agree("jobs stored, and completed in their first attempt", stored, (jobs, jobs))?;
    let events: (i64, i64) = sqlx::query_as(
        "select coalesce(sum(events), 0)::bigint, count(*) filter (where events = $1 and jobs.job_id is not null)
         from (select job_id, count(*) as events from gh_job_events group by job_id) as each
         left join gh_jobs as jobs using (job_id)",
    )
    .bind(EVENTS)
    .fetch_one(&mut *connection)
    .await?;
    agree("events, and jobs with all of theirs", events, (EVENTS * jobs, jobs))?;
    let callbacks: (i64, i64) = sqlx::query_as(
        "select coalesce(sum(callbacks), 0)::bigint, count(*) filter (where callbacks = $1)
         from (
            select job_id, sum(callbacks) as callbacks
            from (
                select job_id, open_deliveries::bigint as callbacks from gh_callback_queues
                union all
                select job_id, 1 from gh_deliveries where state in ('delivered', 'dead')
            ) as kept
            group by job_id
         ) as each",
    )
    .bind(CALLBACKS)
    .fetch_one(connection)
    .await?;
    agree("callbacks, and jobs with all of theirs", callbacks, (CALLBACKS * jobs, jobs))
}

/// Every callback arrives in the end, once each, and is known to have arrived.
pub(super) async fn all_delivered(connection: &mut PgConnection, tally: &Tally, sink: &Sink) -> Result<(), Failure> {
    let callbacks = CALLBACKS * i64::try_from(tally.submitted).unwrap_or(i64::MAX);
    let settled = eventually("every callback to be delivered", async || {
        let counted = sqlx::query_scalar("select count(*) from gh_deliveries where state = 'delivered'");
        match counted.fetch_one(&mut *connection).await {
            Ok(delivered) if delivered < callbacks => None,
            outcome => Some(outcome),
        }
    })
    .await?;
    agree("callbacks delivered", settled, callbacks)?;
    agree("callbacks received", sink.received(), 2 * tally.submitted)
}

/// The yardstick did the work that it stands for. With `skip locked` a claim may miss the only free job, so that one job
/// for each connection may be left over; a life without a claim would not be a life.
pub(super) async fn yardstick(connection: &mut PgConnection, clients: u16) -> Result<(), Failure> {
    let (jobs, completed, waiting): (i64, i64, i64) = sqlx::query_as(
        "select count(*), count(*) filter (where state = 2 and attempt = 1), count(*) filter (where state = 0) from jobs",
    )
    .fetch_one(&mut *connection)
    .await?;
    if jobs == 0 || completed + waiting != jobs || waiting > i64::from(clients) {
        let found = format!("{jobs} jobs, {completed} completed, {waiting} waiting");
        return Err(Failure::Wrong(format!("the yardstick left {found}")));
    }
    let stored: (i64, i64) = sqlx::query_as("select (select count(*) from events), (select count(*) from outbox)")
        .fetch_one(connection)
        .await?;
    agree("events and callbacks of the yardstick", stored, (jobs + 2 * completed, CALLBACKS * completed))
}

#[cfg(test)]
mod tests {
    use gh_adapters_postgres::testing::TestDatabase;
    use gh_tests::Server;
    use sqlx::{Connection, PgConnection};

    use super::{all_delivered, server, yardstick};
    use crate::lives::YARDSTICK_SCHEMA;
    use crate::lives::load::Load;
    use crate::sink::Sink;

    #[tokio::test]
    async fn a_life_that_is_not_whole_is_found() {
        let database = TestDatabase::create().await;
        let running = Server::ready_on(&database.url(), &[]).await;
        let sink = Sink::start().unwrap();
        let mut load = Load::start(running.base_url(), 4, &sink.answering()).await.unwrap();
        load.go_on(1).await.unwrap();
        let tally = load.end().await.unwrap();
        let mut connection = PgConnection::connect(&database.url()).await.unwrap();
        all_delivered(&mut connection, &tally, &sink).await.unwrap();
        running.kill().await;
        server(&mut connection, &tally).await.unwrap();

        let harms = [
            "delete from gh_job_events where ctid = (select min(ctid) from gh_job_events)",
            "insert into gh_job_events select * from gh_job_events order by ctid limit 1",
            "update gh_jobs set attempt = 2 where ctid = (select min(ctid) from gh_jobs)",
            "delete from gh_jobs where ctid = (select min(ctid) from gh_jobs)",
            "delete from gh_deliveries where ctid = (select min(ctid) from gh_deliveries)",
        ];
        for harm in harms {
            let mut transaction = connection.begin().await.unwrap();
            sqlx::raw_sql(harm).execute(&mut *transaction).await.unwrap();
            let found = server(&mut transaction, &tally).await.unwrap_err();
            assert!(found.to_string().contains("expected"), "{harm}: {found}");
            transaction.rollback().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_yardstick_that_did_too_little_is_found() {
        let database = TestDatabase::create_empty().await;
        let mut connection = PgConnection::connect(&database.url()).await.unwrap();
        sqlx::raw_sql(YARDSTICK_SCHEMA).execute(&mut connection).await.unwrap();
        yardstick(&mut connection, 1).await.unwrap_err();
        let steps = [
            ("insert into jobs (queue, payload, state, attempt) values ('q', '{}', 2, 1)", false),
            ("insert into events (job_id, seq, kind) select 1, seq, 0 from generate_series(1, 3) as seq", false),
            ("insert into outbox (job_id, kind, body) values (1, 1, '{}'), (1, 2, '{}')", true),
            ("insert into jobs (queue, payload) values ('q', '{}')", false),
            ("insert into events (job_id, seq, kind) values (2, 1, 0)", true),
            ("insert into jobs (queue, payload) values ('q', '{}')", false),
            ("insert into events (job_id, seq, kind) values (3, 1, 0)", false),
        ];
        for (step, right) in steps {
            sqlx::raw_sql(step).execute(&mut connection).await.unwrap();
            assert_eq!(yardstick(&mut connection, 1).await.is_ok(), right, "{step}");
        }
    }
}
