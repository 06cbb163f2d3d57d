"""Support: fan-out within one process: who follows an execution learns that there is more of it, and reads it.

    taken here -> tell -> followers, and whoever announces it to other services
    taken there        -> hear -> followers

A follower subscribes, reads what there is, and drops what it has; so nothing is lost between the two, and nothing is
kept for anybody: it is only said that there is more. Rule: told only after the commit.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from fastrunner.base import descriptors, limits
from fastrunner.errors import AtCapacity
from fastrunner.stigmer.changes import Changes
from fastrunner.stigmer.store import Told

__all__ = ["Follower", "Followers"]

_ALL: Final = ""
"""In the place of an id, which none is: whoever follows all executions."""


class Follower:
    """One who follows an execution."""

    def __init__(self) -> None:
        self._is_told = False
        self._waiter: asyncio.Future[None] | None = None
        self.is_over = False
        """Whether the service stops: the follower is to come again."""

    def tell(self) -> None:
        """There is more, or it is over."""
        self._is_told = True
        _end_wait(self._waiter)

    async def wait(self, timeout_s: float) -> bool:
        """Whether there may be more since the last time it waited; false if nothing was said for so long.

        Thousands wait and are told at once, so this is no Event with a timeout around it, which take several times as
        long.
        """
        if not self._is_told:
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, _end_wait, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        is_told, self._is_told = self._is_told, False
        return is_told


def _end_wait(waiter: "asyncio.Future[None] | None") -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


class Followers:
    """All of a process."""

    def __init__(self) -> None:
        self._of: dict[str, set[Follower]] = {}
        self._is_over = False
        self.changes = Changes()
        """What those who follow all executions read."""
        self._told_of: dict[str, int] = {}
        """How far followers were told that an execution is, of those that are followed."""
        self._times_told: dict[str, int] = {}
        """How often, of those."""
        self.announce: Callable[[Sequence[Told]], object] = lambda _: None
        """Hears of all that has changed here, for other services."""
        self.is_anew = asyncio.Event()
        """Set where something may not have been told."""
        self.count = 0
        """How many there are."""

    @contextmanager
    def follow(self, execution_id: str = _ALL) -> Iterator[Follower]:
        """A follower of one execution, or of all, while the context is open. Raises AtCapacity where there are as many
        as may be."""
        if self.count >= descriptors.for_followers(limits.STIGMER_FOLLOWERS_MAX, limits.HTTP_CONNECTIONS_MAX):
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
                self._told_of.pop(execution_id, None)
                self._times_told.pop(execution_id, None)

    def tell(self, told: Sequence[Told]) -> None:
        """Executions show more than before, by what was taken here."""
        self.hear(told)
        if told:
            self.announce(told)

    def changed(self, execution_ids: Iterable[str]) -> None:
        """Executions are others than before, though they show no more: the store has it."""
        self.tell([Told(execution_id, 0) for execution_id in execution_ids])

    def hear(self, told: Sequence[Told]) -> None:
        """The same, by what was taken anywhere."""
        self.changes.tell(each.execution_id for each in told)
        for each in told:
            followers = self._of.get(each.execution_id)
            if followers is not None:
                self._told_of[each.execution_id] = max(each.last_sequence, self.told_of(each.execution_id))
                self._times_told[each.execution_id] = self.times_told(each.execution_id) + 1
                for follower in followers:
                    follower.tell()
        for follower in self._of.get(_ALL, ()) if told else ():
            follower.tell()

    def followed(self) -> list[str]:
        """Executions that somebody follows."""
        return [execution_id for execution_id in self._of if execution_id != _ALL]

    def told_of(self, execution_id: str) -> int:
        """How far followers were told that an execution is; 0 if they were told nothing."""
        return self._told_of.get(execution_id, 0)

    def times_told(self, execution_id: str) -> int:
        """How often followers were told of an execution, since somebody has followed it without a break."""
        return self._times_told.get(execution_id, 0)

    def begin_anew(self) -> None:
        """Something may not have been told: who follows all executions begins anew, and the others are looked after."""
        self.changes.begin_anew()
        for follower in self._of.get(_ALL, ()):
            follower.tell()
        self.is_anew.set()

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
