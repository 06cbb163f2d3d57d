-- Named statements of the registry: `-- name:` starts one, lines of comment under it say what it is for.

-- name: select_definition
-- One version.
select
    d.version, d.registered_ms,
    d.version = (select version from definitions where namespace = ?1 and name = ?2 order by rank desc, version desc limit 1),
    d.hash, d.document, d.resources_hash, d.resources_json
from definitions as d
where d.namespace = ?1 and d.name = ?2 and d.version = ?3

-- name: select_latest
-- The highest one.
select version, registered_ms, 1, hash, document, resources_hash, resources_json from definitions
where namespace = ?1 and name = ?2
order by rank desc, version desc
limit 1

-- name: select_hash
-- Whether a version is registered, and with which text.
select hash, document, resources_hash, resources_json from definitions where namespace = ?1 and name = ?2 and version = ?3

-- name: insert_definition
-- A new version.
insert into definitions (namespace, name, version, rank, registered_ms, hash, document, resources_hash, resources_json)
values (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: select_by_hash
-- Definitions with a text.
select hash, document, resources_hash, resources_json from definitions where hash = ?

-- name: heal_definition
-- A document whose stored copy is damaged has come again.
update definitions set document = ?4, resources_hash = ?5, resources_json = ?6 where namespace = ?1 and name = ?2 and version = ?3

-- name: delete_definition
-- One version.
delete from definitions where namespace = ?1 and name = ?2 and version = ?3

-- name: list_definitions
-- A page, strictly after (namespace, name, rank, version).
select
    d.namespace, d.name, d.version, d.registered_ms,
    d.version = (
        select version from definitions
        where namespace = d.namespace and name = d.name
        order by rank desc, version desc
        limit 1
    )
from definitions as d
where (:namespace = '' or d.namespace = :namespace)
    and (:name = '' or d.name = :name)
    and (:within is null or d.namespace in (select value from json_each(:within)))
    and (d.namespace, d.name) >= (:after_namespace, :after_name)
    and (
        (d.namespace, d.name) > (:after_namespace, :after_name)
        or (d.rank, d.version) < (:after_rank, :after_version)
    )
order by d.namespace, d.name, d.rank desc, d.version desc
limit :count_max

-- name: schema_version
pragma user_version

-- name: begin
-- Everything read after it is one state of the file.
begin

-- name: integrity
-- Up to a hundred sentences, or `ok`.
pragma integrity_check

-- name: count_definitions
select count(*) from definitions

-- name: inspect_definitions
-- Every version with all that proves it.
select namespace, name, version, rank, registered_ms, hash, document, resources_hash, resources_json from definitions
