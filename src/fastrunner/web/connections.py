"""Support: the connections of the HTTP port: how many there are, and how long one may be of no use.

Theory of operation: every connection is a guard around aiohttp's protocol. It is busy while a request of it is handled,
which the application says, and idle otherwise: before its first head is whole, while a body has still to come, between
requests, and while the client has still to read an answer. What has been idle for too long is cut. When there are as
many as may be, the one that has been idle for longest gives way to a new one, so whoever asks is answered, however many
only hold connections.

Rule: a connection with a whole request under way is never cut from here.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from aiohttp import StreamReader, web
from aiohttp.typedefs import Handler

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s

__all__ = ["CONNECTIONS", "STATUS_GONE", "Connections", "is_gone", "mark_busy"]

STATUS_GONE: Final = 499
"""What is noted of a request whose client has gone: it is never sent."""


class Connections:
    """The connections of one listening socket; make one protocol for each by calling it."""

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._make: Callable[[], asyncio.Protocol] = asyncio.Protocol
        self._idle: OrderedDict[asyncio.BaseTransport, _Guard] = OrderedDict()
        """Those without a request under way, the one that has been idle for longest first."""
        self._busy: dict[asyncio.BaseTransport, _Guard] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def serve(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """A maker of guarded protocols. Cuts what is idle for too long from now on, until `close`."""
        self._make = make
        self._cut_overdue()
        return lambda: _Guard(self, self._make())

    def close(self) -> None:
        """Cuts nothing any more."""
        if self._sweep is not None:
            self._sweep.cancel()

    async def settle(self, timeout_s: float) -> None:
        """Waits until no connection has a request under way, or has yet to send its first, but not for long."""
        give_up_s = monotonic_s() + timeout_s
        while True:
            # What has just been accepted is not here yet.
            await asyncio.sleep(limits.HTTP_SETTLE_INTERVAL_S)
            waiting = self._busy or any(guard.has_begun for guard in self._idle.values())
            if not waiting or monotonic_s() >= give_up_s:
                return

    def began(self, transport: asyncio.BaseTransport | None, body: StreamReader) -> None:
        """A request of a connection is being handled, and its body comes."""
        guard = None if transport is None else self._idle.get(transport)
        if guard is not None and transport is not None:
            guard.is_receiving = True
            guard.hears()
            # At once, if it is all there.
            body.on_eof(partial(self._received, transport, guard))

    def _received(self, transport: asyncio.BaseTransport, guard: "_Guard") -> None:
        if guard.is_receiving and self._idle.pop(transport, None) is not None:
            self._busy[transport] = guard
        guard.is_receiving = False

    def ended(self, transport: asyncio.BaseTransport | None) -> None:
        """It has been handled; the client may still have to read the answer."""
        if transport is None:
            return
        guard = self._busy.pop(transport, None) or self._idle.pop(transport, None)
        if guard is not None:
            guard.due_s = monotonic_s() + limits.HTTP_IDLE_S_MAX
            guard.has_begun = guard.is_receiving = False
            self._idle[transport] = guard

    def opened(self, transport: asyncio.BaseTransport, guard: "_Guard") -> None:
        """Takes a connection in; one that is idle gives way to it, or it is cut itself if there is none."""
        self._idle[transport] = guard
        if len(self._idle) + len(self._busy) > self._count_max:
            next(iter(self._idle.values())).cut()

    def closed(self, transport: asyncio.BaseTransport) -> None:
        """Forgets a connection."""
        self._idle.pop(transport, None)
        self._busy.pop(transport, None)

    def _cut_overdue(self) -> None:
        now_s = monotonic_s()
        for guard in [guard for guard in self._idle.values() if guard.due_s <= now_s]:
            guard.cut()
        self._sweep = asyncio.get_running_loop().call_later(limits.HTTP_LOOK_INTERVAL_S, self._cut_overdue)


class _Guard(asyncio.Protocol):
    """One connection, which hands everything on to aiohttp."""

    def __init__(self, connections: Connections, inner: asyncio.Protocol) -> None:
        self.due_s = monotonic_s() + limits.HTTP_HEAD_S_MAX
        """When it is cut, unless it becomes busy."""
        self.has_begun = True
        """Whether a request has begun to come, or is to come first."""
        self.is_receiving = False
        """Whether a request is being handled whose body has yet to come."""
        self._connections = connections
        self._inner = inner
        self._transport: asyncio.Transport | None = None

    def cut(self) -> None:
        """Ends the connection at once: nobody waits for a client that does not read."""
        if self._transport is not None:
            self._connections.closed(self._transport)
            self._transport.abort()

    def hears(self) -> None:
        """Something of a body has come, or is to come."""
        self.due_s = monotonic_s() + limits.HTTP_BODY_S_MAX

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports are no asyncio.Transport by name.
        self._transport = cast("asyncio.Transport", transport)
        self._inner.connection_made(transport)
        self._connections.opened(transport, self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self._transport is not None:
            self._connections.closed(self._transport)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.is_receiving:
            self.hears()
        elif not self.has_begun:
            # However slowly the rest of the head comes.
            self.has_begun = True
            self.due_s = min(self.due_s, monotonic_s() + limits.HTTP_HEAD_S_MAX)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """See asyncio.Protocol."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._inner.resume_writing()


CONNECTIONS: Final = web.AppKey("connections", Connections)


@web.middleware
async def mark_busy(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tells `CONNECTIONS` of the application while a request is handled. That a client goes meanwhile is no failure."""
    connections, transport = request.app[CONNECTIONS], request.transport
    connections.began(transport, request.content)
    try:
        return await handler(request)
    except ConnectionError:
        if not is_gone(request):
            raise
        # Nobody reads it.
        return web.Response(status=STATUS_GONE)
    finally:
        connections.ended(transport)


def is_gone(request: web.Request) -> bool:
    """Whether a request's client has no connection any more."""
    return request.transport is None or request.transport.is_closing()
