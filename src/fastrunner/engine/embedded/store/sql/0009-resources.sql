-- One shard, schema version 9: documents with the texts from elsewhere that they were compiled with.
begin immediate;

-- A JSON object of texts by the names that the document has for them; null for one that needs none. `hash` is then over all
-- of them (see pinned.py).
alter table plans add column resources_json text;

pragma user_version = 9;

commit;
