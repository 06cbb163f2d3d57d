-- One shard, schema version 8: executions that others have started.
begin immediate;

-- Who has started it, by which effect, and how many generations of such executions there are above it. `awaited` says what
-- that effect still waits for: 2 for its end, 1 for its acceptance, 0 for nothing; until then it is not deleted.
alter table executions add column parent_id text not null default '';
alter table executions add column parent_effect integer not null default 0;
alter table executions add column depth integer not null default 0;
alter table executions add column awaited integer not null default 0;
create index executions_parent on executions (parent_id, accepted_ms) where parent_id <> '';

-- What an execution is to do because its parent did it, until a commit has it done. Later ones have higher numbers.
create table orders (
    execution_key integer primary key,
    number integer not null,
    command text not null
) strict;

pragma user_version = 8;

commit;
