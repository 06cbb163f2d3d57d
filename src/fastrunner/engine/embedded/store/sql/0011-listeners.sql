-- One shard, schema version 11: executions that wait for events.
begin immediate;

-- Which execution waits for which events. An event whose key is at most `offered_key` has had its row in the inbox, or was
-- not wanted. One that is live gets its rows as events come; any other is still to be offered what the events' file keeps
-- after that key. `started_sequence` is the execution's last sequence number when it began to listen: what the execution
-- had taken by then is not offered.
create table listeners (
    listener_key integer primary key,
    execution_key integer not null,
    subscription_id integer not null,
    offered_key integer not null,
    is_live integer not null,
    started_sequence integer not null,
    filter blob not null,
    checksum integer not null,
    unique (execution_key, subscription_id)
) strict;

-- Events that executions have still to take, and each of those events once.
create table event_inbox (
    execution_key integer not null,
    subscription_id integer not null,
    event_key integer not null,
    primary key (execution_key, subscription_id, event_key)
) strict, without rowid;
create index event_inbox_event on event_inbox (event_key);
create table inbox_events (
    event_key integer primary key,
    event blob not null,
    checksum integer not null
) strict;

-- What unfinished executions have taken, and after which of their own sequence numbers, for as long as the events' file has it.
create table events_taken (
    execution_key integer not null,
    event_key integer not null,
    at_sequence integer not null,
    primary key (execution_key, event_key)
) strict, without rowid;

-- Up to which key events have been looked at for the listeners here.
create table events_position (
    only_row integer primary key check (only_row = 1),
    event_key integer not null
) strict;

pragma user_version = 11;

commit;
