"""Stage 1, router: links between the workers of one runner, so that every request reaches its execution's owner.

Each worker listens on a Unix socket (see `answering`) and opens one link (see `links`) to every other worker it has
requests for. Many requests share a link; answers are matched by id. This module is the asking side.

Rules:
- If the owner is down, a request waits for its successor up to ROUTER_OWNER_WAIT_S_MAX. One that was sent when the link
  broke is sent to the successor once more: every forwarded method is idempotent by execution id. One that the owner
  refuses as UNAVAILABLE, because it is stopping say, is asked again within the same bound. A stream is sent again only
  if nothing of it has arrived.
- Memory is bounded: unary requests in flight by ROUTER_REQUESTS_IN_FLIGHT_MAX per link, a stream by the credit its
  reader grants. So writes need no back-pressure of their own.
"""

import abc
import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from google.rpc.code_pb2 import Code

from fastrunner._pb.fastrunner.router.v1.router_pb2 import Answer, Frame, Request
from fastrunner.base import crash, limits
from fastrunner.base.clock import monotonic_s, wall_ms
from fastrunner.base.crash import CrashPoint
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.store.sharding import owner_of, shard_of
from fastrunner.errors import AtCapacity, ForwardedError, RunnerError, Unavailable
from fastrunner.routing.answering import Handler, Incoming
from fastrunner.routing.links import Channel

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

_UNAVAILABLE: Final = 14


class _Call(abc.ABC):
    """A request to another worker that has no last word yet."""

    __slots__ = ("again", "begun", "give_up_s", "refusal", "request", "sent")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.sent = False
        """Whether the present link has carried it."""
        self.again = True
        """Whether it may be sent to a successor."""
        self.begun = False
        """Whether something of its answer has arrived."""
        self.refusal: ForwardedError | None = None
        """Why the owner would not take it now."""
        self.give_up_s = 0.0
        """Until when it waits for an owner that takes it, on the monotonic clock; 0: it has not had to wait."""

    @abc.abstractmethod
    def deliver(self, answer: Answer) -> None:
        """Takes over an answer that is not a refusal."""

    @abc.abstractmethod
    def fail(self, error: RunnerError) -> None:
        """Ends without an answer."""


class _UnaryCall(_Call):
    """One answer."""

    __slots__ = ("future",)

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def deliver(self, answer: Answer) -> None:
        """The reply."""
        if not self.future.done():
            self.future.set_result(answer.payload)

    def fail(self, error: RunnerError) -> None:
        """The refusal."""
        if not self.future.done():
            self.future.set_exception(error)


class _StreamCall(_Call):
    """Answers in a row."""

    __slots__ = ("ended", "error", "messages", "wakeup")

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.messages: deque[bytes] = deque()  # bounded by the credit granted
        self.wakeup = asyncio.Event()
        self.ended = False
        self.error: RunnerError | None = None

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


class _Outgoing(Channel):
    """The connection of a peer."""

    def __init__(self, peer: "_Peer") -> None:
        super().__init__()
        self._peer = peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The owner is there."""
        super().connection_made(transport)
        self._peer.connected(self)

    def on_frame(self, frame: Frame) -> None:
        """Hands answers to their calls."""
        for answer in frame.answers:
            self._peer.answered(answer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The owner is gone, or this worker closes."""
        self._peer.disconnected()


class _Peer:
    """Another worker: the calls it has not answered, and the link to it while there is one."""

    def __init__(self, worker: int, path: str) -> None:
        self._worker = worker
        self._path = path
        self._calls: dict[int, _Call] = {}
        self._channel: _Outgoing | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._last_id = 0
        self._stopping = False

    def submit(self, call: _Call) -> None:
        """Sends a call, now or to the owner's successor; raises AtCapacity."""
        if len(self._calls) >= limits.ROUTER_REQUESTS_IN_FLIGHT_MAX:
            raise AtCapacity(f"worker {self._worker} has too many requests to answer: retry later")
        self._last_id += 1
        call.request.request_id = self._last_id
        self._calls[self._last_id] = call
        if self._channel is not None:
            call.sent = True
            self._channel.add_request(call.request)
        else:
            self._keep(call)
            self._wait_for_owner()

    def tell(self, call: _Call, credit: int) -> None:
        """Grants credit, or with none cancels the call."""
        if not credit:
            self._calls.pop(call.request.request_id, None)
        if self._channel is not None and call.sent:
            self._channel.add_request(Request(request_id=call.request.request_id, credit=credit))

    def answered(self, answer: Answer) -> None:
        """Takes an answer from the link."""
        call = self._calls.get(answer.request_id)
        if call is None:
            return
        refusal = ForwardedError(answer.code, answer.message, answer.status) if answer.code else None
        if refusal is not None and refusal.code == _UNAVAILABLE and not call.begun and self._keep(call):
            call.refusal = refusal
            self._look_again()
            return
        if answer.end:
            del self._calls[answer.request_id]
        if refusal is not None:
            call.fail(refusal)
        else:
            call.deliver(answer)

    def connected(self, channel: _Outgoing) -> None:
        """Sends what has waited for a link."""
        self._channel = channel
        self._send_waiting()

    def disconnected(self) -> None:
        """Keeps for the successor what may be sent again."""
        self._channel = None
        for request_id, call in list(self._calls.items()):
            if not call.sent:
                continue
            if call.again and not call.begun and self._keep(call):
                call.again = False
            else:
                del self._calls[request_id]
                call.fail(Unavailable(f"worker {self._worker} went away before it answered: retry"))
        if self._calls:
            self._wait_for_owner()

    def _keep(self, call: _Call) -> bool:
        """Lets a call wait for an owner that takes it, unless it has waited long enough."""
        now = monotonic_s()
        if not call.give_up_s:
            wait_s = limits.ROUTER_OWNER_WAIT_S_MAX
            if call.request.deadline_ms:
                wait_s = min(wait_s, (call.request.deadline_ms - wall_ms()) / 1000)
            call.give_up_s = now + wait_s
        call.sent = False
        return not self._stopping and now < call.give_up_s

    def _wait_for_owner(self) -> None:
        self._look_again()
        if self._connecting is None and not self._stopping:
            self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            # Ends with a link, or when the last call that waits for one has given up.
            while self._calls and self._channel is None:
                with contextlib.suppress(OSError):
                    await loop.create_unix_connection(lambda: _Outgoing(self), self._path)
                    continue
                await asyncio.sleep(limits.ROUTER_RECONNECT_INTERVAL_S)
        finally:
            self._connecting = None

    def _send_waiting(self) -> None:
        for call in self._calls.values():
            if self._channel is not None and not call.sent:
                call.sent = True
                self._channel.add_request(call.request)

    def _look_again(self) -> None:
        """Ends the calls that have waited too long, and comes back while others wait."""
        if self._looking is not None:
            return
        now = monotonic_s()
        for request_id, call in list(self._calls.items()):
            if not call.sent and (self._stopping or now >= call.give_up_s):
                del self._calls[request_id]
                away = Unavailable(f"worker {self._worker}, which owns the execution, is not available: retry")
                call.fail(call.refusal or away)
        if not all(call.sent for call in self._calls.values()):
            delay_s = limits.ROUTER_RETRY_INTERVAL_S
            self._looking = asyncio.get_running_loop().call_later(delay_s, self._on_look)

    def _on_look(self) -> None:
        """Asks the owner again what it has refused for now."""
        self._looking = None
        self._send_waiting()
        self._look_again()

    def stop_waiting(self) -> None:
        """No more waiting for successors: this worker is stopping too."""
        self._stopping = True
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._look_again()

    def close(self) -> None:
        """Closes the link; what has no answer fails."""
        self.stop_waiting()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._channel is not None:
            self._channel.finish()


class Router:
    """The links of one worker; see `facts.Router`."""

    def __init__(
        self,
        worker: int,
        worker_count: int,
        shard_count: int,
        socket_of: Callable[[int], Path],
        metrics: Metrics,
        status_of: "Callable[[Exception], Status]",
    ) -> None:
        """`socket_of`: where the worker of a number listens for the others."""
        self._worker = worker
        self._workers = tuple(range(worker_count))
        self._shard_count = shard_count
        self._path = socket_of(worker)
        self._status_of = status_of
        self._metrics = metrics
        # Looking a label up costs as much as counting.
        self._forwarded = metrics.router_forwards.labels("OK")
        self._peers = {other: _Peer(other, str(socket_of(other))) for other in self._workers if other != worker}
        self._server: asyncio.AbstractServer | None = None
        self._incoming: set[Incoming] = set()

    @property
    def worker(self) -> int:
        """Number of this worker."""
        return self._worker

    @property
    def workers(self) -> Sequence[int]:
        """Numbers of all workers, this one included."""
        return self._workers

    def owner_of(self, execution_id: str) -> int:
        """Number of the worker that owns the execution."""
        return owner_of(shard_of(execution_id, self._shard_count), len(self._workers))

    async def start(self, handler: Handler) -> None:
        """Answers the other workers from now on; call when the engine has recovered."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: Incoming(handler, self._status_of, self._incoming), str(self._path)
        )

    def stop_waiting(self) -> None:
        """Gives up what waits for an owner's successor, now and from now on."""
        for peer in self._peers.values():
            peer.stop_waiting()

    async def close(self, timeout_s: float) -> None:
        """Lets no one connect any more, answers what is answerable within `timeout_s`, closes all links."""
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        unanswered = [call for channel in self._incoming for call in channel.unanswered]
        if unanswered:
            await asyncio.wait(unanswered, timeout=timeout_s)
        # The answers of what has just ended are added by callbacks, which run first.
        await asyncio.sleep(0)
        for channel in list(self._incoming):
            channel.finish()
        for peer in self._peers.values():
            peer.close()

    def forward(self, worker: int, method: str, payload: bytes, peer: str, deadline_ms: int) -> Awaitable[bytes]:
        """See `facts.Router`."""
        call = _UnaryCall(Request(method=method, payload=payload, peer=peer, deadline_ms=deadline_ms))
        crash.reach(CrashPoint.BEFORE_FORWARD)
        self._peers[worker].submit(call)
        crash.reach_soon(CrashPoint.AFTER_FORWARD, asyncio.get_running_loop().call_later)
        call.future.add_done_callback(partial(self._unary_done, worker, call, monotonic_s()))
        return call.future

    def _unary_done(self, worker: int, call: _UnaryCall, began_s: float, future: "asyncio.Future[bytes]") -> None:
        if future.cancelled():
            self._peers[worker].tell(call, credit=0)
        self._metrics.router_duration.observe(monotonic_s() - began_s)
        self._count(None if future.cancelled() else future.exception())

    async def forward_stream(
        self, worker: int, method: str, payload: bytes, peer: str, deadline_ms: int
    ) -> AsyncGenerator[bytes, None]:
        """See `facts.Router`."""
        window = limits.ROUTER_STREAM_WINDOW_MESSAGES
        call = _StreamCall(
            Request(method=method, payload=payload, peer=peer, deadline_ms=deadline_ms, credit=window),
        )
        owner = self._peers[worker]
        owner.submit(call)
        read = 0
        try:
            # Ends with the stream's last word, or when the reader closes this generator.
            while True:
                while call.messages:
                    read += 1
                    if read == window // 2:
                        owner.tell(call, credit=read)
                        read = 0
                    yield call.messages.popleft()
                if call.ended:
                    break
                call.wakeup.clear()
                await call.wakeup.wait()
            if call.error is not None:
                raise call.error
        finally:
            self._count(call.error)
            if not call.ended:
                owner.tell(call, credit=0)

    def _count(self, error: BaseException | None) -> None:
        if error is None:
            self._forwarded.inc()
            return
        if isinstance(error, ForwardedError):
            code = error.code
        else:
            code = error.grpc_code if isinstance(error, RunnerError) else 0
        self._metrics.router_forwards.labels(Code.Name(code)).inc()
