"""Stage 1, service: its bounds."""

from typing import Final

INPUT_DEPTH_MAX: Final = 128
"""Nesting of an execution's input: as for documents, and below the 254 levels that orjson writes."""

ENV_VARS_SIZE_BYTES_MAX: Final = 262_144
"""Names and values of an execution's env_vars: twice the longest single variable Linux takes."""

METADATA_SIZE_BYTES_MAX: Final = 16_384
"""An execution's WorkflowMetadata; it is stored with the execution and repeated in every listing."""

WORKFLOW_REF_SIZE_BYTES_MAX: Final = 255
"""Each part of the name of a registered workflow: as an execution's id; DSL names have 63 at most."""

LABELS_COUNT_MAX: Final = 16
"""Labels of an execution: each is a row and two entries of indexes in its first commit."""

LABEL_NAME_SIZE_BYTES_MAX: Final = 63
"""Name of a label: as long as Kubernetes takes."""

LABEL_VALUE_SIZE_BYTES_MAX: Final = 255
"""Value of a label: an id of another system, such as an execution's; it lies in an index, and in every listing."""

REASON_SIZE_BYTES_MAX: Final = 4_096
"""Reason of a cancel, pause or resume: a sentence, carried in an event."""

REPLY_SIZE_BYTES_MAX: Final = 3_145_728
"""Pages of events and of executions end early beyond it: clients refuse replies over 4 MiB by default."""

REPLY_MESSAGE_SIZE_BYTES_MAX: Final = 67_108_864
"""Any one reply: the output of an execution is the only large one, and a client must ask to receive it."""

STATUS_MESSAGE_SIZE_BYTES_MAX: Final = 512
"""Message of a refusal. It travels twice, once percent-encoded."""

STATUS_DETAILS_SIZE_BYTES_MAX: Final = 4_096
"""Details of a refusal. In base64 and with the message they stay below the 8 KiB of trailers that clients accept by
default; a client that gets more sees RESOURCE_EXHAUSTED instead of the refusal."""

BATCH_STATUS_DETAILS_SIZE_BYTES_MAX: Final = 2_048
"""Details of one refusal within a batch, so that a whole batch of refusals fits a client's 4 MiB."""

REPLY_WARNINGS_SIZE_BYTES_MAX: Final = 2_048
"""Warnings in the answer to a submission: some ten, so that a whole batch of such answers fits a client's 4 MiB."""

BATCH_EXECUTIONS_PER_TURN_MAX: Final = 50
"""Executions of a batch submitted before the loop serves others, a millisecond: a commit comes some turns after its
first execution, and with twenty in a turn it had half as many of them, which cost a tenth more processor time."""

BATCH_PAUSE_TURNS: Final = 3
"""Turns that others then have where there are several workers: what goes from one to another takes so many to be read,
to be handed on and to be written, and each would wait for the next executions. One connection's batches went through
two workers a seventh faster than with one turn."""

BATCH_EXECUTIONS_PER_GO: Final = 100
"""Executions of a batch submitted before other batches are: a small one waits some milliseconds behind a large one, and
batches of this size go one after the other."""

BATCH_TURN_S_MAX: Final = 0.005
"""Time they may take: with large documents or inputs it is fewer of them."""

SUBSCRIPTION_RESUME_INTERVAL_S_MIN: Final = 1.0
"""A forwarded subscription that broke sooner, without one event, is not opened again: its owner is not coming back."""

FEED_CURSOR_INTERVAL_S: Final = 5.0
"""How long a stream of changes goes on without a message while there are none for its filters: whoever comes back with
its cursor reads no more than that anew."""

CLIENT_NAME_SIZE_BYTES_MAX: Final = 128
"""The name a client may give itself in metadata; longer ones are not taken for names."""

OVERLOAD_DELAY_S_MAX: Final = 0.025
"""How long calls may wait before they are looked at: half of the time in which a refusal is promised."""

SHORT_HANDED_DELAY_S_MAX: Final = 3.0
"""How long calls and executions may wait while a worker is replaced, or has just been: what piles up is no overload."""

OVERLOAD_BURST_S_MAX: Final = 0.2
"""How long they may wait longer than that before it is overload."""

OVERLOAD_BURST_COUNT_MAX: Final = 1_000
"""Executions taken meanwhile before it is: as many pass as a burst, or as another worker is replaced."""

OVERLOAD_CATCH_UP: Final = 0.25
"""Part of its pace at which an overloaded worker takes executions while calls wait too long: they get refusals soon."""

OVERLOAD_PATIENCE_S: Final = 0.2
"""How long after a decrease of the pace the next: what waited before it must have had the time to go."""

OVERLOAD_INTERVAL_S: Final = 0.05
"""How often the pace of an overloaded worker changes; the shortest wait in between counts, so a hiccup does not."""

OVERLOAD_BEGIN: Final = 0.3
"""Part of what it has just taken that a worker takes when an overload begins: what waits must go first."""

OVERLOAD_DECREASE: Final = 0.8
"""Factor on the pace when calls wait too long."""

OVERLOAD_INCREASE: Final = 1.04
"""Factor on the pace, each interval, while they do not: so little too much that hardly a queue comes of it."""

OVERLOAD_RETURN: Final = 1.2
"""The same factor, far below a pace that was too much: back from a tenth of it within a second."""

OVERLOAD_RELIEF: Final = 1.5
"""An overload is over when the pace is so many times what comes."""

OVERLOAD_EXECUTIONS_PER_S_MIN: Final = 20.0
"""Slowest pace: something is always taken."""

OVERLOAD_RETRY_S_MIN: Final = 0.1
"""Shortest delay told to whom an overloaded runner refuses."""

OVERLOAD_RETRY_S_MAX: Final = 5.0
"""Longest delay told."""

GRPC_HEADERS_SIZE_BYTES_MAX: Final = 16_384
"""Metadata of one call, unpacked: what gRPC's own libraries take at most."""

HTTP2_HEADER_BLOCK_SIZE_BYTES_MAX: Final = 65_536
"""Headers of a call as they are sent: whoever sends more means no call."""

HTTP2_STREAM_WINDOW_SIZE_BYTES: Final = 262_144
"""What a client may send of a call before it is taken: a request of that size needs no second thought of its client."""

HTTP2_CONNECTION_WINDOW_SIZE_BYTES: Final = 4_194_304
"""The same of all calls of a connection: as much as comes in one turn of the loop on a fast line."""

HTTP2_CALLS_PER_TURN_MAX: Final = 100
"""Of a connection, calls taken before others have a turn: ten milliseconds of the loop. Their headers may be a dozen
bytes each, so what is read at once can hold twenty thousand."""

HTTP2_OUTPUT_SIZE_BYTES_MAX: Final = 131_072
"""Of a connection, what is made ready to be written in one turn: further bodies have theirs after the others'."""

HTTP2_UNREAD_SIZE_BYTES_MAX: Final = 1_048_576
"""Answers to pings and settings that a client does not read before its connection ends."""

HTTP2_IDLE_FRAMES_MAX: Final = 20_000
"""Frames that ask for nothing, such as pings and resets, more than those that do, in a minute or so: twice as many as
resets of all calls that a connection may have."""

GRPC_UNSENT_SIZE_BYTES_MAX: Final = 131_072
"""Of a connection, what the kernel has not taken before bodies wait in their calls. Of twice as much it is not read."""

GRPC_REPLIES_SIZE_BYTES_MAX: Final = 268_435_456
"""Replies of a worker that clients have not read yet, with 2 KiB for each of their calls: as much as requests. Whoever
asks for more is refused."""

GRPC_REPLIES_UNREAD_SIZE_BYTES_MAX: Final = 201_326_592
"""Of more than so much, the connections that hold the most are closed, until a third of it is free."""

GRPC_REPLIES_LOOK_INTERVAL_S: Final = 0.5
"""How often a worker looks whether it is so much."""

GRPC_REPLY_SMALL_SIZE_BYTES: Final = 65_536
"""Replies up to this size find room whatever the others do: answers to submissions and commands."""

METHOD_SHOWN_SIZE_CHARS_MAX: Final = 100
"""Of a path that nobody serves, what is told back: it costs its client nothing to name it again and again."""

GRPC_UNPACKED_AT_ONCE_SIZE_BYTES_MAX: Final = 65_536
"""Compressed messages up to this size are unpacked by the loop: in a fifth of a millisecond."""

GRPC_UNPACKING_THREADS_MAX: Final = 2
"""Larger ones that are being unpacked at once, each in a thread: the largest take 50 milliseconds and 16 MiB."""

GRPC_STREAMS_PER_CONNECTION_MAX: Final = 10_000
"""Calls open at once on one connection: a service may follow thousands of executions over one channel."""

GRPC_CALLS_OPEN_MAX: Final = 50_000
"""Calls of a worker not answered yet: streams, and what waits for a commit. Some 20 KB each: a gigabyte in all."""

GRPC_CALLS_RESERVED: Final = 5_000
"""Places among those that submissions leave free: commands and queries find room when submissions wait."""

GRPC_STREAMS_OPEN_MAX: Final = 20_000
"""Streams of a worker: followers stay for hours, so they must not take the places of calls that take milliseconds."""

GRPC_STREAMS_PER_CLIENT_MAX: Final = 10_000
"""Streams of one client in a worker: as many as on one connection, and half of all, so that another finds room."""

GRPC_CONVERSATIONS_MAX: Final = 32
"""Streams of a worker whose clients send more than one message, which is reflection: each may hold a request that is
half sent for as long as it is open, half a gigabyte in all."""

GRPC_REQUESTS_SIZE_BYTES_MAX: Final = 268_435_456
"""Requests of a worker that have been received and not been answered: sixteen of the largest, or as many of 5 KB as
there may be calls. What is made of them takes several times as much."""

GRPC_REQUESTS_COMING_MAX: Final = 64
"""Calls of a worker whose request has not come with them: a gigabyte, if each is as large as may be."""

GRPC_REQUESTS_REFUSED_SLICE: Final = 200
"""Of more, so many are refused before others have a turn: ten milliseconds of the loop."""

GRPC_REQUEST_LATE_S: Final = 0.2
"""How long a request may be on its way before it counts among those: megabytes on an ordinary line."""

GRPC_CONNECTIONS_MAX: Final = 20_000
"""Connections of one worker; idle ones take some KiB each, so all of them less than a hundred MiB."""

GRPC_CONNECTIONS_FREE_PART: Final = 10
"""One part of so many of the connections that a worker may have is kept free, and half of it always: those that have
been idle for longest give way, as many at a time as a burst may bring."""

GRPC_CONNECTIONS_LOOK_INTERVAL_S: Final = 0.5
"""How often a worker looks whether that many are free."""

GRPC_CONNECTION_QUIET_MS_MIN: Final = 1_000
"""A connection on which something has come or gone since is not idle: its client is at it."""

GRPC_CONNECTION_IDLE_MS_MAX: Final = 120_000
"""How long a connection may have no call before its client is asked to close it: it connects again when it has one."""

GRPC_CONNECTION_AGE_MS_MAX: Final = 300_000
"""After how long, more or less a tenth, a client is asked to take another connection for further calls: the kernel
chooses the worker when a connection is made, so this is how soon load is spread again after workers were replaced."""

GRPC_GREETING_TIMEOUT_MS: Final = 20_000
"""For TLS and HTTP/2 to begin, and again for the server's settings to be acknowledged: its bounds hold from then on."""

GRPC_STOP_PAUSE_S: Final = 0.05
"""How long a stopping server takes calls of clients that have not heard yet that they should go, and how long its
answers have to leave."""

GRPC_KEEPALIVE_TIME_MS: Final = 60_000
"""Silence on a connection before the server pings: below the idle limit of common load balancers and NATs."""

GRPC_PING_DELAY_S_MAX: Final = 0.002
"""How long the answer to a ping may wait for something that it can be sent with. Clients in Go ping whenever they have
heard something, to find out how much is on its way; an answer by itself costs as much as an execution's."""

GRPC_KEEPALIVE_TIMEOUT_MS: Final = 20_000
"""How long a ping may stay unanswered: gRPC's own default; then the peer is gone, and so are its Execute calls."""
