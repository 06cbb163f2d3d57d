"""Support: `call: asyncapi` on a whole runner: subscriptions that lose their worker or are cancelled; what is performed
again with which key, and what is acknowledged when; and the example."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from examples.calls.prices_service import serve as serve_prices
from fastrunner.base.clock import monotonic_s
from tests.integration.asyncapi_calls import asyncapi_3, publishing, redis_server, subscribing, workflow
from tests.integration.http_calls import Remote, serve
from tests.integration.runner_process import SERVE, RunnerProcess, running, until
from tests.integration.test_call_http_runner import Client

SETTINGS = {"FASTRUNNER_WORKERS": "1"}
ROOT = Path(__file__).parent.parent.parent
STREAM = {"x-type": "stream", "x-group": "billing"}


class World:
    """A runner, a Redis, and a server that has the document and takes publications over HTTP."""

    def __init__(self, client: Client, redis: Any, remote: Remote, port: int) -> None:
        self.client = client
        self.redis = redis
        self.remote = remote
        self.port = port
        self.keys: list[str] = []
        self.gate = asyncio.Event()
        remote.answer = self._answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/redis.json":
            return web.json_response(asyncapi_3("redis", f"127.0.0.1:{self.port}", bindings=STREAM))
        if request.path == "/http.json":
            return web.json_response(asyncapi_3("http", f"127.0.0.1:{self.remote.port}"))
        self.keys.append(request.headers["Idempotency-Key"])
        await self.gate.wait()
        return web.Response(status=202)

    async def execute(self, execution_id: str, document: str, arguments: Any, **task: Any) -> None:
        await self.client.execute(execution_id, workflow(arguments, f"{self.remote.url}/{document}.json", **task))

    async def add(self, *payloads: Any) -> None:
        for payload in payloads:
            await self.redis.xadd("orders", {"body": json.dumps(payload)})

    async def pending(self) -> int:
        """Entries that somebody has and has not acknowledged."""
        return int((await self.redis.xpending("orders", "billing"))["pending"])


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    with running(tmp_path / "data", SERVE, **SETTINGS) as process:
        yield process.wait_ready()


@pytest.fixture
def port() -> Iterator[int]:
    with redis_server() as found:
        yield found


@pytest.fixture
async def world(runner: RunnerProcess, port: int) -> AsyncIterator[World]:
    remote = Remote()
    server = await serve(remote)
    redis = Redis(port=port, protocol=2)
    await redis.xgroup_create("orders", "billing", id="$", mkstream=True)
    client = Client(runner)
    yield World(client, redis, remote, port)
    await client.close()
    await redis.aclose()
    await server.cleanup()


async def soon(condition: Any, what: str) -> None:
    deadline_s = monotonic_s() + 60
    while not await condition():
        assert monotonic_s() < deadline_s, f"waited 60 s for: {what}"
        await asyncio.sleep(0.02)


async def killed(runner: RunnerProcess) -> None:
    [worker] = runner.workers()
    os.kill(worker["pid"], signal.SIGKILL)
    await asyncio.to_thread(until, lambda: runner.replaced(worker["pid"]), 60.0)


async def test_a_subscription_goes_on_after_its_worker_was_killed(runner: RunnerProcess, world: World) -> None:
    """What was consumed is not consumed again, what was not acknowledged comes again, and nothing is left out."""
    iterator = {"do": [{"w": {"wait": {"milliseconds": 300}}}], "output": {"as": "${ $item.payload }"}}
    await world.execute("one", "redis", subscribing({"amount": 4}, foreach=iterator))
    await world.add(1, 2)
    await soon(world.pending, "the first message is there")
    await killed(runner)
    await world.add(3, 4)
    ended = await world.client.end("one")
    assert ended.status == "completed"
    # The message at hand was not acknowledged: whoever goes on does so, and does not consume it again.
    assert json.loads(ended.output_json) == [1, 2, 3, 4]
    assert await world.pending() == 0


async def test_a_wait_for_messages_goes_on_after_its_worker_was_killed(runner: RunnerProcess, world: World) -> None:
    await world.execute("one", "redis", subscribing({"amount": 1}))

    async def waits() -> bool:
        return bool(await world.redis.xinfo_consumers("orders", "billing"))

    await soon(waits, "it waits")
    await killed(runner)
    await world.add({"n": 1})
    ended = await world.client.end("one")
    assert [each["payload"] for each in json.loads(ended.output_json)] == [{"n": 1}]
    assert await world.pending() == 0


async def test_a_cancel_ends_a_subscription(world: World) -> None:
    await world.execute("one", "redis", subscribing({"amount": 1}))

    async def waits() -> bool:
        return bool(await world.redis.xinfo_consumers("orders", "billing"))

    async def is_left() -> bool:
        return not await waits()

    await soon(waits, "it waits")
    await world.client.cancel("one")
    assert (await world.client.end("one")).status == "cancelled"
    await soon(is_left, "nobody waits for messages any more")


async def test_a_publication_is_performed_again_with_its_key(runner: RunnerProcess, world: World) -> None:
    await world.execute("one", "http", publishing({"n": 1}))

    async def is_asked() -> bool:
        return len(world.keys) > 0

    await soon(is_asked, "it is published")
    await killed(runner)
    world.gate.set()
    assert (await world.client.end("one")).status == "completed"
    assert len(world.keys) > 1
    assert set(world.keys) == {"one/do/0/m/1/1"}


async def test_an_outcome_after_a_cancel(world: World) -> None:
    await world.execute("one", "http", publishing({"n": 1}))

    async def is_asked() -> bool:
        return len(world.keys) > 0

    await soon(is_asked, "it is published")
    await world.client.cancel("one")
    world.gate.set()
    assert (await world.client.end("one")).status == "cancelled"


async def test_messages_whose_outcome_was_not_committed_come_again(tmp_path: Path, port: int) -> None:
    remote = Remote()
    server = await serve(remote)
    redis = Redis(port=port, protocol=2)
    await redis.xgroup_create("orders", "billing", id="$", mkstream=True)
    settings = {**SETTINGS, "FASTRUNNER_CRASH_POINT": "before-outcome-commit"}
    with running(tmp_path / "data", SERVE, **settings) as crashing:
        client = Client(crashing.wait_ready())
        world = World(client, redis, remote, port)
        await world.execute("one", "redis", subscribing({"amount": 1}))
        await world.add({"n": 1})
        await soon(world.pending, "it has come")
        await client.close()
    with running(tmp_path / "data", SERVE, **SETTINGS) as runner:
        client = Client(runner.wait_ready())
        ended = await client.end("one")
        assert [each["payload"] for each in json.loads(ended.output_json)] == [{"n": 1}]
        await client.close()
    assert await world.pending() == 0
    await redis.aclose()
    await server.cleanup()


async def test_the_example(runner: RunnerProcess) -> None:
    server, prices, port = await serve_prices(0)
    document = (ROOT / "examples/calls/prices.yaml").read_text().replace("7072", str(port))
    client = Client(runner)
    await client.execute("one", document, '{"item": "desk", "below": 10}')
    ended = await client.end("one")
    assert json.loads(ended.output_json) == {"seen": [14, 12, 11, 9], "alert": {"item": "desk", "price": 9}}
    assert prices.alerts == [{"item": "desk", "price": 9, "trace": "one"}]
    await client.close()
    await server.cleanup()
