"""Support: one who follows all executions of a Stigmer Service: told what has changed, it reads what that is now.

Rule: it is told after the commit, so what it reads is at least as new as what it was told.
"""

import asyncio
from collections.abc import Sequence

from fastrunner.base import limits
from fastrunner.stigmer.changes import Changes
from fastrunner.stigmer.followers import Follower
from fastrunner.stigmer.reading import SharedReads
from fastrunner.stigmer.store import Execution, Filter
from fastrunner.web.api.backend import Changed

__all__ = ["StoreFeed"]


class StoreFeed:
    """See web.api.backend.Feed."""

    def __init__(self, reads: SharedReads, follower: Follower, changes: Changes, which: Filter, after: str) -> None:
        self._reads = reads
        self._follower = follower
        self._changes = changes
        self._which = which
        number = changes.number_of(after) if after else None
        self.is_new = number is None
        self._number = changes.last if number is None else number
        self._has_more = not self.is_new

    @property
    def cursor(self) -> str:
        """See Feed."""
        return self._changes.cursor(self._number)

    @property
    def is_over(self) -> bool:
        """See Feed. Also of one who is too slow for what changes: it comes again, and is told that it begins anew."""
        return self._follower.is_over or not self._changes.knows_after(self._number)

    async def read(self, timeout_s: float) -> Sequence[Changed]:
        """See Feed."""
        if not self._has_more:
            if not await self._follower.wait(timeout_s):
                return ()
            await asyncio.sleep(limits.API_FEED_PAUSE_S)
        found = self._changes.after(self._number, limits.API_FEED_PAGE_MAX)
        self._has_more = len(found) == limits.API_FEED_PAGE_MAX
        executions = await asyncio.gather(*(self._reads.after_change(*each) for each in found))
        if found:
            self._number = found[-1][0]
        return [
            Changed(self._changes.cursor(number), stands.json)
            for (number, _), stands in zip(found, executions, strict=True)
            if stands is not None and self._shows(stands.execution)
        ]

    def _shows(self, execution: Execution) -> bool:
        which = self._which
        return all(
            not wanted or wanted == given
            for wanted, given in (
                (which.namespace, execution.namespace),
                (which.name, execution.name),
                (which.version, execution.version),
            )
        ) and (which.within is None or execution.namespace in which.within)
