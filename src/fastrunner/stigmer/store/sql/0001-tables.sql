-- The store of the Stigmer Service, schema version 1 (kept in user_version).
begin immediate;

-- Workflows by version. `rank` sorts versions in the order of SemVer, `hash` is the SHA-256 of the document.
create table if not exists workflows (
    namespace text not null,
    name text not null,
    version text not null,
    rank blob not null,
    created_ms integer not null,
    hash blob not null,
    document text not null,
    primary key (namespace, name, version)
) strict;

-- Listings, and which version is the latest.
create index if not exists workflows_latest on workflows (namespace, name, rank desc, version desc);

-- Executions, in the order in which the service heard of them. `launch` is recorded, accepted or refused for those that the
-- service starts, and reported for others. Times are milliseconds since the epoch, 0 for what has not happened yet. What follows
-- `request` is the fold over the events up to `last_sequence`; `stored_sequence` is beyond it where there is a gap.
create table if not exists executions (
    number integer primary key,
    id text not null unique,
    namespace text not null,
    name text not null,
    version text not null,
    labels_json text not null,
    created_ms integer not null,
    launch text not null,
    asked_hash blob not null,
    request blob not null,
    status text not null,
    last_sequence integer not null default 0,
    stored_sequence integer not null default 0,
    gap_since_ms integer not null default 0,
    started_ms integer not null default 0,
    updated_ms integer not null default 0,
    ended_ms integer not null default 0,
    expires_ms integer not null default 0,
    message text not null default '',
    error_json text not null default '',
    output_json text not null default ''
) strict;

-- The filters of lists, each with its order.
create index if not exists executions_by_status on executions (status, number);
create index if not exists executions_by_namespace on executions (namespace, number);
create index if not exists executions_by_workflow on executions (namespace, name, number);
create index if not exists executions_by_workflow_status on executions (namespace, name, status, number);
-- What is to be started, what is to be deleted, what waits for an event that is missing.
create index if not exists executions_to_launch on executions (number) where launch = 'recorded';
create index if not exists executions_to_expire on executions (expires_ms) where expires_ms > 0;
create index if not exists executions_with_gap on executions (gap_since_ms) where gap_since_ms > 0;

-- Progress events, the bytes as they came.
create table if not exists events (
    execution_id text not null,
    sequence integer not null,
    message blob not null,
    primary key (execution_id, sequence)
) strict, without rowid;

-- What a sender must not do, once for each event, with how often it was seen.
create table if not exists violations (
    execution_id text not null,
    sequence integer not null,
    kind text not null,
    seen_ms integer not null,
    times integer not null,
    primary key (execution_id, sequence, kind)
) strict, without rowid;

-- How many executions there are of each workflow and status: moved in the transaction that moves the execution.
create table if not exists counters (
    namespace text not null,
    name text not null,
    version text not null,
    status text not null,
    executions integer not null,
    primary key (namespace, name, version, status)
) strict, without rowid;

pragma user_version = 1;

commit;
