-- What changes often lies in narrow rows, what is written once lies elsewhere, and every index that a hot statement
-- uses holds live rows only. Names are compared byte by byte, as the core compares them.

-- Whether the columns of a job fit together. A statement reads each constraint of a table anew from its text, which for
-- all of this takes longer than to call a function, whose body is read once for each session.
create function gh_job_is_consistent(version bigint, status text, run integer, attempt integer, target_worker_id text,
    worker_affinity text, error_code text, completed_at timestamptz, priority smallint, occupies text,
    last_holder text, waits_for text, waiting_since timestamptz, fence_worker text, fence_until timestamptz)
    returns boolean language plpgsql immutable parallel safe as $$
begin
    return version > 0 and run > 0 and attempt > 0 and priority between 1 and 10
        and (worker_affinity = 'any' or worker_affinity in ('strict', 'preferred') and target_worker_id is not null)
        and (fence_worker is null) = (fence_until is null)
        and case
            when status = 'pending' then waiting_since is not null and occupies is null
            when status = 'queued' then waiting_since is not null and occupies is not null
            when status in ('running', 'needs_human') then waiting_since is null and waits_for is null
                and (occupies is null or occupies = last_holder)
            when status in ('completed', 'cancelled', 'failed', 'expired') then waiting_since is null
                and waits_for is null and occupies is null
            else false end
        and (completed_at is not null) = (status in ('completed', 'failed', 'cancelled', 'expired'))
        and (error_code is not null) = (status in ('failed', 'expired'));
end
$$;

-- Jobs. The columns down to completed_at are a contract with readers; the others are what statements pick by. `body`
-- holds the rest of the job as JSON, without what never changes (gh_job_specs) and results (gh_job_results).
create table gh_jobs (
    job_id uuid not null primary key,
    version bigint not null,
    status text collate "C" not null,
    run integer not null,
    attempt integer not null,
    worker_id text collate "C",
    target_worker_id text collate "C",
    worker_affinity text collate "C" not null,
    valet_task_id text collate "C" not null,
    valet_user_id uuid not null,
    error_code text collate "C",
    created_at timestamptz not null,
    completed_at timestamptz,
    priority smallint not null,
    occupies text collate "C",
    last_holder text collate "C",
    waits_for text collate "C",
    waiting_since timestamptz,
    not_before timestamptz,
    fence_worker text collate "C",
    fence_until timestamptz,
    next_deadline timestamptz,
    body text not null,
    constraint gh_jobs_consistent check (gh_job_is_consistent(version, status, run, attempt, target_worker_id,
        worker_affinity, error_code, completed_at, priority, occupies, last_holder, waits_for, waiting_since,
        fence_worker, fence_until))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- Lists by status, and which jobs live.
create index gh_jobs_by_status on gh_jobs (status, created_at, job_id);
create index gh_jobs_of_worker on gh_jobs (worker_id, created_at, job_id) where worker_id is not null;
create index gh_jobs_by_error on gh_jobs (error_code, created_at, job_id) where error_code is not null;
create index gh_jobs_completed on gh_jobs (completed_at) where completed_at is not null;
-- The lanes of waiting jobs: those that can be taken at once, those with a backoff or a fence, and the fenced ones by
-- the only worker that may take them meanwhile.
create index gh_jobs_ready on gh_jobs (priority desc, created_at, job_id)
    where status = 'pending' and waits_for is null and not_before is null and fence_until is null;
create index gh_jobs_ready_for on gh_jobs (waits_for, priority desc, created_at, job_id)
    where status = 'pending' and waits_for is not null and not_before is null and fence_until is null;
create index gh_jobs_delayed on gh_jobs (priority desc, created_at, job_id)
    where status = 'pending' and waits_for is null and (not_before is not null or fence_until is not null);
create index gh_jobs_delayed_for on gh_jobs (waits_for, priority desc, created_at, job_id)
    where status = 'pending' and waits_for is not null and (not_before is not null or fence_until is not null);
create index gh_jobs_fenced on gh_jobs (fence_worker, priority desc, created_at, job_id)
    where status = 'pending' and fence_until is not null;
create index gh_jobs_waiting_for on gh_jobs (waits_for) where waits_for is not null;
create index gh_jobs_due on gh_jobs (next_deadline, job_id) where next_deadline is not null;

-- What was asked for: written once. Kept in the row up to two tuples a page and uncompressed, which is what costs
-- least for the sizes that occur.
create table gh_job_specs (
    job_id uuid not null primary key,
    created_at timestamptz not null,
    valet_task_id text collate "C" not null,
    valet_user_id uuid not null,
    target_worker_id text collate "C",
    spec text not null
) with (toast_tuple_target = 4080);
alter table gh_job_specs alter column spec set storage external;
create index gh_job_specs_listed on gh_job_specs (created_at, job_id);
create index gh_job_specs_by_task on gh_job_specs (valet_task_id, created_at, job_id);
create index gh_job_specs_by_user on gh_job_specs (valet_user_id, created_at, job_id);
create index gh_job_specs_by_target on gh_job_specs (target_worker_id, created_at, job_id)
    where target_worker_id is not null;

-- What workers handed in, as they wrote it.
create table gh_job_results (
    job_id uuid not null,
    run integer not null,
    result_data text not null,
    primary key (job_id, run)
);

-- Workers. A worker's row says which job occupies it, so there is at most one; the job's row says the same. The row of
-- one that was forgotten stays, with what its generations and retired processes need: nobody is shown it.
create table gh_workers (
    worker_id text collate "C" not null primary key,
    version bigint not null,
    present boolean not null,
    target_worker_id text collate "C",
    ec2_instance_id text collate "C",
    deregistration_id uuid,
    deadline timestamptz,
    gone_since timestamptz,
    deregistered boolean not null,
    occupied_by uuid,
    reserved boolean,
    forgotten boolean not null default false,
    body text not null,
    constraint gh_workers_occupied check ((occupied_by is null) = (reserved is null)),
    constraint gh_workers_version check (version > 0),
    constraint gh_workers_present check (present = (gone_since is null)),
    constraint gh_workers_deregistered check (not (present and deregistered)),
    constraint gh_workers_forgotten check (not (present and forgotten))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
create index gh_workers_of_target on gh_workers (target_worker_id) where target_worker_id is not null;
create index gh_workers_of_instance on gh_workers (ec2_instance_id) where ec2_instance_id is not null;
create index gh_workers_waited_for on gh_workers (deregistration_id) where deregistration_id is not null;
create index gh_workers_due on gh_workers (deadline, worker_id) where deadline is not null;
create index gh_workers_gone on gh_workers (gone_since) where gone_since is not null and not forgotten;
create index gh_workers_known on gh_workers (worker_id) where not forgotten;

-- What calls of workers leave behind. `silent_since` is no later than the last sign of life, and only the sweep brings
-- it up to date: so a sign of life touches no index.
create table gh_worker_vitals (
    worker_id text collate "C" not null primary key,
    revision bigint not null,
    last_seen timestamptz not null,
    silent_since timestamptz,
    body text not null,
    constraint gh_worker_vitals_revision check (revision > 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
create index gh_worker_vitals_silent on gh_worker_vitals (silent_since, worker_id) where silent_since is not null;

create table gh_names (
    name text collate "C" not null primary key,
    version bigint not null,
    held_by uuid,
    constraint gh_names_version check (version > 0)
);

create table gh_deregistrations (
    deregistration_id uuid not null primary key,
    version bigint not null,
    finished_at timestamptz,
    body text not null,
    constraint gh_deregistrations_version check (version > 0)
);

create table gh_idempotency_keys (
    client text collate "C" not null,
    key text collate "C" not null,
    fingerprint bytea not null,
    job_id uuid not null,
    primary key (client, key),
    constraint gh_idempotency_keys_fingerprint check (octet_length(fingerprint) = 32)
);
create index gh_idempotency_keys_of_job on gh_idempotency_keys (job_id);

-- The callbacks of a job that are not through: one row a job, which whoever enqueues, sends or settles has to lock.
create table gh_callback_queues (
    job_id uuid not null primary key,
    revision bigint not null,
    due_at timestamptz,
    open_deliveries integer not null,
    body text not null,
    constraint gh_callback_queues_revision check (revision > 0),
    constraint gh_callback_queues_open check (open_deliveries >= 0 and (due_at is null or open_deliveries > 0))
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
create index gh_callback_queues_due on gh_callback_queues (due_at, job_id) where due_at is not null;

-- Callbacks that are through.
create table gh_deliveries (
    job_id uuid not null,
    sequence bigint not null,
    delivery_id uuid not null,
    state text collate "C" not null,
    created_at timestamptz not null,
    body text not null,
    primary key (job_id, sequence),
    constraint gh_deliveries_state check (state in ('delivered', 'replaced', 'dead'))
);
create index gh_deliveries_age on gh_deliveries using brin (created_at);

-- For each LLM call of a job, the one report that counts.
create table gh_llm_calls (
    job_id uuid not null,
    call_id text collate "C" not null,
    attempt integer not null,
    worker_id text collate "C" not null,
    provider text collate "C" not null,
    model text collate "C" not null,
    cost_usd numeric,
    priced_at timestamptz not null,
    first_received_at timestamptz not null,
    body text not null,
    primary key (job_id, call_id),
    constraint gh_llm_calls_cost check (cost_usd >= 0)
);
create index gh_llm_calls_age on gh_llm_calls using brin (first_received_at);

-- Ends a statement that finds a row other than it was given it: nothing of it is written.
create function gh_refuse() returns boolean language plpgsql as $$
begin
    raise exception 'a row is not as it was' using errcode = 'GH001';
end
$$;

create table gh_settings (
    name text not null primary key,
    value bytea not null
);

-- Events, in partitions by time that are dropped as wholes. What no partition was made for lies in the default one.
-- `exact_metadata` is there only where jsonb does not give back what was written (1e400, -0).
create table gh_job_events (
    id uuid not null,
    job_id uuid not null,
    seq bigint not null,
    event_type text collate "C" not null,
    from_status text collate "C",
    to_status text collate "C",
    message text not null,
    metadata jsonb not null,
    actor text collate "C" not null,
    run integer not null,
    attempt integer not null,
    occurred_at timestamptz not null,
    created_at timestamptz not null,
    exact_metadata text,
    constraint gh_job_events_seq check (seq > 0)
) partition by range (created_at);
create index gh_job_events_of_job on gh_job_events (job_id, seq);
create table gh_job_events_default partition of gh_job_events default;

create table gh_worker_events (
    id uuid not null,
    worker_id text collate "C",
    generation integer,
    seq bigint not null,
    event_type text collate "C" not null,
    message text not null,
    metadata jsonb not null,
    actor text collate "C" not null,
    created_at timestamptz not null,
    exact_metadata text
) partition by range (created_at);
create index gh_worker_events_of_worker on gh_worker_events (worker_id, seq);
create table gh_worker_events_default partition of gh_worker_events default;
