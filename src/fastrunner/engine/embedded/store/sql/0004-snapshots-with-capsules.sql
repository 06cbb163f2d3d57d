-- One shard, schema version 4: snapshots have format 2. No table changes and no row is written anew: snapshots of format 1
-- are read as they are, and replaced when their executions go on. The number keeps runners out that know no format 2: they
-- would set aside every execution that has one.
begin immediate;

pragma user_version = 4;

commit;
