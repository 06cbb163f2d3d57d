"""Stage 3, journal: listings of what one worker holds: in one helper thread, and only so many at once.

Rule: a listing costs far more than a keyed read, and nothing waits for it that matters to an execution. So there is no
long queue of them: who comes too late is told to come again.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from fastrunner.base import limits
from fastrunner.engine import ExecutionPage, ExecutionQuery
from fastrunner.engine.embedded.store.reader import Reader
from fastrunner.engine.pages import merged
from fastrunner.errors import AtCapacity

__all__ = ["Listings"]


class Listings:
    """The listings of one worker."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="listing")
        self._under_way_count = 0

    async def page(self, query: ExecutionQuery, stores: Sequence[Reader]) -> ExecutionPage:
        """A page of all shards together. Raises AtCapacity, StorageFailed."""
        if self._under_way_count >= limits.LISTINGS_AT_ONCE_MAX:
            raise AtCapacity(
                f"{self._under_way_count} listings are under way in this worker", retry_after_s=limits.LISTING_RETRY_S
            )
        self._under_way_count += 1
        try:
            loop = asyncio.get_running_loop()
            pages = [await loop.run_in_executor(self._thread, store.listing, query) for store in stores]
        finally:
            self._under_way_count -= 1
        return merged(pages, lambda view: (view.accepted_ms, view.execution_id), query.count_max)

    def close(self) -> None:
        """Waits for the one that is being read; the others get nothing."""
        self._thread.shutdown(wait=True, cancel_futures=True)
