-- The watch over the whole fleet: one record for all servers, written at each look.
create table gh_fleet_watch (
    single boolean not null primary key default true,
    body text not null,
    constraint gh_fleet_watch_single check (single)
) with (fillfactor = 50);
insert into gh_fleet_watch (body) values ('{}');

-- The store's time is that of the database's clock and this together: where the clock is set, time goes on.
create table gh_clock (
    single boolean not null primary key default true,
    shift_micros bigint not null,
    constraint gh_clock_single check (single)
);
insert into gh_clock (shift_micros) values (0);
