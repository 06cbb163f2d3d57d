"""Support: fan-out within one process: who follows an execution learns that there is more of it, and reads it.

A follower subscribes, reads what there is, and drops what it has; so nothing is lost between the two, and nothing is
kept for anybody: it is only said that there is more. Rule: told only after the commit.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from fastrunner.base import limits
from fastrunner.errors import AtCapacity
from fastrunner.stigmer.changes import Changes
from fastrunner.stigmer.store import Told

__all__ = ["Follower", "Followers"]

_ALL: Final = ""
"""In the place of an id, which none is: whoever follows all executions."""


class Follower:
    """One who follows an execution."""

    def __init__(self) -> None:
        self._more = asyncio.Event()
        self.is_over = False
        """Whether the service stops: the follower is to come again."""

    def tell(self) -> None:
        """There is more, or it is over."""
        self._more.set()

    async def wait(self, timeout_s: float) -> bool:
        """Whether there may be more since the last time it waited; false if nothing was said for so long."""
        try:
            await asyncio.wait_for(self._more.wait(), timeout_s)
        except TimeoutError:
            return False
        self._more.clear()
        return True


class Followers:
    """All of a process."""

    def __init__(self) -> None:
        self._of: dict[str, set[Follower]] = {}
        self._is_over = False
        self.changes = Changes()
        """What those who follow all executions read."""
        self.count = 0
        """How many there are."""

    @contextmanager
    def follow(self, execution_id: str = _ALL) -> Iterator[Follower]:
        """A follower of one execution, or of all, while the context is open. Raises AtCapacity where there are as many
        as may be."""
        if self.count >= limits.STIGMER_FOLLOWERS_MAX:
            raise AtCapacity(f"{self.count} clients follow executions, and no more may: try again later", 5.0)
        follower = Follower()
        if self._is_over:
            follower.is_over = True
            follower.tell()
        self._of.setdefault(execution_id, set()).add(follower)
        self.count += 1
        try:
            yield follower
        finally:
            self.count -= 1
            followers = self._of[execution_id]
            followers.discard(follower)
            if not followers:
                del self._of[execution_id]

    def tell(self, told: Iterable[Told]) -> None:
        """Executions show more than before."""
        self.changed(each.execution_id for each in told)

    def changed(self, execution_ids: Iterable[str]) -> None:
        """Executions are others than before: the store has it."""
        ids = tuple(execution_ids)
        self.changes.tell(ids)
        for execution_id in (*ids, _ALL) if ids else ():
            for follower in self._of.get(execution_id, ()):
                follower.tell()

    def wake(self) -> None:
        """Everybody is to look again: who may follow has changed."""
        for followers in self._of.values():
            for follower in followers:
                follower.tell()

    def end(self) -> None:
        """The service stops: everybody is to come again, to its successor."""
        self._is_over = True
        for followers in self._of.values():
            for follower in followers:
                follower.is_over = True
                follower.tell()
