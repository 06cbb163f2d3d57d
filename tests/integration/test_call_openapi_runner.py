"""Support: `call: openapi` on a whole runner: calls that end well and badly, too late, or cancelled on their way, and
those of a worker that dies: what becomes of them, and by which key the service knows them again."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.integration.http_calls import Remote, serve
from tests.integration.runner_process import SERVE, RunnerProcess, running
from tests.integration.test_call_http_runner import Client
from tests.integration.test_run_runner import until

SETTINGS = {"FASTRUNNER_WORKERS": "1"}
DESCRIBED = json.dumps({"openapi": "3.1.0", "paths": {"/pay/{order}": {"post": {"operationId": "pay"}}}})
HEAD = {"dsl": "1.0.3", "namespace": "test", "name": "described", "version": "1.0.0"}


class Service(Remote):
    """A service that describes itself, and keeps callers waiting until its gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []
        self.gate = asyncio.Event()
        self.left = asyncio.Event()
        """Set when a caller has gone while it waited."""
        self.status = 200

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/api.json":
            return web.Response(text=DESCRIBED)
        self.keys.append(request.headers["Idempotency-Key"])
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        return web.json_response({"paid": request.path}, status=self.status)

    def task(self, **members: Any) -> dict[str, Any]:
        document = {"endpoint": f"{self.url}/api.json"}
        given = {"document": document, "operationId": "pay", "parameters": {"order": "${ .order // 7 }"}}
        return {"call": "openapi", "with": given, **members}


def document(*tasks: dict[str, Any]) -> str:
    return json.dumps({"document": HEAD, "do": list(tasks)})


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    server = await serve(service)
    yield service
    service.gate.set()
    await server.cleanup()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    with running(tmp_path_factory.mktemp("runner") / "data", SERVE, **SETTINGS) as process:
        yield process.wait_ready()


@pytest.fixture
async def client(runner: RunnerProcess) -> AsyncIterator[Client]:
    client = Client(runner)
    yield client
    await client.close()


async def test_success_failure_and_timeouts(service: Service, client: Client) -> None:
    service.gate.set()
    await client.execute("good", document({"x": service.task()}))
    ended = await client.end("good")
    assert (ended.status, json.loads(ended.output_json)) == ("completed", {"paid": "/pay/7"})
    service.status = 402
    await client.execute("bad", document({"x": service.task()}))
    ended = await client.end("bad")
    assert (ended.status, ended.error.status) == ("failed", 402)
    assert ended.error.type.endswith("/communication")
    service.gate.clear()
    await client.execute("late", document({"x": service.task(timeout={"after": {"seconds": 2}})}))
    ended = await client.end("late")
    assert (ended.status, ended.error.status) == ("failed", 408)
    async with asyncio.timeout(30):
        await service.left.wait()
    assert service.keys == [f"{each}/do/0/x/1/1" for each in ("good", "bad", "late")]


async def test_a_cancel_in_flight_ends_the_request(service: Service, client: Client) -> None:
    await client.execute("cut", document({"x": service.task()}))
    await until(lambda: service.keys, "it is called")
    await client.cancel("cut")
    async with asyncio.timeout(30):
        await service.left.wait()
    assert (await client.end("cut")).status == "cancelled"


async def test_the_loser_of_a_race_is_aborted(service: Service, client: Client) -> None:
    branches = [{"loses": service.task()}, {"wins": {"wait": {"seconds": 2}}}]
    await client.execute("race", document({"race": {"fork": {"compete": True, "branches": branches}}}))
    assert (await client.end("race")).status == "completed"
    async with asyncio.timeout(30):
        await service.left.wait()


async def test_a_killed_workers_call_is_made_again_with_its_key(
    service: Service, runner: RunnerProcess, client: Client
) -> None:
    """A retry of the task has another."""
    guarded = {"try": [{"x": service.task()}], "catch": {"retry": {"limit": {"attempt": {"count": 1}}}}}
    await client.execute("one", document({"x": guarded}))
    await until(lambda: service.keys, "it is called")
    [worker] = runner.workers()
    os.kill(worker["pid"], signal.SIGKILL)
    await until(lambda: len(service.keys) == 2, "it is called again")
    await until(lambda: runner.replaced(worker["pid"]), "the worker is replaced")
    service.status = 503
    service.gate.set()
    await until(lambda: len(service.keys) == 3, "it is tried again")
    assert (await client.end("one")).status == "failed"
    first, again, retried = service.keys
    assert first == again == "one/do/0/x/try/0/x/1/1"
    assert retried == "one/do/0/x/try/0/x/1/2"


async def test_a_crash_between_a_call_and_its_outcome(service: Service, tmp_path: Path) -> None:
    service.gate.set()
    settings = {**SETTINGS, "FASTRUNNER_CRASH_POINT": "before-outcome-commit"}
    with running(tmp_path / "data", SERVE, **settings) as runner:
        client = Client(runner.wait_ready())
        await client.execute("one", document({"x": service.task()}))
        await until(lambda: len(service.keys) >= 2, "it is called again")
        await client.close()
    with running(tmp_path / "data", SERVE, **SETTINGS) as runner:
        client = Client(runner.wait_ready())
        assert (await client.end("one")).status == "completed"
        await client.close()
    assert set(service.keys) == {"one/do/0/x/1/1"}


async def test_an_outcome_that_comes_after_a_cancel_is_nobodys(service: Service, client: Client) -> None:
    """A graceful cancel lets the call end; its outcome starts nothing any more."""
    await client.execute("after", document({"x": service.task()}, {"next": service.task()}))
    await until(lambda: service.keys, "it is called")
    await client.cancel("after", force=False)
    service.gate.set()
    ended = await client.end("after")
    assert (ended.status, ended.output_json) == ("cancelled", "")
    assert service.keys == ["after/do/0/x/1/1"]
    assert not service.left.is_set()


async def test_hostile_documents_hurt_nobody(service: Service, client: Client) -> None:
    """Too large, too deep, in circles: their executions fail, and others go on."""
    circular = {"operationId": "pay", "parameters": [{"$ref": "#/paths/~1x/get/parameters/0"}]}
    texts = {
        "large": "x" * 5_000_000,
        "many": "{" + ",".join(f'"k{n}":[{{}},{{}}]' for n in range(180_000)) + "}",
        "deep": "[" * 2_000_000,
        "deep-yaml": "a:\n" + "".join(" " * n + "- \n" for n in range(1, 2_000)),
        "bomb": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 30)),
        "circle": json.dumps({"openapi": "3.0.0", "paths": {"/x": {"get": circular}}}),
    }  # fmt: skip

    class Hostile(Service):
        async def handle(self, request: web.Request) -> web.StreamResponse:
            return web.Response(text=texts[request.path.strip("/")])

    hostile = Hostile()
    server = await serve(hostile)
    service.gate.set()
    for name in texts:
        task = hostile.task()
        task["with"]["document"] = {"endpoint": f"{hostile.url}/{name}"}
        await client.execute(name, document({"x": task}))
    for number in range(20):
        await client.execute(f"good-{number}", document({"x": service.task()}))
    for number in range(20):
        assert (await client.end(f"good-{number}")).status == "completed"
    for name in texts:
        ended = await client.end(name)
        assert ended.status == "failed", name
        assert ended.error.type.rpartition("/")[2] in ("configuration", "communication"), ended.error
    await server.cleanup()
