"""Support: `call: grpc` on a whole runner: calls that go well and wrong, are cancelled, lose races and workers; what is
performed again and with which key; what a worker that calls nobody does without; and the example."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from examples.calls.stock_service import serve as serve_stock
from tests.integration.grpc_calls import GREETER, KINDS, Greeter, files_of, reflecting, serving
from tests.integration.runner_process import SERVE, RunnerProcess, running
from tests.integration.test_call_grpc import until
from tests.integration.test_call_http_runner import Client

ROOT = Path(__file__).parent.parent.parent
HEAD = "document: {dsl: 1.0.3, namespace: test, name: calling, version: 1.0.0}\n"


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    folder = tmp_path / "protos"
    folder.mkdir()
    (folder / "greet.proto").write_text(GREETER)
    (folder / "kinds.proto").write_text(KINDS)
    return folder


@pytest.fixture
def settings(protos: Path) -> dict[str, str]:
    return {"FASTRUNNER_WORKERS": "1", "FASTRUNNER_RESOURCES_DIR": str(protos)}


@pytest.fixture
def runner(tmp_path: Path, settings: dict[str, str]) -> Iterator[RunnerProcess]:
    with running(tmp_path / "data", SERVE, **settings) as process:
        yield process.wait_ready()


@pytest.fixture
async def client(runner: RunnerProcess) -> AsyncIterator[Client]:
    client = Client(runner)
    yield client
    await client.close()


@pytest.fixture
async def greeter() -> AsyncIterator[Greeter]:
    files = files_of("greet.proto", ("greet.proto", GREETER), ("kinds.proto", KINDS))
    async with serving(Greeter(), more=[reflecting(files).handler]) as served:
        yield served


class Gate:
    """Has every call wait until a test lets it go."""

    def __init__(self, greeter: Greeter) -> None:
        self._opened = asyncio.Event()
        greeter.answer = self._answer

    async def _answer(self, asked: Any, _: Any) -> Any:
        await self._opened.wait()
        return asked

    def open(self) -> None:
        self._opened.set()


def calling(greeter: Greeter, protos: Path, name: str = "Ada", method: str = "SayHello") -> str:
    """What a task has to call the greeter."""
    return (
        f"{{call: grpc, with: {{proto: {{endpoint: 'file://{protos}/greet.proto'}}, service: {{name: Greeter, host: "
        f"127.0.0.1, port: {greeter.port}}}, method: {method}, arguments: {{name: '{name}'}}}}}}"
    )


def keys(greeter: Greeter) -> list[str]:
    return [each["idempotency-key"] for each in greeter.metadata]


async def test_calls_that_go_well_and_wrong(client: Client, greeter: Greeter, protos: Path) -> None:
    """A failure leaves the others alone; a retry has a key of its own; the error says which code it was."""

    async def moody(asked: Any, context: Any) -> Any:
        if asked["name"] == "bad" and len(greeter.asked) < 3:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return asked

    greeter.answer = moody
    retry = "catch: {errors: {with: {status: 503}}, retry: {delay: {milliseconds: 1}, limit: {attempt: {count: 5}}}}"
    await client.execute("bad", f"{HEAD}do: [{{x: {{try: [{{ask: {calling(greeter, protos, 'bad')}}}], {retry}}}}}]")
    assert (await client.end("bad")).output_json == '{"name":"bad"}'
    assert keys(greeter) == [f"bad/do/0/x/try/0/ask/1/{attempt}" for attempt in (1, 2, 3)]
    await client.execute("none", f"{HEAD}do: [{{x: {calling(greeter, protos, method='None')}}}]")
    ended = await client.end("none")
    assert (ended.status, ended.error.type.rpartition("/")[2]) == ("failed", "configuration")
    await client.execute("good", f"{HEAD}do: [{{x: {calling(greeter, protos)}}}]")
    assert (await client.end("good")).output_json == '{"name":"Ada"}'


async def test_a_cancel_a_timeout_and_a_lost_race_end_calls_on_the_wire(
    client: Client, greeter: Greeter, protos: Path
) -> None:
    Gate(greeter)
    call = calling(greeter, protos)
    await client.execute("one", f"{HEAD}do: [{{x: {call}}}]")
    await until(lambda: len(greeter.asked) == 1, "the call is there")
    await client.cancel("one")
    assert (await client.end("one")).status == "cancelled"
    await until(lambda: greeter.cancelled == 1, "the server knows of the cancel")
    await client.execute("late", f"{HEAD}do: [{{x: {call[:-1]}, timeout: {{after: {{milliseconds: 300}}}}}}}}]")
    assert (await client.end("late")).error.status == 408
    await until(lambda: greeter.cancelled == 2, "the server knows of the timeout")
    race = f"fork: {{compete: true, branches: [{{lose: {call}}}, {{win: {{wait: {{milliseconds: 300}}}}}}]}}"
    await client.execute("race", f"{HEAD}do: [{{x: {{{race}}}}}]")
    assert (await client.end("race")).status == "completed"
    await until(lambda: greeter.cancelled == 3, "the server knows of the race")


async def test_an_answer_that_comes_after_a_cancel(
    runner: RunnerProcess, client: Client, greeter: Greeter, protos: Path
) -> None:
    """A graceful one lets the call end, and starts nothing after it."""
    gate = Gate(greeter)
    await client.execute("one", f"{HEAD}do: [{{x: {calling(greeter, protos)}}}, {{y: {calling(greeter, protos)}}}]")
    await until(lambda: len(greeter.asked) == 1, "the call is there")
    await client.cancel("one", force=False)
    gate.open()
    assert (await client.end("one")).status == "cancelled"
    assert len(greeter.asked) == 1


async def test_a_killed_workers_call_is_performed_again_with_its_key(
    runner: RunnerProcess, client: Client, greeter: Greeter, protos: Path
) -> None:
    gate = Gate(greeter)
    await client.execute("one", f"{HEAD}do: [{{x: {calling(greeter, protos)}}}, {{y: {calling(greeter, protos)}}}]")
    await until(lambda: len(greeter.asked) == 1, "the call is there")
    [worker] = runner.workers()
    os.kill(worker["pid"], signal.SIGKILL)
    await until(lambda: greeter.cancelled == 1, "the connection is gone")
    await until(lambda: len(greeter.asked) == 2, "it is called again")
    gate.open()
    await until(lambda: runner.replaced(worker["pid"]), "the worker is replaced")
    assert (await client.end("one")).status == "completed"
    assert keys(greeter) == ["one/do/0/x/1/1", "one/do/0/x/1/1", "one/do/1/y/1/1"]


async def test_a_crash_between_an_answer_and_its_commit(
    greeter: Greeter, protos: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    crashing = {**settings, "FASTRUNNER_CRASH_POINT": "before-outcome-commit"}
    with running(tmp_path / "data", SERVE, **crashing) as runner:
        client = Client(runner.wait_ready())
        await client.execute("one", f"{HEAD}do: [{{x: {calling(greeter, protos)}}}]")
        await until(lambda: len(greeter.asked) == 2, "it is called again")
        await client.close()
    assert set(keys(greeter)) == {"one/do/0/x/1/1"}
    with running(tmp_path / "data", SERVE, **settings) as runner:
        client = Client(runner.wait_ready())
        assert (await client.end("one")).output_json == '{"name":"Ada"}'
        await client.close()


async def test_what_a_worker_that_calls_nobody_does_without(
    runner: RunnerProcess, client: Client, greeter: Greeter, protos: Path
) -> None:
    """The library of gRPC comes with the first call, or with a receiver; the compiler it never loads."""
    [worker] = runner.workers()

    def loaded(name: str) -> bool:
        return name in Path(f"/proc/{worker['pid']}/maps").read_text()

    assert not loaded("cygrpc")
    threads = len(os.listdir(f"/proc/{worker['pid']}/task"))
    await client.execute("idle", f"{HEAD}do: [{{x: {{set: {{a: 1}}}}}}]")
    assert (await client.end("idle")).status == "completed"
    assert len(os.listdir(f"/proc/{worker['pid']}/task")) <= threads + 1
    await client.execute("calls", f"{HEAD}do: [{{x: {calling(greeter, protos)}}}]")
    assert (await client.end("calls")).status == "completed"
    assert loaded("cygrpc")
    assert not loaded("_protoc_compiler")


async def test_no_secret_is_stored_or_shown(
    greeter: Greeter, protos: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    """Although the server repeats what it was sent."""

    async def repeat(asked: Any, context: Any) -> Any:
        token = dict(context.invocation_metadata())["authorization"]
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"no {token} for {asked['name']}")

    greeter.answer = repeat
    call = calling(greeter, protos, "${ $secrets.key }")
    call = call.replace(
        f"port: {greeter.port}", f"port: {greeter.port}, authentication: {{bearer: {{token: '${{ $secrets.key }}'}}}}"
    )
    document = f"{HEAD}use: {{secrets: [key]}}\ndo: [{{x: {call}}}]"
    secret = "canary-of-a-secret-that-is-long"
    with running(tmp_path / "data", SERVE, **settings, FASTRUNNER_SECRET_KEY=secret, LOG_LEVEL="debug") as runner:
        client = Client(runner.wait_ready())
        await client.execute("one", document)
        ended = await client.end("one")
        assert ended.error.detail.endswith("PERMISSION_DENIED: no Bearer *** for ***")
        assert greeter.asked == [{"name": secret}]
        files = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
        await client.close()
        _, out, errors = await asyncio.to_thread(runner.stop)
    assert secret not in f"{ended}{out}{errors}"
    assert secret.encode() not in files


async def test_the_example(client: Client) -> None:
    server, service, port = await serve_stock(0)
    document = (ROOT / "examples/calls/stock.yaml").read_text().replace("7071", str(port))
    await client.execute("one", document, '{"item": "lamp", "count": 3}')
    ended = await client.end("one")
    assert ended.output_json == '{"reservation":"r-lamp","left":3,"moved":[2,2,2,-3]}', ended.error
    assert service.refused == 1
    await server.stop(None)
