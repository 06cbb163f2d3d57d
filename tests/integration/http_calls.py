"""Support: calls by the performer of `call: http`, and servers on the loopback that they go to."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractResolver
from prometheus_client import CollectorRegistry

from fastrunner._core import EffectFailure, EffectResult, PerformEffect, Walk
from fastrunner._core import compile as compile_document
from fastrunner.access.egress import Egress
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.tasks.call_http.client import Client
from fastrunner.tasks.call_http.perform import CallHttp
from tests.integration.engines import document

__all__ = [
    "KEY",
    "RawServer",
    "Remote",
    "arguments_of",
    "call_http",
    "described",
    "effect",
    "failure_of",
    "raw_server",
    "serve",
    "value_of",
]

KEY = "order-1/do~1pay/0/1"


class Remote:
    """A server that records what it is sent and answers as the test says."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = ok
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> web.Request:
        return self.requests[-1]

    def answers(self, **arguments: Any) -> None:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(**arguments)

        self.answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.requests.append(request)
        return await self.answer(request)


async def ok(_: web.Request) -> web.StreamResponse:
    return web.json_response({"ok": True})


async def serve(remote: Remote, ssl_context: ssl.SSLContext | None = None) -> web.AppRunner:
    app = web.Application(client_max_size=2**25)
    app.router.add_route("*", "/{path:.*}", remote.handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
    await site.start()
    remote.port = runner.addresses[0][1]
    return runner


def call_http(
    metrics: Metrics | None = None,
    egress: Egress | None = None,
    *,
    resolver: AbstractResolver | None = None,
    ssl_context: ssl.SSLContext | None = None,
    **settings: Any,
) -> CallHttp:
    """A performer with the settings of a configuration; close it."""
    config, metrics = load_config(**settings), metrics or Metrics(CollectorRegistry())
    client = Client(config, metrics, egress or Egress.of(config), resolver=resolver, ssl_context=ssl_context)
    return CallHttp(client, timeout_s=config.http_timeout_s, metrics=metrics)


def effect(key: str = KEY) -> PerformEffect:
    plan = compile_document(document("  - pay:\n      call: http\n      with: {method: get, endpoint: 'http://h/'}\n"))
    _, turn = Walk.start(plan, "order-1", None, 1)
    [asked] = turn.actions
    assert isinstance(asked, PerformEffect)
    return PerformEffect(7, "call_http", asked.capsule, key, "/do/0/pay")


def arguments_of(uri: str, method: str = "get", **arguments: Any) -> Mapping[str, Any]:
    return {"method": method, "uri": uri, **arguments}


async def value_of(http: CallHttp, uri: str, method: str = "get", **arguments: Any) -> Any:
    outcome = await http.perform(effect(), arguments_of(uri, method, **arguments))
    assert isinstance(outcome, EffectResult), described(outcome)
    assert outcome.effect_id == 7
    return outcome.value


async def failure_of(http: CallHttp, uri: str, method: str = "get", **arguments: Any) -> EffectFailure:
    outcome = await http.perform(effect(), arguments_of(uri, method, **arguments))
    assert isinstance(outcome, EffectFailure)
    assert outcome.effect_id == 7
    return outcome


def described(failure: EffectFailure) -> str:
    return f"{failure.type} {failure.status} {failure.title}: {failure.detail}"


class RawServer:
    """A server that records requests as they were sent, answers each with bytes of the test's, and hangs up or not."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.bodies: list[bytes] = []
        self.connections_count = 0
        self.answers: list[bytes] = []
        self.keeps_open = False
        """Whether a connection serves further requests; an empty answer ends it in any case."""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_count += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                size = [line.split(":")[1] for line in head.lower().split("\r\n") if line.startswith("content-length:")]
                self.bodies.append(await reader.readexactly(int(size[0]) if size else 0))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(answer)
                await writer.drain()
                if not self.keeps_open or not answer:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw_server(*answers: bytes) -> AsyncIterator[RawServer]:
    """A server on a free port; the last answer repeats."""
    raw = RawServer()
    raw.answers = list(answers)
    async with await asyncio.start_server(raw.handle, "127.0.0.1", 0) as server:
        raw.port = server.sockets[0].getsockname()[1]
        yield raw
