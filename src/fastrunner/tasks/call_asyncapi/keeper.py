"""Stage 5, tasks: the open subscriptions of one worker, between the effects of whoever has them.

Theory of operation: one effect takes some messages, the next one acknowledges those that are done with and takes
further ones. What the messages of one effect are called says whether a subscription is still the one that gave them:
if it is not, as after a crash, another one is opened, which acknowledges what it knows by id.

Rules: a subscription is closed when its task ends, when its effect is interrupted or fails, when it is asked for by a
new visit of the task, when nobody has asked for ASYNCAPI_IDLE_S, when too many are idle, and with the worker. What was
given and not acknowledged is then the broker's again. Waiting for a message is a task of its own, which an effect that
ends leaves alone, so no message is lost between two of them.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from fastrunner.base import limits
from fastrunner.base.clock import wall_ms
from fastrunner.tasks.call_asyncapi.clients import Message, Settling, Subscription
from fastrunner.tasks.call_http.failures import CallProblem

__all__ = ["Keeper", "Kept", "is_settled_by_ids"]


class Kept:
    """One open subscription."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._session = secrets.token_hex(8)
        self._outcomes = 0
        self._ids: list[str] = []
        """Of the latest messages."""
        self._next: asyncio.Task[Message] | None = None
        self.idle: asyncio.TimerHandle | None = None
        """What closes it unless somebody asks."""

    @property
    def position(self) -> dict[str, Any]:
        """What the latest messages are called."""
        return {"outcome": f"{self._session}/{self._outcomes}", "ids": self._ids}

    async def taken(self, after: Any, count: int) -> None:
        """So many of the messages that came as `after` are done with, whoever gave them. Raises CallProblem."""
        if count == 0:
            return
        if after == self.position:
            await self._subscription.taken(count)
        elif isinstance(self._subscription, Settling) and is_settled_by_ids(after):
            await self._subscription.settle(after["ids"][:count])

    async def messages(self, amount: int | None, ends_at_ms: int | None) -> list[Message]:
        """The next messages, at least one and what comes along with it; none once the time is up. Raises CallProblem
        unless there are some."""
        found: list[Message] = []
        size_bytes = 0
        wait_s = None if ends_at_ms is None else max(0.0, (ends_at_ms - wall_ms()) / 1000)
        count_max = min(amount or limits.ASYNCAPI_MESSAGES_PER_EFFECT_MAX, limits.ASYNCAPI_MESSAGES_PER_EFFECT_MAX)
        while len(found) < count_max and size_bytes < limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
            if self._next is None:
                self._next = asyncio.create_task(self._received())
            await asyncio.wait([self._next], timeout=wait_s)
            if not self._next.done() or (found and self._next.exception() is not None):
                break
            message = self._next.result()
            self._next = None
            found.append(message)
            size_bytes += len(message.body)
            wait_s = limits.ASYNCAPI_LINGER_S
        self._outcomes += 1
        self._ids = [message.id for message in found if message.id]
        return found

    async def _received(self) -> Message:
        message = await self._subscription.next()
        if len(message.body) > limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
            raise CallProblem("Message Too Large", f"a message exceeds {limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX} bytes")
        return message

    async def close(self) -> None:
        """Never raises."""
        if self.idle is not None:
            self.idle.cancel()
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        await self._subscription.close()


def is_settled_by_ids(after: Any) -> bool:
    """Whether another subscription than the one that gave messages can acknowledge them."""
    return isinstance(after, dict) and bool(after["ids"])


class Keeper:
    """The open subscriptions by their consumers."""

    def __init__(self) -> None:
        self._idle: dict[str, Kept] = {}
        """Those that no effect has, the longest idle first."""
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    def find(self, consumer: str, after: Any) -> Kept | None:
        """The consumer's subscription if it is the one that gave `after`; whoever gets it has it alone."""
        kept = self._idle.pop(consumer, None)
        if kept is None:
            return None
        if kept.idle is not None:
            kept.idle.cancel()
        if kept.position == after:
            return kept
        self.end(kept)
        return None

    async def take(self, consumer: str, after: Any, open_: Callable[[], Awaitable[Subscription]]) -> Kept:
        """As `find`; another one is opened where there is none. Raises CallProblem."""
        kept = self.find(consumer, after)
        if kept is None:
            # A broker may have one place for a consumer, so what it had is closed before.
            await self._closed()
            kept = Kept(await open_())
        return kept

    def give_back(self, consumer: str, kept: Kept) -> None:
        """An effect has ended, and the next one may ask for more."""
        if self._is_closed:
            self.end(kept)
            return
        self._idle[consumer] = kept
        kept.idle = asyncio.get_running_loop().call_later(limits.ASYNCAPI_IDLE_S, self._expired, consumer)
        while len(self._idle) > limits.ASYNCAPI_SUBSCRIPTIONS_IDLE_MAX:
            self._expired(next(iter(self._idle)))

    def end(self, kept: Kept) -> None:
        """Closes a subscription; nobody waits for it."""
        closing = asyncio.create_task(kept.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _expired(self, consumer: str) -> None:
        self.end(self._idle.pop(consumer))

    async def close(self) -> None:
        """Closes all."""
        self._is_closed = True
        for consumer in list(self._idle):
            self._expired(consumer)
        await self._closed()

    async def _closed(self) -> None:
        if self._closing:
            await asyncio.wait(self._closing, timeout=limits.ASYNCAPI_SUBSCRIPTION_CLOSE_S_MAX)
