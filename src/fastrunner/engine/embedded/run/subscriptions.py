"""Stage 6, events: followers of single executions.

Rules: a follower is registered before it reads the store, so that no commit falls between replay and following; it may
lag by a bounded number of events, then it is read from the store again; it ends after the terminal event.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from fastrunner.base import limits
from fastrunner.engine import UnacknowledgedEvents
from fastrunner.errors import Unavailable
from fastrunner.progress.wire import split

__all__ = ["Page", "Subscriptions"]


@dataclass(frozen=True, slots=True)
class Page:
    """Durable events of an execution from a sequence number on."""

    rows: list[UnacknowledgedEvents]
    """Rows in order; the first may begin earlier."""
    last_sequence: int
    """The execution's latest durable sequence number."""
    finished: bool
    """Whether that one is the terminal event."""


ReadPage = Callable[[str, int], Page]


class _Follower:
    """What has been committed for one subscriber and not been taken yet."""

    __slots__ = ("backlog", "backlog_events_count", "backlog_size_bytes", "changed", "lagging")

    def __init__(self) -> None:
        self.backlog: deque[tuple[UnacknowledgedEvents, bool]] = deque()
        self.backlog_events_count = self.backlog_size_bytes = 0
        self.lagging = False
        self.changed = asyncio.Event()

    def offer(self, row: UnacknowledgedEvents, finished: bool) -> None:
        if not self.lagging:
            self.backlog.append((row, finished))
            self._count(row, 1)
            if (
                self.backlog_events_count > limits.SUBSCRIPTION_BACKLOG_EVENTS_MAX
                or self.backlog_size_bytes > limits.SUBSCRIPTION_BACKLOG_SIZE_BYTES_MAX
            ):
                self.restart()
                self.lagging = True
        self.changed.set()

    def take(self) -> tuple[UnacknowledgedEvents, bool]:
        row, finished = self.backlog.popleft()
        self._count(row, -1)
        return row, finished

    def restart(self) -> None:
        self.backlog.clear()
        self.backlog_events_count = self.backlog_size_bytes = 0
        self.lagging = False

    def _count(self, row: UnacknowledgedEvents, sign: int) -> None:
        self.backlog_events_count += sign * (row.last_sequence - row.first_sequence + 1)
        self.backlog_size_bytes += sign * len(row.messages)


class Subscriptions:
    """The followers of one worker."""

    def __init__(self, read_page: ReadPage) -> None:
        self._read_page = read_page
        self._followers: dict[str, set[_Follower]] = {}
        self._closed = False

    def announce(self, row: UnacknowledgedEvents, finished: bool) -> None:
        """Tells followers about a row that is durable now; `finished` if it ends with the terminal event."""
        for follower in self._followers.get(row.execution_id, ()):
            follower.offer(row, finished)

    def close(self) -> None:
        """Ends every follower with Unavailable."""
        self._closed = True
        for followers in self._followers.values():
            for follower in followers:
                follower.changed.set()

    async def follow(self, execution_id: str, from_sequence: int) -> AsyncIterator[bytes]:
        """Encoded events from a sequence number on, until the terminal one. Raises UnknownExecution, Unavailable."""
        follower = _Follower()
        followers = self._followers.setdefault(execution_id, set())
        followers.add(follower)
        try:
            next_sequence = max(1, from_sequence)
            ended = False
            while not ended:
                follower.restart()
                page = self._read_page(execution_id, next_sequence)
                for row in page.rows:
                    for message in _from(row, next_sequence):
                        yield message
                    next_sequence = max(next_sequence, row.last_sequence + 1)
                # A subscriber that never waits must not keep a long replay from letting others run.
                await asyncio.sleep(0)
                ended = page.finished and next_sequence > page.last_sequence
                # Behind the store: read on. Level with it: follow, until too much has come at once.
                while not ended and next_sequence > page.last_sequence and not follower.lagging:
                    if not follower.backlog:
                        await self._changed(follower)
                        continue
                    row, ended = follower.take()
                    for message in _from(row, next_sequence):
                        yield message
                    next_sequence = max(next_sequence, row.last_sequence + 1)
        finally:
            followers.discard(follower)
            if not followers and self._followers.get(execution_id) is followers:
                del self._followers[execution_id]

    async def _changed(self, follower: _Follower) -> None:
        if self._closed:
            raise Unavailable("the worker is stopping: subscribe again from the next sequence number")
        follower.changed.clear()
        await follower.changed.wait()
        if self._closed and not follower.backlog:
            raise Unavailable("the worker is stopping: subscribe again from the next sequence number")


def _from(row: UnacknowledgedEvents, from_sequence: int) -> list[bytes]:
    """The row's messages from a sequence number on."""
    messages = list(split(row.messages))
    return messages[max(0, from_sequence - row.first_sequence) :]
