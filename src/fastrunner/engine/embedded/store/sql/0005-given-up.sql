-- One shard, schema version 5: what was given up is its own number. `acknowledged_sequence` stays what it was to the outbox,
-- the number up to which nothing is sent any more; of the events up to it, the last `given_up_events` went to no receiver,
-- because none took them in time or there was none. What earlier versions gave up stays written down as acknowledged.
begin immediate;

alter table executions add column given_up_events integer not null default 0;

pragma user_version = 5;

commit;
