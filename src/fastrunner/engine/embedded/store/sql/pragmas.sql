-- Settings of a connection that writes a shard; page_size counts only for a new file.
-- A commit writes every page it touches into the journal, whole: small pages cost a busy shard a tenth less per execution.
pragma page_size = 4096;
-- Readers see the last commit while the next one is written.
pragma journal_mode = wal;
-- COMMIT returns after fsync: an acknowledged execution survives a power cut.
pragma synchronous = full;
-- What is deleted is overwritten where the page is written anyway. Some builds of SQLite overwrite it everywhere by default,
-- so that a large value would be written once more when it goes.
pragma secure_delete = fast;
-- Few pages, which stay near the processor: most of what is written is new, and with 64 MiB of them every new page was memory
-- that had not been touched for long, a twentieth of what an execution costs (KiB, negated).
pragma cache_size = -4096;
-- Rows of a whole commit stay in memory until COMMIT, however many pages they take, so that inserting never waits for the disk.
pragma cache_spill = off;
