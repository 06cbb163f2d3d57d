"""Stage 6, events: what the callback pipeline reads of the embedded engine's shards, and has written down there."""

from contextlib import suppress

from fastrunner.base import limits
from fastrunner.engine import EventsListener
from fastrunner.engine.embedded.commit.undelivered import undelivered
from fastrunner.engine.embedded.queries import Queries, Rows
from fastrunner.engine.embedded.shards import Shards
from fastrunner.errors import Damaged, ShardDamaged, Unavailable, UnknownExecution

__all__ = ["ShardOutbox"]


class ShardOutbox:
    """The Outbox of one worker; see `engine.Outbox`."""

    def __init__(self, shards: Shards, queries: Queries) -> None:
        self.listener: EventsListener | None = None
        """Told of every committed row."""
        self._shards = shards
        self._queries = queries

    def listen(self, listener: EventsListener) -> None:
        """See Outbox. Without a listener every event counts as given up: there is nobody to send it to."""
        self.listener = listener

    async def unacknowledged(self, after: tuple[str, int] | None, rows_max: int) -> Rows:
        """See Outbox."""
        return await undelivered([*self._shards], after or ("", 0), rows_max)

    async def unacknowledged_of(self, execution_id: str, from_sequence: int, size_bytes_max: int) -> Rows:
        """See Outbox."""
        # What cannot be read must not hold up what can.
        with suppress(UnknownExecution, Damaged, ShardDamaged):
            rows, _, _ = self._queries.rows(execution_id, from_sequence, limits.EVENTS_REPLAY_COUNT_MAX, size_bytes_max)
            return rows
        return []

    def acknowledge(self, execution_id: str, sequence: int) -> None:
        """See Outbox."""
        with suppress(UnknownExecution, Unavailable):
            self._shards.of(execution_id).acknowledge(execution_id, acknowledged=sequence)

    def give_up(self, execution_id: str, sequence: int) -> None:
        """See Outbox."""
        with suppress(UnknownExecution, Unavailable):
            self._shards.of(execution_id).acknowledge(execution_id, given_up=sequence)
