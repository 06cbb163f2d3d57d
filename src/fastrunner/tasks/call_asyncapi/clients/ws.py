"""Stage 5, tasks: WebSocket, over the worker's HTTP client. A message is one frame; each publication and each
subscription has a connection of its own.

Rules: nobody keeps messages, so what comes while no connection is open is lost, and what was given and not consumed
before a crash, too: at most once. A frame has no headers: a message's go with the handshake.
"""

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from fastrunner.base import limits
from fastrunner.tasks.call_asyncapi.clients import Message, Subscription, Target
from fastrunner.tasks.call_asyncapi.clients.http import headers_of, proven, url_of
from fastrunner.tasks.call_http.failures import CallProblem, connection_problem

__all__ = ["publish", "subscribe"]


async def publish(target: Target, message: Message, key: str) -> None:
    """See `clients`. The other side has the message once it has answered the close that follows it."""
    headers = headers_of(message, url_of(target, "ws"))
    headers["Idempotency-Key"] = key
    socket = await _connected(target, headers)
    try:
        await socket.send_str(message.body.decode())
    except (aiohttp.ClientError, OSError) as error:
        raise connection_problem(error) from None
    finally:
        await socket.close()
    if socket.close_code not in (None, 1000, 1001, 1005):
        raise CallProblem("Message Refused", f"the connection was closed with code {socket.close_code}")


async def subscribe(target: Target, _consumer: str) -> Subscription:
    """See `clients`."""
    return _Frames(await _connected(target, CIMultiDict()))


class _Frames:
    """The frames of a connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def next(self) -> Message:
        frame = await self._socket.receive()
        match frame.type:
            case aiohttp.WSMsgType.TEXT:
                return Message(frame.data.encode("utf-8", "replace"))
            case aiohttp.WSMsgType.BINARY:
                return Message(frame.data)
        if self._socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
            size_bytes = limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX
            raise CallProblem("Message Too Large", f"a message exceeds {size_bytes} bytes")
        raise CallProblem("Connection Lost", f"the connection was closed with code {self._socket.close_code}")

    async def taken(self, count: int) -> None:
        """Nobody waits for it."""

    async def close(self) -> None:
        await self._socket.close()


async def _connected(target: Target, headers: CIMultiDict[str]) -> aiohttp.ClientWebSocketResponse:
    url, proof = proven(target, url_of(target, "ws"))
    headers.update(proof)
    assert target.client is not None
    try:
        return await target.client.websocket(
            URL(url),
            headers=headers,
            size_bytes_max=limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX,
            heartbeat_s=limits.ASYNCAPI_HEARTBEAT_S,
        )
    except aiohttp.WSServerHandshakeError as error:
        raise CallProblem(
            "Error Response", f"the server answered the handshake with status {error.status}", error.status
        ) from None
    except (aiohttp.ClientError, OSError) as error:
        raise connection_problem(error) from None
