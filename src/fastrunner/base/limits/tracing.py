"""Support: bounds of tracing."""

from typing import Final

TRACE_QUEUE_SPANS_MAX: Final = 2_048
"""Spans of a worker that wait for the collector, OpenTelemetry's own default: a megabyte or two. Further ones are
dropped."""

TRACE_BATCH_SPANS_MAX: Final = 512
"""Spans in one export, OpenTelemetry's own default too."""

TRACE_EXPORT_DELAY_S: Final = 1.0
"""How long a span waits for company."""

TRACE_RETRY_PAUSE_S: Final = 5.0
"""Pause after the collector has not taken spans, beside what the library waits."""

TRACE_EXPORT_S_MAX: Final = 10.0
"""How long one export may take, with the library's own attempts: OpenTelemetry's own default."""

TRACE_DRAIN_S_MAX: Final = 2.0
"""How long a worker that stops waits for the collector."""

TRACE_STATE_SIZE_CHARS_MAX: Final = 512
"""A longer `tracestate` is left out: so much at least must be passed on, says the recommendation."""

TRACE_ATTRIBUTE_SIZE_CHARS_MAX: Final = 1_024
"""What is kept of an attribute: references of tasks and names may be as long as documents allow."""
