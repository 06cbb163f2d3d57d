"""Stage 1, router: the answering side of a link: the calls that another worker has forwarded to this one.

Rules: a forwarded request is answered by the same handlers as a client's, with `local` set: it is never forwarded
again. Only what a client asks by way of the web process (see `asking`) may go on to another worker. A stream sends no
more than the credit that its reader grants, and nothing while the asking worker does not read; large replies that
would pile up then are refused. The asking worker's end cancels its streams; its unary requests go on unheard, because
a durable request cannot be taken back. Only a refusal because this process is stopping, which is nothing about the
request, is marked to be asked again.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from fastrunner._pb.fastrunner.router.v1.router_pb2 import Answer, Request
from fastrunner.access.principal import Principal, Role
from fastrunner.base import limits
from fastrunner.base.clock import moment_s_of, monotonic_s, wall_ms
from fastrunner.errors import AtCapacity, Stopping, TooLarge, Unavailable
from fastrunner.routing.calls import REPEATABLE, cost_of
from fastrunner.routing.facts import CallFacts, Later, as_it_is
from fastrunner.routing.links import Channel
from fastrunner.tracing.context import TraceContext

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status


class Handler(Protocol):
    """Answers requests, whoever forwarded them."""

    def handle_unary(self, method: str, payload: bytes, facts: CallFacts) -> bytes | Awaitable[bytes]:
        """The reply message, now or later; raises a RunnerError to refuse."""

    def handle_stream(self, method: str, payload: bytes, facts: CallFacts) -> AsyncIterator[bytes]:
        """The reply messages; raises a RunnerError to refuse."""


class _Stream:
    """A stream that is being answered."""

    __slots__ = ("credit", "task")

    def __init__(self, credit: "_Credit", task: "asyncio.Task[None]") -> None:
        self.credit = credit
        self.task = task


class Incoming(Channel):
    """Answers the requests of one other worker."""

    def __init__(
        self,
        handler: Handler,
        status_of: "Callable[[Exception], Status]",
        incarnation: int,
        opened: "set[Incoming]",
    ) -> None:
        """`incarnation` names this start of the process, for hello; the channel is in `opened` while it is open."""
        super().__init__()
        self._handler = handler
        self._status_of = status_of
        self._incarnation = incarnation
        self._opened = opened
        self._unary: dict[int, asyncio.Future[Any]] = {}
        self._streams: dict[int, _Stream] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Counts itself among the open ones."""
        super().connection_made(transport)
        self._opened.add(self)
        self.hello(self._incarnation)

    def on_lost(self) -> None:
        """The asking worker is gone: its streams end, its unary requests go on unheard."""
        self._opened.discard(self)
        self._unary.clear()
        for stream in self._streams.values():
            stream.task.cancel()

    @property
    def unanswered(self) -> list["asyncio.Future[Any] | asyncio.Task[None]"]:
        """What is still being worked on."""
        return [*self._unary.values(), *(stream.task for stream in self._streams.values())]

    def on_message(self, message: Request | Answer) -> None:
        """Starts, feeds and ends calls."""
        if isinstance(message, Answer):
            return
        if not message.method:
            self._about_earlier(message)
            return
        # Nothing keeps the request: its whole frame would be kept with it.
        deadline_ms = wall_ms() + message.remaining_ms if message.remaining_ms else 0
        facts = CallFacts(message.peer, deadline_ms, local=not message.is_from_client, principal=_principal(message))
        if message.received_ms:
            facts.received_s, facts.taken_s = moment_s_of(message.received_ms), monotonic_s()
            facts.trace = TraceContext.read(message.traceparent, message.tracestate)
        if message.credit:
            self._start_stream(message.request_id, message.method, message.payload, facts, _Credit(message.credit))
        else:
            self._start_unary(message.request_id, message.method, message.payload, facts)

    def _about_earlier(self, request: Request) -> None:
        stream = self._streams.get(request.request_id)
        if stream is None:
            # A durable request cannot be taken back; its answer just is of no use to anybody.
            self._unary.pop(request.request_id, None)
        elif request.credit:
            stream.credit.grant(request.credit)
        else:
            stream.task.cancel()

    def _start_unary(self, request_id: int, method: str, payload: bytes, facts: CallFacts) -> None:
        try:
            reply = self._handler.handle_unary(method, payload, facts)
        except Exception as error:
            self._refuse(request_id, error)
            return
        if isinstance(reply, bytes):
            self._end(request_id, reply)
            return
        later = reply if isinstance(reply, Later) else Later(asyncio.ensure_future(reply), as_it_is)
        self._unary[request_id] = later.result
        later.result.add_done_callback(partial(self._unary_done, request_id, method, later.reply_of))

    def _unary_done(
        self, request_id: int, method: str, reply_of: Callable[[Any], bytes], waiting: "asyncio.Future[Any]"
    ) -> None:
        wanted = self._unary.pop(request_id, None) is not None
        # Cancelled is what the end of this worker cuts short; it may have been carried out.
        error = _cut_short(method) if waiting.cancelled() else waiting.exception()
        if not wanted:
            return
        if error is None:
            self._end(request_id, reply_of(waiting.result()))
        else:
            assert isinstance(error, Exception)
            self._refuse(request_id, error)

    def _start_stream(self, request_id: int, method: str, payload: bytes, facts: CallFacts, credit: "_Credit") -> None:
        task = asyncio.ensure_future(self._stream(request_id, method, payload, facts, credit))
        self._streams[request_id] = _Stream(credit, task)
        # Not in the task: one that is cancelled before its first step never runs.
        task.add_done_callback(lambda _: self._streams.pop(request_id, None))

    async def _stream(self, request_id: int, method: str, payload: bytes, facts: CallFacts, credit: "_Credit") -> None:
        try:
            messages = self._handler.handle_stream(method, payload, facts)
            async with contextlib.aclosing(_closable(messages)) as closable:
                async for message in closable:
                    await credit.take(cost_of(message))
                    await self.writable()
                    self.add(Answer(request_id=request_id, payload=message), len(message))
        except Exception as error:
            self._refuse(request_id, error)
        else:
            self.add(Answer(request_id=request_id, end=True))

    def _end(self, request_id: int, reply: bytes) -> None:
        size_bytes = len(reply)
        if size_bytes + limits.ROUTER_FLUSH_SIZE_BYTES > limits.ROUTER_FRAME_SIZE_BYTES_MAX:
            self._refuse(request_id, TooLarge(f"the reply of {size_bytes} bytes is too large: ask for less"))
        elif self.outbox_size_bytes and self.outbox_size_bytes + size_bytes > limits.ROUTER_ANSWERS_SIZE_BYTES_MAX:
            self._refuse(request_id, AtCapacity("too many large replies wait to be read: retry later"))
        else:
            self.add(Answer(request_id=request_id, payload=reply, end=True), size_bytes)

    def _refuse(self, request_id: int, error: Exception) -> None:
        status = self._status_of(error)
        details = status.SerializeToString()
        self.add(
            Answer(
                request_id=request_id,
                end=True,
                code=status.code,
                message=status.message,
                status=details,
                ask_again=isinstance(error, Stopping),
            ),
            len(details),
        )


def _principal(request: Request) -> Principal | None:
    if not request.HasField("caller"):
        return None
    caller = request.caller
    namespaces = frozenset(caller.namespaces) if caller.is_confined else None
    return Principal(caller.name, frozenset(map(Role, caller.roles)), namespaces)


def _cut_short(method: str) -> Unavailable:
    if method in REPEATABLE:
        return Stopping("the worker is stopping")
    return Unavailable(f"the worker is stopping, and may have carried {method} out: look at the execution, then retry")


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
    """How much may still be sent on a stream. It may be overdrawn once: so the largest message passes, too."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._granted = asyncio.Event()

    def grant(self, count: int) -> None:
        """Adds credit."""
        self._count += count
        self._granted.set()

    async def take(self, count: int) -> None:
        """Takes some, waiting until there is any."""
        # Ends with the grant, or with the cancelled task of a stream whose reader is gone.
        while self._count <= 0:
            self._granted.clear()
            await self._granted.wait()
        self._count -= count
