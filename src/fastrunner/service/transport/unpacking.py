"""Stage 1, service: messages that clients compress, by gzip or deflate.

Rules: nothing is unpacked beyond what a message may be. What unpacks to little is had at once; more goes to a thread,
a few at a time, so that others have the loop meanwhile. Messages of one call stay in their order (see `Call.unpacked`).
"""

import asyncio
import zlib
from typing import Final

from fastrunner._http2 import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED, Call
from fastrunner.base import limits

__all__ = ["Unpacking"]

_WINDOWS: Final = {b"gzip": 31, b"deflate": 15}
_TOO_LARGE: Final = (
    RESOURCE_EXHAUSTED,
    f"the message is larger than max ({limits.REQUEST_SIZE_BYTES_MAX} bytes) when it is unpacked",
)
Fault = tuple[int, str]


class Unpacking:
    """The compressed messages of one worker."""

    def __init__(self) -> None:
        self._threads = asyncio.Semaphore(limits.GRPC_UNPACKING_THREADS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    def unpack(self, call: Call, encoding: bytes, message: bytes) -> None:
        """Gives the call what a message was."""
        window = _WINDOWS.get(encoding)
        if window is None:
            call.unpacked(
                None, (UNIMPLEMENTED, "messages may be compressed by gzip or deflate (grpc-encoding), or not")
            )
            return
        unpacker = zlib.decompressobj(window)
        try:
            first = unpacker.decompress(message, limits.GRPC_UNPACKED_AT_ONCE_SIZE_BYTES_MAX)
        except zlib.error as error:
            call.unpacked(None, _broken(error))
            return
        if unpacker.eof:
            call.unpacked(first, None)
        elif not unpacker.unconsumed_tail:
            call.unpacked(None, (INTERNAL, "a compressed message is cut off"))
        else:
            task = asyncio.get_running_loop().create_task(self._unpack_rest(call, unpacker, first))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _unpack_rest(self, call: Call, unpacker: "zlib._Decompress", first: bytes) -> None:
        async with self._threads:
            if not call.is_over:
                call.unpacked(*await asyncio.to_thread(_rest_of, unpacker, first))


def _rest_of(unpacker: "zlib._Decompress", first: bytes) -> tuple[bytes | None, Fault | None]:
    room = limits.REQUEST_SIZE_BYTES_MAX - len(first)
    try:
        message = first + unpacker.decompress(unpacker.unconsumed_tail, room + 1)
    except zlib.error as error:
        return None, _broken(error)
    if len(message) > limits.REQUEST_SIZE_BYTES_MAX:
        return None, _TOO_LARGE
    if not unpacker.eof:
        return None, (INTERNAL, "a compressed message is cut off")
    return message, None


def _broken(error: zlib.error) -> Fault:
    return INTERNAL, f"a compressed message cannot be unpacked: {error}"
