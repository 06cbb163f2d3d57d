"""Stage 6, events: followers of single executions.

Theory of operation: a follower holds rows of events that it has not told yet: a page read from the store, then what has
been committed since. All followers share one budget of bytes. When it is used up, the one that has been silent for
longest gives its rows back, because its client does not read; it reads a page again when its client goes on. Followers
of one execution that stand at the same event share a page, and all share its rows, which are taken apart once.

Rules: a follower is registered before it reads the store, so that no commit falls between replay and following; each
page that is read brings it on by one event at least; it ends after the terminal event. Some followers are told of a
commit per turn of the loop, and executions take turns in that: one with thousands of them holds nobody up. What a
follower has read from the store meanwhile it is not told again.
"""

import asyncio
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

from fastrunner.base import limits
from fastrunner.engine import UnacknowledgedEvents
from fastrunner.errors import Stopping
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


class OfAll(Protocol):
    """Those who follow all executions."""

    def announce(self) -> None:
        """Events are durable now."""

    def close(self) -> None:
        """Ends their following."""


class _Row:
    """Events that lie together, as all followers share them."""

    __slots__ = ("finished", "first_sequence", "last_sequence", "messages", "size_bytes")

    def __init__(self, row: UnacknowledgedEvents, finished: bool) -> None:
        self.first_sequence = row.first_sequence
        self.last_sequence = row.last_sequence
        self.messages = tuple(split(row.messages))
        self.size_bytes = len(row.messages)
        self.finished = finished
        """Whether it ends with the terminal event."""


@dataclass(frozen=True, slots=True)
class _SharedPage:
    """A page as all followers share it."""

    rows: list[_Row]
    last_sequence: int
    finished: bool

    @classmethod
    def of(cls, page: Page) -> "_SharedPage":
        rows = [_Row(row, page.finished and row.last_sequence >= page.last_sequence) for row in page.rows]
        return cls(rows, page.last_sequence, page.finished)


class _Budget:
    """The bytes of all rows that followers hold; one that several hold counts once."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._holders: Counter[int] = Counter()
        self._by_silence: OrderedDict[_Follower, None] = OrderedDict()
        """Whoever holds rows, the one that has been silent for longest first."""

    def hold(self, follower: "_Follower", row: _Row) -> None:
        """Counts a row of a follower, and has others give theirs back if that is too much."""
        self._by_silence.setdefault(follower)
        if not self._holders[id(row)]:
            self.size_bytes += row.size_bytes
        self._holders[id(row)] += 1
        while self.size_bytes > limits.SUBSCRIPTIONS_SIZE_BYTES_MAX and len(self._by_silence) > 1:
            silent = next(each for each in self._by_silence if each is not follower)
            silent.give_back()

    def release(self, row: _Row) -> None:
        """Takes the count of a row back."""
        self._holders[id(row)] -= 1
        if not self._holders[id(row)]:
            del self._holders[id(row)]
            self.size_bytes -= row.size_bytes

    def told(self, follower: "_Follower") -> None:
        """A follower has told an event: its client reads."""
        self._by_silence.move_to_end(follower)

    def forget(self, follower: "_Follower") -> None:
        """A follower holds nothing any more."""
        self._by_silence.pop(follower, None)


class _Follower:
    """What has been read or committed for one subscriber and has not been told yet."""

    def __init__(self, budget: _Budget, next_sequence: int) -> None:
        self.changed = asyncio.Event()
        self.lagging = True
        """Whether what follows `rows` has to be read from the store."""
        self.ended = False
        """Whether the terminal event has been told."""
        self.next_sequence = next_sequence
        self.rows: deque[_Row] = deque()
        self._budget = budget
        self._events_count = self._size_bytes = 0

    def fill(self, page: _SharedPage) -> None:
        """Takes what has been read from the store."""
        reaches = not page.rows or page.rows[-1].last_sequence >= page.last_sequence
        self.lagging = not reaches
        self.ended = page.finished and self.next_sequence > page.last_sequence
        for row in page.rows:
            self._append(row)

    def offer(self, row: _Row) -> None:
        """Takes what has been committed, unless it has been read from the store, or that would be too much."""
        latest = self.rows[-1].last_sequence if self.rows else self.next_sequence - 1
        if row.last_sequence <= latest and not row.finished:
            return
        if not self.lagging:
            self._append(row)
            if (
                self._events_count > limits.SUBSCRIPTION_BACKLOG_EVENTS_MAX
                or self._size_bytes > limits.SUBSCRIPTION_BACKLOG_SIZE_BYTES_MAX
            ):
                self.give_back()
        self.changed.set()

    def take(self) -> bytes | None:
        """The next event; none if it is not here."""
        while self.rows:
            row = self.rows[0]
            if self.next_sequence <= row.last_sequence:
                self.next_sequence += 1
                self._budget.told(self)
                return row.messages[self.next_sequence - 1 - row.first_sequence]
            self._drop_first()
            self.ended = row.finished
        return None

    def give_back(self) -> None:
        """Drops the rows: what they hold, and what follows, is read from the store later."""
        while self.rows:
            self._drop_first()
        self.lagging = True

    def _append(self, row: _Row) -> None:
        self.rows.append(row)
        self._count(row, 1)
        self._budget.hold(self, row)

    def _drop_first(self) -> None:
        row = self.rows.popleft()
        self._count(row, -1)
        self._budget.release(row)
        if not self.rows:
            self._budget.forget(self)

    def _count(self, row: _Row, sign: int) -> None:
        self._events_count += sign * (row.last_sequence - row.first_sequence + 1)
        self._size_bytes += sign * row.size_bytes


class _Followed:
    """One execution that is followed."""

    def __init__(self) -> None:
        self.followers: set[_Follower] = set()
        self.commits = 0
        """How often something has been committed since it is followed."""
        self._due: deque[_Row | None] = deque()
        """What followers are still to be told, in order; none: that they have to read the store."""
        self._untold: list[_Follower] = []
        """Who has not been told of the first of these."""

    @property
    def is_due(self) -> bool:
        """Whether there is somebody to tell of something."""
        return bool(self._due)

    def add(self, row: _Row) -> None:
        """Something has been committed. When it comes faster than it can be told, the store has it all."""
        is_too_much = len(self._due) >= limits.SUBSCRIPTION_ROWS_DUE_MAX
        if is_too_much:
            self._due.clear()
        if not self._due:
            self._untold = list(self.followers)
        self._due.append(None if is_too_much else row)

    def tell(self, count_max: int) -> int:
        """Tells so many followers, or fewer; how many."""
        count = 0
        while self._due and count < count_max:
            if self._untold:
                follower = self._untold.pop()
                if follower in self.followers:
                    self._tell(follower, self._due[0])
                    count += 1
            if not self._untold:
                self._due.popleft()
                self._untold = list(self.followers)
        return count

    def _tell(self, follower: _Follower, row: _Row | None) -> None:
        if row is not None:
            follower.offer(row)
            return
        follower.give_back()
        follower.changed.set()


class Subscriptions:
    """The followers of one worker."""

    def __init__(self, read_page: ReadPage, of_all: OfAll) -> None:
        """`of_all` are those who follow all executions: they hear of everything as well."""
        self._read_page = read_page
        self._of_all = of_all
        self._followed: dict[str, _Followed] = {}
        # The pages read last, each as of a commit: who comes to the same event before the next commit finds it.
        self._pages: OrderedDict[tuple[_Followed, int, int], _SharedPage] = OrderedDict()
        self._budget = _Budget()
        self._due: deque[_Followed] = deque()
        self._telling: asyncio.Handle | None = None
        self._closed = False

    @property
    def size_bytes(self) -> int:
        """Bytes of events that followers hold."""
        return self._budget.size_bytes

    def announce(self, row: UnacknowledgedEvents, finished: bool) -> None:
        """Tells followers about a row that is durable now; `finished` if it ends with the terminal event."""
        self._of_all.announce()
        followed = self._followed.get(row.execution_id)
        if followed is None:
            return
        followed.commits += 1
        if not followed.is_due:
            self._due.append(followed)
        followed.add(_Row(row, finished))
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        """Tells some followers; the others have their turn later."""
        left = limits.SUBSCRIPTION_FOLLOWERS_PER_TURN_MAX
        while self._due and left > 0:
            followed = self._due.popleft()
            left -= followed.tell(left)
            if followed.is_due:
                self._due.append(followed)
        self._telling = asyncio.get_running_loop().call_soon(self._tell) if self._due else None

    def close(self) -> None:
        """Ends every follower with Stopping, after what it holds."""
        self._closed = True
        self._of_all.close()
        if self._telling is not None:
            self._telling.cancel()
        for followed in self._followed.values():
            # At most what is held for all of them: nothing is copied.
            followed.tell(sys.maxsize)
            for follower in followed.followers:
                follower.changed.set()

    async def follow(self, execution_id: str, from_sequence: int) -> AsyncGenerator[bytes, None]:
        """Encoded events from a sequence number on, until the terminal one. Raises UnknownExecution, Stopping."""
        follower = _Follower(self._budget, max(1, from_sequence))
        followed = self._followed.setdefault(execution_id, _Followed())
        followed.followers.add(follower)
        try:
            while True:
                message = follower.take()
                if message is not None:
                    yield message
                elif follower.ended:
                    return
                elif not follower.lagging:
                    await self._changed(follower)
                else:
                    # A subscriber that never waits must not keep a long replay from letting others run.
                    await asyncio.sleep(0)
                    follower.fill(self._page(followed, execution_id, follower.next_sequence))
        finally:
            follower.give_back()
            followed.followers.discard(follower)
            if not followed.followers and self._followed.get(execution_id) is followed:
                del self._followed[execution_id]

    def _page(self, followed: _Followed, execution_id: str, from_sequence: int) -> _SharedPage:
        key = (followed, followed.commits, from_sequence)
        page = self._pages.get(key)
        if page is None:
            page = self._pages[key] = _SharedPage.of(self._read_page(execution_id, from_sequence))
            if len(self._pages) > limits.SUBSCRIPTION_PAGES_KEPT_MAX:
                self._pages.popitem(last=False)
        self._pages.move_to_end(key)
        return page

    async def _changed(self, follower: _Follower) -> None:
        if self._closed:
            raise Stopping("the worker is stopping: subscribe again from the next sequence number")
        follower.changed.clear()
        await follower.changed.wait()
        if self._closed and not follower.rows:
            raise Stopping("the worker is stopping: subscribe again from the next sequence number")
