-- Named statements of files that several processes write: `-- name:` starts one, lines of comment under it say what it is for.

-- name: schema_version
-- 0 for a new file.
pragma user_version

-- name: journal
-- Readers and one writer, of several processes, do not wait for each other.
pragma journal_mode = wal

-- name: durable
-- A commit has reached the disk when it returns.
pragma synchronous = full

-- name: begin
-- Nobody else writes from here on, whatever program it is.
begin immediate

-- name: commit
commit

-- name: rollback
rollback
