-- Settings of a connection that only reads a shard.
pragma query_only = on;
-- KiB, negated: keyed reads touch few pages.
pragma cache_size = -8192;
