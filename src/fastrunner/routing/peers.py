"""Stage 1, router: links between the workers of one runner, so that every request reaches its execution's owner.

Each worker listens on a Unix socket (see `answering`) and opens one link (see `links`) to every other worker it has
requests for. Many requests share a link; answers are matched by id. This module is the asking side.

Rules:
- A request is sent when the owner has said hello on the link: a process that is about to end still takes connections.
- If the owner is down, a request waits for its successor up to ROUTER_OWNER_WAIT_S_MAX. One that was sent when the link
  broke is sent to one successor, if it may be repeated (see `calls`). One that the owner refuses because it is stopping
  is asked again within the same bound; any other refusal is the answer. A stream is sent again only if nothing of it
  has arrived. An owner without a sign of life for that long is as good as none.
- A submission that such an owner has not claimed is nobody's: it waits for no successor, but is refused at once, and
  whoever placed it there places it anew. If the owner lives and claims it after all, one of them wins, as ever.
- Memory is bounded: requests by the rooms of `calls`, with their bytes, until they are answered; a stream by the credit
  its reader grants. While the owner does not read, requests wait here, and urgent ones are the first to leave.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from google.rpc.code_pb2 import Code

from fastrunner._pb.fastrunner.router.v1.router_pb2 import Answer, Request
from fastrunner.base import crash, limits
from fastrunner.base.clock import monotonic_s
from fastrunner.base.crash import CrashPoint
from fastrunner.counts.definitions import Metrics
from fastrunner.errors import AtCapacity, ForwardedError, RunnerError, Unavailable
from fastrunner.routing.answering import Handler, Incoming
from fastrunner.routing.calls import REPEATABLE, Call, Rooms, StreamCall, UnaryCall, cost_of
from fastrunner.routing.facts import CallFacts, peek_execution_id
from fastrunner.routing.links import Channel
from fastrunner.routing.placement import Places

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status


class _Outgoing(Channel):
    """The connection of a peer."""

    def __init__(self, peer: "Peer") -> None:
        super().__init__()
        self._peer = peer
        self.incarnation = 0
        """Which start of the owner this leads to; 0: it has not said hello."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Something takes connections at the owner's place."""
        super().connection_made(transport)
        self._peer.connected(self)

    def on_hello(self, incarnation: int) -> None:
        """The owner is there."""
        self.incarnation = incarnation
        self._peer.send_waiting()

    def on_message(self, message: Request | Answer) -> None:
        """Hands an answer to its call."""
        if isinstance(message, Answer):
            self._peer.answered(message)

    def on_writable(self) -> None:
        """The owner reads again."""
        self._peer.send_waiting(refused_too=False)

    def on_lost(self) -> None:
        """The owner is gone, or this worker closes."""
        self._peer.disconnected(self)


class Peer:
    """Another worker: the calls it has not answered, and the link to it while there is one."""

    def __init__(self, worker: int, path: str, has_claimed: Callable[[int, Call], bool]) -> None:
        """`has_claimed` tells whether the worker may have the execution that a call is about."""
        self._worker = worker
        self._has_claimed = has_claimed
        self._path = path
        self._rooms = Rooms()
        self._calls: dict[int, Call] = {}
        self._urgent: dict[int, Call] = {}
        self._waiting: dict[int, Call] = {}
        """Those of `_calls` that are not sent, the urgent ones apart: they leave first."""
        self._link: _Outgoing | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._silent_looks = 0
        self._last_id = 0
        self._stopping = False

    @property
    def is_linked(self) -> bool:
        """Whether the worker is there to take something at once."""
        return self._ready() is not None

    def link(self) -> None:
        """Looks for the worker, once, if nobody does yet."""
        self._connect_soon()

    # --- calls ---

    def submit(self, call: Call) -> None:
        """Sends a call, now or to the owner's successor; raises AtCapacity."""
        if not self._rooms.take(call):
            kind = "streams" if isinstance(call, StreamCall) else "requests"
            raise AtCapacity(f"too many {kind}, or too large ones, wait for worker {self._worker}: retry later")
        if isinstance(call, StreamCall):
            call.open(self._rooms.streams.count)
        self._last_id += 1
        call.request.request_id = self._last_id
        self._calls[self._last_id] = call
        link = self._ready()
        if link is not None and link.is_writable:
            self._send(link, call)
        else:
            self._keep(call)
            self._connect_soon()
            self._give_up()
        self._look_later()

    def tell(self, call: Call, credit: int) -> None:
        """Grants credit, or with none cancels the call."""
        request_id = call.request.request_id
        if request_id not in self._calls:
            return
        is_sent = not self._is_waiting(request_id)
        if not credit:
            self._drop(call)
        link = self._ready()
        if link is not None and is_sent:
            link.add(Request(request_id=request_id, credit=credit))

    def answered(self, answer: Answer) -> None:
        """Takes an answer from the link."""
        call = self._calls.get(answer.request_id)
        if call is None or self._is_waiting(answer.request_id):
            return
        refusal = ForwardedError(answer.code, answer.message, answer.status) if answer.code else None
        ask_again = refusal is not None and answer.ask_again and not call.begun
        if ask_again and self._has_claimed(self._worker, call) and self._keep(call):
            call.refusal, call.owner = refusal, 0
            return
        if answer.end:
            self._drop(call)
        if refusal is not None:
            call.fail(refusal)
        else:
            call.deliver(answer)

    def _is_waiting(self, request_id: int) -> bool:
        return request_id in self._waiting or request_id in self._urgent

    def _drop(self, call: Call) -> None:
        request_id = call.request.request_id
        del self._calls[request_id]
        self._waiting.pop(request_id, None)
        self._urgent.pop(request_id, None)
        call.leave()

    def _end(self, call: Call, error: RunnerError) -> None:
        self._drop(call)
        call.fail(error)

    def _keep(self, call: Call) -> bool:
        """Lets a call wait for an owner that takes it, unless it has waited long enough."""
        now = monotonic_s()
        if not call.give_up_s:
            call.give_up_s = now + limits.ROUTER_OWNER_WAIT_S_MAX
            if call.deadline_s:
                call.give_up_s = min(call.give_up_s, call.deadline_s)
        (self._urgent if call.is_urgent else self._waiting)[call.request.request_id] = call
        return not self._stopping and now < call.give_up_s

    def send_waiting(self, *, refused_too: bool = True) -> None:
        """Sends what waits, as far as the owner reads; with `refused_too` also what it has refused for now."""
        link = self._ready()
        for waiting in (self._urgent, self._waiting):
            for call in list(waiting.values()):
                if link is None or not link.is_writable:
                    return
                if refused_too or call.refusal is None:
                    del waiting[call.request.request_id]
                    self._send(link, call)

    def _send(self, link: _Outgoing, call: Call) -> None:
        link.add(call.sent_to(link.incarnation), call.size_bytes)

    # --- the link ---

    def _ready(self) -> _Outgoing | None:
        """The link to an owner that has said hello."""
        return self._link if self._link is not None and self._link.incarnation else None

    def _connect_soon(self, delay_s: float = 0.0) -> None:
        if self._connecting is None and self._link is None and not self._stopping:
            self._connecting = asyncio.ensure_future(self._connect(delay_s))

    async def _connect(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            # Ends with a link, or when the last call that waits for one has given up.
            while self._link is None:
                await asyncio.sleep(delay_s)
                delay_s = limits.ROUTER_RECONNECT_INTERVAL_S
                with contextlib.suppress(OSError):
                    await loop.create_unix_connection(lambda: _Outgoing(self), self._path)
                if not self._calls:
                    break
        finally:
            self._connecting = None

    def connected(self, link: _Outgoing) -> None:
        """There is a link; it is of use when the owner has said hello."""
        self._link = link

    def disconnected(self, link: _Outgoing) -> None:
        """Keeps for the successor what may be sent again."""
        if link is not self._link:
            return
        self._link = None
        for call in list(self._calls.values()):
            is_unsent = self._is_waiting(call.request.request_id)
            waits = self._has_claimed(self._worker, call) and (is_unsent or (call.may_be_repeated and self._keep(call)))
            if not waits:
                self._end(call, self._lost(call, "went away"))
        if self._calls:
            # Not at once: a process that is about to end still takes connections.
            self._connect_soon(limits.ROUTER_RECONNECT_INTERVAL_S)

    def _lost(self, call: Call, how: str) -> Unavailable:
        """For a call that was sent and will not be sent again."""
        if call.method in REPEATABLE:
            return Unavailable(f"worker {self._worker} {how} before it answered: retry")
        return Unavailable(
            f"worker {self._worker} {how} before it answered, and may have carried {call.method} out: look at the "
            f"execution, and retry if it is still right"
        )

    # --- patience ---

    def _look_later(self) -> None:
        if self._looking is None and self._calls and not self._stopping:
            self._looking = asyncio.get_running_loop().call_later(limits.ROUTER_RETRY_INTERVAL_S, self._on_look)

    def _on_look(self) -> None:
        """Asks the owner again what it has refused for now, and sees whether it lives."""
        self._looking = None
        self.send_waiting()
        self._give_up()
        self._listen()
        self._look_later()

    def _give_up(self) -> None:
        """Ends the calls that have waited too long."""
        now = monotonic_s()
        away = f"worker {self._worker}, which owns the execution, is not available: retry"
        for waiting in (self._urgent, self._waiting):
            for call in list(waiting.values()):
                if self._stopping or now >= call.give_up_s:
                    self._end(call, call.refusal or Unavailable(away))

    def _listen(self) -> None:
        """Ends the sent calls of an owner that gives no sign of life.

        Counts looks, not seconds: after this process itself was stopped, signs may still have to be read.
        """
        link = self._link
        if link is None or link.is_heard or not self._calls:
            self._silent_looks = 0
        else:
            self._silent_looks += 1
        if link is None:
            return
        link.is_heard = False
        if self._silent_looks * limits.ROUTER_RETRY_INTERVAL_S >= limits.ROUTER_OWNER_WAIT_S_MAX:
            self._silent_looks = 0
            for call in [call for request_id, call in self._calls.items() if not self._is_waiting(request_id)]:
                self._end(call, self._lost(call, "fell silent"))
            self._link = None
            link.abort()
            self._connect_soon(limits.ROUTER_RECONNECT_INTERVAL_S)
        elif self._silent_looks and self._silent_looks % limits.ROUTER_PING_LOOKS == 0:
            link.ping()

    def stop_waiting(self) -> None:
        """No more waiting for successors: this worker is stopping too."""
        self._stopping = True
        self._give_up()

    def close(self) -> None:
        """Closes the link; what has no answer fails."""
        self.stop_waiting()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.finish()


async def messages_of(
    peer: Peer, call: StreamCall, over: Callable[[BaseException | None], None] = lambda _: None
) -> AsyncGenerator[bytes, None]:
    """Has a peer answer a stream, and gives its messages; `over` hears once what it failed with. Raises RunnerError;
    closing it ends the stream."""
    peer.submit(call)
    read = 0
    try:
        # Ends with the stream's last word, or when the reader closes this generator.
        while True:
            while call.messages:
                message = call.messages.popleft()
                read += cost_of(message)
                if read >= call.window // 2:
                    peer.tell(call, credit=read)
                    read = 0
                yield message
            if call.ended:
                break
            call.wakeup.clear()
            await call.wakeup.wait()
        if call.error is not None:
            raise call.error
    finally:
        over(call.error)
        if not call.ended:
            peer.tell(call, credit=0)


class Router:
    """The links of one worker; see `facts.Router`."""

    def __init__(
        self,
        places: Places,
        socket_of: Callable[[int], Path],
        metrics: Metrics,
        status_of: "Callable[[Exception], Status]",
    ) -> None:
        """`socket_of`: where the worker of a number listens for the others."""
        self._places = places
        self._worker = worker = places.worker
        self._workers = places.workers
        self._path = socket_of(worker)
        self._incarnation = int.from_bytes(os.urandom(8), "big") | 1  # Never 0.
        self._status_of = status_of
        self._metrics = metrics
        # Looking a label up costs as much as counting.
        self._forwarded = metrics.router_forwards.labels("OK")
        others = [other for other in self._workers if other != worker]
        self._peers = {other: Peer(other, str(socket_of(other)), self._has_claimed) for other in others}
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

    def owners_of(self, execution_id: str) -> Sequence[int]:
        """See `facts.Router`."""
        return self._places.owners_of(execution_id)

    def are_new(self, messages: list[bytes]) -> bool:
        """See `facts.Router`."""
        return self._places.are_new(messages)

    def choose(self, count: int) -> int:
        """See `facts.Router`. Never one that cannot answer at once: new executions wait for nobody."""
        worker = self._places.choose(count)
        if worker == self._worker or self._peers[worker].is_linked:
            return worker
        self._peers[worker].link()
        return self._worker

    def assign(self, worker: int, count: int) -> None:
        """See `facts.Router`."""
        self._places.assign(worker, count)

    async def start(self, handler: Handler) -> None:
        """Answers the other workers from now on; call when the engine has recovered."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: Incoming(handler, self._status_of, self._incarnation, self._incoming), str(self._path)
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

    def forward(self, worker: int, method: str, payload: bytes, facts: CallFacts) -> Awaitable[bytes]:
        """See `facts.Router`."""
        call = UnaryCall(method, payload, facts)
        crash.reach(CrashPoint.BEFORE_FORWARD)
        self._peers[worker].submit(call)
        crash.reach_soon(CrashPoint.AFTER_FORWARD)
        call.future.add_done_callback(partial(self._unary_done, worker, call, monotonic_s()))
        return call.future

    def _has_claimed(self, worker: int, call: Call) -> bool:
        """Whether an execution that a call is about, or the call itself, can only be a worker's business."""
        if call.method == "ExecuteAsyncBatch":
            # Whoever placed it asks for each of its items anew.
            return False
        if call.method != "ExecuteAsync":
            return True
        try:
            return worker in self._places.owners_of(peek_execution_id(call.request.payload))
        except RunnerError:
            return True

    def _unary_done(self, worker: int, call: UnaryCall, began_s: float, future: "asyncio.Future[bytes]") -> None:
        if future.cancelled():
            self._peers[worker].tell(call, credit=0)
        self._metrics.router_duration.observe(monotonic_s() - began_s)
        self._count(None if future.cancelled() else future.exception())

    def forward_stream(self, worker: int, method: str, payload: bytes, facts: CallFacts) -> AsyncGenerator[bytes, None]:
        """See `facts.Router`."""
        return messages_of(self._peers[worker], StreamCall(method, payload, facts), self._count)

    def _count(self, error: BaseException | None) -> None:
        if error is None:
            self._forwarded.inc()
            return
        if isinstance(error, ForwardedError):
            code = error.code
        else:
            code = error.grpc_code if isinstance(error, RunnerError) else 0
        self._metrics.router_forwards.labels(Code.Name(code)).inc()
