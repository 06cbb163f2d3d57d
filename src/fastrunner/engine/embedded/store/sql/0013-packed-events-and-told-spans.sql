-- One shard, schema version 13: rows of events may be packed (format 3); those of before are read as they are. The number keeps
-- runners out that know no format 3: they would take such rows for damaged.
begin immediate;

-- Up to which row of events the collector has the spans that rows of executions tell: of those that were accepted and completed
-- in one commit, which have no rows of their own. All that ended before this version had.
create table spans_told (
    only_row integer primary key check (only_row = 1),
    event_key integer not null
) strict;
insert into spans_told (only_row, event_key) select 1, coalesce(max(event_key), 0) from events;

pragma user_version = 13;

commit;
