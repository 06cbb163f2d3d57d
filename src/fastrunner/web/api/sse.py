"""Support: answers that are server-sent events.

Rule: what is written has left before more is made; a client that does not read for a while is cut.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Self

from aiohttp import web

from fastrunner.base import limits

__all__ = ["PING", "Events", "goes_at_once", "last_id"]

PING: Final = b": nothing new\n\n"
"""What is sent while nothing happens."""
_QUICK_SIZE_BYTES: Final = 16_384
"""Well below what a connection holds before it asks for a pause."""


def goes_at_once(request: web.Request, size_bytes: int) -> bool:
    """Whether nobody waits for so much to go to a client: the system takes it, or it fits into an empty buffer."""
    transport = request.transport
    return size_bytes < _QUICK_SIZE_BYTES and transport is not None and not transport.get_write_buffer_size()


def last_id(request: web.Request) -> str:
    """The id of the last event that a client has received; empty if it says none."""
    return request.headers.get("Last-Event-ID", "").strip()


class Events:
    """One answer."""

    def __init__(self, request: web.Request, response: web.StreamResponse, count_cut: Callable[[], object]) -> None:
        self.response = response
        """What the request is answered with."""
        self._request = request
        self._count_cut = count_cut

    @classmethod
    async def begin(cls, request: web.Request, count_cut: Callable[[], object]) -> Self:
        """Begins to answer a request; `count_cut` is told if the client is cut."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        return cls(request, response, count_cut)

    async def write(self, text: bytes) -> bool:
        """Whether it was sent; a client that does not read is cut."""
        if goes_at_once(self._request, len(text)):
            try:
                await self.response.write(text)
            except ConnectionError:
                return False
            return True
        try:
            async with asyncio.timeout(limits.API_STREAM_STALL_S_MAX):
                await self.response.write(text)
        except TimeoutError:
            self._count_cut()
            if self._request.transport is not None:
                self._request.transport.abort()
            return False
        except ConnectionError:
            return False
        return True
