-- Named statements of the Stigmer Service's store: `-- name:` starts one, lines of comment under it say what it is for.

-- name: savepoint
-- One of several writes of a commit begins.
savepoint one

-- name: release
release one

-- name: undo
-- It was refused; the others go on.
rollback to one

-- name: begin_reading
-- What is read until the end is one state of the file.
begin

-- name: end_reading
commit

-- name: insert_events
-- Those that are there stay as they are.
insert into events (execution_id, sequence, message) values {rows} on conflict do nothing

-- name: insert_events_row
(?, ?, ?)

-- name: select_event
select message from events where execution_id = ? and sequence = ?

-- name: insert_violation
insert into violations (execution_id, sequence, kind, seen_ms, times) values (?, ?, ?, ?, 1)
on conflict do update set times = times + 1

-- name: select_standings
-- What is folded so far of executions in a JSON array of ids.
select id, namespace, name, version, status, last_sequence, stored_sequence, gap_since_ms, started_ms, updated_ms, ended_ms,
    message, error_json, output_json
from executions where id in (select value from json_each(?))

-- name: insert_reported
-- An execution that the service has not started itself.
insert into executions (id, namespace, name, version, labels_json, created_ms, launch, asked_hash, request, status)
values (?, '', ?, '', '{}', ?, 'reported', x'', x'', 'pending')

-- name: update_standing
-- Only forward: of two who fold, the one who has come less far changes nothing.
update executions set status = :status, last_sequence = :last_sequence, stored_sequence = max(stored_sequence, :stored_sequence),
    gap_since_ms = :gap_since_ms, started_ms = :started_ms, updated_ms = :updated_ms, ended_ms = :ended_ms,
    expires_ms = :expires_ms, message = :message, error_json = :error_json, output_json = :output_json
where id = :id and last_sequence < :last_sequence

-- name: update_gap
-- Events have come, none of which follows what is folded.
update executions set stored_sequence = max(stored_sequence, ?2), gap_since_ms = ?3 where id = ?1

-- name: select_following
-- Events after a number, in their order.
select sequence, message from events where execution_id = ? and sequence > ? order by sequence

-- name: move_counter
insert into counters (namespace, name, version, status, executions) values (?, ?, ?, ?, ?)
on conflict do update set executions = executions + excluded.executions

-- name: insert_started
insert into executions (id, namespace, name, version, labels_json, created_ms, launch, asked_hash, request, status, updated_ms)
values (:id, :namespace, :name, :version, :labels_json, :created_ms, 'recorded', :asked_hash, :request, 'pending', :created_ms)

-- name: select_asked
select asked_hash, launch from executions where id = ?

-- name: adopt_reported
-- Its events have come before the record was written anew, as after a restore from a backup.
update executions set namespace = :namespace, name = :name, version = :version, labels_json = :labels_json,
    launch = 'recorded', asked_hash = :asked_hash, request = :request
where id = :id

-- name: select_group
-- What an execution is counted under.
select namespace, name, version, status, last_sequence from executions where id = ?

-- name: set_launched
-- The runner has it. Its request is not needed any more, only the hash, by which a repetition is known.
update executions set launch = 'accepted', request = x'' where id = ? and launch = 'recorded'

-- name: set_refused
-- The runner does not want it: it has failed, unless events of it say otherwise.
update executions set launch = 'refused', request = x'', status = 'failed', message = ?2, error_json = ?3, updated_ms = ?4,
    ended_ms = ?4, expires_ms = ?5
where id = ?1 and launch = 'recorded' and last_sequence = 0

-- name: set_refused_later
-- The same of one with events.
update executions set launch = 'refused', request = x'' where id = ? and launch = 'recorded'

-- name: select_unlaunched
select number, id, request from executions where launch = 'recorded' and number > ? order by number limit ?

-- name: select_silent
-- What the runner should have, and has said nothing of.
select number, id from executions
where status = 'pending' and number > ?2 and launch in ('accepted', 'reported') and stored_sequence = 0 and created_ms < ?1
order by number limit ?3

-- name: set_lost
-- Nobody has it: it has failed, unless events of it say otherwise.
update executions set launch = 'refused', status = 'failed', message = ?2, error_json = ?3, updated_ms = ?4, ended_ms = ?4,
    expires_ms = ?5
where id = ?1 and status = 'pending' and launch in ('accepted', 'reported') and stored_sequence = 0

-- name: execution_columns
number, id, namespace, name, version, labels_json, created_ms, launch, status, last_sequence, stored_sequence, gap_since_ms,
    started_ms, updated_ms, ended_ms, message, error_json, output_json

-- name: select_execution
select {columns} from executions where id = ?

-- name: list_executions
-- A page of all, or of one status, newest first.
select {columns} from executions where number < :before{conditions} order by number desc limit :count_max

-- name: list_groups
-- Groups of which a filter lets some through, those first whose newest ones are newest: a page is of the first of them.
select namespace, name, version, status from (
    select namespace, name, version, status, (
        select max(number) from executions as e
        where e.namespace = c.namespace and e.name = c.name and e.version = c.version and e.status = c.status
            and e.number < :before
    ) as newest
    from counters as c where executions > 0{conditions}
) where newest is not null order by newest desc limit :count_max

-- name: list_group
-- The newest ones of a group.
select number from executions where namespace = ? and name = ? and version = ? and status = ? and number < ?
order by number desc limit ?

-- name: list_numbers
-- Those with numbers of a JSON array.
select {columns} from executions where number in (select value from json_each(?)) order by number desc

-- name: only_status
 and status = :status

-- name: only_namespace
 and namespace = :namespace

-- name: only_name
 and name = :name

-- name: only_version
 and version = :version

-- name: only_within
 and namespace in (select value from json_each(:within))

-- name: count_executions
-- By status; of all that one filter of a list lets through.
select status, sum(executions) from counters where executions <> 0{conditions} group by status

-- name: select_events
-- Events up to the first gap, after a number.
select message from events
where execution_id = ?1 and sequence > ?2 and sequence <= (select last_sequence from executions where id = ?1)
order by sequence limit ?3

-- name: select_progress
select last_sequence, status from executions where id = ?

-- name: oldest_gap
-- Since when the oldest one waits; null if none does.
select min(gap_since_ms) from executions where gap_since_ms > 0

-- name: select_expired
select id, namespace, name, version, status from executions where expires_ms > 0 and expires_ms <= ?1 order by expires_ms limit ?2

-- name: delete_events
delete from events where execution_id = ?

-- name: delete_violations
delete from violations where execution_id = ?

-- name: delete_execution
delete from executions where id = ?

-- name: select_workflow
select version, created_ms, hash, document,
    version = (select version from workflows where namespace = ?1 and name = ?2 order by rank desc, version desc limit 1)
from workflows where namespace = ?1 and name = ?2 and version = ?3

-- name: select_latest_workflow
select version, created_ms, hash, document, 1 from workflows
where namespace = ?1 and name = ?2 order by rank desc, version desc limit 1

-- name: select_workflow_hash
select hash from workflows where namespace = ? and name = ? and version = ?

-- name: insert_workflow
insert into workflows (namespace, name, version, rank, created_ms, hash, document) values (?, ?, ?, ?, ?, ?, ?)

-- name: list_workflows
-- A page, strictly after (namespace, name, rank, version).
select w.namespace, w.name, w.version, w.created_ms,
    w.version = (
        select version from workflows where namespace = w.namespace and name = w.name order by rank desc, version desc limit 1
    )
from workflows as w
where (:namespace = '' or w.namespace = :namespace)
    and (:name = '' or w.name = :name)
    and (:within is null or w.namespace in (select value from json_each(:within)))
    and (w.namespace, w.name) >= (:after_namespace, :after_name)
    and ((w.namespace, w.name) > (:after_namespace, :after_name) or (w.rank, w.version) < (:after_rank, :after_version))
order by w.namespace, w.name, w.rank desc, w.version desc
limit :count_max

-- name: inspect_execution
-- The next one after a number.
select {columns} from executions where number > ? order by number limit 1

-- name: inspect_counters
-- Groups whose counter is not what there is, with both.
select namespace, name, version, status, sum(counted), sum(there) from (
    select namespace, name, version, status, executions as counted, 0 as there from counters
    union all
    select namespace, name, version, status, 0, count(*) from executions group by namespace, name, version, status
) group by namespace, name, version, status having sum(counted) <> sum(there)

-- name: inspect_violations
select execution_id, sequence, kind, times from violations order by execution_id, sequence, kind

-- name: inspect_strays
-- Events of executions that are not there.
select execution_id, count(*) from events where execution_id not in (select id from executions) group by execution_id
