-- Lifecycle sinks, schema version 1 (kept in user_version).
begin immediate;

-- The last row of events of a shard that a sink has everything of.
create table positions (
    sink text not null,
    shard integer not null,
    event_key integer not null,
    primary key (sink, shard)
) strict, without rowid;

pragma user_version = 1;

commit;
