"""Support: `call: http` on a whole runner: calls that go wrong in every way beside others that go well, calls that are
cancelled on their way, and what a worker that calls nobody does without."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import CancelExecutionRequest, WorkflowExecuteInput
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import GetExecutionRequest, GetExecutionResponse
from fastrunner.base import limits
from fastrunner.service.methods import COMMAND_SERVICE, QUERY_SERVICE
from tests.integration.http_calls import Remote, serve
from tests.integration.runner_process import RunnerProcess, running

SERVE = ("-m", "fastrunner", "serve")
ANSWER_S = 30.0
HEAD = "document: {dsl: 1.0.3, namespace: test, name: calling, version: 1.0.0}\n"


def calling(uri: str, **members: str) -> str:
    more = "".join(f"      {name}: {value}\n" for name, value in members.items())
    return f"{HEAD}do:\n  - ask:\n      call: http\n      with: {{method: get, endpoint: '{uri}'}}\n{more}"


class Client:
    """A connection to a runner."""

    def __init__(self, runner: RunnerProcess) -> None:
        self._channel = grpc.aio.insecure_channel(runner.target)

    async def _ask(self, method: str, request: Any) -> bytes:
        call = self._channel.unary_unary(f"/{method}", lambda message: message.SerializeToString(), lambda data: data)
        reply: bytes = await call(request, timeout=ANSWER_S)
        return reply

    async def execute(self, execution_id: str, document: str, input_json: str = "") -> None:
        request = WorkflowExecuteInput(
            workflow_execution_id=execution_id, workflow_yaml=document, input_json=input_json
        )
        await self._ask(f"{COMMAND_SERVICE}/ExecuteAsync", request)

    async def cancel(self, execution_id: str, *, force: bool = True) -> None:
        await self._ask(
            f"{COMMAND_SERVICE}/CancelExecution", CancelExecutionRequest(execution_id=execution_id, force=force)
        )

    async def end(self, execution_id: str) -> Any:
        """The execution, once it has ended."""
        async with asyncio.timeout(ANSWER_S):
            while True:
                reply = await self._ask(f"{QUERY_SERVICE}/GetExecution", GetExecutionRequest(execution_id=execution_id))
                found = GetExecutionResponse.FromString(reply).execution
                if found.status in ("completed", "failed", "cancelled"):
                    return found
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self._channel.close(None)


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    remote = Remote()
    server = await serve(remote)
    yield remote
    await server.cleanup()


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    settings = {"FASTRUNNER_WORKERS": "1", "FASTRUNNER_HTTP_TIMEOUT_S": "4"}
    with running(tmp_path / "data", SERVE, **settings) as process:
        yield process.wait_ready()


@pytest.fixture
async def client(runner: RunnerProcess) -> AsyncIterator[Client]:
    client = Client(runner)
    yield client
    await client.close()


async def _bomb(_: web.Request) -> web.StreamResponse:
    body = gzip.compress(b"\0" * (4 * limits.HTTP_RESPONSE_SIZE_BYTES_MAX))
    return web.Response(body=body, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})


def _trickle(piece: bytes, pause_s: float, left: asyncio.Event) -> Callable[[web.Request], Coroutine[Any, Any, Any]]:
    """Sends a piece after the other for ever; `left` is set once nobody reads any more."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(piece)
                await asyncio.sleep(pause_s)
        finally:
            left.set()

    return answer


async def test_bombs_endless_bodies_and_slow_servers_fail_while_others_go_on(remote: Remote, client: Client) -> None:
    ends = {"endless": asyncio.Event(), "slow": asyncio.Event()}
    answers = {
        "/bomb": _bomb,
        "/endless": _trickle(b"x" * 65_536, 0, ends["endless"]),
        "/slow": _trickle(b"x", 0.05, ends["slow"]),
    }

    async def answer(request: web.Request) -> web.StreamResponse:
        handle = answers.get(request.path)
        return web.json_response({"ok": True}) if handle is None else await handle(request)

    remote.answer = answer
    for name in ("bomb", "endless", "slow"):
        await client.execute(name, calling(f"{remote.url}/{name}"))
    for number in range(20):
        await client.execute(f"quick-{number}", calling(f"{remote.url}/quick"))
    for number in range(20):
        assert (await client.end(f"quick-{number}")).status == "completed"
    titles = {name: (await client.end(name)).error.title for name in ("bomb", "endless", "slow")}
    assert titles == {"bomb": "Response Too Large", "endless": "Response Too Large", "slow": "No Response In Time"}
    async with asyncio.timeout(ANSWER_S):
        await asyncio.gather(*(left.wait() for left in ends.values()))


async def test_cancelling_in_flight_ends_the_request(remote: Remote, client: Client) -> None:
    came, left = asyncio.Event(), asyncio.Event()

    async def never(_: web.Request) -> web.StreamResponse:
        came.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError

    remote.answer = never
    await client.execute("one", calling(remote.url))
    async with asyncio.timeout(ANSWER_S):
        await came.wait()
        await client.cancel("one")
        await left.wait()
    assert (await client.end("one")).status == "cancelled"


async def test_a_retry_waits_for_as_long_as_the_service_asks(remote: Remote, client: Client) -> None:
    times_s: list[float] = []

    async def busy(_: web.Request) -> web.StreamResponse:
        times_s.append(time.monotonic())
        return web.Response(status=429 if len(times_s) == 1 else 200, headers={"Retry-After": "1"})

    remote.answer = busy
    body = calling(remote.url).partition("do:\n")[2].replace("\n", "\n      ").rstrip()
    document = f"{HEAD}do:\n  - patiently:\n      try:\n      {body}\n      catch: {{retry: {{}}}}\n"
    await client.execute("one", document)
    assert (await client.end("one")).status == "completed"
    assert len(times_s) == 2
    assert times_s[1] - times_s[0] > 0.95


async def test_a_worker_that_calls_nobody_does_without_the_client(
    remote: Remote, client: Client, runner: RunnerProcess
) -> None:
    """Its libraries come with the first call."""
    [worker] = runner.workers()

    def loaded() -> bool:
        return "aiohttp" in Path(f"/proc/{worker['pid']}/maps").read_text()

    await client.execute("idle", f"{HEAD}do: [{{one: {{set: {{a: 1}}}}}}]\n")
    assert (await client.end("idle")).status == "completed"
    assert not loaded()
    await client.execute("calls", calling(remote.url))
    assert (await client.end("calls")).status == "completed"
    assert loaded()
