-- Named statements of `fastrunner data rekey`, which goes through whole tables in the order of their numbers; see
-- queries.sql for the form.

-- name: executions
select
    execution_key, execution_id, request_digest, status, finished_ms, last_sequence, error_json, output_json, format,
    checksum
from executions where execution_key > ?1 order by execution_key limit ?2

-- name: reseal_execution
update executions set request_digest = ?2, error_json = ?3, output_json = ?4, format = ?5, checksum = ?6
where execution_key = ?1

-- name: requests
select r.execution_key, x.execution_id, r.debug, r.input_json, r.env_json, r.client, r.format, r.checksum
from requests as r left join executions as x using (execution_key)
where r.execution_key > ?1 order by r.execution_key limit ?2

-- name: reseal_request
update requests set input_json = ?2, env_json = ?3, format = ?4, checksum = ?5 where execution_key = ?1

-- name: snapshots
select s.execution_key, x.execution_id, s.snapshot
from snapshots as s left join executions as x using (execution_key)
where s.execution_key > ?1 order by s.execution_key limit ?2

-- name: reseal_snapshot
update snapshots set snapshot = ?2 where execution_key = ?1

-- name: events
select e.event_key, x.execution_id, e.execution_key, e.first_sequence, e.last_sequence, e.messages, e.format, e.checksum
from events as e left join executions as x using (execution_key)
where e.event_key > ?1 order by e.event_key limit ?2

-- name: reseal_events
update events set messages = ?2, format = ?3, checksum = ?4 where event_key = ?1

-- name: large_values
select rowid, hash, value from large_values where rowid > ?1 order by rowid limit ?2

-- name: reseal_large_value
update large_values set value = ?2 where rowid = ?1

-- name: listeners
select l.listener_key, x.execution_id, l.execution_key, l.subscription_id, l.filter, l.checksum
from listeners as l left join executions as x using (execution_key)
where l.listener_key > ?1 order by l.listener_key limit ?2

-- name: reseal_listener
update listeners set filter = ?2, checksum = ?3 where listener_key = ?1

-- name: inbox_events
select event_key, event, checksum from inbox_events where event_key > ?1 order by event_key limit ?2

-- name: reseal_inbox_event
update inbox_events set event = ?2, checksum = ?3 where event_key = ?1

-- name: begin
begin immediate

-- name: commit
commit

-- name: rollback
rollback
