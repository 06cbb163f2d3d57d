"""Stage 1, service: grpcio's completion queue, drained on the event loop. The one module that knows grpcio's inside.

`grpc.aio` serves a call with a dozen Python objects and as many trips through the loop; here a unary call is three
events of the queue. The queue is drained on the loop's own thread, whatever is ready at once; a helper thread blocks in
it only while the loop has nothing to take out.

Rules: everything but `_wait` runs on the loop's thread; a call has at most one message on its way out; each batch of
operations that was started comes back as one event, and `stop` waits for all of them. What is relied on is checked at
start, because `grpc._cython` is nobody's public interface.
"""

import asyncio
import logging
import math
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined] # compiled, without stubs

from fastrunner.access.certificates import Certificates
from fastrunner.access.principal import Principal
from fastrunner.access.roles import Wanted
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.service.audit import AuditEntry

__all__ = ["CallQueue", "Listener", "ServerCall", "Trailers"]

_log = logging.getLogger(__name__)

_NO_FLAGS: Final = 0
_NEVER_S: Final = 2.0**62
_RELIED_ON: Final = {
    "CompletionQueue": ("poll", "shutdown"),
    "Server": (
        "add_http2_port",
        "cancel_all_calls",
        "destroy",
        "register_completion_queue",
        "request_call",
        "shutdown",
        "start",
    ),
    "Call": ("peer", "start_server_batch"),
    "RequestCallEvent": ("call", "call_details", "invocation_metadata", "success", "tag"),
    "BatchOperationEvent": ("batch_operations", "success", "tag"),
    "CallDetails": ("deadline", "method"),
    "CompletionType": ("queue_shutdown", "queue_timeout"),
    "ReceiveMessageOperation": ("message",),
    "ReceiveCloseOnServerOperation": ("cancelled",),
    "SendInitialMetadataOperation": (),
    "SendMessageOperation": (),
    "SendStatusFromServerOperation": (),
    "auth_context": (),
    "server_credentials_ssl_dynamic_cert_config": (),
}


Trailers = tuple[tuple[str, str | bytes], ...] | None
"""Metadata after the answer."""
Received = Callable[[bytes | None], None]
"""Takes a message; None when the caller sends no more."""


def check_grpcio() -> None:
    """Raises RuntimeError, naming what is missing, if the installed grpcio is not built as this module needs it."""
    missing = [
        f"{name}.{member}" if member else name
        for name, members in _RELIED_ON.items()
        for member in ("", *members)
        if not (hasattr(cygrpc, name) if not member else hasattr(getattr(cygrpc, name, None), member))
    ]
    if missing:
        raise RuntimeError(
            f"grpcio {grpc.__version__} lacks {', '.join(missing)}: install a version that fastrunner requires"
        )


class ServerCall:
    """One call, from its headers on. Methods that answer return at once; the answer travels on its own."""

    __slots__ = (
        *("_call", "_queue", "_started"),
        *("admitted", "audit", "client", "deadline_s", "metadata", "path", "principal"),
    )

    def __init__(self, queue: "CallQueue", event: Any) -> None:
        details = event.call_details
        self.path: str = details.method.decode("utf-8", "replace")
        """The method's path as the caller wrote it."""
        self.deadline_s: float = details.deadline if details.deadline < _NEVER_S else math.inf
        """When the caller stops waiting, in seconds since the epoch; infinite if never."""
        self.metadata: Sequence[tuple[str, str | bytes]] = event.invocation_metadata
        """What the caller sent along."""
        self.client = ""
        """Whom the server takes the caller for, once it has found out."""
        self.principal: Principal | None = None
        """Who calls, where callers are told apart."""
        self.admitted: tuple[Wanted, str, int] | None = None
        """The role and the method that the principal was admitted for, and as of which change of who is known."""
        self.audit: AuditEntry | None = None
        """What is to be told of it."""
        self._queue = queue
        self._call = event.call
        self._started = False

    @property
    def peer(self) -> str:
        """Who calls, such as `ipv4:127.0.0.1:51234`."""
        peer: bytes = self._call.peer()
        return peer.decode("utf-8", "replace")

    @property
    def certificate_names(self) -> list[str]:
        """The names in the certificate that the caller has shown: alternative ones, else the common one; none without.

        The server has verified it.
        """
        proved = cygrpc.auth_context(self._call)
        names = proved.get(b"x509_subject_alternative_name") or proved.get(b"x509_common_name") or ()
        return [name.decode("utf-8", "replace") for name in names]

    def receive(self, received: Received) -> None:
        """Asks for the next message."""
        operation = cygrpc.ReceiveMessageOperation(_NO_FLAGS)
        self._batch((operation,), lambda event: received(event.batch_operations[0].message()))

    def watch(self, closed: Callable[[bool], None]) -> None:
        """Tells when the call is over, and whether the caller gave it up. Once, and before the answer."""
        operation = cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS)
        self._batch((operation,), lambda event: closed(bool(event.batch_operations[0].cancelled())))

    def reply(self, message: bytes) -> None:
        """Answers a call that is not watched with its one message and OK."""
        self._batch(
            (
                cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),
                cygrpc.SendMessageOperation(message, _NO_FLAGS),
                cygrpc.SendStatusFromServerOperation(None, cygrpc.StatusCode.ok, b"", _NO_FLAGS),
                cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),
            ),
            _ignore,
        )

    def send(self, message: bytes) -> Awaitable[None]:
        """Sends one message of several; done when the connection has taken it."""
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._queue.closed:
            sent.cancel()
            return sent
        operations: tuple[Any, ...] = (cygrpc.SendMessageOperation(message, _NO_FLAGS),)
        if not self._started:
            self._started = True
            operations = (cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS), *operations)
        self._batch(operations, lambda event: None if sent.done() else sent.set_result(None))  # noqa: ARG005
        return sent

    def finish(
        self,
        code: int = 0,
        message: bytes = b"",
        trailers: Trailers = None,
        *,
        watched: bool,
    ) -> None:
        """Ends the call with a status."""
        operations: tuple[Any, ...] = (cygrpc.SendStatusFromServerOperation(trailers, code, message, _NO_FLAGS),)
        if not self._started:
            self._started = True
            operations = (cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS), *operations)
        if not watched:
            operations = (*operations, cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS))
        self._batch(operations, _ignore)

    def _batch(self, operations: tuple[Any, ...], done: Callable[[Any], object]) -> None:
        if self._queue.closed:
            # The caller has been told already, and grpcio ends the process for what comes now.
            return
        self._queue.batches += 1
        self._call.start_server_batch(operations, done)


class Listener:
    """A listening server. It needs no loop: until a `CallQueue` takes them up, calls that arrive wait in it."""

    def __init__(self, options: Sequence[tuple[str, int]], *, is_crowded: bool = False) -> None:
        """`is_crowded`: grpcio's threads share a CPU with the loop. Raises RuntimeError if grpcio cannot be used."""
        check_grpcio()
        self.options = dict(options)
        """What it was made with."""
        self.port = 0
        """The port it listens on; 0 as long as it does not."""
        with _patient_threads() if is_crowded else nullcontext():
            # The first of these in a process begins grpcio's threads.
            self.events = cygrpc.CompletionQueue()
            """Where what happens to calls is taken out."""
            self.server = cygrpc.Server(tuple(options), False)
            """grpcio's own."""
        self.server.register_completion_queue(self.events)

    def listen(self, address: str, certificates: Certificates | None = None) -> None:
        """Binds host:port and lets clients connect. Raises RuntimeError if the port cannot be had."""
        port: int
        if certificates is None:
            port = self.server.add_http2_port(address.encode())
        else:
            presented = _Presented(certificates)
            force = certificates.files.client_authorities is not None
            credentials = cygrpc.server_credentials_ssl_dynamic_cert_config(presented.now(), presented.newer, force)
            port = self.server.add_http2_port(address.encode(), credentials)
        if not port:
            raise RuntimeError(f"cannot listen on {address}")
        self.port = port
        self.server.start()


class _Presented:
    """The certificate of a listener as grpcio has it, which asks before each handshake whether there is another one."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._files = certificates.files

    def now(self) -> Any:
        """What there is."""
        self._files = files = self._certificates.files
        return grpc.ssl_server_certificate_configuration([(files.key, files.certificate)], files.client_authorities)

    def newer(self) -> Any:
        """Another one than the last time; None if there is none. Called in any thread that polls."""
        return None if self._certificates.files is self._files else self.now()


@contextmanager
def _patient_threads() -> Iterator[None]:
    """Threads that begin within it interrupt nobody: they have a CPU when others wait, or have had their time.

    grpcio's read what arrives. Each packet would interrupt the loop on their CPU, which could not take up what it
    brings any sooner: that is a seventh of a call's processor time. Threads inherit it from the one that begins them,
    and grpcio's first begin all others.
    """
    if not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    parameters = os.sched_getparam(0)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, parameters)
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, parameters)


class CallQueue:
    """Hands the calls of a listener to `on_call` on the loop."""

    def __init__(
        self,
        listener: Listener,
        on_call: Callable[[ServerCall], None],
        waited: Callable[[float], None],
    ) -> None:
        """`waited` is told, whenever events are taken out, for how many seconds at most any of them has been ready."""
        self.batches = 0
        """Batches of operations that have not come back."""
        self.closed = False
        """Whether calls that are still here have been given up for good."""
        self._on_call = on_call
        self._waited = waited
        self._empty_s = self._left_s = 0.0
        self._is_waiting = False
        self._loop = asyncio.get_running_loop()
        self._queue = listener.events
        self._server = listener.server
        self._new_call = object()
        self._shut_down = object()
        self._requested = 0
        self._stopping = False
        self._down = False
        self._over = asyncio.Event()
        # Held while the loop takes events out; free while the helper thread may wait for the next one. Python's
        # semaphore would do, at many times the cost.
        self._idle = threading.Lock()
        self._waiter = threading.Thread(target=self._wait, name="grpc-queue", daemon=True)

    def start(self) -> None:
        """Takes calls from now on."""
        for _ in range(limits.GRPC_CALLS_REQUESTED_AHEAD):
            self._request_call()
        self._waiter.start()

    async def stop(self, grace_s: float) -> None:
        """Listens no more, lets the calls that are here end within `grace_s`, gives up the rest."""
        if self._stopping:
            await self._over.wait()
            return
        self._stopping = True
        self._server.shutdown(self._queue, self._shut_down)
        try:
            await asyncio.wait_for(self._over.wait(), grace_s)
        except TimeoutError:
            self._server.cancel_all_calls()
            await self._over.wait()
        self.closed = True
        self._server.destroy()
        self._queue.shutdown()
        await asyncio.to_thread(self._waiter.join)

    @property
    def empty_s(self) -> float:
        """When there was last nothing to take out, on the monotonic clock: now, while the helper thread waits."""
        return monotonic_s() if self._is_waiting else self._empty_s

    # --- events ---

    def _request_call(self) -> None:
        self._requested += 1
        self._server.request_call(self._queue, self._queue, self._new_call)

    def _handle(self, event: Any) -> None:
        tag = event.tag
        if tag is self._new_call:
            self._requested -= 1
            if event.success:
                if not self._stopping:
                    self._request_call()
                self._on_call(ServerCall(self, event))
        elif tag is self._shut_down:
            self._down = True
        else:
            self.batches -= 1
            tag(event)

    def _drain(self, event: Any = None, since_s: float = 0.0) -> None:
        """Takes out whatever is ready, for some times as long as the loop has just served others.

        So a call waits for others' turns, and hardly ever for calls before it: those are refused when they are too
        many. The helper thread passes the event it got and when it got it.
        """
        taken = 0
        now_s = monotonic_s()
        self._waited(now_s - (since_s or self._empty_s))
        turn_s = limits.GRPC_TURN_SHARE * (now_s - self._left_s)
        end_s = now_s + min(max(turn_s, limits.GRPC_TURN_S_MIN), limits.GRPC_TURN_S_MAX)
        while not taken or taken % limits.GRPC_EVENTS_PER_LOOK or monotonic_s() < end_s:
            if event is None:
                event = self._queue.poll(0)
                if event.completion_type in (cygrpc.CompletionType.queue_timeout, cygrpc.CompletionType.queue_shutdown):
                    self._empty_s = now_s if not taken else monotonic_s()
                    break
            try:
                self._handle(event)
            except Exception:
                _log.exception("a call failed inside the transport")
            # The event refers to its call, which must be free to end before the next poll.
            event = None
            taken += 1
        self._left_s = monotonic_s()
        if self._down and not self.batches and not self._requested:
            self._over.set()
        if taken:
            self._loop.call_soon(self._drain)
        else:
            self._is_waiting = True
            self._idle.release()

    def _wait(self) -> None:
        """Runs in the helper thread: waits while the loop has nothing to take out."""
        while True:
            self._idle.acquire()
            event = self._queue.poll(None)
            self._is_waiting = False
            if event.completion_type == cygrpc.CompletionType.queue_shutdown:
                return
            self._loop.call_soon_threadsafe(self._drain, event, monotonic_s())
            event = None


def _ignore(event: Any) -> None:
    """The end of an answer: whether it arrived is the caller's to know."""
