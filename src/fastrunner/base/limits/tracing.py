"""Support: bounds of tracing."""

from typing import Final

TRACE_QUEUE_SPANS_MAX: Final = 2_048
"""Spans of a worker that wait for the collector, OpenTelemetry's own default: a megabyte or two. Further ones are
dropped."""

TRACE_TOLD_SPANS_MAX: Final = 4_096
"""Spans that a worker on Temporal knows it has told, so that a task of a workflow that is taken again, in a moment or a
minute, tells none of them twice: half a megabyte."""

TRACE_BATCH_SPANS_MAX: Final = 512
"""Spans in one export, OpenTelemetry's own default too."""

TRACE_BATCH_SIZE_BYTES_MAX: Final = 2_097_152
"""Of one request: collectors take 4 MiB as they are shipped."""

TRACE_KEYS_MAX: Final = 2 * TRACE_QUEUE_SPANS_MAX
"""Executions of a shard that are remembered as having spans in its file, before it is looked into again: twice what
waits there at most, so that it is looked into once in so many."""

TRACE_ROWS_LOOKED_AT_MAX: Final = 200_000
"""Rows of events, the last of a shard, whose executions are looked at at a start for spans that their rows tell: half a
minute of a busy shard, and half a second's work."""

TRACE_EXPORT_DELAY_S: Final = 5.0
"""How long a span waits for company, OpenTelemetry's own default; a whole batch waits for nobody."""

TRACE_UNKEPT_S_MAX: Final = 10.0
"""How long the span of an acceptance or a callback is in memory alone: a collector that takes what comes has it before
that, and then it is never written."""

TRACE_RETRY_PAUSE_S_MIN: Final = 1.0
"""First pause after the collector has not taken spans, doubled each time."""

TRACE_RETRY_PAUSE_S: Final = 5.0
"""Longest pause after the collector has not taken spans, if it does not ask for one."""

TRACE_RETRY_PAUSE_ASKED_S_MAX: Final = 60.0
"""Longest pause that a collector may ask for."""

TRACE_EXPORT_S_MAX: Final = 10.0
"""How long one export may take: OpenTelemetry's own default."""

TRACE_DRAIN_S_MAX: Final = 2.0
"""How long a worker that stops waits for the collector."""

TRACE_STATE_SIZE_CHARS_MAX: Final = 512
"""A longer `tracestate` is left out: so much at least must be passed on, says the recommendation."""

TRACE_ATTRIBUTE_SIZE_CHARS_MAX: Final = 1_024
"""What is kept of an attribute: references of tasks and names may be as long as documents allow."""
