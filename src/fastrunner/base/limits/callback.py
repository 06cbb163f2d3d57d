"""Stage 7, callback: its bounds."""

from typing import Final

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
