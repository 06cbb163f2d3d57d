"""Stage 5, tasks: the bounds of effects."""

from typing import Final

EFFECTS_IN_FLIGHT_PER_WORKER_MAX: Final = 2_000
"""Effects a worker performs at once; more wait in order. Each holds a socket."""

HTTP_RESPONSE_SIZE_BYTES_MAX: Final = 8_388_608
"""Body of a response a call may return into the workflow."""

HTTP_REDIRECTS_MAX: Final = 10
"""Redirects followed for one call: the number browsers and curl's documentation settle on."""

HTTP_RETRY_AFTER_S_MAX: Final = 86_400.0
"""What a `Retry-After` may ask for: services are under maintenance for hours; who says more is not believed."""

HTTP_CONNECTIONS_PER_HOST_MAX: Final = 100
"""Pooled connections per host and worker."""

HTTP_RESPONSE_DEPTH_MAX: Final = 128
"""Nesting of a JSON response: what a document may have; deeper data could not be written into a snapshot."""

HTTP_RESPONSE_CONTAINERS_MAX: Final = 500_000
"""Arrays and objects of a JSON response, one for each 16 bytes of the largest: they take up to 232 bytes each, and the
search for cyclic garbage holds everybody up for each of them."""

HTTP_CONNECT_TIMEOUT_S_MAX: Final = 30.0
"""Time to reach a host: one that drops packets must not hold a call for as long as a slow answer may take."""

HTTP_RESPONSE_SMALL_SIZE_BYTES: Final = 65_536
"""What each response may read without counting against the room for all, and be converted out of turn: small ones wait
for nobody."""

HTTP_RESPONSES_SIZE_BYTES_MAX: Final = 67_108_864
"""Bodies a worker reads at a time, beyond what is small of each: eight of the largest. Further ones are read later."""

HTTP_HEADERS_SIZE_BYTES_MAX: Final = 65_536
"""URI and headers of a request, headers of a response: several times what servers and clients in use accept."""

HTTP_HEADERS_COUNT_MAX: Final = 512
"""Headers of a response: several times what any server sends."""

HTTP_CODINGS_COUNT_MAX: Final = 3
"""Content codings of one body, each undone in turn: servers use one, proxies add another."""

HTTP_CODING_MEMBERS_MAX: Final = 1_000
"""Parts of one gzip body: log files have some, and each costs a new decompressor, even for nothing in it."""

HTTP_SLICE_MS: Final = 2
"""Time that reading and converting a body takes from the loop before others have it: that of an engine's pass."""

RUN_OUTPUT_SIZE_BYTES_MAX: Final = 4_194_304
"""What a process may write to each of stdout and stderr: half of what a response may have, because there are two.
Beyond it the process is killed."""

RUN_STDERR_SHOWN_SIZE_CHARS_MAX: Final = 1_000
"""The end of stderr in the error of a process that failed: enough for an exception's last lines."""

RUN_STDERR_SEARCHED_SIZE_BYTES_MAX: Final = 65_536
"""Of that end, what is searched for secrets before it is cut: far more than is shown, so that none is cut in two."""

RUN_GRACE_S: Final = 2.0
"""Between asking a process to end and killing it: time to remove a lock file, not to finish."""

RUN_PROCESSES_PER_WORKER_MAX: Final = 16
"""Processes a worker runs at once; more wait in order. Each has an interpreter's memory and two streams to hold."""

RUN_DESCRIPTORS_MAX: Final = 1_024
"""Descriptors of a process: the usual limit, where the runner has taken all it can have."""

RUN_CLOSE_S_MAX: Final = 10.0
"""How long a stopping worker waits for the processes it has killed."""

RUN_COMMAND_S_MAX: Final = 60.0
"""Longest a command that tidies up after a container may take."""

CONTAINER_NAME_PART_SIZE_CHARS: Final = 50
"""What the names of workflow, namespace and task each give to a container's: it goes into names of files."""

CONTAINER_NAME_SIZE_CHARS_MAX: Final = 200
"""Longest name a document may give a container: engines make names of files of it, which end at 255."""

CONTAINER_VARIABLE_SIZE_BYTES_MAX: Final = 60_000
"""A container's variable with its name: engines read files of variables by lines of 64 KiB."""

CONTAINER_REMOVALS_MAX: Final = 3
"""Attempts to remove a container, seconds apart; after that it is left to the next start of the runner."""

CONTAINER_LOOK_INTERVAL_S: Final = 0.2
"""Between looks at whether a container runs that nobody awaits: each is a process."""

ASYNCAPI_MESSAGE_SIZE_BYTES_MAX: Final = 2_097_152
"""A message that is published or received: twice what Kafka and NATS take unless they are told otherwise."""

ASYNCAPI_MESSAGES_AHEAD_MAX: Final = 32
"""Messages that a subscription has received and not given yet, where the protocol lets the reader say how many: brokers
send in batches, and each message may be of the largest."""

ASYNCAPI_MESSAGES_WAITING_SIZE_BYTES_MAX: Final = 16_777_216
"""Messages of one subscription that wait for the workflow, of protocols which cannot hold back: eight of the largest.
Beyond it one would be lost, which ends the subscription."""

ASYNCAPI_RECONNECT_S_MAX: Final = 60.0
"""How long a broker may be away before the subscriptions to it fail: as long as a restart of one takes."""

ASYNCAPI_RECONNECT_INTERVAL_S: Final = 1.0
"""Between attempts to reach a broker that is away."""

ASYNCAPI_CLOSE_S_MAX: Final = 2.0
"""How long saying goodbye to a broker may take; after that the connection is cut."""

ASYNCAPI_ACK_WAIT_S: Final = 30.0
"""When a broker gives a message to somebody else that was not acknowledged, where it is told so: what a killed runner
had comes again after it. Three times in it a subscription says that it is still there."""

ASYNCAPI_CONSUMER_KEPT_S: Final = 604_800
"""How long a broker keeps what it has for a consumer that is away, where it is told so: a week, as Kafka does."""

ASYNCAPI_MESSAGES_PER_EFFECT_MAX: Final = 100
"""Messages that one effect brings: each waits in the snapshot until it is done with."""

ASYNCAPI_LINGER_S: Final = 0.005
"""What further messages are waited for once there is one: those that a broker sends together come within it."""

ASYNCAPI_IDLE_S: Final = 300.0
"""A subscription that nobody asks for messages is closed: what its task does with one takes less, or holds what others
could have. Kafka's own bound for the same."""

ASYNCAPI_SUBSCRIPTIONS_IDLE_MAX: Final = 500
"""Open subscriptions of a worker that no effect has; each holds a socket. The longest idle is closed."""

ASYNCAPI_SUBSCRIPTION_CLOSE_S_MAX: Final = 5.0
"""Time for subscriptions that are closed to say so: a server that hangs must not hold a stopping worker, or the next
one of the same consumer."""

ASYNCAPI_CLAIM_S: Final = 600.0
"""Entries of a Redis stream that a consumer has left for so long are taken over by the next one: longer than any idle
subscription is kept."""

ASYNCAPI_HEARTBEAT_S: Final = 30.0
"""Between pings of a WebSocket: half of what proxies leave an idle connection."""

ASYNCAPI_POLL_INTERVAL_S: Final = 1.0
"""Between requests of a poll that was answered without a message: a server that does not wait is not asked at once."""

ASYNCAPI_REFERENCES_MAX: Final = 32
"""References that one value leads over: documents have one or two, and a circle has no end."""

ASYNCAPI_DOCUMENTS_KEPT_MAX: Final = 32
"""Documents that a worker keeps as they were read: reading one takes milliseconds."""
