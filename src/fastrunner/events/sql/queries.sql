-- Named statements of the events' file: `-- name:` starts one, lines of comment under it say what it is for.

-- name: has_numbers
-- Whether a number has ever been given.
select exists (select 1 from sqlite_sequence where name = 'events')

-- name: first_number
-- Numbers begin after this one.
insert into sqlite_sequence (name, seq) values ('events', ?)

-- name: cache
-- The index of digests is written all over; its pages stay in memory until COMMIT (KiB, negated).
pragma cache_size = -32768

-- name: deletes
-- What is deleted is overwritten where the page is written anyway.
pragma secure_delete = fast

-- name: last_key
-- The last number given.
select seq from sqlite_sequence where name = 'events'

-- name: insert_event
-- Gives its number; no row for a duplicate.
insert into events (digest, type_hash, received_ms, size_sum, namespaces, checksum, event)
values (?, ?, ?, ?, ?, ?, ?)
on conflict (digest) do nothing
returning event_key

-- name: select_key
-- The number of an event that is there.
select event_key from events where digest = ?

-- name: select_event
-- One event.
select event_key, received_ms, namespaces, digest, type_hash, checksum, event from events where digest = ?

-- name: select_after
-- Events in their order.
select event_key, received_ms, namespaces, digest, type_hash, checksum, event from events
where event_key > ?
order by event_key

-- name: select_between
-- The same up to one.
select event_key, received_ms, namespaces, digest, type_hash, checksum, event from events
where event_key > ? and event_key <= ?
order by event_key

-- name: select_of_type
-- The same of a type.
select event_key, received_ms, namespaces, digest, type_hash, checksum, event from events
where type_hash = ? and event_key > ? and event_key <= ?
order by event_key

-- name: oldest
-- The number of the oldest event, and the bytes of all before it.
select event_key, size_sum - length(event) from events order by event_key limit 1

-- name: newest
-- The number of the newest event, and the bytes of all up to it.
select event_key, size_sum from events order by event_key desc limit 1

-- name: held_from
-- What is not deleted, because somebody has not come so far: all after this one; null if nobody follows.
select min(event_key) from followers

-- name: first_young
-- Of so many of the oldest, the first that has not outlived the retention; what was received after now was received by
-- another clock.
select event_key from (select event_key, received_ms from events order by event_key limit ?3)
where received_ms > ?1 and received_ms <= ?2
order by event_key
limit 1

-- name: delete_oldest
-- Events up to one, so many at most.
delete from events where event_key in (select event_key from events where event_key <= ? order by event_key limit ?)

-- name: reach
-- How far one has come.
insert into followers (name, event_key) values (?, ?)
on conflict (name) do update set event_key = excluded.event_key

-- name: leave
-- It does not follow any more.
delete from followers where name = ?

-- name: insert_outgoing
-- An event for the sinks.
insert into outgoing (digest, emitted_ms, size_sum, checksum, event) values (?, ?, ?, ?, ?)

-- name: outgoing_size
-- The bytes of all events before the oldest, and up to the newest.
select
    (select size_sum - length(event) from outgoing order by position limit 1),
    (select size_sum from outgoing order by position desc limit 1)

-- name: outgoing_last
-- The last position given; null if none was.
select max(seq) from sqlite_sequence where name = 'outgoing'

-- name: outgoing_oldest
-- The oldest that a sink has not taken: when it was emitted.
select emitted_ms from outgoing order by position limit 1

-- name: outgoing_after
-- Events for a sink.
select position, emitted_ms, digest, checksum, event from outgoing where position > ? order by position

-- name: drop_outgoing
-- Some of the oldest.
delete from outgoing where position in (select position from outgoing order by position limit ?)

-- name: expire_outgoing
-- Some of the oldest that were emitted before a moment.
delete from outgoing where position in (
    select position from (select position, emitted_ms from outgoing order by position limit ?2)
    where emitted_ms < ?1
)

-- name: sink_positions
-- How far each sink has come.
select name, position from sinks

-- name: advance_sink
-- How far one has come; a new one begins there.
insert into sinks (name, position) values (?, ?)
on conflict (name) do update set position = excluded.position

-- name: forget_sinks
-- Those that are not there any more.
delete from sinks where name not in (select value from json_each(?))

-- name: taken_by_all
-- What every sink has taken.
delete from outgoing where position <= (select min(position) from sinks)

-- name: count_rows
-- For the progress bar of whoever goes through the whole file.
select (select count(*) from events) + (select count(*) from outgoing)

-- name: all_events
-- Every row, from a number on, so many at most.
select event_key, received_ms, namespaces, digest, type_hash, checksum, event from events
where event_key > ? order by event_key limit ?

-- name: all_outgoing
-- The same of those for sinks.
select position, emitted_ms, null, digest, 0, checksum, event from outgoing
where position > ? order by position limit ?

-- name: reseal_event
-- The same event, sealed with another key.
update events set event = ?2, checksum = ?3 where event_key = ?1

-- name: reseal_outgoing
-- The same of one for sinks.
update outgoing set event = ?2, checksum = ?3 where position = ?1
