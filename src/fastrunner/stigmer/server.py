"""Support: the Stigmer Service as one process: its ports, what it does by itself, how it begins and ends.

    runner -> ReportProgress(Batch) -> store -> acknowledgement, followers
    client -> /api/v1               -> store, and the runner for what starts and controls executions

Theory of operation: SIGTERM and SIGINT drain. Reports are refused from then on (the runner keeps them, and sends them
to the successor), followers are ended (they come again with their cursor), requests under way are answered, what is
being written reaches the disk. What is recorded and not launched waits in the store.

Rules: one process for a folder, held by a lock, any number for a database; nobody is open to a network by mistake.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import orjson
from aiohttp import web
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fastrunner._version import __version__
from fastrunner.access.audit import AuditLog
from fastrunner.access.callers import CallersFile
from fastrunner.access.gate import Gate
from fastrunner.access.principal import Role
from fastrunner.base import descriptors, garbage, limits
from fastrunner.base.checks import is_loopback
from fastrunner.base.clock import wall_ms
from fastrunner.counts.definitions import StigmerMetrics
from fastrunner.counts.scrape import encoded
from fastrunner.errors import RunnerError
from fastrunner.stigmer.backend import StigmerBackend
from fastrunner.stigmer.ending import ended
from fastrunner.stigmer.followers import Followers
from fastrunner.stigmer.launches import Launches
from fastrunner.stigmer.opening import CannotServe, hold, session_key, store_of
from fastrunner.stigmer.reports import SERVICE, Reports
from fastrunner.stigmer.runner import RunnerClient
from fastrunner.stigmer.sharing import sharing
from fastrunner.stigmer.silent import SilentExecutions
from fastrunner.stigmer.store import Store
from fastrunner.web.api.app import Api, guarded
from fastrunner.web.api.guard import Guard, HostList
from fastrunner.web.api.sessions import Sessions
from fastrunner.web.connections import CONNECTIONS, Connections, mark_busy
from fastrunner.web.static import add_console

__all__ = ["CannotServe", "ServiceOptions", "StigmerService", "serve"]

_log = logging.getLogger(__name__)
_OPEN_PATHS: Final = {"/healthz", "/readyz"}


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How a Stigmer Service runs."""

    data_dir: Path
    """Folder of its store, unless that is a database; made if need be."""
    runner: str
    """host:port of the runner's gRPC port."""
    mongodb_url: str | None = field(default=None, repr=False)
    """The database that is its store; others may use it at the same time."""
    redis_url: str | None = field(default=None, repr=False)
    """By which it tells others of the same database what is new, and hears of it; None: it looks itself."""
    redis_publish: bool = False
    """Whether it tells everybody who listens there, too."""
    runner_metadata: tuple[tuple[str, str], ...] = ()
    """What goes with each call to the runner."""
    runner_credentials: Callable[[], grpc.ChannelCredentials] | None = None
    """What a connection to the runner shows and trusts; None: no TLS."""
    grpc_host: str = "127.0.0.1"
    """Address that reports are taken at."""
    grpc_port: int = 50051
    """Port that reports are taken at; 0: a free one."""
    http_host: str = "127.0.0.1"
    """Address of the HTTP API."""
    http_port: int = 8090
    """Port of the HTTP API; 0: a free one."""
    report_token: str | None = None
    """Bearer token that reports must have; None: no check."""
    callers_file: Path | None = None
    """File of the HTTP API's callers; None: they are not told apart."""
    audit_file: Path | None = None
    """File to which a line is appended for each request that changes something; None: there is none."""
    tls_certificate: Path | None = None
    """PEM file of the server's certificate chain; with `tls_key` reports are taken by TLS."""
    tls_key: Path | None = None
    """PEM file of its private key."""
    tls_client_ca: Path | None = None
    """PEM file of the authorities one of which must vouch for whoever reports; None: nobody shows a certificate."""
    http_tls: bool = False
    """Whether the HTTP API speaks TLS, too, with that certificate."""
    allow_hosts: tuple[str, ...] = ()
    """Further names by which the HTTP API is called."""
    allow_origins: tuple[str, ...] = ()
    """Further origins whose pages may call it."""
    retention_s: float = 30 * 24 * 3600.0
    """How long an execution is kept after its end, in seconds."""
    drain_timeout_s: float = 10.0
    """How long requests under way may take when it stops, in seconds."""

    def check(self) -> None:
        """Raises CannotServe where the options do not fit together."""
        if self.redis_url is not None and self.mongodb_url is None:
            raise CannotServe(
                "FASTRUNNER_STIGMER_REDIS_URL is set without FASTRUNNER_STIGMER_MONGODB_URL: a service with a folder "
                "is alone with it, and has nobody to tell; set both, or neither"
            )
        if self.redis_publish and self.redis_url is None:
            raise CannotServe("--redis-publish needs FASTRUNNER_STIGMER_REDIS_URL")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise CannotServe("--tls-certificate and --tls-key belong together: give both, or neither")
        if self.tls_certificate is None and (self.tls_client_ca is not None or self.http_tls):
            raise CannotServe("--tls-client-ca and --http-tls need --tls-certificate and --tls-key")
        if self.report_token is None and self.tls_client_ca is None and not is_loopback(self.grpc_host):
            raise CannotServe(
                f"--grpc-host {self.grpc_host} lets others than this machine report, and nothing tells them apart: "
                "give --report-token-file or --tls-client-ca"
            )
        if self.callers_file is None and not is_loopback(self.http_host):
            raise CannotServe(
                f"--http-host {self.http_host} lets others than this machine call, and nothing tells them apart: give "
                "--callers-file (see `fastrunner token`)"
            )


class StigmerService:
    """One service; made and used on one loop."""

    def __init__(self, options: ServiceOptions) -> None:
        """Raises CannotServe."""
        options.check()
        self._options = options
        try:
            self._gate = _gate(options)
            self._audit = AuditLog(options.audit_file) if options.audit_file is not None else None
            self._hosts = HostList.of(options.http_host, options.allow_hosts, options.allow_origins)
        except ValueError as error:
            raise CannotServe(str(error)) from None
        self.metrics = StigmerMetrics()
        """What it counts."""
        self._lock = hold(options.data_dir) if options.mongodb_url is None else None
        self.store: Store = store_of(options.data_dir, options.mongodb_url, options.retention_s)
        """What it keeps."""
        credentials = options.runner_credentials() if options.runner_credentials is not None else None
        self._runner = RunnerClient(options.runner, options.runner_metadata, credentials)
        self._followers = Followers()

        def changed(execution_id: str) -> None:
            self._followers.changed((execution_id,))

        is_shared = options.mongodb_url is not None
        self._launches = Launches(self.store, self._runner, self.metrics, changed, is_shared=is_shared)
        self._silent = SilentExecutions(self.store, self._runner, self.metrics, changed)
        self._reports = Reports(self.store, self._followers, self.metrics, options.report_token)
        # The stubs do not know the servicer for asyncio.
        servicers: Any = health
        self._health = servicers.aio.HealthServicer()
        self._trouble = ""
        """Why the store cannot be used now; empty if it can."""
        self.grpc_port = self.http_port = 0
        """The ports, once it serves."""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serves while the context is open, and drains. Raises CannotServe."""
        async with contextlib.AsyncExitStack() as stack:
            if self._lock is not None:
                stack.callback(self._lock.close)
            if self._audit is not None:
                stack.callback(self._audit.close)
            stack.push_async_callback(self.store.close)
            stack.push_async_callback(self._runner.close)
            try:
                await self.store.open()
                key = await session_key(self.store, self._options.data_dir)
            except RunnerError as error:
                raise CannotServe(error.message) from None
            self._guard = Guard(self._hosts, self._gate, Sessions(key))
            await stack.enter_async_context(self._grpc())
            await stack.enter_async_context(self._http())
            self._launches.start()
            stack.push_async_callback(self._launches.close)
            sweeping = asyncio.create_task(self._sweep())
            asking = asyncio.create_task(self._silent.keep_looking())
            stack.push_async_callback(ended, sweeping, asking)
            await stack.enter_async_context(
                sharing(
                    self.store, self._options.redis_url, self._followers, self.metrics,
                    publishes=self._options.redis_publish,
                )
            )  # fmt: skip
            for name in ("", SERVICE):
                await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
            stack.push_async_callback(self._stop_taking)
            yield

    async def _stop_taking(self) -> None:
        await self._health.enter_graceful_shutdown()
        self._reports.is_draining = True
        self._followers.end()

    # --- ports ---

    @contextlib.asynccontextmanager
    async def _grpc(self) -> AsyncIterator[None]:
        options = self._options
        server = grpc.aio.server(
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", limits.REQUEST_SIZE_BYTES_MAX)]
        )
        server.add_generic_rpc_handlers((self._reports.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        address = f"{options.grpc_host}:{options.grpc_port}"
        try:
            if options.tls_certificate is not None and options.tls_key is not None:
                pair = (options.tls_key.read_bytes(), options.tls_certificate.read_bytes())
                authorities = options.tls_client_ca.read_bytes() if options.tls_client_ca is not None else None
                credentials = grpc.ssl_server_credentials([pair], authorities, authorities is not None)
                self.grpc_port = server.add_secure_port(address, credentials)
            else:
                self.grpc_port = server.add_insecure_port(address)
        except (RuntimeError, OSError):
            raise CannotServe(
                f"cannot listen on {address}: the port is taken, the address is not this machine's, or the certificate "
                "is of no use"
            ) from None
        await server.start()
        try:
            yield
        finally:
            await server.stop(options.drain_timeout_s)

    @contextlib.asynccontextmanager
    async def _http(self) -> AsyncIterator[None]:
        options = self._options
        app = self._app()
        runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=options.drain_timeout_s,
            auto_decompress=False,
            lingering_time=1.0,
        )
        await runner.setup()
        assert runner.server is not None
        try:
            server = await asyncio.get_running_loop().create_server(
                app[CONNECTIONS].serve(runner.server), options.http_host, options.http_port, ssl=self._tls_context(),
                # All who followed come back at once.
                backlog=socket.SOMAXCONN,
            )  # fmt: skip
        except OSError as error:
            await runner.cleanup()
            raise CannotServe(
                f"cannot listen on {options.http_host}:{options.http_port}: {error.strerror or error}"
            ) from None
        self.http_port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            await app[CONNECTIONS].settle(limits.HTTP_SETTLE_S_MAX)
            app[CONNECTIONS].close()
            await runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[mark_busy, guarded(self._guard, _OPEN_PATHS)])
        connections = limits.STIGMER_FOLLOWERS_MAX + limits.HTTP_CONNECTIONS_MAX
        app[CONNECTIONS] = Connections(descriptors.for_strangers(connections))
        backend = StigmerBackend(self.store, self._runner, self._launches, self._followers)
        api = Api(backend, self._guard, self.metrics.count_request, self.metrics.followers_cut.inc, self._audit)
        api.add_to(app)
        add_console(app, self._index)
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        return app

    def _tls_context(self) -> ssl.SSLContext | None:
        if not self._options.http_tls:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        assert self._options.tls_certificate is not None, "it is checked"
        context.load_cert_chain(self._options.tls_certificate, self._options.tls_key)
        return context

    # --- paths beside the API ---

    async def _index(self, _request: web.Request) -> web.Response:
        paths = ["/api/v1", "/openapi.json", "/healthz", "/readyz", "/metrics"]
        return web.json_response({"name": "fastrunner stigmer", "version": __version__, "paths": paths})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        reason = "draining" if self._reports.is_draining else self._trouble
        return web.json_response({"ready": not reason, "reason": reason}, status=503 if reason else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        await self._guard.admit(request, Role.READ)
        self.metrics.events_waiting.set(self.store.waiting_events)
        self.metrics.followers.set(self._followers.count)
        body, content_type = encoded(self.metrics, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    # --- by itself ---

    def _look_at_files(self) -> None:
        if self._audit is not None:
            self._audit.look()
        if self._gate is not None:
            before = self._gate.changes
            self._gate.look()
            if self._gate.changes != before:
                self._followers.wake()

    async def _sweep(self) -> None:
        """Forgets what is over, and looks for what is missing, again and again."""
        while True:
            try:
                forgotten = await self.store.expire(wall_ms(), limits.STIGMER_EXPIRE_BATCH_MAX)
                self.metrics.executions_expired.inc(forgotten)
                since_ms = await self.store.oldest_gap_ms()
                self.metrics.gap_age.set(max(0, wall_ms() - since_ms) / 1000 if since_ms else 0)
                self._trouble = ""
            except RunnerError as error:
                forgotten = 0
                if error.message != self._trouble:
                    _log.error("the store cannot be used: %s", error.message)
                self._trouble = error.message
            self._look_at_files()
            if forgotten < limits.STIGMER_EXPIRE_BATCH_MAX:
                await asyncio.sleep(limits.STIGMER_SWEEP_INTERVAL_S)


def _gate(options: ServiceOptions) -> Gate | None:
    """Raises ValueError."""
    if options.callers_file is None:
        return None
    return Gate(CallersFile(options.callers_file), None, knows_certificates=False)


async def serve(options: ServiceOptions) -> None:
    """Serves until SIGINT or SIGTERM; says on stdout, as a line of JSON, where. Raises CannotServe."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    descriptors.allow()
    service = StigmerService(options)
    async with service.serving():
        said = {"grpc_port": service.grpc_port, "http_port": service.http_port, "runner": options.runner}
        sys.stdout.buffer.write(orjson.dumps({"serving": said}) + b"\n")
        sys.stdout.buffer.flush()
        _log.info(
            "serving: reports at %s:%d, /api/v1 at %s:%d", options.grpc_host, service.grpc_port, options.http_host,
            service.http_port,
        )  # fmt: skip
        garbage.calm()
        await stop.wait()
        _log.info("draining")
