-- One shard, schema version 7: what its caller calls an execution, what its document says of itself, and executions whose
-- events are for no receiver.
begin immediate;

-- In the order of a listing under each label; the other index finds those of one execution.
create table labels (
    name text not null,
    value text not null,
    accepted_ms integer not null,
    execution_id text not null,
    execution_key integer not null,
    primary key (name, value, accepted_ms, execution_id)
) strict, without rowid;
create index labels_execution on labels (execution_key);

-- 1 if no event of it is ever sent: all of them count as given up at once.
alter table executions add column silent integer not null default 0;
-- The document's `metadata` as JSON; null without one, and where an earlier version has stored the document.
alter table plans add column metadata_json text;

pragma user_version = 7;

commit;
