"""Stage 1, router: the answering side of a link: the calls that another worker has forwarded to this one.

Rules: a forwarded request is answered by the same handlers as a client's, with `local` set: it is never forwarded
again. A stream sends no more than the credit that its reader grants. The asking worker's end cancels its streams;
its unary requests go on unheard, because a durable request cannot be taken back.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from fastrunner._pb.fastrunner.router.v1.router_pb2 import Answer, Frame, Request
from fastrunner.base import limits
from fastrunner.errors import TooLarge, Unavailable
from fastrunner.routing.facts import CallFacts, Later, as_it_is
from fastrunner.routing.links import Channel

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status


class Handler(Protocol):
    """Answers requests, whoever forwarded them."""

    def handle_unary(self, method: str, payload: bytes, facts: CallFacts) -> bytes | Awaitable[bytes]:
        """The reply message, now or later; raises a RunnerError to refuse."""

    def handle_stream(self, method: str, payload: bytes, facts: CallFacts) -> AsyncIterator[bytes]:
        """The reply messages; raises a RunnerError to refuse."""


class Incoming(Channel):
    """Answers the requests of one other worker."""

    def __init__(self, handler: Handler, status_of: "Callable[[Exception], Status]", opened: "set[Incoming]") -> None:
        super().__init__()
        self._handler = handler
        self._status_of = status_of
        self._opened = opened
        self._unary: dict[int, asyncio.Future[Any]] = {}
        self._streams: dict[int, asyncio.Task[None]] = {}
        self._credits: dict[int, _Credit] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Counts itself among the open ones."""
        super().connection_made(transport)
        self._opened.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The asking worker is gone: its streams end, its unary requests go on unheard."""
        self._opened.discard(self)
        self._unary.clear()
        for task in self._streams.values():
            task.cancel()

    @property
    def unanswered(self) -> list["asyncio.Future[Any] | asyncio.Task[None]"]:
        """What is still being worked on."""
        return [*self._unary.values(), *self._streams.values()]

    def on_frame(self, frame: Frame) -> None:
        """Starts, feeds and ends calls."""
        for request in frame.requests:
            if not request.method:
                self._about_earlier(request)
            elif request.credit:
                self._start_stream(request)
            else:
                self._start_unary(request)

    def _about_earlier(self, request: Request) -> None:
        if request.credit:
            credit = self._credits.get(request.request_id)
            if credit is not None:
                credit.grant(request.credit)
        elif request.request_id in self._streams:
            self._streams[request.request_id].cancel()
        else:
            # A durable request cannot be taken back; its answer just is of no use to anybody.
            self._unary.pop(request.request_id, None)

    def _start_unary(self, request: Request) -> None:
        request_id = request.request_id
        facts = CallFacts(request.peer, request.deadline_ms, local=True)
        try:
            reply = self._handler.handle_unary(request.method, request.payload, facts)
        except Exception as error:
            self._refuse(request_id, error)
            return
        if isinstance(reply, bytes):
            self._end(request_id, reply)
            return
        later = reply if isinstance(reply, Later) else Later(asyncio.ensure_future(reply), as_it_is)
        self._unary[request_id] = later.result
        later.result.add_done_callback(partial(self._unary_done, request_id, later.reply_of))

    def _unary_done(self, request_id: int, reply_of: Callable[[Any], bytes], waiting: "asyncio.Future[Any]") -> None:
        wanted = self._unary.pop(request_id, None) is not None
        error = Unavailable("the worker is stopping") if waiting.cancelled() else waiting.exception()
        if not wanted:
            return
        if error is None:
            self._end(request_id, reply_of(waiting.result()))
        else:
            assert isinstance(error, Exception)
            self._refuse(request_id, error)

    def _start_stream(self, request: Request) -> None:
        self._credits[request.request_id] = _Credit(request.credit)
        task = asyncio.ensure_future(self._stream(request))
        self._streams[request.request_id] = task
        task.add_done_callback(lambda _: self._streams.pop(request.request_id, None))

    async def _stream(self, request: Request) -> None:
        request_id, credit = request.request_id, self._credits[request.request_id]
        facts = CallFacts(request.peer, request.deadline_ms, local=True)
        try:
            messages = self._handler.handle_stream(request.method, request.payload, facts)
            async with contextlib.aclosing(_closable(messages)) as closable:
                async for message in closable:
                    await credit.take()
                    self.add_answer(Answer(request_id=request_id, payload=message))
        except Exception as error:
            self._refuse(request_id, error)
        else:
            self.add_answer(Answer(request_id=request_id, end=True))
        finally:
            del self._credits[request_id]

    def _end(self, request_id: int, reply: bytes) -> None:
        if len(reply) + limits.ROUTER_FLUSH_SIZE_BYTES > limits.ROUTER_FRAME_SIZE_BYTES_MAX:
            self._refuse(request_id, TooLarge(f"the reply of {len(reply)} bytes is too large: ask for less"))
            return
        self.add_answer(Answer(request_id=request_id, payload=reply, end=True))

    def _refuse(self, request_id: int, error: Exception) -> None:
        status = self._status_of(error)
        self.add_answer(
            Answer(
                request_id=request_id,
                end=True,
                code=status.code,
                message=status.message,
                status=status.SerializeToString(),
            )
        )


async def _closable(messages: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """`messages` as a generator: closing it closes them, whatever kind of iterator they are."""
    try:
        async for message in messages:
            yield message
    finally:
        close = getattr(messages, "aclose", None)
        if close is not None:
            await close()


class _Credit:
    """How many messages may still be sent on a stream."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._granted = asyncio.Event()

    def grant(self, count: int) -> None:
        """Adds credit."""
        self._count += count
        self._granted.set()

    async def take(self) -> None:
        """Takes one, waiting for it if need be."""
        # Ends with the grant, or with the cancelled task of a stream whose reader is gone.
        while not self._count:
            self._granted.clear()
            await self._granted.wait()
        self._count -= 1
