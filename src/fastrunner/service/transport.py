"""Stage 1, service: grpc.aio under the handlers. The one module of the service that knows a transport.

Messages are raw bytes in and out. Rules: every refusal leaves through `_abort`, with its details in the trailers; every
call is counted once, under its canonical name; when the server stops, streams end at once with UNAVAILABLE and unary
calls have the grace to finish.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NoReturn

import grpc
from google.rpc.code_pb2 import CANCELLED, OK
from google.rpc.status_pb2 import Status
from prometheus_client import Counter

from fastrunner import clock, crash, limits
from fastrunner.crash import CrashPoint
from fastrunner.errors import NotServed, Unavailable
from fastrunner.metrics import Metrics
from fastrunner.service.handlers import Service
from fastrunner.service.health import HEALTH_SERVICE, Health
from fastrunner.service.methods import METHOD_OF_PATH, Method
from fastrunner.service.reflection import REFLECTION_SERVICES, Reflection
from fastrunner.service.routing import CallFacts
from fastrunner.service.status import status_of


def _label(code: str) -> str:
    """A code as the go-grpc-prometheus convention writes it: `OK`, `InvalidArgument`, `Canceled`."""
    if code in ("OK", "CANCELLED"):
        return "OK" if code == "OK" else "Canceled"
    return "".join(part.capitalize() for part in code.split("_"))


_DETAILS_KEY: Final = "grpc-status-details-bin"
_STOPPING: Final = "the runner is stopping: executions go on; call again, and Subscribe to follow them"
_UNKNOWN: Final = Method("unknown", "unknown", streams=True)
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_CODE_LABELS: Final = {number: _label(code.name) for number, code in _CODES.items()}
_OPTIONS: Final = (
    ("grpc.so_reuseport", 1),
    ("grpc.max_receive_message_length", limits.REQUEST_SIZE_BYTES_MAX),
    ("grpc.max_send_message_length", limits.REPLY_MESSAGE_SIZE_BYTES_MAX),
    ("grpc.max_concurrent_streams", limits.GRPC_STREAMS_PER_CONNECTION_MAX),
    ("grpc.keepalive_time_ms", limits.GRPC_KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", limits.GRPC_KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", limits.GRPC_CLIENT_PING_INTERVAL_MS_MIN),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", limits.GRPC_CLIENT_PING_INTERVAL_MS_MIN),
)


class Server:
    """A running gRPC server on one port."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self.port = 0
        """The port it listens on."""
        self._service = service
        self._metrics = metrics
        self._health = Health()
        self._streams: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._open = asyncio.Event()
        self._open.set()
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((_Handlers(self._handlers(), self._unknown),))

    async def start(self, address: str) -> None:
        """Listens on `address` (host:port) and serves. Raises RuntimeError if the port cannot be had."""
        self.port = self._server.add_insecure_port(address)
        await self._server.start()
        self.set_serving(True)

    def set_serving(self, serving: bool) -> None:
        """What health says; a draining worker is not serving."""
        self._health.set_serving(serving)

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, ends streams, lets unary calls finish within `grace_s`."""
        self.set_serving(False)
        # grpc.aio cancels calls that have arrived but that it has not looked at when it stops. So new ones are held for
        # a moment: callers fall silent, everything that has arrived is taken up, and is answered within the grace.
        self._open.clear()
        await asyncio.sleep(limits.GRPC_STOP_PAUSE_S)
        self._stopping = True
        self._service.stop()
        stopped = asyncio.ensure_future(self._server.stop(grace_s))
        for stream in list(self._streams):
            stream.cancel()
        # The stop has begun by the time this runs: it was scheduled first.
        asyncio.get_running_loop().call_soon(self._open.set)
        await stopped
        await self._service.close(grace_s)

    # --- what answers under which path ---

    def _handlers(self) -> dict[str, Any]:
        handlers = {path: self._method(method) for path, method in METHOD_OF_PATH.items()}
        handlers[f"/{HEALTH_SERVICE}/Check"] = self._unary(
            Method(HEALTH_SERVICE, "Check", streams=False), lambda payload, _: self._health.check(payload)
        )
        handlers[f"/{HEALTH_SERVICE}/Watch"] = grpc.unary_stream_rpc_method_handler(
            self._stream(Method(HEALTH_SERVICE, "Watch", streams=True), lambda payload, _: self._health.watch(payload))
        )
        reflection = Reflection()
        for service in REFLECTION_SERVICES:
            method = Method(service, "ServerReflectionInfo", streams=True)
            handlers[f"/{service}/{method.name}"] = grpc.stream_stream_rpc_method_handler(
                self._stream(method, lambda requests, _: reflection.converse(requests))
            )
        return handlers

    def _method(self, method: Method) -> Any:
        if method.streams:
            stream = partial(self._service.handle_stream, method.name)
            return grpc.unary_stream_rpc_method_handler(self._stream(method, stream))
        return self._unary(method, partial(self._service.handle_unary, method.name))

    def _unknown(self, path: str) -> Any:
        """What answers under a path nobody serves. It reads no request, so any shape of call gets its answer."""

        async def refuse(requests: Any, facts: CallFacts) -> AsyncGenerator[bytes, None]:  # noqa: ARG001
            raise NotServed(f"there is no method {path}")
            yield b""

        return grpc.stream_stream_rpc_method_handler(self._stream(_UNKNOWN, refuse))

    # --- how a call is answered ---

    def _unary(self, method: Method, handle: Callable[[bytes, CallFacts], bytes | Awaitable[bytes]]) -> Any:
        measure = _Measure(self._metrics, method)

        async def answer(payload: bytes, context: Any) -> bytes:
            started_s = clock.monotonic_s()
            code = CANCELLED
            try:
                if not self._open.is_set():
                    await self._open.wait()
                reply = handle(payload, _facts(context))
                if not isinstance(reply, bytes):
                    reply = await reply
                code = OK
                crash.reach(CrashPoint.BEFORE_ACK)
                crash.reach_soon(CrashPoint.AFTER_ACK, asyncio.get_running_loop().call_later)
                return reply
            except Exception as error:
                status = status_of(error)
                code = status.code
                return await _abort(context, status)
            finally:
                measure(code, started_s)

        return grpc.unary_unary_rpc_method_handler(answer)

    def _stream(self, method: Method, open_: Callable[[Any, CallFacts], AsyncGenerator[bytes, None]]) -> Any:
        measure = _Measure(self._metrics, method)

        async def answer(request: Any, context: Any) -> None:
            started_s = clock.monotonic_s()
            code = CANCELLED
            messages = open_(request, _facts(context))
            try:
                with self._open_stream():
                    async for message in messages:
                        await context.write(message)
                code = OK
            except Exception as error:
                status = status_of(error)
                code = status.code
                await _abort(context, status)
            finally:
                await messages.aclose()
                measure(code, started_s)

        return answer

    @contextmanager
    def _open_stream(self) -> Iterator[None]:
        """Lets `stop` end the stream. Raises Unavailable if it did."""
        task = asyncio.current_task()
        assert task is not None
        if self._stopping:
            raise Unavailable(_STOPPING)
        self._streams.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            raise Unavailable(_STOPPING) from None
        finally:
            self._streams.discard(task)


async def serve(service: Service, metrics: Metrics, address: str) -> Server:
    """A server of `service` that listens on `address` (host:port; port 0 chooses a free one) and is serving.

    Raises RuntimeError if the port cannot be had.
    """
    server = Server(service, metrics)
    await server.start(address)
    return server


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic only in its stub
    """Finds the handler of a path."""

    def __init__(self, handlers: dict[str, Any], unknown: Callable[[str], Any]) -> None:
        self._handlers = handlers
        self._unknown = unknown

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        return self._handlers.get(path) or self._unknown(path)


class _Measure:
    """Counts and times the calls of one method."""

    def __init__(self, metrics: Metrics, method: Method) -> None:
        self._handled = metrics.grpc_handled
        self._labels = (method.service, method.name)
        self._handled_by_code: dict[int, Counter] = {}
        self._duration = metrics.grpc_duration.labels(*self._labels)

    def __call__(self, code: int, started_s: float) -> None:
        handled = self._handled_by_code.get(code)
        if handled is None:
            handled = self._handled_by_code[code] = self._handled.labels(*self._labels, _CODE_LABELS[code])
        handled.inc()
        self._duration.observe(clock.monotonic_s() - started_s)


def _facts(context: Any) -> CallFacts:
    remaining_s = context.time_remaining()
    deadline_ms = 0 if remaining_s is None else clock.wall_ms() + int(remaining_s * 1000)
    return CallFacts(peer=context.peer(), deadline_ms=deadline_ms, local=False)


async def _abort(context: Any, status: Status) -> NoReturn:
    trailers = ((_DETAILS_KEY, status.SerializeToString()),) if status.details else ()
    await context.abort(_CODES[status.code], status.message, trailers)
    raise AssertionError("abort never returns")
