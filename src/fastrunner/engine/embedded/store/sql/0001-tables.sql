-- One shard, schema version 1 (kept in user_version).
begin immediate;

-- Workflow documents, once each. `uses` counts the executions that refer to one.
create table plans (
    plan_key integer primary key,
    hash blob not null unique,
    namespace text not null,
    name text not null,
    version text not null,
    uses integer not null,
    document text not null
) strict;

-- One row per execution, from acceptance until retention ends. Times are milliseconds since the epoch; finished_ms is 0
-- while it runs, wake_at_ms is 0 without a timer. The output comes last, so that listings need not read it.
create table executions (
    execution_key integer primary key,
    execution_id text not null unique,
    request_digest blob not null,
    plan_key integer not null references plans,
    status text not null,
    accepted_ms integer not null,
    finished_ms integer not null,
    wake_at_ms integer not null,
    last_sequence integer not null,
    acknowledged_sequence integer not null,
    metadata blob not null,
    error_json text,
    output_json text
) strict;

-- Listings, newest first.
create index executions_accepted on executions (accepted_ms);
-- Recovery and admission.
create index executions_unfinished on executions (execution_key) where finished_ms = 0;
-- The outbox, in the order the callback pipeline pages through it (unique, so that a page needs no sorting).
create unique index executions_unacknowledged on executions (execution_id) where acknowledged_sequence < last_sequence;
-- Retention: what may go when its time is over, and what waits for a receiver until the outbox's own bound.
create index executions_deletable on executions (finished_ms)
where finished_ms > 0 and acknowledged_sequence >= last_sequence;
create index executions_undelivered on executions (finished_ms)
where finished_ms > 0 and acknowledged_sequence < last_sequence;

-- What an unfinished execution needs to go on after a restart, besides its snapshot.
create table requests (
    execution_key integer primary key,
    input_json blob not null,
    env_json blob not null,
    debug integer not null
) strict;

-- The state of each unfinished execution as of its last commit.
create table snapshots (
    execution_key integer primary key,
    snapshot blob not null
) strict;

-- Progress events: one row per execution and commit, encoded as the core gave them.
create table events (
    event_key integer primary key,
    execution_key integer not null,
    first_sequence integer not null,
    last_sequence integer not null,
    messages blob not null
) strict;

create unique index events_sequence on events (execution_key, first_sequence);

pragma user_version = 1;

commit;
