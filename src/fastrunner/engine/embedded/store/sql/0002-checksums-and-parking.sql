-- One shard, schema version 2: rows prove that they are what was written, and what only waits can be told from what runs.
-- `format` 0 marks a row of version 1, which has no checksum; see records.py for what each format's checksum covers.
begin immediate;

alter table events add column format integer not null default 0;
alter table events add column checksum integer not null default 0;
alter table requests add column format integer not null default 0;
alter table requests add column checksum integer not null default 0;
-- Over the state that queries show, and the result.
alter table executions add column format integer not null default 0;
alter table executions add column checksum integer not null default 0;

-- 1 while an execution only waits: for a timer, or paused. What version 1 left is looked at once.
alter table executions add column parked integer not null default 0;
drop index executions_unfinished;
-- The timers of what is not in memory; admission counts it.
create index executions_unfinished on executions (wake_at_ms) where finished_ms = 0;
-- Recovery: what does not only wait.
create index executions_running on executions (execution_key) where finished_ms = 0 and parked = 0;

pragma user_version = 2;

commit;
