"""Stage 1, router: one end of a connection between two workers: bytes to frames and back.

A frame is its length in 4 bytes, big endian, and a serialized `Frame`. Everything added within one turn of the loop
leaves in one frame, so a burst of small messages costs one write and one wake-up on each side. What a link may hold
unsent is bounded by its users (see `router`), not here.
"""

import abc
import asyncio
import logging
from typing import Final, cast

from fastrunner._pb.fastrunner.router.v1.router_pb2 import Answer, Frame, Request
from fastrunner.base import limits

_PREFIX_SIZE_BYTES: Final = 4
_OVERHEAD_SIZE_BYTES: Final = 64
"""What a message adds to a frame beside its payload, roughly: ids, method, peer."""

log = logging.getLogger(__name__)


class Channel(asyncio.Protocol, abc.ABC):
    """One end of a connection: frames in, frames out; what is added in one turn of the loop leaves in one frame."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._arrived = bytearray()
        self._frame = Frame()
        self._frame_size_bytes = 0
        self._flush_due = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the connection."""
        # Not to be checked at run time: uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Takes apart what arrived."""
        arrived = self._arrived
        arrived += data
        start = 0
        while len(arrived) - start >= _PREFIX_SIZE_BYTES:
            body = start + _PREFIX_SIZE_BYTES
            end = body + int.from_bytes(arrived[start:body], "big")
            if end - body > limits.ROUTER_FRAME_SIZE_BYTES_MAX:
                log.error("a frame of %d bytes arrived from another worker: closing the link", end - body)
                self.abort()
                return
            if len(arrived) < end:
                break
            self.on_frame(Frame.FromString(bytes(arrived[body:end])))
            start = end
        if start:
            del arrived[:start]

    @abc.abstractmethod
    def on_frame(self, frame: Frame) -> None:
        """Handles what the other side sent."""

    def add_request(self, request: Request) -> None:
        """Sends a request with the next frame."""
        self._frame.requests.append(request)
        self._added(len(request.payload))

    def add_answer(self, answer: Answer) -> None:
        """Sends an answer with the next frame."""
        self._frame.answers.append(answer)
        self._added(len(answer.payload) + len(answer.status))

    def _added(self, size_bytes: int) -> None:
        self._frame_size_bytes += size_bytes + _OVERHEAD_SIZE_BYTES
        if self._frame_size_bytes >= limits.ROUTER_FLUSH_SIZE_BYTES:
            self._write()
        elif not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._frame_size_bytes:
            self._write()

    def _write(self) -> None:
        body = self._frame.SerializeToString()
        self._frame = Frame()
        self._frame_size_bytes = 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(body).to_bytes(_PREFIX_SIZE_BYTES, "big") + body)

    def finish(self) -> None:
        """Sends what is ready, then closes."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()
