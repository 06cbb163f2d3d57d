-- Events, schema version 2: what sinks outside have not taken.
begin immediate;

-- Emitted events in their order. `digest` is what the event is sealed for, `size_sum` the bytes of all up to this one.
create table outgoing (
    position integer primary key autoincrement,
    digest blob not null,
    emitted_ms integer not null,
    size_sum integer not null,
    checksum integer not null,
    event blob not null
) strict;

-- The last one that a sink has taken, or that has been given up for it.
create table sinks (
    name text not null primary key,
    position integer not null
) strict, without rowid;

pragma user_version = 2;

commit;
