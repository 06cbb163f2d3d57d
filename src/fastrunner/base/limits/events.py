"""Stage 3, journal: the bounds of CloudEvents."""

from typing import Final

EVENT_SIZE_BYTES_MAX: Final = 262_144
"""A CloudEvent as JSON text: four times what every CloudEvents intermediary has to forward. Whoever listens for it has
a copy until it has taken it, so what is larger belongs elsewhere, and its address into the event."""

EVENT_ATTRIBUTES_COUNT_MAX: Final = 64
"""Attributes of a CloudEvent: eight are defined, extensions have few; each is a header of a sink's request."""

EVENT_ATTRIBUTE_NAME_SIZE_CHARS_MAX: Final = 64
"""Name of an attribute: CloudEvents asks for at most 20."""

EVENT_ATTRIBUTE_SIZE_BYTES_MAX: Final = 4_096
"""Value of an attribute: it is a header in HTTP, of which most servers take 8 KiB in all; and it is looked up by."""

EVENTS_BATCH_COUNT_MAX: Final = 1_000
"""Events in one SendEvents, or one request of several to the HTTP port: they are published together, or none is."""

EVENTS_PENDING_SIZE_BYTES_MAX: Final = 33_554_432
"""Events of a process that await their commit, as JSON text: many of the largest batches. More are refused."""

EVENTS_COMMIT_COUNT_MAX: Final = 4_000
"""Events that one commit takes: some 40 ms, in which the other processes wait for their turn."""

EVENTS_COMMIT_SIZE_BYTES_MAX: Final = 8_388_608
"""The same in bytes, which a disk takes in some 40 ms."""

EVENTS_JOURNAL_PAGES_MAX: Final = 4_000
"""Pages of the events' journal, 16 MB, from which on the commit that wrote them folds it into the file: as in a
shard."""

SHARED_JOURNAL_PAGES_MAX: Final = 1_000
"""The same of the other files that all workers write, which is what SQLite does by itself."""

EVENTS_RETAINED_COUNT_MAX: Final = 2_000_000
"""Events kept within the retention: half an hour of a thousand a second. Beyond it the oldest leave earlier."""

EVENTS_RETAINED_SIZE_BYTES_MAX: Final = 1_073_741_824
"""The same in bytes of JSON text: what a small disk has room for beside the executions."""

EVENTS_PRUNED_PER_COMMIT_MAX: Final = 4_000
"""Events deleted by one commit: as many as one adds, so that neither holds the other up for long."""

EVENTS_PAGE_SIZE_BYTES_MAX: Final = 1_048_576
"""Events read at once, as JSON text: some milliseconds of the loop."""

EVENTS_LOOK_INTERVAL_S: Final = 1.0
"""How often a process looks for what has outlived the retention, and notes how far its followers have come."""

EVENTS_REQUEST_SIZE_BYTES_MAX: Final = 4_194_304
"""Body of a request with events to the HTTP port: sixteen of the largest events, some ten thousand small ones."""

EVENTS_REQUESTS_SIZE_BYTES_MAX: Final = 67_108_864
"""Bodies of such requests that are read or wait for their commit: what is made of them takes several times as much."""

EVENTS_REQUEST_S_MAX: Final = 30.0
"""How long such a body may take to come: as long as a connection may be idle."""

EVENT_SINKS_SIZE_BYTES_MAX: Final = 1_073_741_824
"""Emitted events kept for sinks that have not taken them, as JSON text. Beyond it the oldest are given up: a sink that
stays away must not fill the disk."""

EVENT_SINK_BATCH_COUNT_MAX: Final = 100
"""Events in one request to a sink in batch mode, and read at once for one in another mode."""

EVENT_SINK_TIMEOUT_S: Final = 30.0
"""How long one request to a sink may take."""

EVENT_SINK_PAUSE_S_MIN: Final = 0.5
"""Pause before a request to a sink is sent again; doubles with each failure."""

EVENT_SINK_PAUSE_S_MAX: Final = 30.0
"""Longest such pause: how late a sink that is back hears from us."""

EVENT_SINK_REFUSALS_MAX: Final = 3
"""Times a sink says of an event that it is at fault before it is given up for this sink."""

EVENT_SINK_LOOK_INTERVAL_S: Final = 0.2
"""How often whoever sends looks for what other workers have emitted: a read of some microseconds."""
