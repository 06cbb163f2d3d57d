"""Stage 6, events: what the callback pipeline reads of the embedded engine's shards, and has written down there."""

from contextlib import suppress
from functools import partial

from fastrunner.base import limits
from fastrunner.engine import EventsListener, Settled
from fastrunner.engine.embedded.commit.undelivered import undelivered
from fastrunner.engine.embedded.queries import Queries, Rows
from fastrunner.engine.embedded.shards import Shards
from fastrunner.engine.embedded.tracing import Traces
from fastrunner.errors import Damaged, ShardDamaged, Unavailable, UnknownExecution
from fastrunner.tracing.span import Span

__all__ = ["ShardOutbox"]


class ShardOutbox:
    """The Outbox of one worker; see `engine.Outbox`."""

    def __init__(self, shards: Shards, queries: Queries) -> None:
        self.listener: EventsListener | None = None
        """Told of every committed row."""
        self._shards = shards
        self._queries = queries
        self.traces: Traces | None = None
        """What is traced; None: nothing."""

    def listen(self, listener: EventsListener) -> None:
        """See Outbox. Without a listener every event counts as given up: there is nobody to send it to."""
        self.listener = listener

    async def unacknowledged(self, after: tuple[str, int] | None, rows_max: int) -> Rows:
        """See Outbox."""
        rows = await undelivered([*self._shards], after or ("", 0), rows_max)
        if self.traces is not None:
            self.traces.name(rows)
        return rows

    async def unacknowledged_of(self, execution_id: str, from_sequence: int, size_bytes_max: int) -> Rows:
        """See Outbox."""
        # What cannot be read must not hold up what can.
        with suppress(UnknownExecution, Damaged, ShardDamaged):
            rows, _, _ = self._queries.rows(execution_id, from_sequence, limits.EVENTS_REPLAY_COUNT_MAX, size_bytes_max)
            if self.traces is not None:
                self.traces.name(rows)
            return rows
        return []

    def acknowledge(self, execution_id: str, sequence: int) -> None:
        """See Outbox."""
        with suppress(UnknownExecution, Unavailable):
            self._shards.of(execution_id).acknowledge(execution_id, acknowledged=sequence)

    def keep_span(self, execution_id: str, span: Span) -> Settled | None:
        """See Outbox."""
        with suppress(UnknownExecution, Unavailable, Damaged):
            shard = self._shards.of(execution_id)
            acceptance = shard.store.acceptance(execution_id)
            if acceptance is not None:
                shard.spans.keep(acceptance[0], span)
                return partial(shard.spans.settled, acceptance[0])
        return None

    def give_up(self, execution_id: str, sequence: int) -> None:
        """See Outbox."""
        with suppress(UnknownExecution, Unavailable):
            self._shards.of(execution_id).acknowledge(execution_id, given_up=sequence)
