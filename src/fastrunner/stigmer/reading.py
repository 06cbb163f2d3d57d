"""Support: events that many want at the same time, because they were told of them together, read once.

Rule: whoever was told of an event gets it: a read that began before that is not shared with who was told since.
"""

import asyncio

from fastrunner.base import limits
from fastrunner.stigmer.followers import Followers
from fastrunner.stigmer.store import EventsPage, Store

__all__ = ["SharedReads"]

_Key = tuple[str, int, int, int]


class SharedReads:
    """Those of one service; made and used on one loop."""

    def __init__(self, store: Store, followers: Followers) -> None:
        self._store = store
        self._followers = followers
        self._under_way: dict[_Key, asyncio.Task[EventsPage]] = {}
        """By execution, place and size, and how often followers had been told of it when the read began."""

    async def events_after(self, execution_id: str, after: int, count_max: int) -> EventsPage:
        """See Store; for those who follow. Raises UnknownExecution, StorageFailed."""
        key = (execution_id, after, count_max, self._followers.times_told(execution_id))
        reading = self._under_way.get(key)
        if reading is None:
            reading = self._under_way[key] = asyncio.create_task(
                self._store.events_after(execution_id, after, count_max, limits.API_EVENTS_SIZE_BYTES_MAX)
            )
            reading.add_done_callback(lambda task: self._done(key, task))
        # Whoever asked first may leave.
        return await asyncio.shield(reading)

    def _done(self, key: _Key, reading: "asyncio.Task[EventsPage]") -> None:
        del self._under_way[key]
        if not reading.cancelled():
            # Nobody may wait any more.
            reading.exception()
