-- Named statements of `fastrunner data`, which reads whole files; see queries.sql for the form.

-- name: schema_version
pragma user_version

-- name: page_count
-- For the progress bar.
pragma page_count

-- name: integrity
-- Up to a hundred sentences, or `ok`.
pragma integrity_check

-- name: begin
-- Everything read after it is one state of the file, whatever a running owner writes.
begin

-- name: rollback
-- Nothing was written: it ends a look.
rollback

-- name: count_rows
-- For the progress bar.
select
    (select count(*) from plans) + (select count(*) from executions) + (select count(*) from requests)
    + (select count(*) from snapshots) + (select count(*) from events) + (select count(*) from large_values)
    + (select count(*) from listeners) + (select count(*) from event_inbox) + (select count(*) from inbox_events)
    + (select count(*) from events_taken)

-- name: ids
-- Every id, from the index alone.
select execution_id from executions indexed by sqlite_autoindex_executions_1

-- name: has_id
select exists (select 1 from executions where execution_id = ?)

-- name: plans
-- Every document with the executions that refer to it.
select
    p.plan_key, p.hash, p.document, coalesce(p.resources_json, ''), p.uses, p.namespace, p.name, p.version,
    (select count(*) from executions as x where x.plan_key = p.plan_key)
from plans as p

-- name: executions
-- Every execution with what else there must be of it.
select
    x.execution_key, x.execution_id, x.status, x.finished_ms, x.last_sequence, x.acknowledged_sequence,
    x.given_up_events, x.error_json, x.output_json, x.format, x.checksum,
    exists (select 1 from plans as p where p.plan_key = x.plan_key),
    exists (select 1 from requests as r where r.execution_key = x.execution_key),
    exists (select 1 from snapshots as s where s.execution_key = x.execution_key),
    (select max(e.last_sequence) from events as e where e.execution_key = x.execution_key), x.request_digest
from executions as x

-- name: requests
select r.execution_key, x.execution_id, r.debug, r.input_json, r.env_json, r.client, r.format, r.checksum
from requests as r left join executions as x using (execution_key)

-- name: snapshots
select s.execution_key, x.execution_id, s.snapshot
from snapshots as s left join executions as x using (execution_key)

-- name: large_values
-- Every value with whether anybody needs it.
select v.hash, v.value, exists (select 1 from claims as c where c.hash = v.hash) from large_values as v

-- name: claims
-- What is needed and not there, or by nobody.
select
    c.execution_key, coalesce(x.execution_id, ''), exists (select 1 from large_values as v where v.hash = c.hash)
from claims as c left join executions as x using (execution_key)

-- name: orders
-- What children are to do, with whether they are there.
select o.execution_key, x.execution_id, o.number, o.command
from orders as o left join executions as x using (execution_key)

-- name: unclaimed
-- 1 if an execution does not claim a value.
select not exists (select 1 from claims where execution_key = ? and hash = ?)

-- name: large_value
select value from large_values where hash = ?

-- name: events
-- In the order of each execution's sequence.
select
    e.execution_key, x.execution_id, e.first_sequence, e.last_sequence, e.messages, e.format, e.checksum
from events as e left join executions as x using (execution_key)
order by e.execution_key, e.first_sequence

-- name: listeners
-- What executions wait for, with the execution if it is unfinished.
select l.execution_key, x.execution_id, l.subscription_id, l.filter, l.checksum
from listeners as l left join executions as x on x.execution_key = l.execution_key and x.finished_ms = 0

-- name: event_inbox
-- What they are still to take, with whether there is such a listener, and the event.
select
    i.execution_key, coalesce(x.execution_id, ''), i.event_key,
    exists (select 1 from listeners as l where l.execution_key = i.execution_key and l.subscription_id = i.subscription_id),
    exists (select 1 from inbox_events as e where e.event_key = i.event_key)
from event_inbox as i left join executions as x using (execution_key)

-- name: inbox_events
-- Every one of those events with whether anybody is to take it.
select e.event_key, e.event, e.checksum, exists (select 1 from event_inbox as i where i.event_key = e.event_key)
from inbox_events as e

-- name: events_taken
-- What executions have taken, with the execution if it is unfinished.
select t.execution_key, x.execution_id
from events_taken as t left join executions as x on x.execution_key = t.execution_key and x.finished_ms = 0

-- name: export
-- Executions in the order of acceptance.
select
    x.execution_key, x.execution_id, x.status, coalesce(cast(p.namespace as text), ''),
    coalesce(cast(p.name as text), ''), coalesce(cast(p.version as text), ''), x.accepted_ms,
    x.finished_ms, x.last_sequence, x.acknowledged_sequence - x.given_up_events, x.given_up_events, x.error_json, x.output_json, x.format, x.checksum
from executions as x left join plans as p using (plan_key)
where x.accepted_ms >= :accepted_from_ms
    and x.accepted_ms < :accepted_until_ms
    and (:statuses = '[]' or x.status in (select value from json_each(:statuses)))
    and (:name = '' or p.name = :name)
    and (:namespace = '' or p.namespace = :namespace)
order by x.accepted_ms, x.execution_id

-- name: export_events
select first_sequence, last_sequence, messages, format, checksum from events where execution_key = ?
order by first_sequence

-- name: vacuum
-- Writes the file anew without what is free in it, indexes included.
vacuum

-- name: checkpoint
pragma wal_checkpoint(truncate)
