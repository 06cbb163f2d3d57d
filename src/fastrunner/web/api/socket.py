"""Support: answers that are WebSockets: messages out, none in.

    {"type": "progress", "id": 7, "event": {...}}     {"type": "reset", "execution": {...}}     {"type": "end"}

Rules: what is sent has left before more is made; a client that does not read for a while is closed (1013) with its
cursor as the reason, and cut if it does not read that either. What a client sends is read and dropped.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import orjson
from aiohttp import WSCloseCode, web

from fastrunner.base import limits
from fastrunner.web.api import shapes
from fastrunner.web.api.problems import Refused
from fastrunner.web.api.sse import goes_at_once

__all__ = ["Event", "Socket"]

Event = tuple[int, bytes]
"""Its number, and its JSON."""
_BUFFER_SIZE_BYTES: Final = 65_536


class Socket:
    """One answer."""

    def __init__(self, request: web.Request, response: web.WebSocketResponse, count_cut: Callable[[], object]) -> None:
        self.response = response
        """What the request is answered with."""
        self._request = request
        self._count_cut = count_cut
        self._cursor = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, request: web.Request, count_cut: Callable[[], object], tell_gone: Callable[[], object]
    ) -> AsyncIterator["Socket"]:
        """Begins to answer a request, and closes at the end; `tell_gone` is called when the client has gone. Raises
        Refused if the request is for no WebSocket."""
        response = web.WebSocketResponse(
            timeout=limits.API_SOCKET_CLOSE_S_MAX,
            compress=False,
            max_msg_size=limits.API_SOCKET_MESSAGE_SIZE_BYTES_MAX,
            writer_limit=_BUFFER_SIZE_BYTES,
        )
        if not response.can_prepare(request):
            raise Refused(
                400, "this is a WebSocket: send Upgrade: websocket, Connection: Upgrade and the Sec-WebSocket- headers"
            )
        await response.prepare(request)
        socket = cls(request, response, count_cut)
        reading = asyncio.create_task(socket._read(tell_gone))
        try:
            yield socket
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await response.close(code=WSCloseCode.OK)

    @property
    def is_gone(self) -> bool:
        """Whether the client has closed it."""
        return self.response.closed

    async def _read(self, tell_gone: Callable[[], object]) -> None:
        """Pings are answered while somebody reads; the end is heard of."""
        async for _ in self.response:
            pass
        tell_gone()

    async def progress(self, events: Sequence[Event]) -> bool:
        """Some events, in their order; whether they went."""
        for number, fields in events:
            if not await self._send(b'{"type":"progress","id":%d,"event":%b}' % (number, fields)):
                return False
            self._cursor = number
        return True

    async def reset(self, execution: shapes.Execution) -> bool:
        """All events come anew, of an execution that stands so."""
        return await self._send(orjson.dumps({"type": "reset", "execution": execution.model_dump()}))

    async def end(self) -> bool:
        """No event comes any more."""
        return await self._send(b'{"type":"end"}')

    async def ping(self) -> bool:
        """Nothing happens."""
        return await self._going(self.response.ping())

    async def _send(self, message: bytes) -> bool:
        sending = self.response.send_str(message.decode())
        if self.response.closed or not goes_at_once(self._request, len(message)):
            return await self._going(sending)
        try:
            await sending
        except ConnectionError:
            return False
        return True

    async def _going(self, sending: Any) -> bool:
        if self.response.closed:
            sending.close()
            return False
        try:
            async with asyncio.timeout(limits.API_STREAM_STALL_S_MAX):
                await sending
        except TimeoutError:
            self._count_cut()
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(limits.API_SOCKET_CLOSE_S_MAX):
                    words = f"too slow: go on after {self._cursor}".encode()
                    await self.response.close(code=WSCloseCode.TRY_AGAIN_LATER, message=words)
            if self._request.transport is not None:
                self._request.transport.abort()
            return False
        except ConnectionError:
            return False
        return True
