-- One shard, schema version 10: the feed of changes of state is read off the events.
begin immediate;

-- The highest number of a row of events that has been deleted: numbers are not used again, and whoever has read less than
-- that may have missed something.
create table feed (
    only integer primary key check (only = 1),
    deleted_key integer not null
) strict;
insert into feed (only, deleted_key) values (1, 0);

pragma user_version = 10;

commit;
