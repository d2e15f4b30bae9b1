-- The tables of the yardstick `lives`: as little as a queue of jobs on PostgreSQL can have that keeps events and an
-- outbox. Written for this comparison; nothing of the store's own tables is in it. Each measurement has a fresh database.
create table jobs (
    id bigint generated always as identity (cache 100) primary key,
    queue text not null,
    state smallint not null default 0,
    priority integer not null default 0,
    payload jsonb not null,
    worker_id bigint,
    lease_token uuid,
    lease_expires timestamptz,
    attempt integer not null default 0,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz,
    result jsonb
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
create index jobs_ready on jobs (queue, priority, id) where state = 0;

create table events (
    job_id bigint not null,
    seq integer not null,
    kind smallint not null,
    at timestamptz not null default now(),
    data jsonb,
    primary key (job_id, seq)
);

create table outbox (
    id bigint generated always as identity (cache 100) primary key,
    job_id bigint not null,
    kind smallint not null,
    body jsonb not null,
    next_at timestamptz not null default now(),
    attempts integer not null default 0
);
