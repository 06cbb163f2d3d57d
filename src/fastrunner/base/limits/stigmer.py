"""Support: the bounds of the Stigmer Service and of the HTTP API."""

from typing import Final

STIGMER_COMMIT_EVENTS_MAX: Final = 10_000
"""Events, and other rows, of one commit of the service's store: some tenths of a second."""

STIGMER_WAITING_EVENTS_MAX: Final = 50_000
"""Events that wait to be kept; beyond it reports are refused with RESOURCE_EXHAUSTED, and the runner sends them
later."""

STIGMER_WAITING_SIZE_BYTES_MAX: Final = 67_108_864
"""The same in bytes: events with outputs are far larger than the usual 200 bytes."""

STIGMER_FOLLOWERS_MAX: Final = 10_000
"""Clients that follow executions at once; each takes a connection, and at most a page of events in memory."""

STIGMER_LAUNCHES_WAITING_MAX: Final = 10_000
"""Executions in memory on their way to the runner; while there are as many, new ones are refused."""

STIGMER_LAUNCH_BATCH_MAX: Final = 100
"""Executions of one call to the runner."""

STIGMER_LAUNCH_BATCH_SIZE_BYTES_MAX: Final = 2_097_152
"""The same in bytes; a single one may be larger."""

STIGMER_LAUNCH_PAUSE_S_MIN: Final = 0.2
"""Pause before the runner is asked again, in seconds; doubles."""

STIGMER_LAUNCH_PAUSE_S_MAX: Final = 5.0
"""Longest such pause: how late a runner that is back hears of what was recorded meanwhile."""

STIGMER_RUNNER_CALL_S_MAX: Final = 10.0
"""Deadline of one call to the runner."""

STIGMER_EXPIRE_BATCH_MAX: Final = 100
"""Executions forgotten in one commit, so that nobody else waits long for the store."""

STIGMER_SWEEP_INTERVAL_S: Final = 1.0
"""How often what is to be forgotten, and what is missing, is looked for."""

STIGMER_STORE_CALL_S_MAX: Final = 10.0
"""How long a database may take for one call, a commit of events included, before its connection counts as dead."""

STIGMER_STORE_FIND_S_MAX: Final = 3.0
"""How long a database that is not there is looked for, so that whoever reports hears of it and comes again."""

STIGMER_DOCUMENT_EVENT_SIZE_BYTES_MAX: Final = 3_145_728
"""An event on MongoDB: its output is kept with the execution, too, in one document of at most 16 MiB beside the
request."""

STIGMER_DOCUMENT_REQUEST_SIZE_BYTES_MAX: Final = 12_582_912
"""The request of an execution on MongoDB: the rest of such a document."""

STIGMER_MOVES_MAX: Final = 500
"""Executions of one batch that moves counters on MongoDB: the plan of one is a document of some 100 KB."""

STIGMER_COUNTING_INTERVAL_S: Final = 1.0
"""How often it is looked for what another service has left uncounted: how late counts on MongoDB are after a death."""

STIGMER_SETTLE_INTERVAL_S: Final = 1.0
"""How often it is looked for what another service has left half-done."""

STIGMER_SETTLE_AFTER_S: Final = 5.0
"""After how long it is finished: a commit that is only slow costs nobody else anything."""

STIGMER_SETTLE_AGAIN_S: Final = 20.0
"""When it is looked at for the last time: a call of who left it may be under way so long, and its server be slow."""

STIGMER_SETTLED_COMMITS_MAX: Final = 20
"""Commits that are finished at one look, the oldest first."""

STIGMER_SETTLED_AT_ONCE_MAX: Final = 100
"""Executions that are read at once for it: an output may have some MiB."""

STIGMER_INSPECTED_MAX: Final = 100
"""Executions that `verify` reads at once from a database: a scan for each is slow."""

STIGMER_INSPECTED_EVENTS_MAX: Final = 10_000
"""Events of theirs, about: one execution may have more."""

STIGMER_REDIS_CALL_S_MAX: Final = 5.0
"""How long a call to Redis may take before it counts as away."""

STIGMER_REDIS_WAIT_S: Final = 5.0
"""How long one XREAD waits; a connection that is dead without a word is noticed after this and a call."""

STIGMER_REDIS_PAUSE_S: Final = 2.0
"""Pause before Redis is tried again, and how often who follows all executions begins anew while it is away."""

STIGMER_STREAM_LENGTH: Final = 10_000
"""Entries of one of the 64 streams, about: who is further behind looks at the store instead."""

STIGMER_HEARD_MAX: Final = 1_000
"""Entries of each stream read at once."""

STIGMER_UNSAID_MAX: Final = 10_000
"""Executions whose news wait for Redis; beyond it the oldest are left to the others' sweeps."""

STIGMER_FOLLOWED_INTERVAL_S: Final = 2.0
"""How often the store is asked how far followed executions are: how late followers hear while Redis is away."""

STIGMER_FOLLOWED_BATCH_MAX: Final = 1_000
"""Executions of one such question."""

STIGMER_LAUNCH_LOOK_INTERVAL_S: Final = 5.0
"""How often services that share a store look for executions that another one has left unlaunched; those that are there
twice are taken up."""

STIGMER_SILENT_AFTER_S: Final = 60.0
"""How old an execution is of which no event has come before the runner is asked whether it has it."""

STIGMER_SILENT_INTERVAL_S: Final = 30.0
"""How often that is asked; who is not known twice is lost. A runner that starts does not know for some seconds."""

STIGMER_SILENT_BATCH_MAX: Final = 100
"""Executions asked for at a time, one after the other; a runner may be behind with any number."""

STIGMER_WAITING_S_MAX: Final = 0.25
"""How long a request for an execution waits for the runner to say what it waits for; without, it is answered all the
same."""

API_BODY_SIZE_BYTES_MAX: Final = 10_485_760
"""Body of a request of the HTTP API: a document, or an input, of the sizes that the runner takes, and some more."""

API_PAGE_ROWS_MAX: Final = 500
"""Rows of a page; events as well."""

API_PAGE_ROWS_DEFAULT: Final = 50
"""Rows of a page where nothing is asked for."""

API_EVENTS_SIZE_BYTES_MAX: Final = 131_072
"""Bytes of events, as they came, read at once for a page or a follower."""

API_EVENTS_REMEMBERED_MAX: Final = 1_000
"""Events that are there as JSON, too, since many may follow the same execution: some MiB at most."""

API_EVENT_REMEMBERED_SIZE_BYTES_MAX: Final = 4_096
"""Longest of them, as it came; longer ones are made anew for each."""

API_STREAM_STALL_S_MAX: Final = 20.0
"""How long a client that follows may not read what is sent before its connection is cut; it comes again with its
cursor."""

API_STREAM_PING_S: Final = 15.0
"""After how long without an event something is sent all the same: whatever is between keeps quiet connections no
longer than that."""

API_START_WAIT_S_MAX: Final = 5.0
"""How long whoever starts an execution waits for the runner's answer before the service answers without."""

API_FEED_CHANGES_MAX: Final = 20_000
"""Executions whose latest change a process of the service knows for those who follow all: some MiB. A client that was
away while more changed lists executions anew."""

API_FEED_PAGE_MAX: Final = 100
"""Executions that are read and sent at once to who follows all of them."""

API_FEED_PAUSE_S: Final = 0.1
"""How long changes are gathered for who follows all executions: of one that changes a thousand times a second ten are
sent."""

API_FEED_REMEMBERED_MAX: Final = 200
"""Executions that have changed lately and are there as JSON, too, since all who follow all of them are told at about
the same time: two pages."""

API_FEED_REMEMBERED_SIZE_BYTES_MAX: Final = 65_536
"""Longest of them; longer ones are read anew for whoever comes later."""

API_SESSION_S: Final = 3_600.0
"""How long a browser's cookie is good unless it is renewed: whoever leaves a console open comes back to it within that,
and a copy of the cookie is of no use after it."""

API_SESSION_AGE_S_MAX: Final = 43_200.0
"""For how long it can be renewed before the token is to be shown again: a working day."""

API_SESSION_TOKEN_SIZE_CHARS_MAX: Final = 2_900
"""Token in a cookie: browsers keep 4,096 bytes of a cookie, with its name and attributes, and sealing takes a third
more."""

API_SESSIONS_ENDED_MAX: Final = 10_000
"""Sessions that were ended early and are remembered, so that a copy of the cookie is of no use."""

API_SOCKET_MESSAGE_SIZE_BYTES_MAX: Final = 4_096
"""Message that a WebSocket's client may send: none is needed."""

API_SOCKET_CLOSE_S_MAX: Final = 2.0
"""How long the closing handshake of a WebSocket may take."""

API_RUNNER_FOLLOWERS_MAX: Final = 256
"""Clients that follow something at a runner's web process at once: each takes a connection and a stream of a worker,
and half of its connections are for probes, scrapes and requests."""

API_RUNNER_CALL_S_MAX: Final = 20.0
"""How long a worker may take to answer what the web process asks: restarts take less."""
