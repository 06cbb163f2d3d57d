"""Stage 5, tasks: one gRPC call on the wire, in which messages are bytes.

Theory of operation: a server may end a call before it has read all that it is sent, and say why. `grpc.aio` (1.84 and
1.85) then finds that it cannot send, and makes an error of its own of that, which hides the server's. So whatever sends
is given a call that leaves such failures alone: the status that follows them tells.

Rules: a call that this leaves has ended on the wire, too.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import grpc.aio
from google.protobuf.descriptor import MethodDescriptor

from fastrunner.base import limits
from fastrunner.tasks.call_grpc.outcome import too_large
from fastrunner.tasks.call_http.failures import CallProblem
from fastrunner.tasks.call_http.room import Share

__all__ = ["Exchange", "Metadata", "patient"]

Metadata = tuple[tuple[str, str], ...]
"""What goes along with a call."""


class _Sending:
    """A call as the library has it within, of which sending does not fail."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    async def send_serialized_message(self, message: bytes) -> None:
        await _without_failure(self._call.send_serialized_message(message))

    async def send_receive_close(self) -> None:
        await _without_failure(self._call.send_receive_close())

    async def initiate_unary_stream(self, *arguments: Any) -> None:
        await _without_failure(self._call.initiate_unary_stream(*arguments))


async def _without_failure(sending: Awaitable[Any]) -> None:
    try:
        await sending
    except grpc.aio.InternalError:
        # The call has ended; its status is on its way.
        return


def patient(call: Any) -> Any:
    """A call of `grpc.aio` that has just been made, which ends as the server says."""
    call._cython_call = _Sending(call._cython_call)
    return call


class Exchange:
    """One call on the wire: messages are bytes here."""

    def __init__(self, channel: grpc.aio.Channel, method: MethodDescriptor, share: Share) -> None:
        self._channel: Any = channel
        self._method = method
        self._share = share

    async def replies(self, messages: Sequence[bytes], metadata: Metadata, timeout_s: float) -> list[bytes]:
        """All that the server sends. Raises CallProblem, grpc.aio.AioRpcError."""
        kind = f"{_word(self._method.client_streaming)}_{_word(self._method.server_streaming)}"
        assert self._method.containing_service is not None
        path = f"/{self._method.containing_service.full_name}/{self._method.name}"
        request = _sending(messages) if self._method.client_streaming else messages[0]
        call = patient(getattr(self._channel, kind)(path)(request, timeout=timeout_s, metadata=metadata))
        try:
            if self._method.server_streaming:
                return await self._read(call)
            reply: bytes = await call
            await self._share.grow(len(reply))
            return [reply]
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this task, but its connection has been closed.
            raise CallProblem("Connection Lost", "the connection was closed before the call ended") from None
        finally:
            call.cancel()

    async def _read(self, call: Any) -> list[bytes]:
        replies: list[bytes] = []
        left_size_bytes = limits.GRPC_STREAM_SIZE_BYTES_MAX
        while isinstance(reply := await call.read(), bytes):
            left_size_bytes -= len(reply)
            if left_size_bytes < 0:
                raise too_large(f"the server streams more than {limits.GRPC_STREAM_SIZE_BYTES_MAX} bytes")
            if len(replies) == limits.GRPC_STREAM_MESSAGES_MAX:
                raise too_large(f"the server streams more than {limits.GRPC_STREAM_MESSAGES_MAX} messages")
            await self._share.grow(len(reply))
            replies.append(reply)
        return replies


async def _sending(messages: Sequence[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


def _word(is_stream: bool) -> str:
    return "stream" if is_stream else "unary"
