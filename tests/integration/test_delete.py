"""DeleteExecution: what has ended goes for good, its id is free again, and nothing that somebody still needs goes."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.engine import ExecutionQuery
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.errors import UnknownExecution, WrongState
from tests.integration.callbacks import receiving
from tests.integration.commands import fastrunner
from tests.integration.engines import SET, WAIT, document, engine_on, folder, submission, until_status
from tests.integration.runner_process import ROOT, SERVE, RunnerProcess, running, until
from tests.integration.test_callback_engine import reporting_engine
from tests.integration.wire import path
from tests.ports import free_port

LONG = document("  - rest:\n      wait: {hours: 1}\n")
LARGE = document("  - keep:\n      set: {copy: '${ $workflow.input }'}\n")
TABLES = ("executions", "events", "requests", "snapshots", "claims", "large_values", "plans")


def rows(data_dir: Path) -> dict[str, int]:
    """How many rows each table has, over all shards."""
    counts = dict.fromkeys(TABLES, 0)
    for file in data_dir.glob("shard-*.db"):
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        for table in TABLES:
            counts[table] += connection.execute(f"select count(*) from {table}").get
        connection.close()
    return counts


async def test_what_has_ended_goes_with_all_its_rows() -> None:
    where = folder()
    large = json.dumps({"text": "x" * 100_000}).encode()
    async with engine_on(where) as engine:
        for name in ("kept", "gone"):
            await engine.submit(submission(name, LARGE, input_json=large))
        await until_status(engine, "gone", "completed")
        await until_status(engine, "kept", "completed")
        await engine.delete("gone")
        for ask in (engine.get("gone"), engine.events("gone", 1, 10), engine.delete("gone")):
            with pytest.raises(UnknownExecution):
                await ask
        # The other one has the same document and the same large output.
        assert len((await engine.get("kept")).output_json) > 100_000
    assert rows(where)["executions"] == 1
    async with engine_on(where) as engine:
        with pytest.raises(UnknownExecution):
            await engine.get("gone")
        await engine.delete("kept")
    assert set(rows(where).values()) == {0}


async def test_an_id_is_free_again() -> None:
    where = folder()
    async with engine_on(where) as engine:
        await engine.submit(submission("one", SET))
        await engine.delete("one")
        await engine.submit(submission("one", WAIT))
        view = await until_status(engine, "one", "completed")
        assert json.loads(view.output_json) == {"rested": True}
        first = m.WorkflowProgressEvent.FromString((await engine.events("one", 1, 1))[0])
        assert first.event_type == "workflow_started"
    assert rows(where)["executions"] == 1


async def test_what_has_not_ended_is_refused() -> None:
    where = folder()
    async with engine_on(where) as engine:
        await engine.submit(submission("one", LONG))
        with pytest.raises(WrongState, match="'one' has not ended: cancel it first"):
            await engine.delete("one")
        await engine.pause("one", "")
    # After a restart it waits in the file alone.
    async with engine_on(where) as engine:
        with pytest.raises(WrongState, match="has not ended"):
            await engine.delete("one")
        with pytest.raises(UnknownExecution):
            await engine.delete("another")
        await engine.cancel("one", "", True)
        await until_status(engine, "one", "cancelled")
        await engine.delete("one")


async def test_many_at_once_and_twice() -> None:
    where = folder()
    async with engine_on(where) as engine:
        names = [f"e-{number}" for number in range(250)]
        await asyncio.gather(*(engine.submit(submission(name, SET)) for name in names))
        for name in names:
            await until_status(engine, name, "completed")
        ended = await asyncio.gather(*(engine.delete(name) for name in names + names[:50]), return_exceptions=True)
        # Asked for twice before it is durable, it is deleted for both.
        assert all(each is None or isinstance(each, UnknownExecution) for each in ended)
        assert ended[:250] == [None] * 250
        assert not (await engine.list(ExecutionQuery())).items
    assert set(rows(where).values()) == {0}


async def test_retention_and_a_caller_delete_the_same() -> None:
    where = folder()
    async with engine_on(where, retention_count=0) as engine:
        for number in range(20):
            # Retention deletes them with the commits that follow, and a document's uses are counted once.
            await engine.submit(submission(f"e-{number}", SET))
            try:
                await engine.delete(f"e-{number}")
            except UnknownExecution:
                continue
        await engine.submit(submission("last", LONG))
    assert rows(where)["plans"] == 1 + (rows(where)["executions"] > 1)
    async with engine_on(where) as engine:
        await engine.cancel("last", "", True)
        await until_status(engine, "last", "cancelled")


async def test_events_that_a_receiver_is_to_have_keep_it() -> None:
    port = free_port()
    async with reporting_engine(folder(), port) as (engine, _):
        await engine.submit(submission("one", SET))
        with pytest.raises(WrongState, match=r"'one' has \d+ events that its receiver is still to have"):
            await engine.delete("one")
        async with receiving(port=port) as (receiver, _), asyncio.timeout(60):
            # Deleted as soon as the receiver has them, whether or not that is written down yet.
            while receiver.ledger.summary().finished < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            await deleted(engine, "one")
            assert await engine.outbox.unacknowledged(None, 1) == []


async def deleted(engine: EmbeddedEngine, execution_id: str) -> None:
    """Deletes it once its receiver's answer has arrived."""
    while True:
        try:
            await engine.delete(execution_id)
        except WrongState:
            await asyncio.sleep(0.02)
        else:
            return


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    with running(tmp_path / "data", SERVE) as started:
        started.wait_ready()
        until(started.ready)
        yield started


def listed(runner: RunnerProcess) -> list[str]:
    done = fastrunner("list", "--json", "--count", "1000", "--target", runner.target)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["executionId"] for line in done.stdout.splitlines()]


def test_any_worker_deletes_for_good(runner: RunnerProcess) -> None:
    """Over connections that reach both workers; a runner that is killed has forgotten them, too."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels: list[Any] = [grpc.insecure_channel(runner.target, options) for _ in range(8)]
    for number in range(16):
        given = m.WorkflowExecuteInput(workflow_execution_id=f"e-{number}", workflow_yaml=SET)
        # The stream ends when it has.
        list(channels[number % 8].unary_stream(path("Execute"))(given.SerializeToString(), timeout=30))
    for number in range(15):
        request = q.DeleteExecutionRequest(execution_id=f"e-{number}").SerializeToString()
        delete = channels[(number + 3) % 8].unary_unary(path("DeleteExecution"))
        assert Empty.FromString(delete(request, timeout=30)) == Empty()
        with pytest.raises(grpc.RpcError) as again:
            delete(request, timeout=30)
        assert again.value.code() is grpc.StatusCode.NOT_FOUND
    for channel in channels:
        channel.close()
    assert listed(runner) == ["e-15"]


def test_the_command_deletes_what_it_may(runner: RunnerProcess, tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_text(SET)
    (tmp_path / "long.yaml").write_text(LONG)
    for name, file in (("a", "set"), ("b", "set"), ("c", "long")):
        assert (
            fastrunner("submit", str(tmp_path / f"{file}.yaml"), "--id", name, "--target", runner.target).returncode
            == 0
        )
    until(lambda: '"completed"' in fastrunner("get", "b", "--json", "--target", runner.target).stdout)
    done = fastrunner("delete", "a", "c", "nobody", "b", "--target", runner.target)
    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        "a: deleted",
        "fastrunner: FAILED_PRECONDITION: execution 'c' has not ended: cancel it first, or wait for its end",
        "fastrunner: NOT_FOUND: no execution with id 'nobody': it was never accepted, or it has been deleted",
        "b: deleted",
    ]
    assert listed(runner) == ["c"]


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_self_test_leaves_nothing_in_a_runner(runner: RunnerProcess, interrupted: bool) -> None:
    command = [sys.executable, "-m", "fastrunner", "bench", "--target", runner.target, "--json"]
    command += ["--seconds", "60" if interrupted else "0.3"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            if interrupted:
                until(lambda: len(listed(runner)) > 50)
                process.send_signal(signal.SIGINT)
            output, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == (130 if interrupted else 0), said
    assert said == ("fastrunner: interrupted\n" if interrupted else "")
    assert bool(output) is not interrupted
    assert listed(runner) == []
    assert rows(runner.data_dir)["executions"] == rows(runner.data_dir)["events"] == 0
