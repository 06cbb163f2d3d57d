-- One shard, schema version 3: large values are stored once, under their hash, and executions remember their client.
begin immediate;

-- Inputs, outputs and pieces of snapshots by SHA-256, each for as long as a claim names it. `format` 2 of a row of
-- requests or executions says that its input or output is the hash of one of these; see large_values.py for snapshots.
create table large_values (
    hash blob not null primary key,
    value blob not null
) strict;

-- Which execution needs which value.
create table claims (
    execution_key integer not null,
    hash blob not null,
    primary key (execution_key, hash)
) strict, without rowid;
create index claims_hash on claims (hash);

-- Who submitted it, for its turns among others; covered by the row's checksum.
alter table requests add column client text not null default '';

pragma user_version = 3;

commit;
