//! The only writer: one statement for what most batches write (`shapes`), and one each for what few do.
//!
//! Rows come as arrays of columns, so that a statement is the same for any number of rows. All parts of a statement see
//! one moment; none writes a row that another part writes. Every row must be there as it is held: where one is not,
//! somebody came in between, nothing is written, and the batch is done again.

use chrono::{DateTime, Utc};
use gh_core::domain::code::Actor;
use gh_core::domain::event::WorkerEvent;
use gh_core::domain::ids::{Name, WorkerId};
use gh_core::domain::job::Job;
use gh_core::domain::worker::Occupation;
use sqlx::postgres::PgArguments;
use sqlx::{Arguments, PgConnection};

use crate::errors::Failure;
use crate::held::{Held, HeldQueue};
use crate::rows::job::JobColumns;
use crate::rows::worker::WorkerColumns;
use crate::rows::{bigint, callback, column, event, instant, integer, jsonb, to_json};
use crate::shapes::{ENDINGS, KEYS, NEW_JOBS, Shape, WORKERS};

pub(crate) const WRITE_NAMES: &str = "
    insert into gh_names (name, version, held_by)
    select unnest($1::text[]), unnest($2::bigint[]), unnest($3::uuid[])
    on conflict (name) do update set version = excluded.version, held_by = excluded.held_by
    where gh_names.version < excluded.version";

pub(crate) const WRITE_DEREGISTRATIONS: &str = "
    insert into gh_deregistrations (deregistration_id, version, finished_at, body)
    select unnest($1::uuid[]), unnest($2::bigint[]), unnest($3::timestamptz[]), unnest($4::text[])
    on conflict (deregistration_id) do update set version = excluded.version, finished_at = excluded.finished_at,
        body = excluded.body
    where gh_deregistrations.version < excluded.version";

pub(crate) const WRITE_WORKER_EVENTS: &str = "
    insert into gh_worker_events (id, worker_id, generation, seq, event_type, message, metadata, actor, created_at,
        exact_metadata)
    select unnest($1::uuid[]), unnest($2::text[]), unnest($3::int[]), unnest($4::bigint[]), unnest($5::text[]),
        unnest($6::text[]), unnest($7::text[])::jsonb, unnest($8::text[]), unnest($9::timestamptz[]),
        unnest($10::text[])";

pub(crate) const WRITE_CALLS: &str = "
    insert into gh_llm_calls (job_id, call_id, attempt, worker_id, provider, model, cost_usd, priced_at,
        first_received_at, body)
    select unnest($1::uuid[]), unnest($2::text[]), unnest($3::int[]), unnest($4::text[]), unnest($5::text[]),
        unnest($6::text[]), unnest($7::text[])::numeric, unnest($8::timestamptz[]), unnest($9::timestamptz[]),
        unnest($10::text[])
    on conflict (job_id, call_id) do update set attempt = excluded.attempt, worker_id = excluded.worker_id,
        provider = excluded.provider, model = excluded.model, cost_usd = excluded.cost_usd,
        priced_at = excluded.priced_at, first_received_at = excluded.first_received_at, body = excluded.body";

/// Writes all that shall become of what is held.
pub(crate) async fn write(connection: &mut PgConnection, held: &Held) -> Result<(), Failure> {
    write_most(connection, held).await?;
    write_names(connection, held).await?;
    write_deregistrations(connection, held).await?;
    write_worker_events(connection, &held.worker_events).await?;
    write_calls(connection, held).await
}

/// Whether writing what is held takes one statement.
pub(crate) fn is_one_statement(held: &Held) -> bool {
    held.names.is_empty() && held.deregistrations.is_empty() && held.worker_events.is_empty() && held.calls.is_empty()
}

fn text(name: &Name) -> String {
    name.as_str().to_owned()
}

fn completed_at(job: &Job) -> Option<DateTime<Utc>> {
    job.ending().map(|ending| instant(ending.at))
}

fn error_code(job: &Job) -> Option<String> {
    let (code, _) = job.ending()?.outcome.error()?;
    Some(code.as_str().to_owned())
}

async fn write_most(connection: &mut PgConnection, held: &Held) -> Result<(), Failure> {
    let jobs = held.jobs.values().map(JobColumns::of).collect::<Result<Vec<_>, _>>()?;
    let (new, known): (Vec<&JobColumns>, Vec<_>) = jobs.iter().partition(|row| held.is_new(row.job.id));
    let specs = column(&new, |row| to_json(&row.job.spec)).into_iter().collect::<Result<Vec<_>, _>>()?;
    let results: Vec<(&Job, &str)> =
        jobs.iter().filter_map(|row| Some((&*row.job, row.result.as_ref()?.get()))).collect();
    let occupant = |id: &WorkerId| held.occupants.get(id).copied().flatten();
    let occupied_by = |occupation: Option<Occupation>| occupation.map(|occupation| occupation.job_id.as_uuid());
    // A worker that is written anyway is written once.
    let reoccupied: Vec<_> = held.only_reoccupied().collect();
    let (unlocked_workers, unlocked_jobs) = (&held.unlocked.workers, &held.unlocked.jobs);
    let workers = held.workers.values().map(WorkerColumns::of).collect::<Result<Vec<_>, _>>()?;
    let mut vitals: Vec<_> = held.vitals.iter().filter(|(id, _)| held.called.contains(*id)).collect();
    vitals.sort_unstable_by_key(|(id, _)| *id);
    let vitals_bodies = column(&vitals, |(_, known)| to_json(&known.vitals));
    let vitals_bodies = vitals_bodies.into_iter().collect::<Result<Vec<_>, _>>()?;
    let events = &held.job_events;
    let metadata = event::metadata_texts(events)?;
    let metadata = column(&metadata, |text| jsonb::Stored::of(text));
    let queues: Vec<&HeldQueue> = held.changed_queues().collect();
    let queue_bodies = column(&queues, |held| callback::queue_body(&held.queue));
    let queue_bodies = queue_bodies.into_iter().collect::<Result<Vec<_>, _>>()?;
    let through = &held.through;
    let delivery_bodies = column(through, |(_, delivery)| callback::delivery_body(delivery));
    let delivery_bodies = delivery_bodies.into_iter().collect::<Result<Vec<_>, _>>()?;
    let keys = &held.new_keys;
    let shape = Shape::default()
        .with_if(!workers.is_empty(), WORKERS)
        .with_if(!new.is_empty(), NEW_JOBS)
        .with_if(!results.is_empty() || !queues.is_empty() || !through.is_empty(), ENDINGS)
        .with_if(!keys.is_empty(), KEYS);
    let mut arguments = PgArguments::default();
    let long = jobs.iter().map(|row| &row.body).chain(&specs).chain(&vitals_bodies).chain(&queue_bodies);
    // Nearly all that is long, and some for each row: growing step by step would copy it again and again.
    arguments.reserve(0, long.map(String::len).sum::<usize>() + 1024 * (4 + jobs.len() + events.len()));
    let mut query = sqlx::query_with(shape.statement(), arguments)
        .bind(column(unlocked_workers, text))
        .bind(column(unlocked_workers, |id| bigint(held.worker_before(id).0.0)))
        .bind(column(unlocked_workers, |id| occupied_by(held.worker_before(id).1)))
        .bind(column(&reoccupied, |id| text(id)))
        .bind(column(&reoccupied, |id| bigint(held.worker_before(id).0.0)))
        .bind(column(&reoccupied, |id| occupied_by(held.worker_before(id).1)))
        .bind(column(&reoccupied, |id| occupied_by(occupant(id))))
        .bind(column(&reoccupied, |id| occupant(id).map(|occupant| occupant.reserved)));
    if shape.has(WORKERS) {
        query = query
            .bind(column(&workers, |row| text(&row.worker.id)))
            .bind(column(&workers, |row| bigint(row.worker.version.0)))
            .bind(column(&workers, |row| row.present))
            .bind(column(&workers, |row| row.identity().target_worker_id.as_ref().map(text)))
            .bind(column(&workers, |row| row.identity().ec2_instance_id.as_ref().map(text)))
            .bind(column(&workers, |row| row.worker.deregistration().map(|id| id.as_uuid())))
            .bind(column(&workers, |row| row.deadline))
            .bind(column(&workers, |row| row.gone_since))
            .bind(column(&workers, |row| row.deregistered))
            .bind(column(&workers, |row| occupied_by(occupant(&row.worker.id))))
            .bind(column(&workers, |row| occupant(&row.worker.id).map(|occupant| occupant.reserved)))
            .bind(column(&workers, |row| &*row.body));
    }
    query = query
        .bind(column(&vitals, |(id, _)| text(id)))
        .bind(column(&vitals, |(_, known)| bigint(known.revision + 1)))
        .bind(column(&vitals, |(_, known)| instant(known.vitals.last_seen)))
        .bind(column(&vitals, |(_, known)| known.silent_since.map(instant)))
        .bind(vitals_bodies)
        .bind(column(unlocked_jobs, |id| id.as_uuid()))
        .bind(column(unlocked_jobs, |id| bigint(held.job_before(*id).0)))
        .bind(column(&known, |row| row.job.id.as_uuid()))
        .bind(column(&known, |row| bigint(held.job_before(row.job.id).0)))
        .bind(column(&known, |row| bigint(row.job.version.0)))
        .bind(column(&known, |row| row.job.status().as_str()))
        .bind(column(&known, |row| integer(row.job.run)))
        .bind(column(&known, |row| integer(row.job.attempt.0)))
        .bind(column(&known, |row| row.job.worker_id().map(text)))
        .bind(column(&known, |row| error_code(&row.job)))
        .bind(column(&known, |row| completed_at(&row.job)))
        .bind(column(&known, |row| row.job.occupies().map(text)))
        .bind(column(&known, |row| row.job.last_holder().map(text)))
        .bind(column(&known, |row| row.job.waits_for().map(text)))
        .bind(column(&known, |row| row.job.wait().map(|wait| instant(wait.since))))
        .bind(column(&known, |row| row.not_before))
        .bind(column(&known, |row| row.fence.as_ref().map(|(worker, _)| &**worker)))
        .bind(column(&known, |row| row.fence.as_ref().map(|(_, until)| *until)))
        .bind(column(&known, |row| row.next_deadline))
        .bind(column(&known, |row| &*row.body));
    if shape.has(NEW_JOBS) {
        query = query
            .bind(column(&new, |row| row.job.id.as_uuid()))
            .bind(column(&new, |row| bigint(row.job.version.0)))
            .bind(column(&new, |row| row.job.status().as_str()))
            .bind(column(&new, |row| integer(row.job.run)))
            .bind(column(&new, |row| integer(row.job.attempt.0)))
            .bind(column(&new, |row| row.job.worker_id().map(text)))
            .bind(column(&new, |row| error_code(&row.job)))
            .bind(column(&new, |row| completed_at(&row.job)))
            .bind(column(&new, |row| row.job.occupies().map(text)))
            .bind(column(&new, |row| row.job.last_holder().map(text)))
            .bind(column(&new, |row| row.job.waits_for().map(text)))
            .bind(column(&new, |row| row.job.wait().map(|wait| instant(wait.since))))
            .bind(column(&new, |row| row.not_before))
            .bind(column(&new, |row| row.fence.as_ref().map(|(worker, _)| &**worker)))
            .bind(column(&new, |row| row.fence.as_ref().map(|(_, until)| *until)))
            .bind(column(&new, |row| row.next_deadline))
            .bind(column(&new, |row| &*row.body))
            .bind(column(&new, |row| row.job.spec.routing.target().map(text)))
            .bind(column(&new, |row| row.job.spec.routing.affinity()))
            .bind(column(&new, |row| &*row.job.spec.valet_task_id))
            .bind(column(&new, |row| row.job.spec.valet_user_id))
            .bind(column(&new, |row| instant(row.job.created_at)))
            .bind(column(&new, |row| i16::from(row.job.spec.priority)))
            .bind(specs);
    }
    if shape.has(ENDINGS) {
        query = query
            .bind(column(&results, |(job, _)| job.id.as_uuid()))
            .bind(column(&results, |(job, _)| integer(job.run)))
            .bind(column(&results, |(_, result)| *result));
    }
    query = query
        .bind(column(events, |event| event.id.as_uuid()))
        .bind(column(events, |event| event.job_id.as_uuid()))
        .bind(column(events, |event| bigint(event.seq)))
        .bind(column(events, |event| event.event_type.as_str()))
        .bind(column(events, |event| event.from_status.map(|status| status.as_str())))
        .bind(column(events, |event| event.to_status.map(|status| status.as_str())))
        .bind(column(events, |event| &*event.message))
        .bind(column(&metadata, |stored| &*stored.jsonb))
        .bind(column(events, |event| event.actor.to_string()))
        .bind(column(events, |event| integer(event.run)))
        .bind(column(events, |event| integer(event.attempt.0)))
        .bind(column(events, |event| instant(event.occurred_at)))
        .bind(column(events, |event| instant(event.created_at)))
        .bind(column(&metadata, |stored| stored.exact));
    if shape.has(ENDINGS) {
        query = query
            .bind(column(&queues, |held| held.queue.job_id.as_uuid()))
            .bind(column(&queues, |held| bigint(held.revision + 1)))
            .bind(column(&queues, |held| held.queue.due_at().map(instant)))
            .bind(column(&queues, |held| i32::try_from(held.queue.open.len()).unwrap_or(i32::MAX)))
            .bind(queue_bodies)
            .bind(column(through, |(id, _)| id.as_uuid()))
            .bind(column(through, |(_, delivery)| bigint(delivery.sequence)))
            .bind(column(through, |(_, delivery)| delivery.id.as_uuid()))
            .bind(column(through, |(_, delivery)| callback::state_word(delivery.state)))
            .bind(column(through, |(_, delivery)| instant(delivery.created_at)))
            .bind(delivery_bodies);
    }
    if shape.has(KEYS) {
        query = query
            .bind(keys.keys().map(|(client, _)| client.as_str()).collect::<Vec<_>>())
            .bind(keys.keys().map(|(_, key)| &**key).collect::<Vec<_>>())
            .bind(keys.values().map(|record| record.fingerprint.as_bytes().as_slice()).collect::<Vec<_>>())
            .bind(keys.values().map(|record| record.job_id.as_uuid()).collect::<Vec<_>>());
    }
    // To the end of the answer: where this is all of a transaction, it is stored when the database is ready again.
    query.fetch_all(connection).await?;
    Ok(())
}

fn expect_all(written: u64, given: usize) -> Result<(), Failure> {
    if usize::try_from(written) == Ok(given) { Ok(()) } else { Err(Failure::overtaken()) }
}

async fn write_names(connection: &mut PgConnection, held: &Held) -> Result<(), Failure> {
    if held.names.is_empty() {
        return Ok(());
    }
    let names = || held.names.values();
    let done = sqlx::query(WRITE_NAMES)
        .bind(column(names(), |record| record.name.as_str()))
        .bind(column(names(), |record| bigint(record.version.0)))
        .bind(column(names(), |record| record.held_by.map(|id| id.as_uuid())))
        .execute(connection)
        .await?;
    expect_all(done.rows_affected(), held.names.len())
}

async fn write_deregistrations(connection: &mut PgConnection, held: &Held) -> Result<(), Failure> {
    if held.deregistrations.is_empty() {
        return Ok(());
    }
    let all = || held.deregistrations.values();
    let bodies = column(all(), to_json).into_iter().collect::<Result<Vec<_>, _>>()?;
    let done = sqlx::query(WRITE_DEREGISTRATIONS)
        .bind(column(all(), |known| known.id.as_uuid()))
        .bind(column(all(), |known| bigint(known.version.0)))
        .bind(column(all(), |known| known.finished_at.map(instant)))
        .bind(bodies)
        .execute(connection)
        .await?;
    expect_all(done.rows_affected(), held.deregistrations.len())
}

pub(crate) async fn write_worker_events(connection: &mut PgConnection, events: &[WorkerEvent]) -> Result<(), Failure> {
    if events.is_empty() {
        return Ok(());
    }
    let metadata = column(events, |event| jsonb::Stored::of(event::extra_text(&event.metadata)));
    sqlx::query(WRITE_WORKER_EVENTS)
        .bind(column(events, |event| event.id.as_uuid()))
        .bind(column(events, |event| event.worker_id.as_ref().map(text)))
        .bind(column(events, |event| event.generation.map(|generation| integer(generation.0))))
        .bind(column(events, |event| bigint(event.seq)))
        .bind(column(events, |event| event.event_type.as_str()))
        .bind(column(events, |event| &*event.message))
        .bind(column(&metadata, |stored| &*stored.jsonb))
        .bind(column(events, |event| Actor::to_string(&event.actor)))
        .bind(column(events, |event| instant(event.created_at)))
        .bind(column(&metadata, |stored| stored.exact))
        .execute(connection)
        .await?;
    Ok(())
}

async fn write_calls(connection: &mut PgConnection, held: &Held) -> Result<(), Failure> {
    if held.calls.is_empty() {
        return Ok(());
    }
    let calls: Vec<_> = held.calls.iter().collect();
    let bodies = column(&calls, |(_, entry)| to_json(entry)).into_iter().collect::<Result<Vec<_>, _>>()?;
    sqlx::query(WRITE_CALLS)
        .bind(column(&calls, |((id, _), _)| id.as_uuid()))
        .bind(column(&calls, |((_, call_id), _)| &**call_id))
        .bind(column(&calls, |(_, entry)| integer(entry.attempt.0)))
        .bind(column(&calls, |(_, entry)| text(&entry.worker_id)))
        .bind(column(&calls, |(_, entry)| &**entry.report.provider()))
        .bind(column(&calls, |(_, entry)| &**entry.report.model()))
        .bind(column(&calls, |(_, entry)| entry.priced.as_ref().map(|priced| priced.cost.to_string())))
        .bind(column(&calls, |(_, entry)| instant(entry.priced_at)))
        .bind(column(&calls, |(_, entry)| instant(entry.first_received_at)))
        .bind(bodies)
        .execute(connection)
        .await?;
    Ok(())
}
