-- Named statements of the shards: `-- name:` starts one, lines of comment under it say what it is for.

-- name: begin
-- Opens the one transaction of a commit.
begin immediate

-- name: commit
-- Makes it durable; run in the shard's writer thread.
commit

-- name: rollback
-- Gives up a transaction that could not be written.
rollback

-- name: schema_version
-- 0 for a new file.
pragma user_version

-- name: probe
-- Changes nothing, yet has to be written: tells whether a commit can land again.
pragma application_id = 1179865426

-- name: savepoint
-- Rows of one change, which may turn out not to be writable.
savepoint one_change

-- name: rollback_to_savepoint
rollback to one_change

-- name: release_savepoint
release one_change

-- name: canary_execution
-- Rolled back: tells whether anything at all can be written where new executions go.
insert into executions (
    execution_key, execution_id, request_digest, plan_key, status, accepted_ms, finished_ms, wake_at_ms, last_sequence,
    acknowledged_sequence, metadata
) values ((select coalesce(max(execution_key), 0) + 1 from executions), char(0), x'', 0, '', 0, 0, 0, 0, 0, x'')

-- name: canary_events
-- Rolled back: the same where their events go.
insert into events (execution_key, first_sequence, last_sequence, messages)
values ((select coalesce(max(execution_key), 0) + 1 from executions), 0, 0, x'')

-- name: checkpoint
-- Folds the journal into the file before closing.
pragma wal_checkpoint(truncate)

-- name: insert_plan
-- A document the shard has not seen.
insert into plans (plan_key, hash, namespace, name, version, uses, document, resources_json, metadata_json)
values (?, ?, ?, ?, ?, 0, ?, ?, ?)

-- name: select_plan_key
-- Whether the shard has a document.
select plan_key from plans where hash = ?

-- name: select_plan
-- A document to compile again, with its texts from elsewhere and the hash that proves all of them.
select document, coalesce(resources_json, ''), hash from plans where plan_key = ?

-- name: select_whole_plan
-- What there is of a document in every version's files.
select plan_key, hash, namespace, name, version, document, resources_json from plans where plan_key = ?

-- name: heal_plan
-- A document whose stored copy is damaged, or gone while the index still has it, has come again.
insert or replace into plans (plan_key, hash, namespace, name, version, uses, document, resources_json, metadata_json)
values (?1, ?2, ?3, ?4, ?5, (select count(*) from executions where plan_key = ?1), ?6, ?7, ?8)

-- name: complete_plan
-- The metadata of a document that an earlier version has stored, now that it has come again.
update plans set metadata_json = ?2 where plan_key = ?1 and metadata_json is null

-- name: count_plan_uses
-- Executions of a document that came or went with this commit.
update plans set uses = uses + ?2 where plan_key = ?1

-- name: delete_unused_plan
-- A document nobody refers to any more.
delete from plans where plan_key = ? and uses <= 0

-- name: insert_execution
-- A newly accepted execution.
insert into executions (
    execution_key, execution_id, request_digest, plan_key, status, accepted_ms, finished_ms, wake_at_ms, parked,
    last_sequence, acknowledged_sequence, given_up_events, metadata, error_json, output_json, format, checksum, silent,
    trace
) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)

-- name: insert_label
-- What its caller calls it.
insert into labels (name, value, accepted_ms, execution_id, execution_key) values (?, ?, ?, ?, ?)

-- name: set_parent
-- Of one that another execution has started.
update executions set parent_id = ?2, parent_effect = ?3, depth = ?4, awaited = ?5 where execution_key = ?1

-- name: select_parent
-- Who has started an execution.
select parent_id, parent_effect, depth, awaited = 2 from executions where execution_key = ? and parent_id <> ''

-- name: release_child
-- Nobody waits for it any more.
update executions set awaited = 0 where execution_id = ? and awaited > 0

-- name: release_children
-- Of an execution that ends without its walk.
update executions set awaited = 0 where parent_id = ? and awaited > 0

-- name: put_order
-- What an execution is to do because its parent did it; nothing for one that has ended, or never came to be.
insert into orders (execution_key, number, command)
select execution_key, ?2, ?3 from executions where execution_id = ?1 and finished_ms = 0
on conflict (execution_key) do update set number = excluded.number, command = excluded.command

-- name: put_orders_to_all
-- The same for all that an execution waits for.
insert into orders (execution_key, number, command)
select execution_key, ?2, ?3 from executions where parent_id = ?1 and awaited > 0 and finished_ms = 0
on conflict (execution_key) do update set number = excluded.number, command = excluded.command

-- name: delete_order
-- It has been done.
delete from orders where execution_key = ? and number <= ?

-- name: delete_orders
-- The execution has ended.
delete from orders where execution_key = ?

-- name: select_order_number
-- The highest there is; 0 if there are none.
select coalesce(max(number), 0) from orders

-- name: select_orders
-- All that are to be done: whose parent, by whom, with what number.
select x.parent_id, x.execution_id, o.number, o.command
from orders as o cross join executions as x on x.execution_key = o.execution_key

-- name: select_env
-- The variables of an unfinished execution.
select env_json from requests where execution_key = ?

-- name: update_execution
-- An execution that went on.
update executions
set status = ?2, finished_ms = ?3, wake_at_ms = ?4, parked = ?5, last_sequence = ?6,
    acknowledged_sequence = max(acknowledged_sequence, iif(silent, ?6, ?7)),
    given_up_events = given_up_events + max(0, iif(silent, ?6, ?7) - acknowledged_sequence), error_json = ?8, output_json = ?9, format = ?10,
    checksum = ?11
where execution_key = ?1

-- name: insert_request
-- What a restart needs.
insert into requests (execution_key, input_json, env_json, debug, client, format, checksum)
values (?, ?, ?, ?, ?, ?, ?)

-- name: delete_request
-- The execution has finished, or its retention has ended.
delete from requests where execution_key = ?

-- name: put_snapshot
-- The latest state replaces the one before.
insert into snapshots (execution_key, snapshot) values (?, ?)
on conflict (execution_key) do update set snapshot = excluded.snapshot

-- name: delete_snapshot
-- The execution has finished, or its retention has ended.
delete from snapshots where execution_key = ?

-- name: has_claims
-- Whether anything is stored under its hash.
select exists (select 1 from claims)

-- name: insert_large_value
-- One that is there already is not written again, unless it is damaged.
insert into large_values (hash, value) values (?, ?)
on conflict (hash) do update set value = excluded.value where value <> excluded.value

-- name: insert_claim
-- An execution needs a large value.
insert into claims (execution_key, hash) values (?, ?) on conflict do nothing

-- name: delete_claim
-- It does not any more.
delete from claims where execution_key = ? and hash = ?

-- name: delete_unclaimed_value
-- Nobody needs it any more.
delete from large_values where hash = ?1 and not exists (select 1 from claims where hash = ?1)

-- name: release_claims
-- The execution has finished, or its retention has ended.
delete from claims where execution_key = ? returning hash

-- name: select_large_value
-- A value by its hash.
select value from large_values where hash = ?

-- name: insert_events
-- The events of one execution in one commit.
insert into events (event_key, execution_key, first_sequence, last_sequence, messages, format, checksum)
values (?, ?, ?, ?, ?, ?, ?)

-- name: acknowledge
-- The receiver has everything up to one sequence number, and what follows up to another was given up.
update executions
set acknowledged_sequence = min(max(acknowledged_sequence, ?2, ?3), last_sequence),
    given_up_events = min(max(acknowledged_sequence, ?2, ?3), last_sequence)
        - max(acknowledged_sequence - given_up_events, min(?2, last_sequence))
where execution_id = ?1 and (acknowledged_sequence - given_up_events < ?2 or acknowledged_sequence < ?3)

-- name: note_deleted_events
-- What whoever reads the feed has missed if it has not read so far.
update feed
set deleted_key = max(deleted_key, coalesce(
    (select max(event_key) from events where execution_key in (select value from json_each(?))), 0
))

-- name: delete_events
-- Retention has ended.
delete from events where execution_key = ?

-- name: delete_labels
-- Retention has ended.
delete from labels where execution_key = ?

-- name: delete_execution
-- Retention has ended.
delete from executions where execution_key = ?

-- name: select_keys
-- Where to continue numbering.
select
    (select coalesce(max(execution_key), 0) from executions),
    (select coalesce(max(plan_key), 0) from plans),
    (select max(deleted_key, coalesce((select max(event_key) from events), 0)) from feed)

-- name: count_unfinished
-- Against the bound on unfinished executions.
select count(*) from executions where finished_ms = 0

-- name: count_running
-- Those of them that do not only wait.
select count(*) from executions where finished_ms = 0 and parked = 0

-- name: count_finished
-- Against retention by count.
select
    (select count(*) from executions where finished_ms > 0 and acknowledged_sequence >= last_sequence)
    + (select count(*) from executions where finished_ms > 0 and acknowledged_sequence < last_sequence)

-- name: select_acceptance
-- Whether an id is taken, and by which request.
select execution_key, request_digest, status from executions where execution_id = ?

-- name: select_execution
-- One execution as queries show it, with what proves it. A document that is gone or damaged hides no execution.
select
    x.execution_id, x.status, coalesce(cast(p.namespace as text), ''), coalesce(cast(p.name as text), ''),
    coalesce(cast(p.version as text), ''), x.accepted_ms, x.finished_ms, x.last_sequence,
    x.acknowledged_sequence - x.given_up_events, x.given_up_events, x.output_json,
    x.error_json, x.metadata,
    coalesce((
        select json_group_object(l.name, l.value order by l.name) from labels as l where l.execution_key = x.execution_key
    ), '{}'),
    coalesce(cast(p.metadata_json as text), ''), x.parent_id, x.execution_key, x.format, x.checksum
from executions as x left join plans as p using (plan_key)
where x.execution_id = ?

-- name: select_plan_key_of
-- Which document an execution executes.
select plan_key from executions where execution_id = ?

-- name: begin_reading
-- Everything read until `rollback` is one state of the file.
begin

-- name: select_plans_by_name
-- Documents of a name; beyond so many they are no short cut.
select plan_key from plans where name = :name and (:namespace = '' or namespace = :namespace) and (:version = '' or version = :version)
limit :count_max

-- name: select_plans_by_namespace
-- The same of a namespace.
select plan_key from plans where namespace = :namespace and (:version = '' or version = :version) limit :count_max

-- name: list_all
-- Where a listing looks, one of these and `list_found` after it: the newest executions, at most so many rows.
with range as not materialized (
    select x.accepted_ms, x.execution_id, x.execution_key, x.plan_key, x.status
    from executions as x indexed by executions_accepted
    where x.accepted_ms >= :accepted_from_ms
        and x.accepted_ms < :accepted_until_ms
        and x.accepted_ms <= :before_ms
        and (x.accepted_ms, x.execution_id) < (:before_ms, :before_id)
    order by x.accepted_ms desc, x.execution_id desc
    limit :rows_max
)

-- name: list_by_status
-- The same of the executions in one state.
with range as not materialized (
    select x.accepted_ms, x.execution_id, x.execution_key, x.plan_key, x.status
    from executions as x indexed by executions_status
    where x.status = :status and x.status <> 'completed'
        and x.accepted_ms >= :accepted_from_ms
        and x.accepted_ms < :accepted_until_ms
        and x.accepted_ms <= :before_ms
        and (x.accepted_ms, x.execution_id) < (:before_ms, :before_id)
    order by x.accepted_ms desc, x.execution_id desc
    limit :rows_max
)

-- name: list_by_plan
-- The same of the executions of one document.
with range as not materialized (
    select x.accepted_ms, x.execution_id, x.execution_key, x.plan_key, x.status
    from executions as x indexed by executions_plan
    where x.plan_key = :plan_key
        and x.accepted_ms >= :accepted_from_ms
        and x.accepted_ms < :accepted_until_ms
        and x.accepted_ms <= :before_ms
        and (x.accepted_ms, x.execution_id) < (:before_ms, :before_id)
    order by x.accepted_ms desc, x.execution_id desc
    limit :rows_max
)

-- name: list_by_parent
-- The same of the executions that one has started.
with range as not materialized (
    select x.accepted_ms, x.execution_id, x.execution_key, x.plan_key, x.status
    from executions as x indexed by executions_parent
    where x.parent_id = :parent_id and x.parent_id <> ''
        and x.accepted_ms >= :accepted_from_ms
        and x.accepted_ms < :accepted_until_ms
        and x.accepted_ms <= :before_ms
        and (x.accepted_ms, x.execution_id) < (:before_ms, :before_id)
    order by x.accepted_ms desc, x.execution_id desc
    limit :rows_max
)

-- name: count_by_status
-- How many executions are in each state but the one that the index leaves out; read off the index alone.
select status, count(*) from executions indexed by executions_status where status <> 'completed' group by status

-- name: count_uses
-- How many executions there are of some documents, in any state.
select coalesce(sum(uses), 0) from plans
where (:name = '' or name = :name)
    and (:namespace = '' or namespace = :namespace)
    and (:version = '' or version = :version)
    and (:namespaces is null or namespace in (select value from json_each(:namespaces)))

-- name: count_by_status_of_some
-- The same as `count_by_status` of the executions of those documents.
select x.status, count(*)
from executions as x indexed by executions_status cross join plans as p on p.plan_key = x.plan_key
where x.status <> 'completed'
    and (:name = '' or p.name = :name)
    and (:namespace = '' or p.namespace = :namespace)
    and (:version = '' or p.version = :version)
    and (:namespaces is null or p.namespace in (select value from json_each(:namespaces)))
group by x.status

-- name: count_by_plan
-- All states of the executions of those documents, where these are fewer.
select x.status, count(*)
from plans as p cross join executions as x indexed by executions_plan on x.plan_key = p.plan_key
where (:name = '' or p.name = :name)
    and (:namespace = '' or p.namespace = :namespace)
    and (:version = '' or p.version = :version)
    and (:namespaces is null or p.namespace in (select value from json_each(:namespaces)))
group by x.status

-- name: count_label
-- How many executions have a label; beyond so many it makes no difference.
select count(*) from (select 1 from labels where name = ? and value = ? limit ?)

-- name: list_by_label
-- The same of the executions that have one label, and perhaps more.
with range as not materialized (
    select l.accepted_ms, l.execution_id, l.execution_key, x.plan_key, x.status
    from labels as l cross join executions as x on x.execution_key = l.execution_key
    where l.name = :label_name and l.value = :label_value
        and l.accepted_ms >= :accepted_from_ms
        and l.accepted_ms < :accepted_until_ms
        and l.accepted_ms <= :before_ms
        and (l.accepted_ms, l.execution_id) < (:before_ms, :before_id)
    order by l.accepted_ms desc, l.execution_id desc
    limit :rows_max
)

-- name: list_found
-- Of those, the executions that are asked for, at most so many; and where the last row is if the rows were not enough. One JSON
-- text each: one step of the database is one hand-over of the interpreter lock.
found as materialized (
    select x.accepted_ms, x.execution_id, x.execution_key
    from range as x left join plans as p using (plan_key)
    where (:statuses = '[]' or x.status in (select value from json_each(:statuses)))
        and (:name = '' or p.name = :name)
        and (:namespace = '' or p.namespace = :namespace)
        and (:version = '' or p.version = :version)
        and (:namespaces is null or p.namespace in (select value from json_each(:namespaces)))
        and not exists (
            select 1 from json_each(:labels) as j
            where not exists (
                select 1 from labels as l
                where l.name = j.value ->> 0 and l.value = j.value ->> 1
                    and l.accepted_ms = x.accepted_ms and l.execution_id = x.execution_id
            )
        )
    limit :count_max
)
select
    (select json_group_array(json_array(accepted_ms, cast(execution_id as text), execution_key)) from found),
    case when (select count(*) from found) < :count_max then (
        select json_array(accepted_ms, cast(execution_id as text)) from range limit 1 offset :rows_max - 1
    ) end

-- name: list_views
-- Executions as lists show them, in the order of the keys given, as one JSON text. A row that is damaged, with values of other
-- types, must not hide the others. An error that is sealed is a text.
select json_group_array(json_array(
    coalesce(cast(x.execution_id as text), ''), coalesce(cast(x.status as text), ''),
    coalesce(cast(p.namespace as text), ''), coalesce(cast(p.name as text), ''), coalesce(cast(p.version as text), ''),
    coalesce(cast(x.accepted_ms as integer), 0), coalesce(cast(x.finished_ms as integer), 0),
    coalesce(cast(x.last_sequence as integer), 0),
    coalesce(cast(x.acknowledged_sequence - x.given_up_events as integer), 0),
    coalesce(cast(x.given_up_events as integer), 0),
    iif(json_valid(x.error_json), json(x.error_json), cast(x.error_json as text)), hex(x.metadata),
    json((
        select json_group_object(l.name, l.value order by l.name) from labels as l where l.execution_key = x.execution_key
    )),
    iif(octet_length(p.metadata_json) <= :metadata_size_bytes_max, cast(p.metadata_json as text), ''),
    cast(x.parent_id as text)
) order by k.key)
from json_each(:keys) as k
cross join executions as x on x.execution_key = k.value
left join plans as p using (plan_key)

-- name: select_progress
-- How far an execution's durable events go.
select execution_key, last_sequence, finished_ms from executions where execution_id = ?

-- name: select_events
-- Rows of one execution that reach a sequence number, in order.
select first_sequence, last_sequence, messages, format, checksum from events
where execution_key = ?1
    and first_sequence >= (
        select coalesce(max(first_sequence), 0) from events where execution_key = ?1 and first_sequence <= ?2
    )
    and last_sequence >= ?2
order by first_sequence

-- name: select_unacknowledged
-- A page of the outbox, strictly after (execution_id, first_sequence).
select
    x.acknowledged_sequence, x.execution_id, x.execution_key, e.first_sequence, e.last_sequence, e.messages, e.format,
    e.checksum
from executions as x indexed by executions_unacknowledged
cross join events as e
where x.acknowledged_sequence < x.last_sequence
    and x.execution_id >= ?1
    and e.execution_key = x.execution_key
    and e.first_sequence > iif(x.execution_id = ?1, ?2, 0)
    and e.last_sequence > x.acknowledged_sequence
order by x.execution_id, e.first_sequence
limit ?3

-- name: select_undelivered_ids
-- Executions with unacknowledged events, when a page of them cannot be read at once: (id, key, sequences).
select execution_id, execution_key, acknowledged_sequence, last_sequence
from executions indexed by executions_unacknowledged
where acknowledged_sequence < last_sequence and execution_id >= ?1
order by execution_id
limit ?2

-- name: select_feed_bounds
-- The highest number of a row of events that is gone, and of any.
select deleted_key, max(deleted_key, coalesce((select max(event_key) from events), 0)) from feed

-- name: select_feed
-- What was committed after a row of events, in the order of the commits.
select
    e.event_key, e.execution_key, x.execution_id, p.namespace, p.name, p.version,
    e.first_sequence, e.last_sequence, e.messages, e.format, e.checksum
from events as e cross join executions as x using (execution_key) cross join plans as p using (plan_key)
where e.event_key > ?
order by e.event_key
limit ?

-- name: select_next_events
-- Where the row after a damaged one begins.
select min(first_sequence) from events where execution_key = ? and first_sequence > ?

-- name: select_event_facts
-- What a stand-in for damaged events of an execution says.
select
    x.execution_id, x.status, x.accepted_ms, x.finished_ms, x.last_sequence, coalesce(cast(p.name as text), ''),
    x.error_json
from executions as x left join plans as p using (plan_key)
where x.execution_key = ?

-- name: select_unfinished_head
-- One of them without its request and snapshot, which cannot be read.
select
    execution_key, execution_id, request_digest, accepted_ms, plan_key, last_sequence, silent, parked,
    status = 'paused' and error_json is not null
from executions where execution_key = ? and finished_ms = 0

-- name: select_standing
-- Whether an unfinished execution is where it was.
select execution_id, accepted_ms, last_sequence from executions where execution_key = ? and finished_ms = 0

-- name: select_unfinished
-- An execution to restore; one without its request or snapshot is not forgotten.
select
    x.execution_key, x.execution_id, x.request_digest, x.accepted_ms, x.plan_key, x.last_sequence, x.silent, x.parked,
    x.status = 'paused' and x.error_json is not null, r.input_json, r.env_json, r.debug, r.client, s.snapshot, r.format,
    r.checksum, x.trace
from executions as x
left join requests as r using (execution_key)
left join snapshots as s using (execution_key)
where x.execution_key = ? and x.finished_ms = 0

-- name: select_running
-- What recovery goes through, in the order of acceptance.
select execution_key from executions indexed by executions_running
where finished_ms = 0 and parked = 0 and execution_key > ?1 and execution_key <= ?2
order by execution_key
limit ?3

-- name: select_deadlines
-- The next deadlines, strictly after (wake_at_ms, execution_key).
select wake_at_ms, execution_key, execution_id from executions indexed by executions_unfinished
where finished_ms = 0 and (wake_at_ms, execution_key) > (?1, ?2) and wake_at_ms <= ?3
order by wake_at_ms, execution_key
limit ?4

-- name: select_ids
-- Every id the shard holds, from the index alone.
select execution_id from executions indexed by sqlite_autoindex_executions_1

-- name: select_deletable
-- Finished executions whose retention time is over, oldest first.
select execution_key, plan_key, execution_id, 0 from executions indexed by executions_deletable
where finished_ms > 0 and acknowledged_sequence >= last_sequence and awaited = 0 and finished_ms < ?1
order by finished_ms
limit ?2

-- name: select_ended
-- An execution that somebody wants deleted: how far its events go and have been sent, and when it ended.
select execution_key, plan_key, last_sequence, acknowledged_sequence, finished_ms, awaited
from executions where execution_id = ?

-- name: select_undeliverable
-- Finished executions whose events no receiver took in time, oldest first, with the number of events lost.
select execution_key, plan_key, execution_id, last_sequence - acknowledged_sequence
from executions indexed by executions_undelivered
where finished_ms > 0 and acknowledged_sequence < last_sequence and awaited = 0 and finished_ms < ?1
order by finished_ms
limit ?2

-- name: select_unsent
-- Of some executions those with rows of events after one: when they ended, and how many events those rows have.
select x.execution_key, x.finished_ms, sum(e.last_sequence - e.first_sequence + 1)
from json_each(?1) as k cross join executions as x on x.execution_key = k.value
cross join events as e on e.execution_key = x.execution_key
where e.event_key > ?2
group by x.execution_key

-- name: has_listeners
-- Whether anything is stored of what executions wait for, or have taken.
select exists (select 1 from listeners) or exists (select 1 from events_taken)

-- name: put_listener
-- An execution begins to wait for events.
insert into listeners (execution_key, subscription_id, offered_key, is_live, started_sequence, filter, checksum)
values (?, ?, ?, ?, ?, ?, ?)
on conflict (execution_key, subscription_id) do update set filter = excluded.filter, checksum = excluded.checksum

-- name: update_listener
-- How far it has been offered events, and whether it gets them as they come.
update listeners set offered_key = ?3, is_live = ?4 where execution_key = ?1 and subscription_id = ?2

-- name: delete_listener
-- It waits no more.
delete from listeners where execution_key = ? and subscription_id = ?

-- name: delete_listeners
-- The execution has finished.
delete from listeners where execution_key = ?

-- name: put_inbox
-- An event for a listener that is still there.
insert into event_inbox (execution_key, subscription_id, event_key)
select ?1, ?2, ?3 where exists (select 1 from listeners where execution_key = ?1 and subscription_id = ?2)
on conflict do nothing

-- name: put_inbox_event
-- The event itself, if anybody is to have it.
insert into inbox_events (event_key, event, checksum)
select ?1, ?2, ?3 where exists (select 1 from event_inbox where event_key = ?1)
on conflict do nothing

-- name: take_from_inbox
-- It has been taken, or is not wanted any more.
delete from event_inbox where execution_key = ? and subscription_id = ? and event_key = ?

-- name: empty_inbox
-- Of a listener that waits no more.
delete from event_inbox where execution_key = ? and subscription_id = ? returning event_key

-- name: empty_inboxes
-- Of an execution that has finished.
delete from event_inbox where execution_key = ? returning event_key

-- name: delete_inbox_event
-- Nobody is to have it any more.
delete from inbox_events where event_key = ?1 and not exists (select 1 from event_inbox where event_key = ?1)

-- name: put_taken
-- An event that an execution has taken. What two of its listeners take, the first one's counts.
insert into events_taken (execution_key, event_key, at_sequence) values (?, ?, ?) on conflict do nothing

-- name: forget_taken
-- What the events' file does not have any more.
delete from events_taken where execution_key = ? and event_key < ?

-- name: delete_taken
-- The execution has finished.
delete from events_taken where execution_key = ?

-- name: put_position
insert into events_position (only_row, event_key) values (1, ?)
on conflict (only_row) do update set event_key = excluded.event_key

-- name: select_position
select coalesce(max(event_key), 0) from events_position

-- name: select_listeners
-- A page of all listeners. What has a row was offered, also where a crash has cut off the others that it was for.
select
    l.listener_key, l.execution_key, x.execution_id, l.subscription_id,
    (select max(l.offered_key, coalesce(max(i.event_key), 0)) from event_inbox as i
        where i.execution_key = l.execution_key and i.subscription_id = l.subscription_id),
    l.is_live, l.started_sequence,
    l.filter, l.checksum, coalesce(cast(p.namespace as text), ''),
    (select count(*) from event_inbox as i where i.execution_key = l.execution_key and i.subscription_id = l.subscription_id)
from listeners as l
cross join executions as x on x.execution_key = l.execution_key
left join plans as p using (plan_key)
where l.listener_key > ?1 and x.finished_ms = 0
order by l.listener_key
limit ?2

-- name: select_listeners_of
-- Those of one execution.
select
    l.listener_key, l.execution_key, x.execution_id, l.subscription_id,
    (select max(l.offered_key, coalesce(max(i.event_key), 0)) from event_inbox as i
        where i.execution_key = l.execution_key and i.subscription_id = l.subscription_id),
    l.is_live, l.started_sequence,
    l.filter, l.checksum, coalesce(cast(p.namespace as text), ''),
    (select count(*) from event_inbox as i where i.execution_key = l.execution_key and i.subscription_id = l.subscription_id)
from listeners as l
cross join executions as x on x.execution_key = l.execution_key
left join plans as p using (plan_key)
where l.execution_key = ?1 and x.finished_ms = 0

-- name: select_filter
-- What one of them waits for.
select l.filter, l.checksum, x.execution_id
from listeners as l cross join executions as x on x.execution_key = l.execution_key
where l.execution_key = ? and l.subscription_id = ?

-- name: select_inbox
-- What a listener is to have next, after a key, in order.
select i.event_key, e.event, e.checksum
from event_inbox as i left join inbox_events as e using (event_key)
where i.execution_key = ?1 and i.subscription_id = ?2 and i.event_key > ?3
order by i.event_key
limit ?4

-- name: select_taken
-- When an execution has taken an event.
select at_sequence from events_taken where execution_key = ? and event_key = ?

-- name: select_may_take
-- Whether an execution could take an event: it has not ended, and is not paused.
select execution_id from executions where execution_key = ? and finished_ms = 0 and status <> 'paused'

-- name: count_inbox
-- What waits to be taken.
select count(*) from event_inbox

-- name: select_trace
-- What is traced of an execution.
select trace from executions where execution_id = ?

-- name: has_spans
-- Whether any wait for the collector.
select exists (select 1 from spans)

-- name: select_span_keys
-- The executions of which any wait for the collector.
select distinct execution_key from spans

-- name: put_span
-- One that has ended. The same one again, after a crash, takes its place.
insert into spans (execution_key, span_id, span) values (?, ?, ?)
on conflict (execution_key, span_id) do update set span = excluded.span

-- name: delete_span
-- The collector has it, or it is given up.
delete from spans where execution_key = ? and span_id = ?

-- name: delete_spans
-- Retention has ended.
delete from spans where execution_key = ?

-- name: select_spans
-- What a process before this one has left.
select execution_key, span_id, span from spans order by execution_key, span_id limit ?

-- name: put_told
-- Whatever an execution's own row tells of its span, up to this row of events, the collector has, or it is given up.
insert into spans_told (only_row, event_key) values (1, ?)
on conflict (only_row) do update set event_key = excluded.event_key

-- name: select_untold
-- What a process before this one has left of sampled executions that were accepted and completed in one commit: (key, id,
-- trace, end, namespace, name, version), in the order of the commits.
select x.execution_key, x.execution_id, x.trace, x.finished_ms, p.namespace, p.name, p.version
from events as e cross join executions as x using (execution_key) cross join plans as p using (plan_key)
where
    e.event_key > max(?1, (select coalesce(max(event_key), 0) from spans_told)) and e.first_sequence = 1
    and e.last_sequence = x.last_sequence and x.status = 'completed' and substr(x.trace, 53, 3) = '-01'
order by e.event_key limit ?2
