"""Support: the copy of a data directory on another machine: what is committed goes there, and comes back from there.

journals (`-wal`) -> frames -> parts -> FASTRUNNER_REPLICA_URL -> `fastrunner data restore --from`
"""
