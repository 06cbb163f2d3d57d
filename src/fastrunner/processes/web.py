"""Support: the web process: serves HTTP on the socket the supervisor listens on.

Rules: no state of its own: metrics are read from what all processes count in, readiness is what the supervisor last
said, the HTTP API asks the workers. It imports no grpc, and what publishes events only when the first one comes: most
runners are sent none here.
"""

import asyncio
import importlib
import logging
import signal
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web
from google.protobuf.message import Message

from fastrunner.access.certificates import RotatingContext
from fastrunner.access.principal import Principal
from fastrunner.base import descriptors, limits
from fastrunner.base.clock import monotonic_s, wall_ms
from fastrunner.counts.definitions import Metrics
from fastrunner.errors import Unavailable
from fastrunner.processes.credentials import Credentials, Looks, web_credentials
from fastrunner.processes.link import ChildContext, ExitCode
from fastrunner.routing.asking import Asking
from fastrunner.routing.facts import CallFacts
from fastrunner.tracing.context import CURRENT
from fastrunner.web.app import STATE, TreeState, build_app
from fastrunner.web.connections import CONNECTIONS
from fastrunner.web.runner import RunnerBackend

if TYPE_CHECKING:
    from fastrunner.engine.temporal.events import TemporalEvents
    from fastrunner.events.bus import EventBus

log = logging.getLogger(__name__)


def run_web(context: ChildContext) -> int:
    """Serves until SIGTERM; the exit code. One with a predecessor has loaded its modules before that one ends."""
    descriptors.allow()
    credentials = web_credentials(context.config)
    if context.waits and not context.link.wait_to_go():
        return ExitCode.OK
    return asyncio.run(_serve(context, credentials))


async def _serve(context: ChildContext, credentials: Credentials) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    metrics = Metrics(segment=context.segment)
    bus = _BusOnDemand(context, metrics)
    workers = _Workers(context)
    backend = RunnerBackend(
        workers, is_alone=context.config.temporal_service_address is None, followers=metrics.followers
    )
    shared = (credentials.audit, backend, context.shared.key, metrics)
    app = build_app(context.config, context.segments, credentials.gate, bus, *shared)
    loop.add_reader(context.link.fileno(), _read_link, context, app[STATE], stopping)
    # What is packed is refused by whoever takes bodies: unpacked, it may be a thousand times as large.
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=1.0, auto_decompress=False, lingering_time=1.0
    )
    await runner.setup()
    # Until then requests wait in the backlog: a process that has just been replaced must not call the tree unready.
    await app[STATE].known.wait()
    assert context.http is not None
    assert runner.server is not None
    tls = RotatingContext(credentials.certificates) if credentials.certificates is not None else None
    server = await loop.create_server(
        app[CONNECTIONS].serve(runner.server),
        sock=context.http,
        ssl=tls,
        ssl_handshake_timeout=limits.HTTP_HEAD_S_MAX if tls is not None else None,
    )
    # That listens anew, with room for as many connections as one turn accepts: no room for those that come while nobody
    # serves.
    context.http.listen(socket.SOMAXCONN)
    looks = Looks()
    looks.begin(credentials.looks)
    context.link.send("ready")
    await stopping.wait()
    looks.close()
    backend.end()
    server.close()
    # Whoever has been accepted is answered; who comes now waits for the successor.
    await app[CONNECTIONS].settle(limits.HTTP_SETTLE_S_MAX)
    app[CONNECTIONS].close()
    await runner.cleanup()
    workers.close()
    await bus.close()
    await credentials.close()
    return ExitCode.OK


class _Workers:
    """Asks the workers, on behalf of callers of the HTTP API."""

    def __init__(self, context: ChildContext) -> None:
        self._asking = Asking(context.config.workers, context.folder.socket_of)
        self._traces = context.config.traces

    async def call(self, method: str, request: Message, principal: Principal | None) -> bytes:
        """See web.api.runner.Calls."""
        deadline_ms = wall_ms() + int(limits.API_RUNNER_CALL_S_MAX * 1000)
        try:
            async with asyncio.timeout(limits.API_RUNNER_CALL_S_MAX):
                return await self._asking.call(method, request.SerializeToString(), self._facts(principal, deadline_ms))
        except TimeoutError:
            raise Unavailable(f"{method}: no worker has answered within {limits.API_RUNNER_CALL_S_MAX:g} s") from None

    def stream(self, method: str, request: Message, principal: Principal | None) -> AsyncGenerator[bytes, None]:
        """See web.runner.StreamingCalls."""
        return self._asking.stream(method, request.SerializeToString(), self._facts(principal, 0))

    def _facts(self, principal: Principal | None, deadline_ms: int) -> CallFacts:
        peer = "http" if principal is None else principal.name
        facts = CallFacts(peer, deadline_ms, local=False, principal=principal)
        if self._traces:
            facts.received_s, facts.trace = monotonic_s(), CURRENT.get()
        return facts

    def close(self) -> None:
        """Closes all links."""
        self._asking.close()


class _BusOnDemand:
    """Publishes events; the store and the core, which keeping them needs, are loaded for the first."""

    def __init__(self, context: ChildContext, metrics: Metrics) -> None:
        self._context = context
        self._metrics = metrics
        self._loading: asyncio.Task[None] | None = None
        self._bus: EventBus | TemporalEvents | None = None

    async def publish(self, events: Sequence[Mapping[str, Any]], namespaces: frozenset[str] | None) -> Sequence[int]:
        """See EventBus."""
        if self._bus is None:
            if self._loading is None or (self._loading.done() and self._loading.exception()):
                self._loading = asyncio.create_task(self._load())
            # Whoever waits for it may leave; the others go on waiting.
            await asyncio.shield(self._loading)
        assert self._bus is not None, "it is loaded"
        return await self._bus.publish(events, namespaces)

    async def _load(self) -> None:
        """Raises Unavailable."""
        is_local = self._context.config.temporal_service_address is None
        try:
            # In a thread: probes are answered meanwhile.
            name = "fastrunner.events.bus" if is_local else "fastrunner.engine.temporal.events"
            await asyncio.to_thread(importlib.import_module, name)
        except (ImportError, OSError, RuntimeError) as error:
            log.warning("events cannot be taken: %s", error)
            raise Unavailable("events cannot be taken now: the machine is short of something") from None
        shared, config, metrics = self._context.shared, self._context.config, self._metrics
        if config.temporal_service_address is not None:
            # Its libraries come with an extra.
            from fastrunner.engine.temporal.events import TemporalEvents

            self._bus = await TemporalEvents.connected(config, shared.temporal_keys, metrics)
            return
        from fastrunner.engine.embedded.store.seals import Seals
        from fastrunner.events.bus import EventBus

        self._bus = EventBus(
            config.data_dir,
            shared.wakes.wake,
            Seals(shared.data_keys),
            config.event_retention_s,
            begun_ms=shared.begun_ms,
            metrics=metrics,
        )

    async def close(self) -> None:
        """Waits for what is being published."""
        if self._bus is not None:
            await self._bus.close()


def _read_link(context: ChildContext, state: TreeState, stopping: asyncio.Event) -> None:
    while (message := context.link.receive()) != {}:
        if message is None:
            # The supervisor is gone.
            asyncio.get_running_loop().remove_reader(context.link.fileno())
            stopping.set()
            return
        if message["kind"] == "ping":
            context.link.send("pong")
        elif message["kind"] == "state":
            state.update(message["state"])
