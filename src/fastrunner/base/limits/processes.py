"""Support: the bounds of the process tree: how processes start, are watched and stop, what they share."""

from typing import Final

GARBAGE_THRESHOLDS: Final = (2_000, 20, 50)
"""New objects, young and middle-aged collections before Python looks for cyclic garbage among the young, middle-aged
and all: some 0.3, 5 and 30 ms, the last once in two million objects. Hardly anything here is cyclic."""

START_WAIT_S_MAX: Final = 1.0
"""How long a starting runner waits for ports and locks, which children of a killed predecessor hold until they end."""

PING_INTERVAL_S: Final = 1.0
"""Between the supervisor's questions whether a child's loop still turns."""

PING_TIMEOUT_S: Final = 30.0
"""Silence after which a child is killed. Far beyond any slice of work; a busy machine must not look like a hang."""

STOPPED_LOOK_INTERVAL_S: Final = 0.1
"""Between looks at a child that a signal has stopped."""

STOPPED_LOOKS: Final = 4
"""Looks in a row that find it stopped before it is killed: no work looks like that, and the kernel goes on giving it
new connections. Not one: a tree that was stopped as a whole goes on one process after the other."""

BOOT_S_MAX: Final = 600.0
"""How long a child may take to become ready. Recovery of a million executions takes a minute or so."""

BOOT_ATTEMPTS_MAX: Final = 5
"""Crashes in a row before a child was ever ready, after which the tree ends instead of respawning for ever."""

RESPAWN_DELAY_S_MIN: Final = 0.1
"""Before the second crash in a row is answered with a new child; the first is answered at once. Doubles from here."""

RESPAWN_DELAY_S_MAX: Final = 30.0
"""Longest delay between crashes in a row."""

RESPAWN_WEB_DELAY_S_MAX: Final = 0.5
"""Longest delay after a web process that had been ready: probes and scrapes wait meanwhile, and one costs little."""

RESPAWN_STABLE_S: Final = 60.0
"""A child that was ready for so long has not crashed "in a row"."""

DRAIN_MARGIN_S: Final = 5.0
"""What a child gets beyond the drain timeout, for its last commit and its exit, before it is killed."""

DRAIN_WAITING_S_MAX: Final = 1.0
"""How long a stopping worker's calls still wait for an owner's successor: many reconnect intervals, less than the grace
of the calls themselves."""

DRAIN_HAND_OVER_S_MAX: Final = 4.0
"""How long a worker drains whose successor waits: calls for its executions wait meanwhile. Effects that do not end in
time are performed again by the successor."""

DRAIN_CALLS_S_MAX: Final = 5.0
"""How long unary calls may take to finish when a worker stops: they wait for a commit, never for an effect."""

DRAIN_CALLBACKS_S_MAX: Final = 2.0
"""How long a stopping worker delivers what it holds in memory; the outbox keeps the rest for its successor."""

DESCRIPTORS_RESERVED_MAX: Final = 4_096
"""File descriptors of a process that connections from outside do not take, or half of all if those are fewer: effects
in flight, callbacks, shards, links between workers."""

DESCRIPTORS_FREE_MIN: Final = 16
"""With fewer left a worker is not ready: the next file or connection may fail."""

DESCRIPTORS_LOOK_INTERVAL_S: Final = 1.0
"""How often a worker looks whether so many are left: some ten microseconds each."""

SOCKET_PATH_SIZE_BYTES_MAX: Final = 100
"""Path of a Unix socket; Linux takes 107, macOS 103."""

DATA_DIRECTORY_PATH_SIZE_BYTES_MAX: Final = 480
"""Path of the data directory: SQLite takes 512 bytes for a file's, those of its journals included."""

MEMORY_LOOK_INTERVAL_S: Final = 5.0
"""How often a worker looks whether it keeps memory that nobody needs."""

MEMORY_FREE_SIZE_BYTES_MIN: Final = 67_108_864
"""Free memory in the C library's heap from which on it is given back: less is soon needed again."""

LIBRARY_LOG_INTERVAL_S: Final = 60.0
"""How often records of a library from one place of its code are written: whoever provokes them writes no log."""

LIBRARY_LOG_KINDS_MAX: Final = 256
"""Places of libraries' code whose latest record is remembered; all of grpc's, aiohttp's and asyncio's are about a
hundred."""

LIBRARY_LOG_SIZE_CHARS_MAX: Final = 200
"""What is written of a library's text: a sentence."""

FAILURE_SIZE_CHARS_MAX: Final = 500
"""Why a child cannot start, as readiness shows it: those of 256 workers fit into one message to the web process."""

PORT_WATCH_INTERVAL_S: Final = 5.0
"""Between looks at who else listens on the port: as often as somebody who is told of it would act."""

DESCRIPTORS_MIN: Final = 104
"""Open files that any process needs for itself: what it imports, its loop, gRPC, the files of all workers, a few
connections."""

DESCRIPTORS_PER_SHARD: Final = 12
"""Open files of one shard: database, journal and index of two connections, locks, marks, and room for some more."""

DESCRIPTORS_PER_WORKER: Final = 5
"""Open files for each other worker: a link there and one from there, which may be replaced before they are closed; and
what wakes it."""

METRIC_CELLS_MAX: Final = 8192
"""Numbers one process counts into, with 48 bytes of names and labels each; all that are known need about 1,500."""

METRIC_NOTE_SIZE_BYTES_MAX: Final = 32 << 10
"""What one commit counts: at most some 250 numbers, 20 bytes each, and an execution's id."""
