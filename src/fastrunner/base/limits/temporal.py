"""Stage 3, journal: the bounds of executions that Temporal keeps."""

from typing import Final

TEMPORAL_TURNS_PER_ACTIVATION_MAX: Final = 20
"""Turns of a walk in one workflow task: up to ten milliseconds each, where the SDK takes 2 s for a deadlock. Never a
time: a replay must take the same way."""

TEMPORAL_HISTORY_EVENTS_MAX: Final = 2_000
"""Events of a history before it is continued as a new one: replaying them takes some tenths of a second."""

TEMPORAL_HISTORY_SIZE_BYTES_MAX: Final = 2_097_152
"""The same for its size: a worker that takes an execution over reads all of it."""

TEMPORAL_HOLD_RATIO: Final = 4
"""How many times as many events a history has when effects that are asked for wait until it is continued: those under
way keep it from that, and the server ends histories of 51,200 events."""

TEMPORAL_PAYLOAD_SIZE_BYTES_MAX: Final = 1_048_576
"""Whatever one payload holds: servers refuse 2 MiB, base64 takes a third more, and there is something around it."""

TEMPORAL_TASK_SIZE_BYTES_MAX: Final = 2_097_152
"""What effects and children that are begun in one workflow task have together, but for a single one: the message that
begins them has 4 MiB at most, and events in it."""

TEMPORAL_EVENTS_UNREPORTED_MAX: Final = 1_000
"""Events without an acknowledgement at which a walk, and its clock, rests: they are in every query and continuation."""

TEMPORAL_EVENTS_KEPT_SIZE_BYTES_MAX: Final = 262_144
"""Events that a workflow keeps for queries; of those that a receiver is still to have, at which the walk rests."""

TEMPORAL_REPORT_SIZE_BYTES_MAX: Final = 262_144
"""Events of one report, but for a single one that is larger: they are in the history."""

TEMPORAL_REPORT_RETRY_S_MAX: Final = 30.0
"""Longest pause between attempts to report: a receiver that is back is noticed within it."""

TEMPORAL_AGE_INTERVAL_S: Final = 1.0
"""How often the age of the oldest event that the receiver has refused is shown: alerts look at minutes."""

TEMPORAL_REPORT_WAIT_S_MAX: Final = 0.25
"""How long an effect that has an outcome waits for the receiver of the events that were sent meanwhile: a slow one must
not slow walks down; the events are sent again with what comes next."""

TEMPORAL_REPORT_AT_ONCE_S_MAX: Final = 1.0
"""How long the workflow task of an execution that ends with its first turn waits for the receiver; after one that took
nothing, also how long others do not try: a task keeps a place of its worker's, and the next attempt is an activity."""

TEMPORAL_HEARTBEAT_S: Final = 10.0
"""How long an effect's worker may be silent before another one performs the effect; also how soon it hears that nobody
wants the outcome any more."""

TEMPORAL_EFFECT_RETRY_S_MAX: Final = 5.0
"""Longest pause before an effect whose worker was lost is given to another one, however many were lost before:
Temporal's own bound is 100 s."""

TEMPORAL_EFFECT_S_MAX: Final = 365 * 24 * 3600.0
"""Temporal wants a bound on an attempt; those of effects are the document's and the settings'."""

TEMPORAL_WORKFLOWS_CACHED_MAX: Final = 1_000
"""Workflows that a worker keeps in memory between their tasks: some tens of kilobytes each. Others are replayed.
Far more than it has tasks in hand: the SDK may forget one that reports within its task, which then lasts 10 seconds."""

TEMPORAL_WORKFLOW_TASKS_MAX: Final = 48
"""Workflow tasks that a worker has in hand: each has to end within the SDK's 2 s while the others share the interpreter
with it. Some ten of the places are those of requests for tasks, and a start brings its first task along only where
there is another one: of 16, nine of ten first tasks came by the queue, half a second later on a busy machine."""

TEMPORAL_POLLERS_MAX: Final = 16
"""Requests for tasks that a worker has open of each kind: the server says when more or fewer are good, from 2 on."""

TEMPORAL_ANSWER_S_MAX: Final = 10.0
"""How long a caller waits for a workflow's answer: workers that are there answer in milliseconds."""

TEMPORAL_REMEMBERED_WAIT_S: Final = 3.0
"""How long Temporal waits for the worker that has a workflow in memory before it asks any other one, which reads the
history first: with the 10 s that the SDK waits, a lost replica's executions were asked for in vain for 10 s."""

TEMPORAL_FOLLOW_INTERVAL_S: Final = 0.2
"""How often a follower asks for new events: each time is a query to the workflow's worker."""

TEMPORAL_INLINE_SIZE_BYTES_MAX: Final = 262_144
"""Payloads that are larger lie in the blob store, where there is one: a history is 2 MiB before it is continued, and a
message to the server 4 MiB."""

TEMPORAL_BLOBS_CACHED_SIZE_BYTES_MAX: Final = 67_108_864
"""Blobs that a worker keeps in memory: what one has written it is mostly the next to read."""

TEMPORAL_BLOB_PAUSE_S: Final = 1.0
"""Between two attempts to put an effect's large result into a blob store that is away, each of which takes seconds."""

BLOB_REQUEST_S_MAX: Final = 30.0
"""Longest a request to the blob store takes: of 64 MB at 20 Mbit/s and more."""

BLOB_RETRY_S_MAX: Final = 20.0
"""How long a request to the blob store is repeated before who wants it hears of it, and repeats it."""

BLOB_GRACE_DAYS: Final = 2
"""How old, in days, a blob is before it may be deleted: visibility is behind, clocks differ, and an execution begins
after its input was written."""

CODEC_BODY_SIZE_BYTES_MAX: Final = 16_777_216
"""A request to the codec server: the payloads of an event, or of some, in base64; each is up to 2 MiB."""

TEMPORAL_ANSWERS_KEPT_MAX: Final = 64
"""Commands of which a workflow knows what they came to: who waits for one asks at once."""

TEMPORAL_BUS_EVENTS_SIZE_BYTES_MAX: Final = 524_288
"""CloudEvents that the bus keeps, and that are published at once: with the bound on listeners they are the bus's next
input, of which servers refuse 2 MiB. Beyond it the oldest leave early; what nobody has heard yet keeps new ones out."""

TEMPORAL_BUS_LISTENERS_SIZE_BYTES_MAX: Final = 655_360
"""Filters that the bus looks for, some thousands: see above."""

TEMPORAL_BUS_OVERHEAD_SIZE_BYTES: Final = 64
"""What an event, or a filter, takes in the bus's state beside its text."""

TEMPORAL_BUS_KNOWN_COUNT_MAX: Final = 10_000
"""Events by which the bus knows duplicates, within the retention: some 15 bytes each."""

TEMPORAL_BUS_CALLS_MAX: Final = 500
"""Calls of one update of the bus: a workflow task that takes them ends in some tens of milliseconds."""

TEMPORAL_PUBLISH_S_MAX: Final = 25.0
"""How long whoever publishes waits for the bus: longer than Temporal takes to miss the worker that had it."""

TEMPORAL_DELIVERY_TARGETS_MAX: Final = 200
"""Executions that one delivery tells, but for those of one event: it takes some tenths of a second."""

TEMPORAL_DELIVERY_SIZE_BYTES_MAX: Final = 262_144
"""Events of one delivery, but for the last: it lies in the bus's history, and is sent to whom it is for."""

TEMPORAL_DELIVERY_LOOKS_MAX: Final = 20_000
"""Looks of listeners at events for one delivery: some microseconds each, where the SDK takes 2 s for a deadlock."""

TEMPORAL_SINK_SIZE_BYTES_MAX: Final = 524_288
"""Emitted events that wait for one sink on Temporal: they are the next input of its workflow. Beyond it the oldest are
given up."""

TEMPORAL_SIGNALS_AT_ONCE_MAX: Final = 20
"""Executions that are told at once, and that tell one lifecycle sink: more requests only wait for one another."""

TEMPORAL_INBOX_SIZE_BYTES_MAX: Final = 131_072
"""Events that an execution has heard and not taken: its state has to have room for them. It is offered others later."""

TEMPORAL_SCHEDULE_LOOK_S_MAX: Final = 3_600.0
"""How long a schedule on Temporal is not looked at, at most: after it a clock that was set, a zone that has other rules
and a bus that was begun anew are noticed."""

TEMPORAL_COUNT_INTERVAL_S: Final = 10.0
"""How often a replica asks Temporal how many executions and schedules there are: two requests to visibility."""

TEMPORAL_KEEPER_S_MAX: Final = 5.0
"""How long the worker that has a subscription open may take to go on with it, before any other one opens it anew."""

TEMPORAL_SCHEDULE_SHOWN_S_MAX: Final = 1.0
"""How long whoever pauses or resumes a schedule waits for a worker to show it: it is durable without one."""
