"""Stage 1, service: what answers under which path, and how: unary calls, streams, refusals, drain.

Messages are raw bytes in and out. Rules: every refusal leaves with its details in the trailers; every call is counted
once, under its canonical name; when the server stops, streams end at once with UNAVAILABLE and unary calls have the
grace to finish.
"""

import asyncio
from collections import Counter as Counts
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Final

from google.rpc.code_pb2 import CANCELLED, OK, Code

from fastrunner._http2 import INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, Call, waiting_size_bytes
from fastrunner.access.audit import AuditLog
from fastrunner.access.certificates import Certificates
from fastrunner.access.gate import Gate
from fastrunner.access.principal import Principal
from fastrunner.access.roles import ROLE_OF_METHOD, Open, check_role
from fastrunner.base import clock, crash, descriptors, limits
from fastrunner.base.crash import CrashPoint
from fastrunner.counts.cells import Counter
from fastrunner.counts.definitions import Metrics
from fastrunner.errors import AtCapacity, InvalidRequest, NotServed, RunnerError, Unavailable
from fastrunner.routing.facts import CallFacts, Later, as_it_is
from fastrunner.service.audit import AuditEntry
from fastrunner.service.handlers import Service
from fastrunner.service.health import HEALTH_SERVICE, Health
from fastrunner.service.methods import METHOD_OF_PATH, Method
from fastrunner.service.reflection import REFLECTION_SERVICES, Reflection
from fastrunner.service.status import status_of
from fastrunner.service.transport.caller import client_of, facts_of, host_of
from fastrunner.service.transport.capacity import Capacity
from fastrunner.service.transport.connection import Connection
from fastrunner.service.transport.deadlines import Deadlines
from fastrunner.service.transport.intake import Intake
from fastrunner.service.transport.listener import Connections, Listener
from fastrunner.service.transport.standing import Standing, authorization_of
from fastrunner.service.transport.turns import Turns
from fastrunner.service.transport.unpacking import Unpacking


def _label(code: str) -> str:
    """A code as the go-grpc-prometheus convention writes it: `OK`, `InvalidArgument`, `Canceled`."""
    if code in ("OK", "CANCELLED"):
        return "OK" if code == "OK" else "Canceled"
    return "".join(part.capitalize() for part in code.split("_"))


_DETAILS_KEY: Final = "grpc-status-details-bin"
_STOPPING: Final = "the runner is stopping: executions go on; call again, and Subscribe to follow them"
_SUBMIT: Final = {"ExecuteAsync", "ExecuteAsyncBatch"}
"""Unary methods that submit executions."""
_UNKNOWN: Final = Method("unknown", "unknown", streams=False)
_CODE_LABELS: Final = {number: _label(name) for name, number in Code.items()}
Trailers = tuple[tuple[str, str | bytes], ...] | None
Answer = Callable[[Call], None]
"""Takes a call up: reads what it has to, and sees to it that it is answered."""
Unary = Callable[[bytes, CallFacts], bytes | Awaitable[bytes]]
Stream = Callable[[bytes, CallFacts], AsyncGenerator[bytes, None]]
Opened = Callable[[CallFacts], AsyncGenerator[bytes, None]]
"""A stream whose request, if there is one, is known."""
Conversation = Callable[[AsyncIterator[bytes]], AsyncGenerator[bytes, None]]


class Server:
    """A running gRPC server on one port."""

    def __init__(
        self,
        service: Service,
        metrics: Metrics,
        listener: Listener | None = None,
        gate: Gate | None = None,
        audit: AuditLog | None = None,
        *,
        traces: bool = False,
    ) -> None:
        """`listener` may be listening already. Without a gate, callers are not told apart. `traces`: handlers are told
        where callers are in a trace."""
        self._traces = traces
        self._listener = listener or Listener()
        self._service = service
        self._metrics = metrics
        self._gate = gate
        self._audit = audit
        self._being_admitted: set[asyncio.Task[None]] = set()
        self._health = Health()
        self._streams: dict[asyncio.Task[None], Call] = {}
        self._pending: dict[asyncio.Future[Any], Call] = {}
        self._stopping = False
        self.turns = Turns(service.overload.measured)
        self.unpacking = Unpacking()
        self._deadlines = Deadlines()
        self._intake = Intake(client_of, lambda: self.turns.read_s)
        self._standing = None if gate is None else Standing(gate, lambda: self._intake.coming, self._intake.refuse)
        self._unknown = _Measure(metrics, _UNKNOWN)
        self._answers = self._methods()
        self._capacity = Capacity()
        self._conversations_count = 0
        count_max = descriptors.for_strangers(limits.GRPC_CONNECTIONS_MAX)
        self._connections = Connections(self._listener, self, count_max, metrics.connections_cut)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._listener.port

    async def start(self, address: str, certificates: Certificates | None = None) -> None:
        """Listens on `address` (host:port) and serves. Raises RuntimeError if the port cannot be had."""
        if not self._listener.port:
            self._listener.listen(address, certificates)
        self._connections.start()
        self.set_serving(True)

    def set_serving(self, serving: bool) -> None:
        """What health says; a draining worker is not serving."""
        self._health.set_serving(serving)

    def set_troubled(self, troubled: bool) -> None:
        """Whether health says that new work is not taken although the worker serves."""
        self._health.set_troubled(troubled)

    def look(self) -> None:
        """Ends the streams of callers that may not have them any more; call after the gate has looked at its files."""
        if self._standing is not None:
            self._standing.look()

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, ends streams, lets unary calls finish within `grace_s`."""
        self.set_serving(False)
        if self._standing is not None:
            self._standing.close()
        # Clients that are asked to go connect again at once, and must not come here.
        self._connections.stop_listening()
        self._connections.retire()
        # What is on its way meanwhile is served: clients fall silent when they have heard of it.
        await asyncio.sleep(limits.GRPC_STOP_PAUSE_S)
        self._service.stop()
        self._stopping = True
        self._connections.leave()
        for stream in self._streams:
            stream.cancel()
        open_calls: list[asyncio.Future[Any]] = [*self._pending, *self._streams]
        if open_calls:
            await asyncio.wait(open_calls, timeout=grace_s)
        await self._connections.close(limits.GRPC_STOP_PAUSE_S)
        self._deadlines.close()
        await self._service.close(grace_s)

    # --- connections ---

    def ended(self, connection: Connection) -> None:
        """See Host."""
        self._connections.ended(connection)

    # --- what answers under which path ---

    def _methods(self) -> dict[str, Answer]:
        answers = {path: self._guarded(method, self._method(method)) for path, method in METHOD_OF_PATH.items()}
        check, watch = Method(HEALTH_SERVICE, "Check", streams=False), Method(HEALTH_SERVICE, "Watch", streams=True)
        answers[f"/{HEALTH_SERVICE}/Check"] = self._guarded(
            check, self._unary(check, lambda payload, _: self._health.check(payload))
        )
        answers[f"/{HEALTH_SERVICE}/Watch"] = self._guarded(
            watch, self._stream(watch, lambda payload, _: self._health.watch(payload))
        )
        reflection = Reflection()
        for service in REFLECTION_SERVICES:
            method = Method(service, "ServerReflectionInfo", streams=True)
            measure = _Measure(self._metrics, method)
            answers[f"/{service}/{method.name}"] = self._guarded(
                method, partial(self._converse, measure, reflection.converse)
            )
        return answers

    def _guarded(self, method: Method, answer: Answer) -> Answer:
        """Has a method answer those alone who may call it, and tells of it; where neither is asked for, at no cost."""
        gate, standing, audit = self._gate, self._standing, self._audit
        if gate is None and audit is None:
            return answer
        wanted = ROLE_OF_METHOD[method.name]
        if wanted is Open.TO_ALL:
            return partial(_as_stranger, answer) if gate is not None else answer
        if audit is not None:
            answer = partial(_audited, audit, method.name, answer)
        if gate is None or standing is None:
            return answer
        measure = _Measure(self._metrics, method)

        def enter(call: Call, principal: Principal) -> None:
            call.principal, call.client = principal, principal.name
            check_role(principal, wanted, method.name)
            standing.begin(call, wanted, method.name)
            answer(call)

        def refuse(call: Call, error: Exception) -> None:
            measure.started.inc()
            if audit is not None and call.principal is not None:
                call.audit = AuditEntry(audit, method.name, call.principal, host_of(call))
            self._refuse(call, measure, error)

        async def enter_later(call: Call, principal: Awaitable[Principal]) -> None:
            try:
                enter(call, await principal)
            except Exception as error:
                refuse(call, error)

        def take_up(call: Call) -> None:
            try:
                principal = gate.admit(authorization_of(call), lambda: call.certificate_names)
                if isinstance(principal, Principal):
                    enter(call, principal)
                    return
            except RunnerError as error:
                refuse(call, error)
                return
            task = asyncio.get_running_loop().create_task(enter_later(call, principal))
            self._being_admitted.add(task)
            task.add_done_callback(self._being_admitted.discard)

        return take_up

    def _method(self, method: Method) -> Answer:
        if method.streams:
            return self._stream(method, partial(self._service.handle_stream, method.name))
        answer = self._unary(method, partial(self._service.handle_unary, method.name))
        return self._unless_overloaded(method, answer) if method.name == "ExecuteAsync" else answer

    def take_up(self, call: Call) -> None:
        """See Host."""
        self._deadlines.begin(call)
        answer = self._answers.get(call.path)
        if call.http_status:
            self._receive(self._unknown, self._refuse_http, call)
        elif call.is_malformed:
            self._unknown.started.inc()
            self._refuse(call, self._unknown, _nothing(call))
        elif call.timeout_s <= 0:
            call.expire()
        elif answer is not None:
            answer(call)
        else:
            self._unknown.started.inc()
            self._refuse(
                call, self._unknown, NotServed(f"there is no method {call.path[: limits.METHOD_SHOWN_SIZE_CHARS_MAX]}")
            )

    def _refuse_http(self, call: Call, _: bytes | None) -> None:
        self._unknown.started.inc()
        self._refuse(call, self._unknown, _NO_GRPC)

    def _unless_overloaded(self, method: Method, answer: Answer) -> Answer:
        """Refuses submissions of which there are too many before anything of them is read: nothing costs less."""
        measure = _Measure(self._metrics, method)
        known: RunnerError | None = None
        status: tuple[int, bytes, Trailers] = (0, b"", None)

        def take_up(call: Call) -> None:
            nonlocal known, status
            refusal = self._service.refusal(client_of(call))
            if refusal is None:
                answer(call)
                return
            if refusal is not known:
                known, status = refusal, _told(refusal)
            if call.audit is not None:
                call.audit.ended(status[0], refusal.message)
            call.finish(*status)
            measure.refused(status[0])

        return take_up

    # --- unary calls ---

    def _unary(self, method: Method, handle: Unary) -> Answer:
        measure = _Measure(self._metrics, method)
        submits = method.name in _SUBMIT
        is_free = method.service == HEALTH_SERVICE

        def received(call: Call, payload: bytes | None) -> None:
            started_s = clock.monotonic_s()
            measure.started.inc()
            try:
                if payload is None:
                    raise _nothing(call)
                if self._stopping:
                    raise Unavailable(_STOPPING)
                if not is_free:
                    self._capacity.check(len(payload), submits=submits)
                reply = handle(payload, facts_of(call, started_s if self._traces else None))
            except Exception as error:
                self._refuse(call, measure, error, started_s)
                return
            if isinstance(reply, bytes):
                self._reply(call, measure, reply, started_s)
                return
            later = reply if isinstance(reply, Later) else Later(asyncio.ensure_future(reply), as_it_is)
            self._capacity.begin(len(payload))
            self._pending[later.result] = call
            later.result.add_done_callback(
                partial(self._answer, call, measure, started_s, later.reply_of, len(payload))
            )

        return partial(self._receive, measure, received)

    def _receive(self, measure: "_Measure", received: Callable[[Call, bytes | None], None], call: Call) -> None:
        def refuse(error: Exception) -> None:
            measure.started.inc()
            self._refuse(call, measure, error)

        if call.audit is not None:
            received = partial(_tell_request, received)
        self._intake.receive(call, partial(received, call), refuse)

    def _answer(
        self,
        call: Call,
        measure: "_Measure",
        started_s: float,
        reply_of: Callable[[Any], bytes],
        size_bytes: int,
        result: "asyncio.Future[Any]",
    ) -> None:
        self._pending.pop(result, None)
        self._capacity.end(size_bytes)
        if result.cancelled():
            self._refuse(call, measure, Unavailable(_STOPPING), started_s)
        elif isinstance(error := result.exception(), Exception):
            self._refuse(call, measure, error, started_s)
        else:
            self._reply(call, measure, reply_of(result.result()), started_s)

    def _reply(self, call: Call, measure: "_Measure", reply: bytes, started_s: float) -> None:
        if len(reply) > limits.GRPC_REPLY_SMALL_SIZE_BYTES and (refusal := _no_room_for(reply)) is not None:
            self._refuse(call, measure, refusal, started_s)
            return
        crash.reach(CrashPoint.BEFORE_ACK)
        crash.reach_soon(CrashPoint.AFTER_ACK)
        call.reply(reply)
        if call.audit is not None:
            call.audit.ended(OK, reply=reply)
        measure(OK, started_s)

    def _refuse(
        self,
        call: Call,
        measure: "_Measure",
        error: Exception,
        started_s: float | None = None,
    ) -> None:
        status = _told(error)
        if call.audit is not None:
            call.audit.ended(status[0], status[1].decode())
        call.finish(*status)
        measure(status[0], clock.monotonic_s() if started_s is None else started_s)

    # --- streams ---

    def _stream(self, method: Method, open_: Stream) -> Answer:
        """A stream of answers to one request."""
        measure = _Measure(self._metrics, method)

        def received(call: Call, payload: bytes | None) -> None:
            if payload is None:
                measure.started.inc()
                self._refuse(call, measure, _nothing(call))
            else:
                self._open(measure, partial(open_, payload), call, len(payload))

        return partial(self._receive, measure, received)

    def _converse(self, measure: "_Measure", converse: Conversation, call: Call) -> None:
        """A stream of answers to requests that are still to come."""
        if self._conversations_count >= limits.GRPC_CONVERSATIONS_MAX:
            measure.started.inc()
            self._refuse(call, measure, AtCapacity("too many streams of requests are open: end some"))
            return

        def ended(_: "asyncio.Task[None]") -> None:
            self._conversations_count -= 1

        self._conversations_count += 1
        self._open(measure, lambda _: converse(_requests(call)), call).add_done_callback(ended)

    def _open(self, measure: "_Measure", open_: Opened, call: Call, size_bytes: int = 0) -> "asyncio.Task[None]":
        measure.started.inc()
        stream = asyncio.get_running_loop().create_task(self._serve(measure, open_, call, size_bytes))

        def closed(gone: bool) -> None:
            if gone:
                stream.cancel()

        call.watch(closed)
        return stream

    async def _serve(self, measure: "_Measure", open_: Opened, call: Call, size_bytes: int) -> None:
        started_s = clock.monotonic_s()
        facts = facts_of(call, started_s if self._traces else None)
        # It may be open for days, with credentials that may end before.
        call.forget_metadata()
        messages = open_(facts)
        # It holds the request, which must go as soon as nobody needs it any more.
        del open_
        try:
            with self._open_stream(call, size_bytes) as taken_over, self._kept(call, facts):
                async for message in messages:
                    taken_over()
                    if call.audit is not None:
                        call.audit.ended(OK)
                    if len(message) > limits.REPLY_MESSAGE_SIZE_BYTES_MAX:
                        raise _too_large(message)
                    if (leaving := call.send(message)) is not None:
                        await leaving
        except asyncio.CancelledError:
            if call.audit is not None:
                call.audit.ended(CANCELLED)
            measure(CANCELLED, started_s)
            raise
        except Exception as error:
            self._refuse(call, measure, error, started_s)
        else:
            call.finish()
            measure(OK, started_s)
        finally:
            await messages.aclose()

    def _kept(self, call: Call, facts: CallFacts) -> AbstractContextManager[None]:
        return nullcontext() if self._standing is None else self._standing.kept(call, facts)

    @contextmanager
    def _open_stream(self, call: Call, size_bytes: int) -> Iterator[Callable[[], None]]:
        """Lets `stop` end the stream; gives what to call when its request is held no more.

        Raises Unavailable if it was ended, AtCapacity if there is no room.
        """
        task = asyncio.current_task()
        assert task is not None
        if self._stopping:
            raise Unavailable(_STOPPING)
        client = client_of(call)
        self._capacity.open(client, size_bytes)
        held_size_bytes = size_bytes

        def taken_over() -> None:
            nonlocal held_size_bytes
            self._capacity.taken_over(held_size_bytes)
            held_size_bytes = 0

        self._streams[task] = call
        try:
            yield taken_over
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            raise Unavailable(_STOPPING) from None
        finally:
            self._streams.pop(task, None)
            taken_over()
            self._capacity.close(client)


async def _requests(call: Call) -> AsyncIterator[bytes]:
    """What the caller sends, until it sends no more."""
    loop = asyncio.get_running_loop()
    while True:
        received: asyncio.Future[bytes | None] = loop.create_future()
        call.receive(partial(_settle, received))
        message = await received
        if message is None:
            if call.fault is not None:
                raise _Fault(*call.fault)
            return
        yield message


class _Fault(Exception):
    """What a caller has sent is no call of gRPC's: a code, and words."""


_NO_GRPC: Final = _Fault(INVALID_ARGUMENT, "this port serves gRPC: POST, with a content-type application/grpc")


def _nothing(call: Call) -> Exception:
    """Why there is no message."""
    if call.fault is not None:
        return _Fault(*call.fault)
    return InvalidRequest("", "the call ended without a message")


def _too_large(reply: bytes) -> Exception:
    words = f"the reply is larger than max ({len(reply)} vs. {limits.REPLY_MESSAGE_SIZE_BYTES_MAX})"
    return _Fault(RESOURCE_EXHAUSTED, words)


def _no_room_for(reply: bytes) -> Exception | None:
    if len(reply) > limits.REPLY_MESSAGE_SIZE_BYTES_MAX:
        return _too_large(reply)
    if waiting_size_bytes() + len(reply) > limits.GRPC_REPLIES_SIZE_BYTES_MAX:
        return AtCapacity("the replies that clients have not read yet are too large together")
    return None


def _told(error: Exception) -> tuple[int, bytes, Trailers]:
    """Code, message and trailers of a refusal."""
    if isinstance(error, _Fault):
        code, words = error.args
        return (
            code,
            words.encode(),
            (("grpc-accept-encoding", "identity,gzip,deflate"),) if code == UNIMPLEMENTED else None,
        )
    status = status_of(error)
    trailers = ((_DETAILS_KEY, status.SerializeToString()),) if status.details else None
    return status.code, status.message.encode(), trailers


def _settle(future: "asyncio.Future[bytes | None]", message: bytes | None) -> None:
    # The one who waited may have been cancelled.
    if not future.done():
        future.set_result(message)


async def serve(service: Service, metrics: Metrics, address: str, certificates: Certificates | None = None) -> Server:
    """A server of `service` that listens on `address` (host:port; port 0 chooses a free one) and is serving.

    Raises RuntimeError if the port cannot be had.
    """
    server = Server(service, metrics)
    await server.start(address, certificates)
    return server


class _Measure:
    """Counts and times the calls of one method."""

    def __init__(self, metrics: Metrics, method: Method) -> None:
        self._handled = metrics.grpc_handled
        self._labels = (_type(method), method.service, method.name)
        self.started = metrics.grpc_started.labels(*self._labels)
        self._handled_by_code: dict[int, Counter] = {}
        self._duration = metrics.grpc_duration.labels(*self._labels)
        self._refused: Counts[int] = Counts()

    def __call__(self, code: int, started_s: float) -> None:
        self._counter(code).inc()
        self._duration.observe(clock.monotonic_s() - started_s)

    def refused(self, code: int) -> None:
        """Counts a call that nobody took up, soon: many of them together. It took no time worth measuring."""
        if not self._refused:
            asyncio.get_running_loop().call_later(limits.OVERLOAD_INTERVAL_S, self._count_refused)
        self._refused[code] += 1

    def _count_refused(self) -> None:
        for code, count in self._refused.items():
            self._counter(code).inc(count)
        self._refused.clear()

    def _counter(self, code: int) -> Counter:
        handled = self._handled_by_code.get(code)
        if handled is None:
            handled = self._handled_by_code[code] = self._handled.labels(*self._labels, _CODE_LABELS[code])
        return handled


def _type(method: Method) -> str:
    """As the go-grpc-prometheus convention writes it; only reflection takes a stream of requests."""
    if not method.streams:
        return "unary"
    return "bidi_stream" if method.service in REFLECTION_SERVICES else "server_stream"


def _audited(audit: AuditLog, method: str, answer: Answer, call: Call) -> None:
    call.audit = AuditEntry(audit, method, call.principal, host_of(call))
    answer(call)


def _tell_request(received: Callable[[Call, bytes | None], None], call: Call, payload: bytes | None) -> None:
    if call.audit is not None and payload is not None:
        call.audit.asked(payload)
    received(call, payload)


def _as_stranger(answer: Answer, call: Call) -> None:
    """Has a call answered that needs no credentials: the name it gives itself could be another's."""
    call.client = host_of(call)
    answer(call)
