"""Stage 3, journal: what the embedded engine answers about its executions.

Rule: keyed reads are on the loop's thread; listings, which may scan for long, are not; see `listings.py`.
"""

from collections.abc import Mapping
from dataclasses import replace

from fastrunner.base import limits
from fastrunner.engine import EncodedEvents, ExecutionPage, ExecutionQuery, ExecutionView, UnacknowledgedEvents
from fastrunner.engine.embedded.listings import Listings
from fastrunner.engine.embedded.run.subscriptions import Page
from fastrunner.engine.embedded.shards import Shards
from fastrunner.engine.embedded.waiting import waiting_for
from fastrunner.errors import Stopping, UnknownExecution
from fastrunner.progress.wire import split

__all__ = ["Answers", "Queries", "Rows"]

Rows = list[UnacknowledgedEvents]


class Queries:
    """Reads what the shards of one worker hold."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._listings = Listings()

    def get(self, execution_id: str) -> ExecutionView:
        """Raises UnknownExecution."""
        shard = self._shards.of(execution_id)
        view = shard.store.view(execution_id)
        if view is None:
            raise UnknownExecution(execution_id)
        return replace(view, waiting=waiting_for(shard, view))

    async def list(self, query: ExecutionQuery) -> ExecutionPage:
        """Newest first. Raises AtCapacity, Unavailable."""
        if self._shards.closing:
            raise Stopping("the worker is stopping: try again")
        return await self._listings.page(query, [shard.store for shard in self._shards])

    async def count(self, query: ExecutionQuery) -> Mapping[str, int]:
        """How many there are in each state. Raises AtCapacity, Unavailable."""
        self._shards.check_open()
        return await self._listings.counts(query, [shard.store for shard in self._shards])

    def document(self, execution_id: str) -> str:
        """The text that it executes. Raises UnknownExecution, Damaged."""
        store = self._shards.of(execution_id).store
        plan_key = store.plan_key(execution_id)
        if plan_key is None:
            raise UnknownExecution(execution_id)
        return store.document(plan_key)[0]

    def events(self, execution_id: str, from_sequence: int, count_max: int) -> EncodedEvents:
        """Encoded events, in sequence. Raises UnknownExecution."""
        rows, _, _ = self.rows(execution_id, from_sequence, count_max, limits.REQUEST_SIZE_BYTES_MAX)
        messages = [message for row in rows for message in split(row.messages)]
        skipped = max(0, from_sequence - rows[0].first_sequence) if rows else 0
        return messages[skipped : skipped + count_max]

    def page(self, execution_id: str, from_sequence: int) -> Page:
        """What a follower reads in one go. Raises UnknownExecution."""
        bounds = (limits.EVENTS_REPLAY_COUNT_MAX, limits.EVENTS_REPLAY_SIZE_BYTES_MAX)
        return Page(*self.rows(execution_id, from_sequence, *bounds))

    def rows(
        self, execution_id: str, from_sequence: int, count_max: int, size_bytes_max: int
    ) -> tuple[Rows, int, bool]:
        """Rows of events, the last sequence number, and whether it has ended. Raises UnknownExecution."""
        store = self._shards.of(execution_id).store
        progress = store.progress(execution_id)
        if progress is None:
            raise UnknownExecution(execution_id)
        key, last_sequence, finished = progress
        rows = store.events(execution_id, key, max(1, from_sequence), count_max, size_bytes_max, last_sequence)
        return rows, last_sequence, finished

    def close(self) -> None:
        """Ends the listings under way."""
        self._listings.close()


class Answers:
    """What an engine answers of them; see Engine."""

    _queries: Queries

    async def get(self, execution_id: str) -> ExecutionView:
        """See Engine."""
        return self._queries.get(execution_id)

    async def list(self, query: ExecutionQuery) -> ExecutionPage:
        """See Engine."""
        return await self._queries.list(query)

    async def count(self, query: ExecutionQuery) -> Mapping[str, int]:
        """See Engine."""
        return await self._queries.count(query)

    async def document(self, execution_id: str) -> str:
        """See Engine."""
        return self._queries.document(execution_id)

    async def events(self, execution_id: str, from_sequence: int, count_max: int) -> EncodedEvents:
        """See Engine."""
        return self._queries.events(execution_id, from_sequence, count_max)
