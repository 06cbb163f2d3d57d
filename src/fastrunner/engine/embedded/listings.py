"""Stage 3, journal: listings of what one worker holds: in one helper thread, and only so many at once.

Rule: a listing costs far more than a keyed read, and nothing waits for it that matters to an execution. So there is no
long queue of them: who comes too late is told to come again, and a worker that stops breaks off what is being read.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastrunner.base import limits
from fastrunner.engine import ExecutionPage, ExecutionQuery
from fastrunner.engine.embedded.store.reader import Reader
from fastrunner.engine.pages import merged
from fastrunner.errors import AtCapacity, Stopping

__all__ = ["Listings"]

_INTERRUPT_AGAIN_S = 0.01
T = TypeVar("T")


class Listings:
    """The listings of one worker."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="listing")
        self._under_way_count = 0
        self._being_read: Reader | None = None
        """What the thread reads now."""
        self._read = threading.Event()
        """Set when it has."""
        self._closed = False

    async def page(self, query: ExecutionQuery, stores: Sequence[Reader]) -> ExecutionPage:
        """A page of all shards together. Raises AtCapacity, StorageFailed, Stopping."""
        pages = await self._of_each(stores, lambda store: store.listing(query))
        return merged(pages, lambda view: (view.accepted_ms, view.execution_id), query.count_max)

    async def counts(self, query: ExecutionQuery, stores: Sequence[Reader]) -> Mapping[str, int]:
        """How many there are in each state, of all shards together. Raises AtCapacity, StorageFailed, Stopping."""
        total: Counter[str] = Counter()
        for counts in await self._of_each(stores, lambda store: store.counts(query)):
            total.update(counts)
        return total

    async def _of_each(self, stores: Sequence[Reader], read: Callable[[Reader], T]) -> list[T]:
        if self._under_way_count >= limits.LISTINGS_AT_ONCE_MAX:
            raise AtCapacity(
                f"{self._under_way_count} listings are under way in this worker", retry_after_s=limits.LISTING_RETRY_S
            )
        self._under_way_count += 1
        try:
            return [await self._of_one(store, read) for store in stores]
        finally:
            self._under_way_count -= 1

    async def _of_one(self, store: Reader, read: Callable[[Reader], T]) -> T:
        self._refuse_if_closed()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._reading, store, read)

    def _reading(self, store: Reader, read: Callable[[Reader], T]) -> T:
        """Runs in the thread. It says what it reads before it looks whether it may: `close` does it the other way."""
        self._read.clear()
        self._being_read = store
        try:
            self._refuse_if_closed()
            return read(store)
        finally:
            self._being_read = None
            self._read.set()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Stopping("the worker is stopping: try again")

    def close(self) -> None:
        """Breaks off the one that is being read; nobody gets a page any more."""
        self._closed = True
        while (store := self._being_read) is not None:
            store.interrupt_listing()
            # It may have been about to begin.
            self._read.wait(_INTERRUPT_AGAIN_S)
        self._thread.shutdown(wait=True)
