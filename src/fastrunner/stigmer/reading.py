"""Support: events that many want at the same time, because they were told of them together, read once.

Rule: whoever was told of an event gets it: a read that began before that is not shared with who was told since.
"""

import asyncio

from fastrunner.base import limits
from fastrunner.errors import RunnerError
from fastrunner.stigmer.followers import Followers
from fastrunner.stigmer.store import EventsPage, Store

__all__ = ["SharedReads"]

_Key = tuple[str, int, int, int]
_Waiter = asyncio.Future[EventsPage]


class SharedReads:
    """Those of one service; made and used on one loop."""

    def __init__(self, store: Store, followers: Followers) -> None:
        self._store = store
        self._followers = followers
        self._under_way: dict[_Key, list[_Waiter]] = {}
        """Who waits for what is being read, by execution, place and size, and how often followers had been told of it
        when the read began."""
        self._reading: set[asyncio.Task[None]] = set()

    async def events_after(self, execution_id: str, after: int, count_max: int) -> EventsPage:
        """See Store; for those who follow. Raises UnknownExecution, StorageFailed."""
        key = (execution_id, after, count_max, self._followers.times_told(execution_id))
        waiters = self._under_way.get(key)
        if waiters is None:
            waiters = self._under_way[key] = []
            # Its own task: whoever asked first may leave.
            reading = asyncio.create_task(self._read(key))
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        waiters.append(waiter)
        return await waiter

    async def _read(self, key: _Key) -> None:
        execution_id, after, count_max, _ = key
        try:
            page = await self._store.events_after(execution_id, after, count_max, limits.API_EVENTS_SIZE_BYTES_MAX)
        except BaseException as error:
            for waiter in self._take(key):
                waiter.set_exception(error)
            if not isinstance(error, RunnerError):
                raise
        else:
            for waiter in self._take(key):
                waiter.set_result(page)

    def _take(self, key: _Key) -> "list[_Waiter]":
        """Those who wait still."""
        return [waiter for waiter in self._under_way.pop(key) if not waiter.done()]
