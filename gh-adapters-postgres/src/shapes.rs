//! The statement that writes what most batches write, in the forms that batches need.
//!
//! What a statement has, PostgreSQL sets up each time that it runs, rows or no rows. So parts that many batches have
//! nothing for are left out where there is nothing for them.

use std::fmt::Write;
use std::sync::LazyLock;

/// What a batch has rows of, beyond what nearly all have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape(u8);

/// Workers whose own rows change.
pub(crate) const WORKERS: Shape = Shape(1);
/// Jobs that have no row yet.
pub(crate) const NEW_JOBS: Shape = Shape(2);
/// Results, and callbacks.
pub(crate) const ENDINGS: Shape = Shape(4);
/// Keys against double submission.
pub(crate) const KEYS: Shape = Shape(8);

/// How many shapes there are.
const SHAPES: u8 = 16;

impl Shape {
    /// This, and the other where it is `wanted`.
    pub(crate) const fn with_if(self, wanted: bool, other: Self) -> Self {
        if wanted { Self(self.0 | other.0) } else { self }
    }

    /// Whether it includes the other.
    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The statement for batches of this shape. Parameters are numbered without gaps, in the order of [`PARTS`].
    pub(crate) fn statement(self) -> &'static str {
        &STATEMENTS[usize::from(self.0 % SHAPES)]
    }
}

/// The statements of all shapes.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn statements() -> impl Iterator<Item = &'static str> {
    STATEMENTS.iter().map(String::as_str)
}

static STATEMENTS: LazyLock<Vec<String>> = LazyLock::new(|| (0..SHAPES).map(|shape| assemble(Shape(shape))).collect());

/// A part of the statement.
#[derive(Debug)]
struct Part {
    name: &'static str,
    materialized: bool,
    /// It is left out of other shapes.
    only_with: Option<Shape>,
    /// How its rows are counted, if each of them has to be there.
    counted: Option<Counted>,
    /// `{after}` waits for the counted part before it.
    sql: &'static str,
}

#[derive(Debug)]
struct Counted {
    by: &'static str,
    /// The column of what it was given.
    given: &'static str,
}

impl Part {
    /// How many rows it found or wrote.
    fn count(&self) -> Option<(String, &'static str)> {
        self.counted.as_ref().map(|counted| (format!("(select {} from {})", counted.by, self.name), counted.given))
    }
}

/// Rows of a table are locked by their keys, tables one after the other: each part that may have to wait looks at the
/// one before it. Where anything is not as it is held, the statement fails.
///
/// Parameters have their numbers in the statement that has all parts.
const PARTS: &[Part] = &[
    Part {
        name: "unlocked_workers",
        materialized: true,
        only_with: None,
        counted: Some(Counted { by: "found", given: "$1::text[]" }),
        sql: "
    select count(*) as found
    from (select unnest($1::text[]) as worker_id, unnest($2::bigint[]) as version,
        unnest($3::uuid[]) as occupied_by) a
    cross join lateral (select from gh_workers t where t.worker_id = a.worker_id and t.version = a.version
        and t.occupied_by is not distinct from a.occupied_by for no key update) r",
    },
    Part {
        name: "occupants",
        materialized: false,
        only_with: None,
        counted: Some(Counted { by: "count(*)", given: "$4::text[]" }),
        sql: "
    update gh_workers w set occupied_by = u.occupied_by, reserved = u.reserved
    from (select unnest($4::text[]) as worker_id, unnest($5::bigint[]) as version,
            unnest($6::uuid[]) as before, unnest($7::uuid[]) as occupied_by,
            unnest($8::boolean[]) as reserved) u
        cross join lateral (select t.ctid as place from gh_workers t where t.worker_id = u.worker_id offset 0) found
    where w.ctid = found.place and w.version = u.version and w.occupied_by is not distinct from u.before
        and {after}
    returning 1",
    },
    Part {
        name: "workers",
        materialized: false,
        only_with: Some(WORKERS),
        counted: Some(Counted { by: "count(*)", given: "$9::text[]" }),
        sql: "
    insert into gh_workers (worker_id, version, present, target_worker_id, ec2_instance_id, deregistration_id,
        deadline, gone_since, deregistered, occupied_by, reserved, body)
    select unnest($9::text[]), unnest($10::bigint[]), unnest($11::boolean[]),
        unnest($12::text[]), unnest($13::text[]), unnest($14::uuid[]),
        unnest($15::timestamptz[]), unnest($16::timestamptz[]), unnest($17::boolean[]),
        unnest($18::uuid[]), unnest($19::boolean[]), unnest($20::text[])
    where {after}
    on conflict (worker_id) do update set version = excluded.version, present = excluded.present,
        target_worker_id = excluded.target_worker_id, ec2_instance_id = excluded.ec2_instance_id,
        deregistration_id = excluded.deregistration_id, deadline = excluded.deadline,
        gone_since = excluded.gone_since, deregistered = excluded.deregistered,
        occupied_by = excluded.occupied_by, reserved = excluded.reserved, body = excluded.body,
        forgotten = gh_workers.forgotten and not excluded.present
    where gh_workers.version < excluded.version
    returning 1",
    },
    Part {
        name: "vitals",
        materialized: false,
        only_with: None,
        counted: Some(Counted { by: "count(*)", given: "$21::text[]" }),
        sql: "
    insert into gh_worker_vitals (worker_id, revision, last_seen, silent_since, body)
    select unnest($21::text[]), unnest($22::bigint[]), unnest($23::timestamptz[]),
        unnest($24::timestamptz[]), unnest($25::text[])
    where {after}
    on conflict (worker_id) do update set revision = excluded.revision, last_seen = excluded.last_seen,
        silent_since = excluded.silent_since, body = excluded.body
    where gh_worker_vitals.revision = excluded.revision - 1
    returning 1",
    },
    Part {
        name: "unlocked_jobs",
        materialized: true,
        only_with: None,
        counted: Some(Counted { by: "found", given: "$26::uuid[]" }),
        sql: "
    select count(*) as found
    from (select unnest($26::uuid[]) as job_id, unnest($27::bigint[]) as version) a
    cross join lateral (select from gh_jobs t where t.job_id = a.job_id and t.version = a.version
        for no key update) r
    where {after}",
    },
    Part {
        name: "jobs",
        materialized: false,
        only_with: None,
        counted: Some(Counted { by: "count(*)", given: "$28::uuid[]" }),
        sql: "
    update gh_jobs j set version = u.version, status = u.status, run = u.run, attempt = u.attempt,
        worker_id = u.worker_id, error_code = u.error_code, completed_at = u.completed_at, occupies = u.occupies,
        last_holder = u.last_holder, waits_for = u.waits_for, waiting_since = u.waiting_since,
        not_before = u.not_before, fence_worker = u.fence_worker, fence_until = u.fence_until,
        next_deadline = u.next_deadline, body = u.body
    from (select unnest($28::uuid[]) as job_id, unnest($29::bigint[]) as before,
        unnest($30::bigint[]) as version, unnest($31::text[]) as status, unnest($32::int[]) as run,
        unnest($33::int[]) as attempt, unnest($34::text[]) as worker_id,
        unnest($35::text[]) as error_code, unnest($36::timestamptz[]) as completed_at,
        unnest($37::text[]) as occupies, unnest($38::text[]) as last_holder,
        unnest($39::text[]) as waits_for, unnest($40::timestamptz[]) as waiting_since,
        unnest($41::timestamptz[]) as not_before, unnest($42::text[]) as fence_worker,
        unnest($43::timestamptz[]) as fence_until, unnest($44::timestamptz[]) as next_deadline,
        unnest($45::text[]) as body) u
        cross join lateral (select t.ctid as place from gh_jobs t where t.job_id = u.job_id offset 0) found
    where j.ctid = found.place and j.version = u.before and {after}
    returning 1",
    },
    Part {
        name: "new_jobs",
        materialized: false,
        only_with: Some(NEW_JOBS),
        counted: None,
        sql: "
    insert into gh_jobs (job_id, version, status, run, attempt, worker_id, error_code, completed_at, occupies,
        last_holder, waits_for, waiting_since, not_before, fence_worker, fence_until, next_deadline, body,
        target_worker_id, worker_affinity, valet_task_id, valet_user_id, created_at, priority)
    select unnest($46::uuid[]), unnest($47::bigint[]), unnest($48::text[]), unnest($49::int[]),
        unnest($50::int[]), unnest($51::text[]), unnest($52::text[]),
        unnest($53::timestamptz[]), unnest($54::text[]), unnest($55::text[]),
        unnest($56::text[]), unnest($57::timestamptz[]), unnest($58::timestamptz[]),
        unnest($59::text[]), unnest($60::timestamptz[]), unnest($61::timestamptz[]), unnest($62::text[]),
        unnest($63::text[]), unnest($64::text[]), unnest($65::text[]), unnest($66::uuid[]),
        unnest($67::timestamptz[]), unnest($68::smallint[])",
    },
    Part {
        name: "specs",
        materialized: false,
        only_with: Some(NEW_JOBS),
        counted: None,
        sql: "
    insert into gh_job_specs (job_id, created_at, valet_task_id, valet_user_id, target_worker_id, spec)
    select unnest($46::uuid[]), unnest($67::timestamptz[]), unnest($65::text[]),
        unnest($66::uuid[]), unnest($63::text[]), unnest($69::text[])",
    },
    Part {
        name: "results",
        materialized: false,
        only_with: Some(ENDINGS),
        counted: None,
        sql: "
    insert into gh_job_results (job_id, run, result_data)
    select unnest($70::uuid[]), unnest($71::int[]), unnest($72::text[])
    on conflict (job_id, run) do nothing",
    },
    Part {
        name: "job_events",
        materialized: false,
        only_with: None,
        counted: None,
        sql: "
    insert into gh_job_events (id, job_id, seq, event_type, from_status, to_status, message, metadata, actor, run,
        attempt, occurred_at, created_at, exact_metadata)
    select unnest($73::uuid[]), unnest($74::uuid[]), unnest($75::bigint[]), unnest($76::text[]),
        unnest($77::text[]), unnest($78::text[]), unnest($79::text[]), unnest($80::text[])::jsonb,
        unnest($81::text[]), unnest($82::int[]), unnest($83::int[]),
        unnest($84::timestamptz[]), unnest($85::timestamptz[]), unnest($86::text[])",
    },
    Part {
        name: "queues",
        materialized: false,
        only_with: Some(ENDINGS),
        counted: Some(Counted { by: "count(*)", given: "$87::uuid[]" }),
        sql: "
    insert into gh_callback_queues (job_id, revision, due_at, open_deliveries, body)
    select unnest($87::uuid[]), unnest($88::bigint[]), unnest($89::timestamptz[]), unnest($90::int[]),
        unnest($91::text[])
    where {after}
    on conflict (job_id) do update set revision = excluded.revision, due_at = excluded.due_at,
        open_deliveries = excluded.open_deliveries, body = excluded.body
    where gh_callback_queues.revision = excluded.revision - 1
    returning 1",
    },
    Part {
        name: "deliveries",
        materialized: false,
        only_with: Some(ENDINGS),
        counted: None,
        sql: "
    insert into gh_deliveries (job_id, sequence, delivery_id, state, created_at, body)
    select unnest($92::uuid[]), unnest($93::bigint[]), unnest($94::uuid[]), unnest($95::text[]),
        unnest($96::timestamptz[]), unnest($97::text[])",
    },
    Part {
        name: "keys",
        materialized: false,
        only_with: Some(KEYS),
        counted: None,
        sql: "
    insert into gh_idempotency_keys (client, key, fingerprint, job_id)
    select unnest($98::text[]), unnest($99::text[]), unnest($100::bytea[]), unnest($101::uuid[])
    where {after}",
    },
];

fn assemble(shape: Shape) -> String {
    let mut sql = String::new();
    let mut conditions = Vec::new();
    let mut before = String::new();
    for part in PARTS.iter().filter(|part| part.only_with.is_none_or(|needed| shape.has(needed))) {
        let begin = if sql.is_empty() { "with" } else { "," };
        let materialized = if part.materialized { "materialized " } else { "" };
        let body = part.sql.replace("{after}", &format!("{before} is not null"));
        // Writing to a string does not fail.
        let _written = write!(sql, "{begin} {} as {materialized}({body})", part.name);
        if let Some((count, given)) = part.count() {
            conditions.push(format!("{count} = cardinality({given})"));
            before = count;
        }
    }
    let conditions = conditions.join(" and ");
    numbered(&format!("{sql} select case when {conditions} then true else gh_refuse() end as stored"))
}

/// The statement with its parameters numbered from 1, in the same order.
fn numbered(sql: &str) -> String {
    let mut pieces = sql.split('$');
    let mut result = pieces.next().unwrap_or_default().to_owned();
    let pieces: Vec<(u32, &str)> = pieces.map(number_and_rest).collect();
    let mut numbers: Vec<u32> = pieces.iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    for (number, rest) in pieces {
        let place = numbers.partition_point(|other| *other <= number);
        let _written = write!(result, "${place}{rest}");
    }
    result
}

fn number_and_rest(piece: &str) -> (u32, &str) {
    let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = piece.split_at(digits);
    (number.parse().unwrap_or(0), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_the_parts_of_its_shape_and_no_gap_in_its_parameters() {
        for (shape, sql) in (0..SHAPES).map(Shape).zip(statements()) {
            assert_eq!(sql, shape.statement());
            for part in PARTS {
                let wanted = part.only_with.is_none_or(|needed| shape.has(needed));
                assert_eq!(sql.contains(&format!(" {} as ", part.name)), wanted, "{shape:?} {}", part.name);
            }
            let mut numbers: Vec<u32> = sql.split('$').skip(1).map(|piece| number_and_rest(piece).0).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert!(numbers.iter().copied().eq(1..=u32::try_from(numbers.len()).unwrap()), "{shape:?} {numbers:?}");
            assert!(!sql.contains('{'), "{sql}");
        }
    }

    #[test]
    fn a_part_waits_for_the_counted_one_before_it_that_is_there() {
        let every = WORKERS.with_if(true, NEW_JOBS).with_if(true, ENDINGS).with_if(true, KEYS);
        assert!(every.statement().contains("where (select count(*) from workers) is not null"));
        assert!(!Shape::default().statement().contains("from workers"));
        assert!(Shape::default().statement().contains("where (select count(*) from occupants) is not null"));
        assert!(KEYS.statement().contains("where (select count(*) from jobs) is not null"));
    }
}
