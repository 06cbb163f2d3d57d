"""Stage 1, router: one end of a connection between two workers: bytes to frames and back.

A frame is its length in 4 bytes, big endian, and a serialized `Frame`. Everything added within one turn of the loop
leaves in one frame, so a burst of small messages costs one write and one wake-up on each side.

Rules: what arrives is handed out some messages per turn, and nothing is read meanwhile. While the other side does not
read, nothing is written either: what has been added waits here, and its size is told. Whoever can wait should, until
the link is writable.
"""

import abc
import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Final, cast

from google.protobuf.message import DecodeError

from fastrunner._pb.fastrunner.router.v1.router_pb2 import Answer, Frame, Request
from fastrunner.base import limits

_PREFIX_SIZE_BYTES: Final = 4
_OVERHEAD_SIZE_BYTES: Final = 64
"""What a message adds to a frame beside its payload, roughly: ids, method, peer."""

log = logging.getLogger(__name__)


class Channel(asyncio.Protocol, abc.ABC):
    """One end of a connection: messages in, messages out."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._arrived = bytearray()
        self._inbox: deque[Iterator[Request | Answer]] = deque()
        """A frame's messages each; they are made one by one, because thousands at once take tens of milliseconds."""
        self._delivery_due = False
        self._outbox: deque[tuple[Request | Answer, int]] = deque()
        """Messages with their sizes: to look at a payload is to copy it."""
        self._flush_due = False
        self._writers: deque[asyncio.Future[None]] = deque()
        self.outbox_size_bytes = 0
        """How much has been added and not been written."""
        self.is_writable = False
        """Whether the other side reads what is written."""
        self.is_heard = False
        """Whether anything has arrived since somebody set this to False."""

    # --- what arrives ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the connection."""
        # Not to be checked at run time: uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self.is_writable = True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Hands out the rest, then tells that nothing more comes."""
        self._transport = None
        self.is_writable = False
        while (message := self._next()) is not None:
            self.on_message(message)
        self.on_lost()

    def data_received(self, data: bytes) -> None:
        """Takes apart what arrived."""
        self.is_heard = True
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
            try:
                with memoryview(arrived) as view:
                    frame = Frame.FromString(bytes(view[body:end]))
            except DecodeError:
                log.exception("a damaged frame arrived from another worker: closing the link")
                self.abort()
                return
            self._take(frame)
            start = end
        if start:
            del arrived[:start]
        if not self._delivery_due:
            self._deliver()

    def _take(self, frame: Frame) -> None:
        if frame.incarnation:
            self.on_hello(frame.incarnation)
        if frame.ping:
            self._write(Frame(pong=True))
        self._inbox.append(chain(frame.requests, frame.answers))

    def _next(self) -> Request | Answer | None:
        while self._inbox:
            message = next(self._inbox[0], None)
            if message is not None:
                return message
            self._inbox.popleft()
        return None

    def _deliver(self) -> None:
        """Hands out some of what arrived. The rest waits for the loop's next turn, and so does what has not arrived."""
        for _ in range(limits.ROUTER_MESSAGES_PER_TURN_MAX):
            message = self._next()
            if message is None:
                break
            self.on_message(message)
        due, self._delivery_due = self._delivery_due, bool(self._inbox)
        if self._delivery_due:
            self._loop.call_soon(self._deliver)
        if due != self._delivery_due and self._transport is not None:
            if self._delivery_due:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    @abc.abstractmethod
    def on_message(self, message: Request | Answer) -> None:
        """Handles what the other side sent."""

    @abc.abstractmethod
    def on_lost(self) -> None:
        """The connection is gone."""

    def on_hello(self, incarnation: int) -> None:
        """The other side answers requests; `incarnation` differs from one start of its process to the next."""

    # --- what leaves ---

    def add(self, message: Request | Answer, size_bytes: int = 0) -> None:
        """Sends a message, of about a size without its framing, with the next frame."""
        self._outbox.append((message, size_bytes + _OVERHEAD_SIZE_BYTES))
        self.outbox_size_bytes += size_bytes + _OVERHEAD_SIZE_BYTES
        if self.outbox_size_bytes >= limits.ROUTER_FLUSH_SIZE_BYTES:
            self._write_frames()
        elif not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        self._write_frames()

    def _write_frames(self) -> None:
        while self._outbox and self.is_writable:
            self._write_frame()

    def _write_frame(self) -> None:
        frame, size_bytes = Frame(), 0
        while self._outbox and size_bytes < limits.ROUTER_FLUSH_SIZE_BYTES:
            message, message_size_bytes = self._outbox.popleft()
            size_bytes += message_size_bytes
            if isinstance(message, Request):
                frame.requests.append(message)
            else:
                frame.answers.append(message)
        self.outbox_size_bytes -= size_bytes
        self._write(frame)

    def _write(self, frame: Frame) -> None:
        body = frame.SerializeToString()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(body).to_bytes(_PREFIX_SIZE_BYTES, "big") + body)

    def hello(self, incarnation: int) -> None:
        """Tells the other side that its requests are answered."""
        self._write(Frame(incarnation=incarnation))

    def ping(self) -> None:
        """Asks the other side for a sign of life."""
        self._write(Frame(ping=True))

    def pause_writing(self) -> None:
        """The other side does not read."""
        self.is_writable = False

    def resume_writing(self) -> None:
        """The other side has read."""
        self.is_writable = True
        self._write_frames()
        if self.is_writable:
            self.on_writable()
            self._admit_writers()

    def on_writable(self) -> None:
        """The other side reads again."""

    async def writable(self) -> None:
        """Waits until the other side reads; some of those who wait go on per turn, first come, first served."""
        # Ends when the other side reads, or with the cancelled task of whoever waits.
        while not self.is_writable:
            waiter = self._loop.create_future()
            self._writers.append(waiter)
            await waiter

    def _admit_writers(self) -> None:
        count = 0
        while self._writers and self.is_writable and count < limits.ROUTER_MESSAGES_PER_TURN_MAX:
            waiter = self._writers.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count += 1
        if self._writers and self.is_writable:
            self._loop.call_soon(self._admit_writers)

    def finish(self) -> None:
        """Sends what is ready, then closes."""
        while self._outbox:
            self._write_frame()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes at once."""
        if self._transport is not None:
            self._transport.abort()
