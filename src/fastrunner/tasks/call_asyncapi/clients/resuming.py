"""Stage 5, tasks: a subscription that outlives its connection: a broker that restarts ends no workflow that waits.

Theory of operation: a session is a subscription on one connection. When it is lost another one is opened, for as long
as a bound says. What the lost one gave and had not acknowledged comes again, if the broker keeps messages: at least
once. Refusals, of a destination or of credentials, are no loss: they end the subscription.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from fastrunner.base import clock, limits
from fastrunner.tasks.call_asyncapi.clients import Message, Subscription
from fastrunner.tasks.call_asyncapi.clients.sockets import Unreachable
from fastrunner.tasks.call_http.failures import CallProblem

__all__ = ["Inbox", "Resuming"]

Item = TypeVar("Item")

_ITEM_SIZE_BYTES_MIN = 1_024
"""What the smallest message takes, roughly, as an object of a library."""


class Inbox(Generic[Item]):
    """What a library has received and nobody has taken yet. One coroutine takes; giving up to wait loses nothing."""

    def __init__(self) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._size_bytes = 0
        self._problem: CallProblem | None = None
        self._changed = asyncio.Event()

    def put(self, item: Item, size_bytes: int) -> None:
        """Adds the latest; one that finds no room is the end, because it is lost."""
        size_bytes = max(size_bytes, _ITEM_SIZE_BYTES_MIN)
        if self._size_bytes + size_bytes > limits.ASYNCAPI_MESSAGES_WAITING_SIZE_BYTES_MAX:
            self.fail(CallProblem("Messages Lost", "more messages came at a time than are kept for the workflow"))
        if self._problem is None:
            self._items.append((item, size_bytes))
            self._size_bytes += size_bytes
        self._changed.set()

    def fail(self, problem: CallProblem) -> None:
        """Nothing more comes; what is there may still be taken. The first problem counts."""
        self._problem = self._problem or problem
        self._changed.set()

    async def get(self) -> Item:
        """The earliest, once there is one. Raises the problem for which nothing more comes."""
        while not self._items:
            if self._problem is not None:
                raise self._problem
            self._changed.clear()
            await self._changed.wait()
        item, size_bytes = self._items.popleft()
        self._size_bytes -= size_bytes
        return item


class Resuming:
    """See `Subscription`."""

    def __init__(self, open_: Callable[[], Awaitable[Subscription]], *, timeout_s: float) -> None:
        """`open_` opens a session, within `timeout_s` when it is opened again."""
        self._open = open_
        self._timeout_s = timeout_s
        self._session: Subscription | None = None
        self._lost_at_s = 0.0
        self._given_count = 0
        self._gone_count = 0
        """Of what was given and not taken, by this session, and by those before it."""

    async def start(self) -> "Resuming":
        """Opens the first session. Raises CallProblem."""
        self._session = await self._open()
        return self

    async def next(self) -> Message:
        """See `Subscription`."""
        while True:
            session = self._session or await self._reopen()
            try:
                message = await session.next()
            except Unreachable:
                await self._lose()
            else:
                self._given_count += 1
                return message

    async def taken(self, count: int) -> None:
        """See `Subscription`. Over a lost connection nothing can be acknowledged: those messages come again."""
        gone = min(count, self._gone_count)
        self._gone_count -= gone
        if self._session is not None and count > gone:
            self._given_count -= count - gone
            try:
                await self._session.taken(count - gone)
            except Unreachable:
                await self._lose()

    async def close(self) -> None:
        """See `Subscription`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _lose(self) -> None:
        self._lost_at_s = clock.monotonic_s()
        self._gone_count, self._given_count = self._gone_count + self._given_count, 0
        await self.close()

    async def _reopen(self) -> Subscription:
        while True:
            await asyncio.sleep(limits.ASYNCAPI_RECONNECT_INTERVAL_S)
            try:
                async with asyncio.timeout(self._timeout_s):
                    self._session = await self._open()
            except CallProblem as problem:
                self._give_up_on(problem)
            except TimeoutError:
                self._give_up_on(Unreachable("No Response In Time", "the broker does not answer in time"))
            else:
                return self._session

    def _give_up_on(self, problem: CallProblem) -> None:
        """Raises the problem, unless another attempt may do better and there is time for one."""
        is_lasting = problem.type != "communication" or problem.status in (401, 403)
        if is_lasting or clock.monotonic_s() - self._lost_at_s >= limits.ASYNCAPI_RECONNECT_S_MAX:
            raise problem
