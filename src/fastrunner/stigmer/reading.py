"""Support: what many want at the same time, because they were told of it together, read once: events of an execution
for who follows it, and executions for who follows all.

Rule: whoever was told of something gets it: a read that began before that is not shared with who was told since.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

import orjson

from fastrunner.base import limits
from fastrunner.errors import RunnerError, UnknownExecution
from fastrunner.stigmer.followers import Followers
from fastrunner.stigmer.shown import execution_of
from fastrunner.stigmer.store import EventsPage, Execution, Store

__all__ = ["SharedReads", "Stands"]

_Key = tuple[str, int, int, int]
_Waiter = asyncio.Future[EventsPage]


@dataclass(frozen=True, slots=True)
class Stands:
    """An execution as it stands."""

    execution: Execution
    """As it is kept."""
    json: bytes
    """As it is shown."""


class SharedReads:
    """Those of one service; made and used on one loop."""

    def __init__(self, store: Store, followers: Followers) -> None:
        self._store = store
        self._followers = followers
        self._under_way: dict[_Key, list[_Waiter]] = {}
        """Who waits for what is being read, by execution, place and size, and how often followers had been told of it
        when the read began."""
        self._reading: set[asyncio.Task[None]] = set()
        self._executions: OrderedDict[str, tuple[int, asyncio.Task[Stands | None]]] = OrderedDict()
        """Read lately, each with the number of a change that was told before."""

    async def after_change(self, number: int, execution_id: str) -> Stands | None:
        """An execution as it stands since a change that was told; None if it is there no more. Raises StorageFailed."""
        known = self._executions.get(execution_id)
        if known is not None and known[0] >= number:
            finding = known[1]
        else:
            finding = asyncio.create_task(self._find(execution_id))
            self._executions[execution_id] = number, finding
            self._executions.move_to_end(execution_id)
            if len(self._executions) > limits.API_FEED_REMEMBERED_MAX:
                self._executions.popitem(last=False)
            finding.add_done_callback(lambda task: self._forget(execution_id, task))
        # Whoever asked first may leave.
        return await asyncio.shield(finding)

    async def _find(self, execution_id: str) -> Stands | None:
        try:
            execution = await self._store.find(execution_id)
        except UnknownExecution:
            return None
        return Stands(execution, orjson.dumps(execution_of(execution).model_dump()))

    def _forget(self, execution_id: str, finding: "asyncio.Task[Stands | None]") -> None:
        """What failed is tried anew by who comes again, and what is large is not kept."""
        has_failed = finding.cancelled() or finding.exception() is not None
        stands = None if has_failed else finding.result()
        is_small = stands is None or len(stands.json) <= limits.API_FEED_REMEMBERED_SIZE_BYTES_MAX
        known = self._executions.get(execution_id)
        if (has_failed or not is_small) and known is not None and known[1] is finding:
            del self._executions[execution_id]

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
