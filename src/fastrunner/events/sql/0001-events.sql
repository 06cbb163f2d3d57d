-- Events, schema version 1 (kept in user_version).
begin immediate;

-- CloudEvents of all workers in the order of their commits; no number is given twice. `digest` is that of source and id,
-- which tells duplicates, and what the event is sealed for; `type_hash` finds those of a type. `size_sum` are the bytes of
-- all events up to this one: what is kept is the difference of two of them. `namespaces` is a JSON array, null for all.
-- The event comes last, so that looking for what is old need not read it.
create table events (
    event_key integer primary key autoincrement,
    digest blob not null unique,
    type_hash integer not null,
    received_ms integer not null,
    size_sum integer not null,
    namespaces text,
    checksum integer not null,
    event blob not null
) strict;

create index events_of_type on events (type_hash, event_key);

-- How far each has come that must not miss an event.
create table followers (
    name text not null primary key,
    event_key integer not null
) strict, without rowid;

pragma user_version = 1;

commit;
