"""Stage 3, journal: the bounds of the embedded engine."""

from typing import Final

EXECUTIONS_MAX: Final = 1_000_000
"""Unfinished executions per runner before new ones are refused."""

CLIENT_EXECUTIONS_PER_S_MAX: Final = 20_000.0
"""Executions one client may submit per second unless configured: more than a machine of eight cores takes."""

CLIENTS_KNOWN_MAX: Final = 10_000
"""Clients whose rate is remembered; the one unseen for longest is forgotten, and starts anew."""

UNCOMMITTED_EXECUTIONS_MAX: Final = 10_000
"""New executions of a worker that wait for their first commit: 20 commits, some 100 MB."""

UNCOMMITTED_SIZE_BYTES_MAX: Final = 268_435_456
"""What they take in memory, inputs as objects included: ten thousand ordinary ones, or two of the largest at least."""

UNCOMMITTED_EXECUTION_SIZE_BYTES: Final = 4_096
"""What one of them takes beside its input and its variables."""

UNCOMMITTED_SIZE_RETRY_S: Final = 0.5
"""When to come again if they take too much: a commit with some megabytes takes a fraction of it."""

COMPILE_AT_ONCE_MS: Final = 2
"""Compiling of new documents within one turn of the loop before they wait: a few of ordinary size."""

COMPILE_PASS_MS: Final = 4
"""Compiling of those that wait in each turn of the loop; one step of the core may be longer."""

COMPILE_STEP_BUDGET: Final = 20
"""Tasks or expressions of one step, between two looks at the clock: about half a millisecond."""

COMPILE_S_PER_CHAR: Final = 1e-6
"""What compiling takes, as a measure of when there will be room again."""

COMPILING_SIZE_CHARS_MAX: Final = 33_554_432
"""Text of the documents that wait to be compiled: half a minute's work, two of the largest batches."""

COMPILING_SIZE_CHARS_MIN: Final = 4_096
"""What the smallest counts: each takes some objects too."""

DOCUMENTS_REFUSED_KNOWN_MAX: Final = 100
"""Texts that are no workflow whose problems a worker remembers: who sends one again does so soon."""

DOCUMENT_REFUSED_SIZE_CHARS_MAX: Final = 131_072
"""The longest of them; larger ones are rare, and a hundred would be a hundred megabytes."""

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

COMMIT_SMALL_EXECUTIONS_MAX: Final = 8
"""A commit of so many executions is a small one: the shard is not busy, and how long its callers wait matters more than
how much it gets done."""

COMMIT_TURNS_MIN: Final = 3
"""Turns of the loop between the first change that is to be committed and the commit: what comes in them comes along. An
idle one takes some 10 us, a commit 300 to 500 of the processor's time, whatever is in it."""

COMMIT_GROWTH_MIN: Final = 32
"""Changed executions: while so many come within those turns, a batch is on its way, and the commit waits for more."""

COMMIT_GATHERED_MIN: Final = 200
"""So many are enough: of twice as many each waits longer for a commit that costs nearly as much per execution."""

JOURNAL_PAGES_MAX: Final = 4_000
"""Pages of a shard's journal, 16 MB, from which on the commit that wrote them folds it into the file. That takes some
15 ms, and an eighth less of a busy shard's time than four times a quarter of it."""

JOURNAL_PAGES_QUIET_MAX: Final = 1_000
"""The same after a small commit: whoever waits for this one, or the next, waits 4 ms longer instead of 15."""

EVENTS_PACKED_SIZE_BYTES_MIN: Final = 512
"""Size of a row of events from which on it is written packed: the few events of a shorter one have too
little in common."""

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

PLANS_CACHED_SIZE_CHARS_MAX: Final = 8_388_608
"""Text of the compiled documents kept per worker; with many expressions a plan takes 70 times its text: 600 MB."""

COMPILED_UNSPARED_SIZE_CHARS_MAX: Final = 1_048_576
"""Text compiled before its plans are spared the search for garbage: up to half a million objects, some 100 ms of it."""

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

DISK_FREE_SHARE_MIN: Final = 0.1
"""The same of a disk of less than five gigabytes, as a share of it: one of 512 MiB would never be ready otherwise."""

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

LOAD_PASS_S_MAX: Final = 0.01
"""Time they may take: where documents are large and have to be compiled again, it is one of them."""

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

LIST_DOCUMENT_METADATA_SIZE_BYTES_MAX: Final = 4_096
"""A document's metadata that a listing shows with an execution: a page of 1,000 stays at a few megabytes,
beside what else it shows."""

EVENTS_REPLAY_SIZE_BYTES_MAX: Final = 65_536
"""Events read from the store in one go for a subscriber, but for the row that goes beyond: some two hundred, which take
less time to read than to tell."""

EVENTS_REPLAY_COUNT_MAX: Final = 10_000
"""Events in one GetEvents reply."""

LIST_PAGE_SIZE_MAX: Final = 1_000
"""Executions on one page of ListExecutions."""

LIST_ROWS_READ_MAX: Final = 10_000
"""Rows of a shard read for one page: some 20 ms. A page of what is rare ends early, and its token goes on there."""

LIST_DOCUMENTS_MAX: Final = 20
"""Documents of one name that are listed one by one; of a name with more, executions are found among all others."""

LISTINGS_AT_ONCE_MAX: Final = 16
"""Listings of a worker under way, one of which is being read: the last waits for a third of a second."""

LISTING_RETRY_S: Final = 0.5
"""When to come again if there are so many."""

SUBSCRIPTION_BACKLOG_EVENTS_MAX: Final = 10_000
"""Events a slow subscriber may lag behind before it is read from the store again."""

SUBSCRIPTION_BACKLOG_SIZE_BYTES_MAX: Final = 1_048_576
"""Bytes of those events: with outputs they are far larger than usual."""

SUBSCRIPTIONS_SIZE_BYTES_MAX: Final = 134_217_728
"""Events that all subscribers of a worker have not been told yet, in memory: two thousand pages. Beyond it those whose
clients do not read give theirs back."""

SUBSCRIPTION_FOLLOWERS_PER_TURN_MAX: Final = 64
"""Followers that are told of a commit in one turn of the loop: each then passes an event on, which costs some 50 to 100
microseconds, and thousands may follow one execution."""

SUBSCRIPTION_ROWS_DUE_MAX: Final = 100
"""Commits of an execution that its followers are still to be told of, one by one; with more they read the store."""

SUBSCRIPTION_PAGES_KEPT_MAX: Final = 32
"""Pages kept besides for who comes to the same event before the next commit: many subscribe at once, and few executions
are followed by many. Ten megabytes at most."""

RETENTION_BATCH_EXECUTIONS_MAX: Final = 100
"""Finished executions deleted by one commit, besides as many as it finishes."""

IDENTITIES_BLOCK_COUNT: Final = 4_096
"""Ids in a block of a file of ids that is written anew: so many are lost with a damaged sector, and no more."""

IDS_COPY_SURPLUS_COUNT_MAX: Final = 100_000
"""Ids the second copy of a shard's ids may hold beyond twice those that live before a start writes it anew: 800 KB."""

SUBFLOW_DEPTH_MAX: Final = 32
"""Generations of executions that start one another: trees of folders are hardly deeper, and a recursion without an end
ends before it has taken much from others."""

SUBFLOW_EXECUTIONS_RATIO_MAX: Final = 2
"""Unfinished executions up to which subflows start, in times of the bound for clients: what runs must be able to
end."""

SUBFLOW_RETRY_S_MIN: Final = 0.1
"""First pause before a subflow is started anew that could not be accepted: a full disk, too much that waits."""

SUBFLOW_RETRY_S_MAX: Final = 5.0
"""Longest of them: the disk may be full for hours."""

SHARED_FILE_WAIT_MS_MAX: Final = 5_000
"""How long a write to a file of all workers waits for another program that writes it: a backup, a person."""

FEED_ROWS_MAX: Final = 200
"""Rows of events that a follower of all executions reads at once: a millisecond or two of the loop's time."""

FEED_SIZE_BYTES_MAX: Final = 1_048_576
"""Bytes of events after which such a reading ends: outputs may be large."""

FEED_INTERVAL_S: Final = 0.02
"""How long such a follower waits after a commit before it reads: nobody sees it, and a busy worker commits a thousand
times a second."""

FEED_PAGES_KEPT_MAX: Final = 16
"""Readings that are kept for other followers who stand at the same row: nearly all stand at the end."""

INBOX_ROWS_PER_LISTENER_MAX: Final = 1_000
"""Events that a listener has in its shard's file; one that is slower reads the rest from the events' file, as long as
that keeps them."""

INBOX_PAGE_EVENTS_MAX: Final = 32
"""Of those, what an execution has in memory: one is taken in a turn, and a page costs little more to read than one."""

INBOX_PAGE_SIZE_BYTES_MAX: Final = 262_144
"""The same in bytes, but for the event that goes beyond."""

INBOX_UNCOMMITTED_ROWS_MAX: Final = 2_000
"""Rows that wait for their commit before further events are looked at: some ten milliseconds of one. An event may be
for a hundred thousand listeners."""

EVENTS_FOLLOWED_PER_READ_MAX: Final = 256
"""Events read at a time: a few milliseconds."""

EVENTS_FOLLOW_PASS_S_MAX: Final = 0.005
"""Time spent on what they are for before the loop serves others."""

EVENTS_FOLLOW_INTERVAL_S: Final = 1.0
"""How often a worker looks for events that nobody has told it of: whoever wrote them may have died first."""

EVENTS_POSITION_LAG_MAX: Final = 10_000
"""Events for nobody after which a shard writes down how far it has come: read again after a crash in half a second."""

EVENTS_OFFERED_AT_START_MAX: Final = 16
"""Events from before that are looked at within the commit in which an execution begins to listen; where more are kept,
all who wait for such are looked after together."""

LISTENERS_OFFERED_TOGETHER_MAX: Final = 1_000
"""Listeners for which the events from before are gone through at once: all of these are in memory meanwhile."""

MATCHERS_KEPT_MAX: Final = 1_000
"""Filters kept compiled for listeners that are not in memory; any other is read from the file, some 50 us."""

EVENT_TYPES_ABSENT_MAX: Final = 1_000
"""Types of which a worker remembers that no event is kept: who begins to wait for one is spared a look."""

LISTENERS_LOADED_PER_PASS_MAX: Final = 200
"""Listeners read from a shard at a start before the loop serves others: some five milliseconds."""

PASSED_FILTERS_KNOWN_MAX: Final = 8
"""Filters of an execution of which it is remembered up to which event it has had all: a loop has one or two."""

WAITING_STATE_SIZE_BYTES_MAX: Final = 1_048_576
"""State of an execution out of memory that is read to say what it waits for: some milliseconds of the loop's time, for
each look at it."""
