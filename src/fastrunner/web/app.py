"""Support: the HTTP application: /metrics, /healthz, /readyz, events in, the HTTP API and the console, and an index.

/healthz says 200 as long as this process answers: the supervisor replaces dead workers, and restarting the whole runner
from outside would not help. /readyz says 200 while every worker is ready and can take work, nobody else takes the
runner's connections, and the tree is not draining. A receiver that does not take callbacks is told and is no reason.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import orjson
from aiohttp import web

from fastrunner._version import __version__
from fastrunner.access.audit import AuditLog
from fastrunner.access.gate import Gate
from fastrunner.base import descriptors, limits
from fastrunner.base.checks import host_names, origins
from fastrunner.config import Config
from fastrunner.counts.cells import Segment
from fastrunner.counts.definitions import Metrics
from fastrunner.counts.scrape import TreeCollector, encoded
from fastrunner.web.api import PREFIX
from fastrunner.web.api.app import Api, guarded
from fastrunner.web.api.backend import Backend
from fastrunner.web.api.guard import Guard, HostList
from fastrunner.web.api.sessions import Sessions
from fastrunner.web.connections import CONNECTIONS, Connections, mark_busy
from fastrunner.web.events import EventsIn, Publisher
from fastrunner.web.guard import GATE, METRICS_OPEN, guard
from fastrunner.web.static import add_console


class TreeState:
    """What the supervisor last said about its children."""

    def __init__(self) -> None:
        self._state: dict[str, Any] = {"draining": False, "workers": [], "failures": [], "strangers": [], "copy": []}
        self.known = asyncio.Event()
        """Set once the supervisor has said anything."""

    def update(self, state: dict[str, Any]) -> None:
        """Takes over what the supervisor says."""
        self._state = state
        self.known.set()

    def readiness(self) -> dict[str, Any]:
        """`ready`, the reason if not, and every worker's state.

        A successor that cannot start while its predecessor serves, and a copy elsewhere that is not made, are reasons,
        too, but do not make the tree unready.
        """
        workers = self._state["workers"]
        if self._state["draining"]:
            return {"ready": False, "reason": "draining", "workers": workers}
        waiting = [str(worker["index"]) for worker in workers if worker["state"] != "ready"]
        against = [f"waiting for workers {', '.join(waiting)}"] if waiting else []
        against += [f"worker {worker['index']}: {worker['trouble']}" for worker in workers if worker["trouble"]]
        against += self._state["strangers"]
        copying = [f"nothing is copied elsewhere: {trouble}" for trouble in self._state["copy"]]
        reasons = [*against, *self._state["failures"], *copying]
        return {"ready": not against, "reason": "; ".join(reasons), "workers": workers}


class Receiver:
    """Whether callbacks reach the receiver, by what the workers count."""

    def __init__(self, config: Config, segments: Iterable[Segment]) -> None:
        self._endpoint = config.stigmer_service_endpoint
        self._segments = tuple(segments)

    def trouble(self) -> str:
        """A sentence about workers that have suspended their callbacks; empty if none has.

        It is no reason not to be ready: work goes on, and events wait in the outbox.
        """
        suspended = oldest_s = 0.0
        for segment in self._segments:
            for key, values in segment.read_gauges():
                if key.name == _SUSPENDED:
                    suspended += values[0]
                elif key.name == _OLDEST:
                    oldest_s = max(oldest_s, values[0])
        if not suspended:
            return ""
        return (
            f"the receiver {self._endpoint} does not take callbacks: suspended by {suspended:g} workers, the oldest "
            f"event waits for {oldest_s:.0f} s"
        )


_OF_API: Final = (PREFIX, "/openapi.json", "/x/", "/workflows", "/schedules", "/assets/")
"""Where paths of the HTTP API and of the console begin; the others answer whatever the Host header."""
_SUSPENDED: Final = "workflow_runner_callback_breaker_open"
_OLDEST: Final = "workflow_runner_callback_oldest_event_age_seconds"
STATE: Final = web.AppKey("state", TreeState)
_COLLECTOR: Final = web.AppKey("collector", TreeCollector)
_RECEIVER: Final = web.AppKey("receiver", Receiver)
_CONFIG: Final = web.AppKey("config", Config)


def build_app(
    config: Config,
    segments: Iterable[Segment],
    gate: Gate | None = None,
    publisher: Publisher | None = None,
    audit: AuditLog | None = None,
    backend: Backend | None = None,
    session_key: bytes = b"",
    metrics: Metrics | None = None,
) -> web.Application:
    """The application over what all processes count in; its `STATE` is to be kept up to date.

    Without a gate, callers are not told apart; without a publisher, no events are taken; without a backend there is no
    HTTP API. `session_key` is what browsers' sessions are sealed with; `metrics` count what is asked.
    """
    bound, hosts, pages = config.http_host, host_names(config.http_allow_hosts), origins(config.http_allow_origins)
    api_guard = Guard(HostList.of(bound, hosts, pages), gate, Sessions(session_key))
    app = web.Application(middlewares=[mark_busy, guarded(api_guard, (), _OF_API), guard])
    if gate is not None:
        app[GATE] = gate
        app[METRICS_OPEN] = config.metrics_open
    app[CONNECTIONS] = Connections(descriptors.for_strangers(limits.HTTP_CONNECTIONS_MAX))
    app[STATE] = TreeState()
    segments = tuple(segments)
    app[_COLLECTOR] = TreeCollector(segments)
    app[_RECEIVER] = Receiver(config, segments)
    app[_CONFIG] = config
    app.add_routes(
        [
            web.get("/metrics", _metrics),
            web.get("/healthz", _healthz),
            web.get("/readyz", _readyz),
        ]
    )
    add_console(app, _index)
    if backend is not None:
        metrics = metrics or Metrics()
        Api(backend, api_guard, metrics.count_request, metrics.followers_cut.inc, audit).add_to(app)
    if publisher is not None:
        app.add_routes([web.post("/events", EventsIn(publisher, audit).take)])
    return app


def _json(value: Any, status: int = 200) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    return web.Response(body=body, status=status, content_type="application/json")


async def _index(request: web.Request) -> web.Response:
    config = request.app[_CONFIG]
    return _json(
        {
            "name": "fastrunner",
            "version": __version__,
            "grpc_port": config.grpc_port,
            "workers": config.workers,
            "paths": ["/api/v1", "/openapi.json", "/metrics", "/healthz", "/readyz", "/events"],
        }
    )


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    readiness = request.app[STATE].readiness()
    if trouble := request.app[_RECEIVER].trouble():
        readiness["reason"] = "; ".join(filter(None, (readiness["reason"], trouble)))
    return _json(readiness, 200 if readiness["ready"] else 503)


async def _metrics(request: web.Request) -> web.Response:
    # Reading what every process has counted takes milliseconds, in which health checks must still be answered.
    accept = request.headers.get("Accept", "")
    body, content_type = await asyncio.to_thread(encoded, request.app[_COLLECTOR], accept)
    return web.Response(body=body, headers={"Content-Type": content_type})
