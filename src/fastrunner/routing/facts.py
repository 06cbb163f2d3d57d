"""Stage 1, routing: who answers a request, and what a handler knows of the call.

Rules: no grpc here; an execution is answered for by exactly one worker, the one that accepted it or has its shard now;
a request that was forwarded once is never forwarded again.
"""

from asyncio import Future
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from fastrunner._pb.fastrunner.router.v1.views_pb2 import ExecutionIdView
from fastrunner._wire import read_execution_id
from fastrunner.access.principal import Principal
from fastrunner.errors import InvalidRequest
from fastrunner.tracing.context import TraceContext


@dataclass(slots=True)
class CallFacts:
    """What a handler may know of the call it answers."""

    peer: str
    """The client, for fair shares and limits: the principal's name, else the name it gives itself, else its host."""
    deadline_ms: int
    """When the caller stops waiting, in milliseconds since the epoch; 0: never."""
    local: bool
    """Answer from this worker's own engine: set on calls that another worker forwarded."""
    principal: Principal | None = None
    """Who calls, by its credentials; None where callers are not told apart. Its roles cover the method already."""
    is_turned_away: bool = False
    """Whether the runner ends the call, a stream, by itself: then its client has not gone away."""
    trace: TraceContext | None = None
    """Where the caller is in a trace; None: nowhere, or nothing is traced."""
    received_s: float = 0.0
    """When the call arrived at the process that the client reached, on the monotonic clock; 0: nothing is traced."""
    taken_s: float = 0.0
    """When it came from there to this worker; 0: it did not."""


class Later(Awaitable[bytes]):
    """A reply made of a result that is still to come: whoever serves many of them needs no task for each."""

    __slots__ = ("reply_of", "result")

    def __init__(self, result: "Future[Any]", reply_of: Callable[[Any], bytes]) -> None:
        self.result = result
        """What is to come."""
        self.reply_of = reply_of
        """Makes the reply of it."""

    def __await__(self) -> Generator[Any, None, bytes]:
        return self.reply_of((yield from self.result))


def as_it_is(reply: bytes) -> bytes:
    """Makes the reply of a result that is one."""
    return reply


class Router(Protocol):
    """What the service needs of the links between workers."""

    @property
    def worker(self) -> int:
        """Number of this worker."""

    @property
    def workers(self) -> Sequence[int]:
        """Numbers of all workers, this one included."""

    def owners_of(self, execution_id: str) -> Sequence[int]:
        """Numbers of the workers that may have the execution, hardly ever more than one; none if nobody has it."""

    def are_new(self, messages: list[bytes]) -> bool:
        """Whether nobody has any of the executions that messages are about; of some that are new it may say no."""

    def choose(self, count: int) -> int:
        """Number of the worker that should take `count` new executions."""

    def assign(self, worker: int, count: int) -> None:
        """So many executions of a batch go to a worker; with a negative number they have been answered."""

    def forward(self, worker: int, method: str, payload: bytes, facts: CallFacts) -> Awaitable[bytes]:
        """The reply of `worker`'s own handler, called with the same facts and `local` set.

        `method` is canonical, such as `ExecuteAsync`. Raises ForwardedError with the owner's refusal, Unavailable if
        the owner does not come back in time. Cancelling the wait tells the owner that nobody waits any more.
        """

    def forward_stream(self, worker: int, method: str, payload: bytes, facts: CallFacts) -> AsyncGenerator[bytes, None]:
        """The stream of `worker`'s own handler; errors as in `forward`. Closing it closes the owner's stream."""


def peek_execution_id(payload: bytes) -> str:
    """The execution id of any request about one execution: field 1 of all of them, the last one wins.

    Decodes nothing else: the view leaves the other fields as bytes. Raises InvalidRequest if `payload` is no message.
    """
    execution_id = read_execution_id(payload)
    if execution_id is not None:
        return execution_id
    try:
        return ExecutionIdView.FromString(payload).execution_id
    except DecodeError:
        raise InvalidRequest("", "the request is not a protobuf message of this method") from None
