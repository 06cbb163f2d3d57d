-- Named statements of the schedules' file: `-- name:` starts one, lines of comment under it say what it is for.

-- name: count
-- How many there are.
select count(*) from schedules

-- name: select_digest
-- Whether an id is taken, and by which request.
select digest from schedules where schedule_id = ?

-- name: insert
-- A new one.
insert into schedules (
    schedule_id, namespace, name, version, added_ms, principal, trigger, options, digest, paused, reason, revision, due_ms,
    next_ms, progress, by_events, request
) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, '', ?10, ?5, ?11, ?12, ?13, ?14)

-- name: select
-- One, with what it executes.
select
    schedule_id, namespace, name, version, added_ms, principal, trigger, options, paused, reason, revision, next_ms, progress,
    events_state, request
from schedules where schedule_id = ?

-- name: all
-- Every one, with what it executes.
select
    schedule_id, namespace, name, version, added_ms, principal, trigger, options, paused, reason, revision, next_ms, progress,
    events_state, request
from schedules order by schedule_id

-- name: select_due
-- Those that are to be looked at, the most urgent first.
select
    schedule_id, namespace, name, version, added_ms, principal, trigger, options, paused, reason, revision, next_ms, progress,
    events_state, request
from schedules where paused = 0 and due_ms <= ?
order by due_ms
limit ?

-- name: select_by_events
-- Those that start by events.
select
    schedule_id, namespace, name, version, added_ms, principal, trigger, options, paused, reason, revision, next_ms, progress,
    events_state, request
from schedules where paused = 0 and by_events = 1

-- name: count_by_events
-- How many there are, paused ones included.
select count(*) from schedules where by_events = 1

-- name: position
-- How far they have come.
select event_key from position

-- name: reach
-- How far they are now.
insert into position (only_one, event_key) values (1, ?) on conflict (only_one) do update set event_key = excluded.event_key

-- name: select_sealed
-- What is sealed, of all.
select schedule_id, request, events_state from schedules

-- name: reseal
-- The same with another key.
update schedules set request = ?2, events_state = ?3 where schedule_id = ?1

-- name: write_anew
-- What was there before does not stay behind in free pages.
vacuum

-- name: first_due
-- When the next one is to be looked at; null if none is.
select min(due_ms) from schedules where paused = 0 and due_ms > ?

-- name: look_at_all
-- The clock is not what it was.
update schedules set due_ms = ?1 where paused = 0 and due_ms > ?1

-- name: note
-- What a look came to, unless somebody has changed the schedule since.
update schedules set progress = ?3, due_ms = ?4, next_ms = ?5, events_state = ?6 where schedule_id = ?1 and revision = ?2

-- name: pause
-- It fires no more.
update schedules set paused = 1, reason = ?2, revision = revision + 1, next_ms = null where schedule_id = ?1

-- name: resume
-- It fires again.
update schedules set paused = 0, reason = '', revision = revision + 1, due_ms = ?2, progress = ?3, events_state = null
where schedule_id = ?1

-- name: delete
-- It is gone.
delete from schedules where schedule_id = ?

-- name: list
-- A page in the order of ids, without what is executed.
select
    schedule_id, namespace, name, version, added_ms, principal, trigger, options, paused, reason, revision, next_ms, progress,
    null, x''
from schedules
where schedule_id > :after
    and (:namespace = '' or namespace = :namespace)
    and (:within is null or namespace in (select value from json_each(:within)))
order by schedule_id
limit :count_max
