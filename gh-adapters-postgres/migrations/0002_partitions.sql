-- Servers run under a role that owns nothing. Making and dropping the partitions of events takes the owner, so it is
-- done by functions that run as the owner and can do just that. Whoever may run a server is granted them.

-- Makes the partition of a week for one of the two tables of events. Tells whether it did: not where there is one, nor
-- where the default partition holds rows of that week already.
create function gh_make_partition(events text, week date) returns boolean
    language plpgsql security definer
    set lock_timeout = '2s'
as $$
declare
    partition text := events || '_' || to_char(date_trunc('week', week), 'YYYYMMDD');
    first timestamptz := date_trunc('week', week)::timestamp at time zone 'UTC';
begin
    if events not in ('gh_job_events', 'gh_worker_events') then
        raise exception 'no table of events: %', events;
    end if;
    execute format('create table %I partition of %I for values from (%L) to (%L)',
        partition, events, first, first + interval '7 days');
    return true;
exception
    when check_violation or duplicate_table then
        return false;
end
$$;

-- Drops the partition of a week, if it is there.
create function gh_drop_partition(events text, week date) returns void
    language plpgsql security definer
    set lock_timeout = '2s'
as $$
begin
    if events not in ('gh_job_events', 'gh_worker_events') then
        raise exception 'no table of events: %', events;
    end if;
    execute format('drop table if exists %I', events || '_' || to_char(date_trunc('week', week), 'YYYYMMDD'));
end
$$;

revoke execute on function gh_make_partition(text, date), gh_drop_partition(text, date) from public;

-- What such a function names must not be taken from a schema of its caller: it looks in this one, and in temporary
-- tables last.
do $$
begin
    execute format('alter function gh_make_partition(text, date) set search_path = %I, pg_temp', current_schema());
    execute format('alter function gh_drop_partition(text, date) set search_path = %I, pg_temp', current_schema());
end
$$;
