-- The yardstick `lives`, a script of pgbench: the database work of one job's life, with nothing around it. Three
-- statements, each a transaction of its own as each call of the API is: the job with its event; the claim, the
-- completion, each with an event and a callback in the outbox. A claim takes whichever job is first, as a worker does.
with job as (
    insert into jobs (queue, payload)
    values ('q', '{"task": "apply", "args": {"n": 1, "s": "0123456789abcdefghijklmnopqrstuvwxyz"}, "callback": "http://127.0.0.1/"}')
    returning id
), event as (
    insert into events (job_id, seq, kind, data) select id, 1, 0, '{}' from job
)
select id from job;
with job as (
    update jobs
    set state = 1, worker_id = :client_id, lease_token = gen_random_uuid(), lease_expires = now() + interval '30 s',
        attempt = attempt + 1, started_at = now()
    where id = (
        select id from jobs where state = 0 and queue = 'q' order by priority, id limit 1 for update skip locked
    )
    returning id
), event as (
    insert into events (job_id, seq, kind, data) select id, 2, 1, '{}' from job
), callback as (
    insert into outbox (job_id, kind, body) select id, 1, '{"state": "running"}' from job
)
select coalesce((select id from job), 0) as claimed \gset
with job as (
    update jobs set state = 2, finished_at = now(), result = '{"ok": true}', lease_token = null
    where id = :claimed and state = 1
    returning id
), event as (
    insert into events (job_id, seq, kind, data) select id, 3, 2, '{}' from job
), callback as (
    insert into outbox (job_id, kind, body) select id, 2, '{"state": "done"}' from job
)
select count(*) from job;
