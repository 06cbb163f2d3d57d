-- Named statements of the lifecycle sinks' file: `-- name:` starts one, lines of comment under it say what it is for.

-- name: begin
-- A sink that is new to a shard begins there.
insert into positions (sink, shard, event_key) values (?, ?, ?) on conflict do nothing

-- name: position
-- How far a sink has come.
select event_key from positions where sink = ? and shard = ?

-- name: advance
-- It has come so far.
update positions set event_key = ?3 where sink = ?1 and shard = ?2
