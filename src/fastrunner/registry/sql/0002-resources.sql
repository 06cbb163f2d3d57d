-- The registry, schema version 2: documents with the texts from elsewhere that they were registered with.
begin immediate;

-- A JSON object of texts by the names that the document has for them (see engine/pinned.py), and its SHA-256; empty and null
-- for a document that needs none.
alter table definitions add column resources_json text not null default '';
alter table definitions add column resources_hash blob;
-- Whether a text is registered, whatever it is called.
create index definitions_hash on definitions (hash);

pragma user_version = 2;

commit;
