"""Support: every bound of the runner but those of its processes (`process_limits.py`), with its reason. Relations
between bounds are asserted at import.

Rules: a bound lives here and nowhere else; units come last in the name; configuration changes what `config.py` names.
"""

from typing import Final

# --- documents and inputs ---
DOCUMENT_SIZE_BYTES_MAX: Final = 1_048_576
"""A workflow document. Real ones are 1-50 KB; a mebibyte compiles in well under a second."""

DOCUMENT_DEPTH_MAX: Final = 128
"""Nesting of a document's data. Deeper than any readable document; keeps recursive descent off the C stack's end."""

DOCUMENT_NODES_MAX: Final = 200_000
"""Values in a document after aliases are expanded, so that a few nested aliases cannot become gigabytes."""

DOCUMENT_KEY_SIZE_MAX: Final = 1_024
"""Characters of one key. Task names are keys and become parts of every reference; nobody reads longer ones."""

DURATION_MS_MAX: Final = 1_000 * 365 * 24 * 3600 * 1000
"""A literal duration, either way: a thousand years. Keeps deadlines far from the end of 64 bits."""

PROBLEMS_MAX: Final = 100
"""Problems reported for one document. A broken document repeats itself; a reply must stay readable."""

DOCUMENT_COMPILE_STEPS_MAX: Final = 6_000_000
"""Steps of compiling all expressions and schemas of a document, 20 to 35 ns each: with all else below half a second."""

INPUT_SIZE_BYTES_MAX: Final = 4_194_304
"""JSON text of an execution's input. The default message bound of gRPC clients."""

EXECUTION_ID_SIZE_BYTES_MAX: Final = 255
"""An execution id in UTF-8: fits a file name and an index page."""

REQUEST_SIZE_BYTES_MAX: Final = 16_777_216
"""A whole gRPC request; a batch of 100 ordinary executions is about 100 KB."""

BATCH_EXECUTIONS_MAX: Final = 1_000
"""Executions in one ExecuteAsyncBatch, so that one call never holds a worker for long."""

# --- the service ---
INPUT_DEPTH_MAX: Final = 128
"""Nesting of an execution's input: as for documents, and below the 254 levels that orjson writes."""

ENV_VARS_SIZE_BYTES_MAX: Final = 262_144
"""Names and values of an execution's env_vars: twice the longest single variable Linux takes."""

METADATA_SIZE_BYTES_MAX: Final = 16_384
"""An execution's WorkflowMetadata; it is stored with the execution and repeated in every listing."""

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

BATCH_EXECUTIONS_PER_TURN_MAX: Final = 20
"""Executions of a batch submitted before the loop serves others: some milliseconds if each document is new."""

SUBSCRIPTION_RESUME_INTERVAL_S_MIN: Final = 1.0
"""A forwarded subscription that broke sooner, without one event, is not opened again: its owner is not coming back."""

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

GRPC_CALLS_WAITING_MAX: Final = 10_000
"""Calls that wait inside gRPC; it cancels further ones without a word, so refusals must come long before."""

GRPC_STREAMS_PER_CONNECTION_MAX: Final = 10_000
"""Calls open at once on one connection: a service may follow thousands of executions over one channel."""

GRPC_CALLS_OPEN_MAX: Final = 50_000
"""Calls of a worker not answered yet: streams, and what waits for a commit. Some 20 KB each: a gigabyte in all."""

GRPC_CONNECTIONS_MAX: Final = 20_000
"""Connections of one worker; idle ones take 10 to 20 KiB each inside grpcio, so all of them some hundred MiB."""

GRPC_GREETING_TIMEOUT_MS: Final = 20_000
"""For TLS and HTTP/2 to begin, and again for the server's settings to be acknowledged: its bounds hold from then on."""

GRPC_CALLS_REQUESTED_AHEAD: Final = 64
"""Calls the transport is ready to take up at once; more wait inside grpcio until the loop has looked at these."""

GRPC_EVENTS_PER_LOOK: Final = 16
"""Events the transport takes out between two looks at the clock: about half a millisecond."""

GRPC_TURN_SHARE: Final = 4.0
"""How many times as long as others have had the loop the transport may then have it: refusing goes first, and whatever
comes, a fifth of the time is left for what has been accepted."""

GRPC_TURN_S_MIN: Final = 0.002
"""Least time the transport may take out events before the loop serves others."""

GRPC_TURN_S_MAX: Final = 0.02
"""Most time: the acknowledgement of a commit waits no longer for it."""

GRPC_STOP_PAUSE_S: Final = 0.05
"""How long a stopping server holds new calls before it sends clients elsewhere: many turns of its accept loop."""

GRPC_KEEPALIVE_TIME_MS: Final = 60_000
"""Silence on a connection before the server pings: below the idle limit of common load balancers and NATs."""

GRPC_KEEPALIVE_TIMEOUT_MS: Final = 20_000
"""How long a ping may stay unanswered: gRPC's own default; then the peer is gone, and so are its Execute calls."""

GRPC_CLIENT_PING_INTERVAL_MS_MIN: Final = 10_000
"""Clients may ping this often without being sent away: the lowest keepalive that gRPC libraries allow."""

# --- the walk ---
WALK_STEPS_PER_SLICE_MAX: Final = 250
"""Steps one slice of a walk may take: some hundred microseconds, in which the worker answers nobody else."""

WALK_EXPRESSION_STEPS_PER_STEP: Final = 64
"""Steps of expressions that count, and take, as much as one of the walk: a whole budget ends a slice."""

STRAND_STEPS_MAX: Final = 50
"""Steps a branch of a fork takes before its siblings take theirs, so that an endless one starves nobody."""

DATA_DEPTH_MAX: Final = 200
"""Nesting of data a walk keeps: leaves room below the 254 levels orjson writes and reads."""

DATA_SIZE_BYTES_MAX: Final = 33_554_432
"""One value a walk keeps, as JSON text: a loop that doubles its data must end in an error, not in gigabytes."""

WALK_DATA_BYTES_PER_STEP: Final = 512
"""Bytes of data checked or written that count as one step of the walk, which takes about as long."""

STEPS_PER_EXECUTION_MAX: Final = 10_000_000
"""Steps of one execution: loops over nothing say nothing, so the bound on events does not end them."""

EVENT_ERROR_SIZE_CHARS_MAX: Final = 4_096
"""Characters of each text of an error that an event carries; the whole error stays in `$error` and in the result."""

EVENTS_PER_EXECUTION_MAX: Final = 2_000_000
"""Events of one execution, two for each task: a hundred times what real workflows do. An endless loop ends here."""

ITERATIONS_PER_LOOP_MAX: Final = 100_000
"""Items of one `for`: they are part of every snapshot until the loop ends."""

EVENTS_PER_EXECUTION_SIZE_BYTES_MAX: Final = 536_870_912
"""Events of one execution since it came into memory, kept while it is: what a million small tasks say."""

SCHEMA_ERRORS_MAX: Final = 5
"""Violations of a JSON Schema one error tells; the first few are what a reader needs."""

SCHEMA_MESSAGE_SIZE_MAX: Final = 300
"""Characters of one violation's message, which quotes the offending value."""

SCHEMA_STEPS_MAX: Final = 2_000_000
"""Steps of one check by a JSON Schema, which are those of expressions: about 40 ms, for what takes microseconds."""

SCHEMA_DEPTH_MAX: Final = 2_500
"""JSON Schemas that apply within one another: ten for each level of the deepest data. Far from the C stack's end."""

SCHEMA_COMPILE_STEPS_MAX: Final = 5_000_000
"""Steps of compiling a JSON Schema, some 50 to 100 for each schema in it: about 100 ms."""

TASK_NESTING_MAX: Final = 32
"""Task lists within task lists: each takes three or four levels of the document, and nobody reads half as many."""

FORK_BRANCHES_MAX: Final = 1_000
"""Branches of one fork; each holds state of its own."""

TASKS_PER_DOCUMENT_MAX: Final = 10_000
"""Tasks of one document."""

OUTPUT_JSON_SIZE_BYTES_MAX: Final = 65_536
"""Output carried in a progress event; larger ones are left out of the event and stay queryable."""

SNAPSHOT_SIZE_BYTES_MAX: Final = 16_777_216
"""State of one execution between commits; beyond it the execution is cancelled instead of slowing its shard."""

# --- expressions ---
EXPRESSION_SIZE_BYTES_MAX: Final = 65_536
"""Text of one expression."""

EXPRESSION_COMPILE_STEPS_MAX: Final = 2_000_000
"""Instructions made and names looked up for one expression that stands alone, with weights: about 40 ms."""

EXPRESSION_STEPS_MAX: Final = 2_000_000
"""Steps of one evaluation: an instruction, or about 20 ns of other work. About 40 ms, so that a machine half as fast
still ends within 100 ms; and as a step makes at most some 64 bytes, about 128 MB."""

EXPRESSION_DEPTH_MAX: Final = 200_000
"""Calls within calls and points to go back to, 150 bytes each: a recursion over 100,000 elements is honest."""

EXPRESSION_OUTPUTS_MAX: Final = 100_000
"""Results of one evaluation; a place takes one value, so more than a few are a mistake."""

EXPRESSION_ARRAY_SIZE_MAX: Final = 1_000_000
"""Elements of one array that an evaluation builds: 8 MB of references, more than a kept value usually has."""

EXPRESSION_ERROR_SIZE_MAX: Final = 4_096
"""Characters of an expression's error message, which may quote data of any size; it travels in an event."""

EXPRESSION_STRING_SIZE_MAX: Final = 8_388_608
"""Characters of one string an evaluation builds."""

REGEX_SIZE_CHARS_MAX: Final = 10_000
"""Characters of a regular expression: hundreds of times those that people write."""

REGEX_DEPTH_MAX: Final = 250
"""Nesting of a regular expression. Its parser recurses, far from the end of the C stack."""

REGEX_INSTRUCTIONS_MAX: Final = 30_000
"""Instructions of a compiled regular expression, 32 bytes each; most characters make one, ligatures six."""

REGEX_STACK_MAX: Final = 524_288
"""Entries of the matcher's stack, a power of two: at 20 bytes each, 10 MB for a match that could go back anywhere."""

REGEX_PATTERNS_MAX: Final = 1_000
"""Compiled regular expressions kept per worker; patterns made from data fall out of it."""

# --- effects ---
EFFECTS_IN_FLIGHT_PER_WORKER_MAX: Final = 2_000
"""Effects a worker performs at once; more wait in order. Each holds a socket."""

HTTP_RESPONSE_SIZE_BYTES_MAX: Final = 8_388_608
"""Body of a response a call may return into the workflow."""

HTTP_REDIRECTS_MAX: Final = 10
"""Redirects followed for one call: the number browsers and curl's documentation settle on."""

HTTP_CONNECTIONS_PER_HOST_MAX: Final = 100
"""Pooled connections per host and worker."""

HTTP_RESPONSE_DEPTH_MAX: Final = 128
"""Nesting of a JSON response: what a document may have; deeper data could not be written into a snapshot."""

HTTP_CONNECT_TIMEOUT_S_MAX: Final = 30.0
"""Time to reach a host: one that drops packets must not hold a call for as long as a slow answer may take."""

# --- the embedded engine ---
EXECUTIONS_MAX: Final = 1_000_000
"""Unfinished executions per runner before new ones are refused."""

CLIENT_EXECUTIONS_PER_S_MAX: Final = 20_000.0
"""Executions one client may submit per second unless configured: more than a machine of eight cores takes."""

CLIENTS_KNOWN_MAX: Final = 10_000
"""Clients whose rate is remembered; the one unseen for longest is forgotten, and starts anew."""

UNCOMMITTED_EXECUTIONS_MAX: Final = 10_000
"""New executions of a worker that wait for their first commit: 20 commits, some 100 MB."""

ADMISSION_EXECUTIONS_MIN: Final = 50
"""Below so many, the wait for a first commit is the disk's, and no reason to refuse anybody."""

ADMISSION_BURST_COUNT_MAX: Final = 500
"""New executions that may wait for long before it counts as more than a burst: one commit's."""

ADMISSION_BURST_S_MAX: Final = 1.0
"""How long they may wait; and the span in which everything must have waited for there to be a standing queue."""

ADMISSION_DELAY_S_MAX: Final = 0.1
"""How long the oldest may wait while more comes than the engine takes, or two commits if those take longer."""

ADMISSION_STRICT_S: Final = 3.0
"""How long after the last refusal a wait is still judged by that: no saw of bursts and refusals."""

ADMISSION_LANDING_S: Final = 0.001
"""Executions that are heard of within so long have landed with the same commit."""

TURN_S_MAX: Final = 1.0
"""How long a turn may take before a SIGKILL is put down to it: a hundred times what one slice, one evaluation or one
snapshot takes."""

DEATHS_IN_TURN_MAX: Final = 3
"""Workers that may die in turns of an execution, without any progress of it, before it is set aside: the second death
may still be chance."""

SUSPECTS_MAX: Final = 64
"""Executions of a shard whose deaths are counted at the same time: more than a worker, which is started again with ever
longer pauses, dies of in half an hour."""

COMMIT_EXECUTIONS_MAX: Final = 500
"""Executions written by one commit: bounds the time the loop spends inserting rows (about 10 us each)."""

COMMIT_GATHER_MS_MAX: Final = 5
"""Time the loop spends on snapshots for one commit; what is left goes with the next."""

ENGINE_PASS_MS: Final = 2
"""Time the engine spends on walks, or on starting effects, before others have the loop; a call takes five turns."""

LONG_EVENTS_SIZE_BYTES: Final = 1_048_576
"""Events after which an execution is a long one: some thousand tasks."""

LONG_EVENTS_SIZE_BYTES_PER_S_MAX: Final = 8_388_608
"""Events that all long executions of a worker tell per second: some 20,000 tasks, a tenth of what a disk takes."""

EXECUTION_EVENTS_UNCOMMITTED_SIZE_BYTES_MAX: Final = 262_144
"""Events of one execution that may await their commit before its next slice: a loop goes at the disk's pace."""

PLANS_CACHED_MAX: Final = 1_000
"""Compiled documents kept per worker; a caller's working set is tens to hundreds."""

PLANS_CACHED_SIZE_CHARS_MAX: Final = 33_554_432
"""Text of the compiled documents kept per worker; a plan takes several times its text."""

PLANS_BY_KEY_MAX: Final = 100
"""Compiled documents a shard finds without reading their text again; beyond it that costs a row and a look-up."""

PLAN_KEYS_KNOWN_MAX: Final = 10_000
"""Stored documents a shard remembers by hash; beyond it asks its file again."""

ACKNOWLEDGEMENT_DELAY_MS_MAX: Final = 50
"""How long an acknowledgement waits for a commit to travel with: losing one costs a repeated delivery, nothing else."""

LARGE_VALUE_SIZE_BYTES: Final = 32_768
"""Inputs, outputs and snapshots from this size on are stored once under their hash: four pages of the file. Below,
writing one again with its row costs less than finding out what of it has changed."""

SNAPSHOT_PIECE_SIZE_BYTES: Final = 32_768
"""Pieces a large snapshot is cut into: what a change within one may write again. A mebibyte has 32, each of which costs
the snapshot's row 37 bytes."""

SNAPSHOT_PIECE_SIZE_BYTES_MIN: Final = 4_096
"""A part of a snapshot that stays but is shorter is written with the row, which takes whole pages in any case."""

SNAPSHOT_PIECES_MAX: Final = 2_048
"""Pieces of one snapshot, four times those of the largest; one that small changes have cut up further is cut anew."""

DISK_FREE_SIZE_BYTES_MIN: Final = 536_870_912
"""Free space below which nothing new is accepted and no loop goes on: room for what was accepted to end. More than the
fastest disk takes between two looks at it."""

SHARD_OPENING_SIZE_BYTES_MAX: Final = 1_048_576
"""What opening a shard takes on disk, its journal's index and some pages. With less, a failure is for want of room."""

COMMIT_RETRY_DELAY_S_MIN: Final = 0.1
"""First pause after a commit that failed."""

COMMIT_RETRY_DELAY_S_MAX: Final = 5.0
"""Longest pause between attempts: how late the runner notices that the disk is back."""

DAMAGES_KNOWN_MAX: Final = 10_000
"""Damaged rows a shard remembers, so that each is told once; in a file with more, some are told again."""

TIMERS_DEAD_MAX: Final = 1_000
"""Entries of ended executions the timer heap may hold before it is rebuilt, if they are also most of it."""

TIMER_RECHECK_S_MAX: Final = 1.0
"""How long the engine sleeps towards a wall clock deadline before it looks again: a stepped clock is noticed then."""

LOAD_EXECUTIONS_PER_PASS_MAX: Final = 50
"""Executions brought back into memory before the loop serves others again: a few milliseconds."""

LOAD_INTERVAL_S: Final = 0.5
"""How often a shard looks for deadlines that come soon: half the lookahead, so that the other half is left to load."""

BACKLOG_INTERVAL_S: Final = 0.05
"""How often a shard with a backlog that found no room looks again: a full queue of effects lasts longer."""

TIMER_LOOKAHEAD_MS: Final = 1_000
"""How long before its deadline an execution comes back into memory: time to load thousands that end together, and short
enough that few are in memory for it."""

PARKED_RESIDENT_MAX: Final = 2_000
"""Parked executions a worker keeps in memory, for retries and short waits: about 10 MB of small objects."""

PARKED_RESIDENT_SIZE_BYTES_MAX: Final = 8_388_608
"""Inputs and snapshots of the parked executions in memory; as objects they take about ten times as much."""

RESIDENT_EXECUTIONS_MAX: Final = 10_000
"""Executions in memory beyond which a worker brings back no others: room for every parked one, every effect in flight
and as many deadlines again."""

EFFECTS_WAITING_RESIDENT_MAX: Final = 1_000
"""Effects that wait in memory for a place, to take a free one at once; those of others wait in the file."""

RETENTION_INTERVAL_S: Final = 1.0
"""How often a shard looks for executions whose retention has ended."""

SHARD_OWNER_WAIT_S_MAX: Final = 60.0
"""How long a worker waits for its predecessor to let go of a shard: longer than an ordinary drain."""

EVENTS_REPLAY_SIZE_BYTES_MAX: Final = 1_048_576
"""Events read from the store in one go for a subscriber."""

EVENTS_REPLAY_COUNT_MAX: Final = 10_000
"""Events in one GetEvents reply."""

LIST_PAGE_SIZE_MAX: Final = 1_000
"""Executions on one page of ListExecutions."""

SUBSCRIPTION_BACKLOG_EVENTS_MAX: Final = 10_000
"""Events a slow subscriber may lag behind before it is read from the store again."""

SUBSCRIPTION_BACKLOG_SIZE_BYTES_MAX: Final = 1_048_576
"""Bytes of those events, as many as are read from the store in one go: with outputs they are far larger than usual."""

RETENTION_BATCH_EXECUTIONS_MAX: Final = 100
"""Finished executions deleted by one commit, besides as many as it finishes."""

# --- callbacks ---
CALLBACK_BATCH_EVENTS_MAX: Final = 500
"""Events in one ReportProgressBatch."""

CALLBACK_BATCH_SIZE_BYTES_MAX: Final = 1_048_576
"""Bytes in one ReportProgressBatch: a quarter of gRPC's default message bound."""

CALLBACK_BATCH_AGE_MS_MAX: Final = 5
"""How long an event waits for company."""

CALLBACK_ATTEMPTS_QUICK_MAX: Final = 3
"""Attempts before an event goes back to the outbox and the breaker opens: the mission's rule."""

CALLBACK_IN_FLIGHT_MAX: Final = 64
"""Unary ReportProgress calls in flight per worker, each for another execution."""

CALLBACK_QUEUE_EVENTS_MAX: Final = 50_000
"""Events held in memory for sending; the rest waits in the outbox on disk."""

CALLBACK_QUEUE_SIZE_BYTES_MAX: Final = 67_108_864
"""Bytes held in memory for sending, per worker: events with outputs are far larger than the usual 200 bytes."""

CALLBACK_CATCH_UP_EVENTS_MAX: Final = 10_000
"""The part of the queue kept for events read back from the outbox, so that neither they nor new events starve."""

CALLBACK_BATCHES_IN_FLIGHT_MAX: Final = 4
"""ReportProgressBatch calls in flight per worker: enough to hide the round trip, few enough to fill each one."""

CALLBACK_PAGE_ROWS_MAX: Final = 200
"""Rows read from the outbox at once; about a millisecond of the store's time."""

CALLBACK_LOOKUPS_MAX: Final = 1_000
"""Executions whose rows are read back one by one; further ones wait for the next pass over the outbox."""

CALLBACK_POSITIONS_MAX: Final = 50_000
"""Executions whose last acknowledged sequence number is remembered: about 8 MB."""

CALLBACK_BACKOFF_MS_MIN: Final = 100
"""Pause before the second quick attempt; doubles. A receiver's restart takes seconds, a lost packet milliseconds."""

CALLBACK_SUSPENSION_S_MIN: Final = 0.5
"""Pause before the first probe of an open breaker; doubles with each failed probe."""

CALLBACK_SUSPENSION_S_MAX: Final = 30.0
"""Longest pause between probes: how late a receiver that is back hears from us."""

CALLBACK_REFUSALS_MAX: Final = 8
"""Executions refused in a row before the receiver itself is taken to be unwell."""

CALLBACK_BATCH_RETRY_S: Final = 60.0
"""How long a receiver without ReportProgressBatch is served one event per call before the batch is tried again."""

OUTBOX_AGE_S_MAX: Final = 7 * 24 * 3600
"""How long an unacknowledged event is kept for a receiver that stays away."""

# --- the router ---
ROUTER_FRAME_SIZE_BYTES_MAX: Final = 67_108_864
"""One frame between workers; larger than any request, so that framing never refuses what the service took."""

ROUTER_REQUESTS_IN_FLIGHT_MAX: Final = 10_000
"""Forwarded requests awaiting an answer per link."""

ROUTER_OWNER_WAIT_S_MAX: Final = 10.0
"""How long a request waits for a crashed owner's successor before UNAVAILABLE."""

ROUTER_RECONNECT_INTERVAL_S: Final = 0.02
"""Between attempts to reach an owner that is down; a successor takes some hundred milliseconds to boot."""

ROUTER_RETRY_INTERVAL_S: Final = 0.2
"""Between looks at requests that wait for an owner: asks again what it refused for now, ends what waited too long."""

ROUTER_FLUSH_SIZE_BYTES: Final = 262_144
"""Bytes collected into one frame before another is begun: a frame is decoded in one go, on the loop."""

ROUTER_STREAM_WINDOW_MESSAGES: Final = 256
"""Messages of a forwarded stream sent ahead of its reader: hides the hop, bounds what a slow reader costs."""

assert DOCUMENT_DEPTH_MAX < DATA_DEPTH_MAX <= 240
assert 4 * TASK_NESTING_MAX <= DOCUMENT_DEPTH_MAX
assert INPUT_SIZE_BYTES_MAX < HTTP_RESPONSE_SIZE_BYTES_MAX < DATA_SIZE_BYTES_MAX
assert CALLBACK_BATCH_EVENTS_MAX <= CALLBACK_CATCH_UP_EVENTS_MAX <= CALLBACK_QUEUE_EVENTS_MAX // 2
assert CALLBACK_BATCH_SIZE_BYTES_MAX <= CALLBACK_QUEUE_SIZE_BYTES_MAX // 5
assert CALLBACK_BATCH_SIZE_BYTES_MAX <= REQUEST_SIZE_BYTES_MAX
assert INPUT_SIZE_BYTES_MAX + DOCUMENT_SIZE_BYTES_MAX <= REQUEST_SIZE_BYTES_MAX
assert REQUEST_SIZE_BYTES_MAX + ROUTER_FLUSH_SIZE_BYTES <= ROUTER_FRAME_SIZE_BYTES_MAX
assert ROUTER_RECONNECT_INTERVAL_S < ROUTER_OWNER_WAIT_S_MAX
assert (
    BATCH_EXECUTIONS_MAX * (BATCH_STATUS_DETAILS_SIZE_BYTES_MAX + STATUS_MESSAGE_SIZE_BYTES_MAX) <= REPLY_SIZE_BYTES_MAX
)
assert EXECUTION_EVENTS_UNCOMMITTED_SIZE_BYTES_MAX <= EVENTS_REPLAY_SIZE_BYTES_MAX
assert EXECUTION_EVENTS_UNCOMMITTED_SIZE_BYTES_MAX <= SUBSCRIPTION_BACKLOG_SIZE_BYTES_MAX
assert 2 * UNCOMMITTED_EXECUTIONS_MAX <= GRPC_CALLS_OPEN_MAX
assert (
    PARKED_RESIDENT_MAX + EFFECTS_IN_FLIGHT_PER_WORKER_MAX + EFFECTS_WAITING_RESIDENT_MAX
    <= RESIDENT_EXECUTIONS_MAX // 2
)
assert SNAPSHOT_PIECE_SIZE_BYTES_MIN < SNAPSHOT_PIECE_SIZE_BYTES <= LARGE_VALUE_SIZE_BYTES
assert SNAPSHOT_SIZE_BYTES_MAX // SNAPSHOT_PIECE_SIZE_BYTES < SNAPSHOT_PIECES_MAX
assert LOAD_INTERVAL_S * 1000 * 2 <= TIMER_LOOKAHEAD_MS
assert EXECUTION_EVENTS_UNCOMMITTED_SIZE_BYTES_MAX <= LONG_EVENTS_SIZE_BYTES <= LONG_EVENTS_SIZE_BYTES_PER_S_MAX
assert ADMISSION_EXECUTIONS_MIN <= ADMISSION_BURST_COUNT_MAX <= UNCOMMITTED_EXECUTIONS_MAX <= EXECUTIONS_MAX
assert ADMISSION_LANDING_S < ADMISSION_DELAY_S_MAX < ADMISSION_BURST_S_MAX < ADMISSION_STRICT_S
assert OVERLOAD_DELAY_S_MAX <= OVERLOAD_INTERVAL_S <= OVERLOAD_BURST_S_MAX <= OVERLOAD_PATIENCE_S
assert GRPC_TURN_S_MIN <= GRPC_TURN_S_MAX < OVERLOAD_DELAY_S_MAX
assert OVERLOAD_CATCH_UP < OVERLOAD_DECREASE < 1 < OVERLOAD_INCREASE < OVERLOAD_RETURN < OVERLOAD_RELIEF
assert COMMIT_RETRY_DELAY_S_MIN <= COMMIT_RETRY_DELAY_S_MAX
