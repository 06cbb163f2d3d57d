-- One shard, schema version 13: rows of events may be packed (format 3). No table changes and no row is written anew: those
-- of before are read as they are. The number keeps runners out that know no format 3: they would take such rows for damaged.
begin immediate;

pragma user_version = 13;

commit;
