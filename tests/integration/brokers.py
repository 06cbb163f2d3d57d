"""Support: real brokers on the loopback, and what clients of every protocol have to do about one that is not there.

Rule: brokers are started on a port of their own, with their data below the test's folder, and ended by process id.
"""

import asyncio
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest
from prometheus_client import CollectorRegistry

from fastrunner.access.egress import Egress
from fastrunner.config import Environment, load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.tasks.call_asyncapi.clients import Message, Subscription, Target
from fastrunner.tasks.call_http.failures import CallProblem
from fastrunner.tasks.surroundings import Surroundings
from tests.integration.test_egress import Resolver
from tests.outside import require_tool
from tests.ports import free_port

__all__ = [
    "CERTIFICATES",
    "KEY",
    "Broker",
    "around",
    "check_cancel_in_flight",
    "check_destinations",
    "check_unreachable",
    "overflown",
    "problem_of",
    "silent_server",
    "soon",
    "take",
    "target_of",
]

CERTIFICATES = Path(__file__).parent.parent / "certificates"
KEY = "order-1/do~1tell/0/1"
ANSWER_S = 30.0

Result = TypeVar("Result")


class Broker:
    """A program that listens on a port, which it keeps when it is started again."""

    def __init__(self, folder: Path, command: Callable[[int], Sequence[str]], *, ready_s: float = 30.0) -> None:
        self.port = free_port()
        self._folder = folder
        self._command = command
        self._ready_s = ready_s
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Broker":
        name, *arguments = self._command(self.port)
        log = (self._folder / "broker.log").open("ab")
        self._process = subprocess.Popen(
            [require_tool(name), *arguments], stdout=log, stderr=log, cwd=self._folder, stdin=subprocess.DEVNULL
        )
        log.close()
        deadline_s = time.monotonic() + self._ready_s
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
                return self
            assert self._process.poll() is None, (self._folder / "broker.log").read_text()
            assert time.monotonic() < deadline_s, "the broker does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(30)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It is there and does nothing meanwhile."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(30)


def around(
    *addresses: str,
    environment: Environment = Environment.LOCAL,
    allow: str = "",
    ssl_context: ssl.SSLContext | None = None,
    **config: Any,
) -> Surroundings:
    """What is around a client: every name has the given addresses."""
    settings = load_config(http_timeout_s=config.pop("http_timeout_s", ANSWER_S), **config)
    return Surroundings(
        settings,
        Metrics(CollectorRegistry()),
        Egress(environment=environment, allow=allow),
        Resolver(list(addresses or ("127.0.0.1",))),
        ssl_context or ssl.create_default_context(cafile=CERTIFICATES / "ca.pem"),
        None,
    )


def target_of(
    protocol: str,
    port: int,
    address: str,
    *,
    host: str = "broker.test",
    policy: Mapping[str, Mapping[str, str]] | None = None,
    surroundings: Surroundings | None = None,
    is_tls: bool = False,
    path: str = "",
    connect_timeout_s: float = ANSWER_S,
    **bindings: Mapping[str, Any],
) -> Target:
    """A channel; `bindings` are those of `server`, `channel`, `operation`, `message`."""
    return Target(
        protocol=protocol,
        host=host,
        port=port,
        is_tls=is_tls,
        path=path,
        address=address,
        bindings={"server": {}, "channel": {}, "operation": {}, "message": {}, **bindings},
        policy=policy,
        around=surroundings or around(),
        connect_timeout_s=connect_timeout_s,
    )


async def soon(work: Awaitable[Result]) -> Result:
    """The result, which is due."""
    return await asyncio.wait_for(work, ANSWER_S)


async def take(subscription: Subscription, count: int) -> list[Message]:
    """The next messages, acknowledged."""
    messages = [await soon(subscription.next()) for _ in range(count)]
    await soon(subscription.taken(count))
    return messages


async def overflown(subscription: Any) -> None:
    """Waits until more has come than waits for a workflow, of which nothing may be taken meanwhile."""
    async with asyncio.timeout(ANSWER_S):
        while subscription._session._link.inbox._problem is None:  # noqa: ASYNC110 - another program's
            await asyncio.sleep(0.01)


async def problem_of(work: Awaitable[Any]) -> CallProblem:
    """The problem that something ends with."""
    with pytest.raises(CallProblem) as raised:
        await soon(work)
    return raised.value


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[int, asyncio.Event, asyncio.Event]]:
    """A server that takes connections and says nothing: its port, whether one has come, whether it has gone."""
    come, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        come.set()
        with suppress(OSError):
            while await reader.read(65_536):
                pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], come, gone
    finally:
        server.close()


async def check_unreachable(client: ModuleType, protocol: str) -> None:
    """Nobody listens, or whoever listens does not answer."""
    target = target_of(protocol, free_port(), "orders")
    for work in (client.publish(target, Message(b"{}"), KEY), client.subscribe(target, "consumer")):
        problem = await problem_of(work)
        assert (problem.type, problem.title) == ("communication", "Connection Failed")
        assert "Connection refused" in problem.sentence
    async with silent_server() as (port, _, gone):
        problem = await problem_of(
            client.publish(target_of(protocol, port, "orders", connect_timeout_s=0.2), Message(b"{}"), KEY)
        )
        assert (problem.type, problem.title) == ("communication", "No Response In Time")
        await soon(gone.wait())


async def check_destinations(client: ModuleType, protocol: str, port: int) -> None:
    """No connection is made to where none may go, whatever name leads there."""
    closed = around("127.0.0.1", environment=Environment.PROD)
    target = target_of(protocol, port, "orders", surroundings=closed)
    for work in (client.publish(target, Message(b"{}"), KEY), client.subscribe(target, "consumer")):
        problem = await problem_of(work)
        assert (problem.type, problem.status, problem.title) == ("configuration", 403, "Destination Refused")
        assert "127.0.0.1" in problem.sentence


async def check_cancel_in_flight(client: ModuleType, protocol: str) -> None:
    """Whoever gives up closes the connection."""
    for name in ("publish", "subscribe"):
        async with silent_server() as (port, come, gone):
            target = target_of(protocol, port, "orders")
            work = client.publish(target, Message(b"{}"), KEY) if name == "publish" else client.subscribe(target, "c")
            doing = asyncio.create_task(work)
            await soon(come.wait())
            doing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await soon(doing)
            await soon(gone.wait())
