-- Schedules, schema version 1 (kept in user_version).
begin immediate;

-- `due_ms` is when whoever fires has to look at it, `next_ms` the moment it fires next (null: none is known). `revision`
-- counts what people have done to it: whoever has looked at it before notes nothing after. `principal`, `trigger`, `options`
-- and `progress` are JSON (see planner.py); `digest` tells the request that added it;
-- `events_state` is what the core remembers of events, as JSON, sealed where there is a key. What is executed comes last, so that
-- listings need not read it; it is sealed where there is a key.
create table if not exists schedules (
    schedule_id text not null primary key,
    namespace text not null,
    name text not null,
    version text not null,
    added_ms integer not null,
    principal text not null,
    trigger text not null,
    options text not null,
    digest blob not null,
    paused integer not null,
    reason text not null,
    revision integer not null,
    due_ms integer not null,
    next_ms integer,
    progress text not null,
    by_events integer not null,
    events_state blob,
    request blob not null
) strict;

create index if not exists schedules_due on schedules (paused, due_ms);

create index if not exists schedules_by_events on schedules (paused) where by_events = 1;

-- How far all schedules have come that start by events.
create table if not exists position (
    only_one integer primary key check (only_one = 1),
    event_key integer not null
) strict;

create index if not exists schedules_of_namespace on schedules (namespace, schedule_id);

pragma user_version = 1;

commit;
