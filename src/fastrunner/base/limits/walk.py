"""Stage 4, walk: its bounds."""

from typing import Final

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

EVENT_FILTER_SIZE_BYTES_MAX: Final = 65_536
"""What a listener's filter holds of its workflow's data: it is journalled with the listener and kept by an index."""

EVENT_MATCH_STEPS_MAX: Final = 50_000
"""Steps of each expression of a filter outside of its walk, a millisecond: an event is asked of many. Beyond, the walk
is asked."""

EVENT_PROGRAMS_KEPT_MAX: Final = 4_096
"""Compiled expressions and patterns of filters, each: those of all listeners of a worker, as documents are few."""
