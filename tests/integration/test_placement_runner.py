"""Placement in a real runner of several workers: races for ids, deaths of workers, data directories of format 1."""

import asyncio
import os
import re
import signal
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.base.clock import monotonic_s
from tests.golden import make
from tests.integration.commands import fastrunner
from tests.integration.engines import SET
from tests.integration.runner_process import SERVE, RunnerProcess, running, until
from tests.integration.wire import path

_OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
_NEVER_AGAIN = ("grpc.enable_retries", 0)
_INODE = re.compile(r"socket:\[(\d+)\]")
WORKERS = 4


class Connection:
    """A connection of its own, and the worker it has reached."""

    def __init__(self, target: str) -> None:
        self.channel: Any = grpc.aio.insecure_channel(target, [_OWN_CONNECTION, _NEVER_AGAIN])
        self.pid = 0
        """Of the worker."""

    async def call(self, method: str, request: Any, reply: Any, timeout_s: float = 60.0) -> Any:
        answer = await self.channel.unary_unary(path(method))(request.SerializeToString(), timeout=timeout_s)
        return reply.FromString(answer)

    async def execute(self, execution_id: str, text: str = SET, **fields: Any) -> m.WorkflowExecuteResponse:
        request = m.WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=text, **fields)
        accepted: m.WorkflowExecuteResponse = await self.call("ExecuteAsync", request, m.WorkflowExecuteResponse)
        return accepted

    async def status(self, execution_id: str) -> str:
        request = q.GetExecutionRequest(execution_id=execution_id)
        return str((await self.call("GetExecution", request, q.GetExecutionResponse)).execution.status)


def _sockets(pid: int, port: int) -> set[str]:
    """Established TCP connections that a process has taken at a port; those it has opened for effects are others."""
    found = set()
    tables = [Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    table = [line.split() for lines in tables for line in lines]
    established = {row[9] for row in table if row[3] == "01" and int(row[1].rpartition(":")[2], 16) == port}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inode = _INODE.match(os.readlink(entry))
        except FileNotFoundError:
            continue
        if inode and inode[1] in established:
            found.add(inode[1])
    return found


@asynccontextmanager
async def connections(runner: RunnerProcess, workers_min: int) -> AsyncIterator[Sequence[Connection]]:
    """Two connections at least, to so many different workers at least."""
    pids = [worker["pid"] for worker in runner.workers()]
    opened: list[Connection] = []
    port = int(runner.target.rpartition(":")[2])
    before = {pid: _sockets(pid, port) for pid in pids}
    try:
        while len({each.pid for each in opened}) < workers_min or len(opened) < 2:
            assert len(opened) < 64, "the kernel spreads connections over the listeners"
            connection = Connection(runner.target)
            opened.append(connection)
            await connection.channel.channel_ready()
            now = {pid: _sockets(pid, port) for pid in pids}
            [connection.pid] = [pid for pid in pids if now[pid] - before[pid]]
            before = now
        yield opened
    finally:
        for connection in opened:
            await connection.channel.close()


def start(data_dir: Path, workers: int = WORKERS, **environment: str) -> Any:
    return running(data_dir, SERVE, FASTRUNNER_WORKERS=str(workers), LOG_LEVEL="warn", **environment)


def ready(runner: RunnerProcess) -> RunnerProcess:
    runner.wait_ready()
    until(runner.ready, 60)
    return runner


def stop(runner: RunnerProcess) -> None:
    code, _, err = runner.stop()
    assert (code, err) == (0, "")


async def code_of(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


async def test_of_racing_duplicates_each_id_has_one_winner(tmp_path: Path) -> None:
    """60 ids, four connections each, at once; then four different requests for each of 60 others."""
    with start(tmp_path / "data") as runner:
        async with connections(ready(runner), 3) as opened:
            four = [opened[-1], *opened][:4] if len(opened) < 4 else opened[-4:]
            four = [four[at % len(four)] for at in range(4)]
            answers = await asyncio.gather(*(each.execute(f"same-{number}") for number in range(60) for each in four))
            assert Counter(answer.SerializeToString() for answer in answers) == {
                m.WorkflowExecuteResponse(
                    workflow_execution_id=f"same-{number}",
                    status="running",
                    message="Workflow execution started in background",
                ).SerializeToString(): 4
                for number in range(60)
            }
            codes = await asyncio.gather(
                *(
                    code_of(each.execute(f"other-{number}", input_json=str(at)))
                    for number in range(60)
                    for at, each in enumerate(four)
                )
            )
            for number in range(60):
                assert Counter(codes[4 * number : 4 * number + 4]) == {"OK": 1, "ALREADY_EXISTS": 3}
            for prefix in ("same", "other"):
                for number in range(60):
                    assert await four[number % 4].status(f"{prefix}-{number}") in ("running", "completed")
        stop(runner)
    done = fastrunner("data", "check", "--data-dir", str(tmp_path / "data"))
    assert (done.returncode, done.stdout) == (0, "")


async def test_new_executions_wait_for_no_worker_that_was_killed(tmp_path: Path) -> None:
    with start(tmp_path / "data", 2) as runner:
        async with connections(ready(runner), 2) as opened:
            victim = next(each for each in opened if each.pid != opened[0].pid)
            survivor = opened[0]
            for number in range(20):
                await victim.execute(f"its-{number}")
            new, numbers = 0, iter(range(100_000))
            os.kill(victim.pid, signal.SIGKILL)
            # Whoever repeats what the dead one had accepted waits for its successor, and gets the first answer.
            repeats = [asyncio.create_task(survivor.execute(f"its-{number}")) for number in range(20)]
            others = asyncio.create_task(code_of(survivor.execute("its-0", input_json="1")))
            while not all(task.done() for task in repeats):
                await survivor.execute(f"new-{next(numbers)}")
                new += sum(not task.done() for task in repeats) > 0
            assert new > 0, "new ones were accepted while those waited"
            assert {(await task).status for task in repeats} == {"running"}
            assert await others == "ALREADY_EXISTS"
            until(lambda: runner.replaced(victim.pid), 60)
            assert {await survivor.status(f"new-{number}") for number in range(new)} == {"completed"}
        code, _, _ = runner.stop()
        assert code == 0


def _format_1(folder: Path) -> Path:
    """A directory as a runner before placement wrote it: two shards, in which ids live by their hash."""
    data_dir = folder / "data"
    data_dir.mkdir(mode=0o700)
    with tarfile.open(make.FOLDER / "format-1.tar.gz") as archive:
        archive.extractall(data_dir, filter="data")
    for file in data_dir.iterdir():
        file.chmod(0o600)
    return data_dir


async def _shown(runner: RunnerProcess, expected: dict[str, str]) -> None:
    """Every execution is found from every connection, and a repeat is answered as one."""
    async with connections(runner, min(2, len(runner.workers()))) as opened:
        for each in opened:
            for execution_id, status in expected.items():
                give_up_s = monotonic_s() + 60
                while (shown := await each.status(execution_id)) != status:
                    assert shown == "running", execution_id
                    assert monotonic_s() < give_up_s, execution_id
                    await asyncio.sleep(0.05)
                assert await code_of(each.execute(execution_id, input_json="7")) == "ALREADY_EXISTS"


async def test_directory_of_format_1_opened_grown_and_back(tmp_path: Path) -> None:
    data_dir = _format_1(tmp_path)
    expected = {f"finished-{number}": "completed" for number in range(6)}
    expected |= {f"resting-{number}": "completed" for number in range(6)}
    expected |= {"paused-0": "paused", "paused-1": "paused"}
    for workers, shards in ((1, 2), (4, 4), (1, 4)):
        with start(data_dir, workers) as runner:
            await _shown(ready(runner), expected)
            async with connections(runner, min(2, workers)) as opened:
                if workers == 4:
                    resume = m.ResumeExecutionRequest(execution_id="paused-0")
                    await opened[0].channel.unary_unary(path("ResumeExecution"))(resume.SerializeToString(), timeout=60)
                    expected["paused-0"] = "completed"
                for at, each in enumerate(opened):
                    await each.execute(f"new-{len(expected)}-{at}")
                    expected[f"new-{len(expected)}-{at}"] = "completed"
            stop(runner)
        assert len(list(data_dir.glob("shard-*.db"))) == shards
        done = fastrunner("data", "check", "--data-dir", str(data_dir))
        assert (done.returncode, done.stdout) == (0, "")
