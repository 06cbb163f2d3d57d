-- One shard, schema version 12: traces of executions.
begin immediate;

-- Where an execution is in a trace, what was decided of it and when its request arrived; empty for one that is in none.
alter table executions add column trace text not null default '';

-- Spans that have ended, until the collector has them.
create table spans (
    execution_key integer not null,
    span_id text not null,
    span blob not null,
    primary key (execution_key, span_id)
) strict, without rowid;

pragma user_version = 12;

commit;
