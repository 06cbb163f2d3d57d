"""Stage 1, router: the calls that wait for another worker's answer, and how many of them there may be.

Rules: a call whose effect depends on what others asked for meanwhile is never sent twice: its first sending may have
been carried out, and the second would undo what came after it. A client has a part of each room, never all of it.
"""

import abc
import asyncio
from collections import deque
from typing import Final

from fastrunner._pb.fastrunner.router.v1.router_pb2 import Answer, Caller, Request
from fastrunner.access.principal import Principal
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s, steady_ms_at, wall_ms
from fastrunner.errors import ForwardedError, RunnerError
from fastrunner.routing.facts import CallFacts

REPEATABLE: Final = frozenset(
    {
        "CancelExecution",  # what is cancelled stays so
        "ExecuteAsync",  # the same id and the same request give the same answer
        "ExecuteAsyncBatch",
        "CountExecutions",
        "GetDocument",
        "GetEvents",
        "GetExecution",
        "ListExecutions",
        "Subscribe",
        "SubscribeAll",
    }
)
"""Methods that may be sent to a successor although the owner may have carried them out. PauseExecution and
ResumeExecution are none: each undoes the other. Nor is DeleteExecution, because the id may be somebody else's by then,
nor any that is not named."""

_URGENT: Final = frozenset({"CancelExecution", "GetExecution", "PauseExecution", "ResumeExecution"})
"""Methods that have a reserve, and that are sent before others."""


def cost_of(payload: bytes) -> int:
    """The credits that a message of a stream costs; both ends count the same."""
    return 1 + len(payload) // limits.ROUTER_CREDIT_SIZE_BYTES


def _caller(principal: Principal | None) -> Caller | None:
    """A principal as it travels."""
    if principal is None:
        return None
    namespaces = principal.namespaces
    return Caller(
        name=principal.name,
        roles=sorted(principal.roles),
        is_confined=namespaces is not None,
        namespaces=sorted(namespaces or ()),
    )


def _trace(request: Request, facts: CallFacts) -> None:
    """Puts what is traced of a call into it."""
    request.received_ms = steady_ms_at(facts.received_s)
    if facts.trace is not None:
        request.traceparent, request.tracestate = facts.trace.parent, facts.trace.state


class Room:
    """How many calls of a link may wait for an answer, and how large they may be; a client has a part of both."""

    __slots__ = ("_clients", "_count_max", "_size_bytes_max", "count", "size_bytes")

    def __init__(self, count_max: int, size_bytes_max: int) -> None:
        self._count_max = count_max
        self._size_bytes_max = size_bytes_max
        self.count = self.size_bytes = 0
        self._clients: dict[str, tuple[int, int]] = {}
        """Count and bytes of each client that has any."""

    def take(self, client: str, size_bytes: int) -> bool:
        """Takes up room for a call of a client; False if there is none."""
        count, size = self._clients.get(client, (0, 0))
        parts = limits.ROUTER_CLIENT_PARTS
        if (
            self.count >= self._count_max
            or self.size_bytes + size_bytes > self._size_bytes_max
            or count >= self._count_max // parts
            or size + size_bytes > self._size_bytes_max // parts
        ):
            return False
        self._change(client, 1, size_bytes)
        return True

    def give(self, client: str, size_bytes: int) -> None:
        """Gives up what `take` took."""
        self._change(client, -1, -size_bytes)

    def _change(self, client: str, count: int, size_bytes: int) -> None:
        self.count += count
        self.size_bytes += size_bytes
        had_count, had_size_bytes = self._clients.get(client, (0, 0))
        if had_count + count:
            self._clients[client] = (had_count + count, had_size_bytes + size_bytes)
        else:
            del self._clients[client]


class Rooms:
    """The rooms of one link."""

    def __init__(self) -> None:
        self.requests = Room(limits.ROUTER_REQUESTS_MAX, limits.ROUTER_REQUESTS_SIZE_BYTES_MAX)
        self.reserve = Room(limits.ROUTER_RESERVE_REQUESTS_MAX, limits.ROUTER_RESERVE_SIZE_BYTES_MAX)
        self.streams = Room(limits.ROUTER_STREAMS_MAX, limits.ROUTER_STREAMS_SIZE_BYTES_MAX)

    def take(self, call: "Call") -> bool:
        """Takes up room for a call; False if there is none."""
        if isinstance(call, StreamCall):
            choice = [self.streams]
        elif call.is_urgent:
            choice = [self.requests, self.reserve]
        else:
            choice = [self.requests]
        for room in choice:
            if room.take(call.client, call.size_bytes):
                call.room = room
                return True
        return False


class Call(abc.ABC):
    """A request to another worker that has no last word yet."""

    __slots__ = (
        "begun",
        "client",
        "deadline_s",
        "give_up_s",
        "method",
        "moved",
        "owner",
        "refusal",
        "request",
        "room",
        "size_bytes",
    )

    def __init__(self, method: str, payload: bytes, facts: CallFacts) -> None:
        self.request = Request(method=method, payload=payload, peer=facts.peer, caller=_caller(facts.principal))
        if facts.received_s:
            _trace(self.request, facts)
        self.method = method
        self.client = facts.peer
        self.size_bytes = len(payload)
        self.deadline_s = monotonic_s() + (facts.deadline_ms - wall_ms()) / 1000 if facts.deadline_ms else 0.0
        """When the caller stops waiting, on the monotonic clock; 0: never."""
        self.room: Room | None = None
        """Where it takes up room."""
        self.owner = 0
        """The incarnation of the owner that it was sent to last, and that did not refuse it; 0: none."""
        self.moved = False
        """Whether an earlier incarnation was sent it as well."""
        self.begun = False
        """Whether something of its answer has arrived."""
        self.refusal: ForwardedError | None = None
        """Why the owner would not take it now."""
        self.give_up_s = 0.0
        """Until when it waits for an owner that takes it, on the monotonic clock; 0: it has not had to wait."""

    @property
    def is_urgent(self) -> bool:
        """Whether it goes before others."""
        return self.method in _URGENT

    @property
    def may_be_repeated(self) -> bool:
        """Whether it may be sent again, although it was sent and nobody knows what became of it."""
        return self.method in REPEATABLE and not self.begun and not self.moved

    def sent_to(self, incarnation: int) -> Request:
        """Remembers who is sent it; the request as it is to be sent now."""
        if self.owner and self.owner != incarnation:
            self.moved = True
        self.owner = incarnation
        if self.deadline_s:
            self.request.remaining_ms = max(1, int((self.deadline_s - monotonic_s()) * 1000))
        return self.request

    def leave(self) -> None:
        """Gives up its room."""
        if self.room is not None:
            self.room.give(self.client, self.size_bytes)
            self.room = None

    @abc.abstractmethod
    def deliver(self, answer: Answer) -> None:
        """Takes over an answer that is not a refusal."""

    @abc.abstractmethod
    def fail(self, error: RunnerError) -> None:
        """Ends without an answer."""


class UnaryCall(Call):
    """One answer."""

    __slots__ = ("future",)

    def __init__(self, method: str, payload: bytes, facts: CallFacts) -> None:
        super().__init__(method, payload, facts)
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def deliver(self, answer: Answer) -> None:
        """The reply."""
        if not self.future.done():
            self.future.set_result(answer.payload)

    def fail(self, error: RunnerError) -> None:
        """The refusal."""
        if not self.future.done():
            self.future.set_exception(error)


class StreamCall(Call):
    """Answers in a row."""

    __slots__ = ("ended", "error", "messages", "wakeup", "window")

    def __init__(self, method: str, payload: bytes, facts: CallFacts) -> None:
        super().__init__(method, payload, facts)
        self.window = 0
        """What the owner may send ahead, in credits."""
        self.messages: deque[bytes] = deque()  # bounded by the credit granted
        self.wakeup = asyncio.Event()
        self.ended = False
        self.error: RunnerError | None = None

    def open(self, streams: int) -> None:
        """Grants the first credit, among so many streams of its link."""
        shared = limits.ROUTER_LINK_CREDITS // streams
        self.window = min(limits.ROUTER_STREAM_CREDITS_MAX, max(limits.ROUTER_STREAM_CREDITS_MIN, shared))
        self.request.credit = self.window

    def deliver(self, answer: Answer) -> None:
        """One more message, or the end."""
        self.begun = True
        if answer.end:
            self.ended = True
        else:
            self.messages.append(answer.payload)
        self.wakeup.set()

    def fail(self, error: RunnerError) -> None:
        """Ends after the messages that have arrived."""
        self.error, self.ended = error, True
        self.wakeup.set()
