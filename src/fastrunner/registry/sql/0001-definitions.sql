-- The registry, schema version 1 (kept in user_version).
begin immediate;

-- Definitions of workflows. `rank` sorts versions in the order of SemVer (see versions.py), `hash` is the SHA-256 of the
-- document. The document comes last, so that listings need not read it.
create table if not exists definitions (
    namespace text not null,
    name text not null,
    version text not null,
    rank blob not null,
    registered_ms integer not null,
    hash blob not null,
    document text not null,
    primary key (namespace, name, version)
) strict;

-- Listings, and which version is the latest.
create index if not exists definitions_latest on definitions (namespace, name, rank desc, version desc);

pragma user_version = 1;

commit;
