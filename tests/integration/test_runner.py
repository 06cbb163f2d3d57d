"""Support: the whole runner, as `fastrunner serve` starts it: calls over gRPC while workers come and go."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    CancelExecutionRequest,
    WorkflowExecuteInput,
    WorkflowExecuteResponse,
)
from fastrunner._pb.ai.stigmer.workflow.runner.v1.query_pb2 import GetExecutionRequest, GetExecutionResponse
from fastrunner.service.methods import COMMAND_SERVICE, QUERY_SERVICE
from tests.integration.runner_process import RunnerProcess, running, until

SERVE = ("-m", "fastrunner", "serve")
DOCUMENT = """
document: {dsl: 1.0.0, namespace: test, name: short, version: 1.0.0}
do:
- first: {set: {number: 1}}
"""
WAITING = """
document: {dsl: 1.0.0, namespace: test, name: long, version: 1.0.0}
do:
- rest: {wait: {hours: 1}}
"""


class Client:
    """One connection to a runner."""

    def __init__(self, runner: RunnerProcess) -> None:
        # Without a pool of its own, channels of one process share a connection to the same address.
        self._channel = grpc.insecure_channel(runner.target, [("grpc.use_local_subchannel_pool", 1)])

    def execute(self, execution_id: str, document: str = DOCUMENT) -> str:
        call = self._channel.unary_unary(
            f"/{COMMAND_SERVICE}/ExecuteAsync",
            WorkflowExecuteInput.SerializeToString,
            WorkflowExecuteResponse.FromString,
        )
        request = WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=document)
        return str(call(request, timeout=30).status)

    def status(self, execution_id: str) -> str:
        call = self._channel.unary_unary(
            f"/{QUERY_SERVICE}/GetExecution", GetExecutionRequest.SerializeToString, GetExecutionResponse.FromString
        )
        return str(call(GetExecutionRequest(execution_id=execution_id), timeout=30).execution.status)

    def cancel(self, execution_id: str) -> None:
        call = self._channel.unary_unary(
            f"/{COMMAND_SERVICE}/CancelExecution", CancelExecutionRequest.SerializeToString, bytes
        )
        call(CancelExecutionRequest(execution_id=execution_id), timeout=30)

    def close(self) -> None:
        self._channel.close()


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerProcess]:
    """A ready runner with two workers."""
    with running(tmp_path / "data", SERVE) as process:
        yield process.wait_ready()


@pytest.fixture
def client(runner: RunnerProcess) -> Iterator[Client]:
    """A connection to it."""
    connected = Client(runner)
    yield connected
    connected.close()


class Caller(threading.Thread):
    """Keeps executing over one connection, retrying what was UNAVAILABLE; counts codes until it is stopped."""

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(daemon=True)
        self.client, self.prefix = client, name
        self.codes: Counter[grpc.StatusCode] = Counter()
        self.accepted: list[str] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopped.is_set():
            execution_id = f"{self.prefix}-{number}"
            try:
                self.client.execute(execution_id)
            except grpc.RpcError as error:
                self.codes[error.code()] += 1
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    self.stopped.wait(0.02)
                    continue
            else:
                self.codes[grpc.StatusCode.OK] += 1
                self.accepted.append(execution_id)
            number += 1

    def stop(self) -> None:
        self.stopped.set()
        self.join(timeout=60)
        assert not self.is_alive()


@pytest.fixture
def callers(runner: RunnerProcess) -> Iterator[list[Caller]]:
    """Four clients that keep calling while the test does something to the runner."""
    clients = [Client(runner) for _ in range(4)]
    started = [Caller(client, f"caller-{number}") for number, client in enumerate(clients)]
    for caller in started:
        caller.start()
    until(lambda: all(caller.accepted for caller in started))
    yield started
    for caller in started:
        caller.stop()
    for client in clients:
        client.close()


def called_again(callers: list[Caller]) -> Callable[[], bool]:
    """Whether every caller has been answered since this was asked."""
    before = [len(caller.accepted) for caller in callers]
    return lambda: all(len(caller.accepted) > count for caller, count in zip(callers, before, strict=True))


def assert_only_unavailable(callers: list[Caller]) -> None:
    for caller in callers:
        assert set(caller.codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}, caller.codes


def assert_all_completed(client: Client, callers: list[Caller]) -> None:
    for caller in callers:
        assert caller.accepted
        for execution_id in caller.accepted:
            until(lambda execution_id=execution_id: client.status(execution_id) == "completed")  # type: ignore[misc]


def test_accepts_executes_and_answers_from_any_worker(runner: RunnerProcess, client: Client) -> None:
    """What one connection submits other ones see and cancel, whichever worker they reach."""
    ids = [f"e-{number}" for number in range(20)]
    assert {client.execute(execution_id) for execution_id in ids} == {"running"}
    waiting = [f"w-{number}" for number in range(10)]
    for execution_id in waiting:
        client.execute(execution_id, WAITING)
    other = Client(runner)
    for execution_id in ids:
        until(lambda execution_id=execution_id: other.status(execution_id) == "completed")  # type: ignore[misc]
    for execution_id in waiting:
        assert other.status(execution_id) == "running"
        other.cancel(execution_id)
        until(lambda execution_id=execution_id: client.status(execution_id) == "cancelled")  # type: ignore[misc]
    other.close()
    assert runner.metric("workflow_runner_executions_accepted_total") == 30
    assert runner.get("/metrics")[1].count('workflow_runner_router_forwards_total{code="OK"}') == 1
    assert runner.stop()[0] == 0


def test_killed_worker_loses_nothing(runner: RunnerProcess, client: Client, callers: list[Caller]) -> None:
    """Clients see at most UNAVAILABLE when a worker is killed, and everything accepted completes."""
    for worker in runner.workers():
        os.kill(worker["pid"], signal.SIGKILL)
        until(lambda pid=worker["pid"]: runner.replaced(pid))  # type: ignore[misc]
        until(called_again(callers))
    for caller in callers:
        caller.stop()
    assert_only_unavailable(callers)
    assert_all_completed(client, callers)
    assert runner.metric("workflow_runner_worker_restarts_total") == 2


def test_rolling_restart_refuses_nobody(runner: RunnerProcess, client: Client, callers: list[Caller]) -> None:
    """SIGHUP under load: no error but UNAVAILABLE, nothing accepted is lost, every process is new."""
    client.execute("long", WAITING)
    before = [worker["pid"] for worker in runner.workers()]
    runner.signal(signal.SIGHUP)
    until(lambda: runner.replaced(*before))
    until(called_again(callers))
    for caller in callers:
        caller.stop()
    assert_only_unavailable(callers)
    assert_all_completed(client, callers)
    assert client.status("long") == "running"
    assert [worker["restarts"] for worker in runner.workers()] == [0, 0]


def test_stopped_runner_goes_on_where_it_was(runner: RunnerProcess, client: Client) -> None:
    """After SIGTERM, also with another number of workers, unfinished executions are there again."""
    for number in range(10):
        client.execute(f"w-{number}", WAITING)
        client.execute(f"e-{number}")
    began_s = time.monotonic()
    assert runner.stop()[0] == 0
    assert time.monotonic() - began_s < 10
    with running(runner.data_dir, SERVE, FASTRUNNER_WORKERS="3") as successor:
        successor.wait_ready()
        again = Client(successor)
        for number in range(10):
            assert again.status(f"w-{number}") == "running"
            until(lambda number=number: again.status(f"e-{number}") == "completed")  # type: ignore[misc]
        again.close()
        assert successor.stop()[0] == 0


def test_every_line_of_a_staged_runner_is_json(tmp_path: Path) -> None:
    """From the start to the end, with clients, a restart and nobody who receives callbacks."""
    settings = {"ENV": "staging", "STIGMER_SERVICE_ENDPOINT": "127.0.0.1:1", "STIGMER_SERVICE_USE_TLS": "false"}
    with running(tmp_path / "data", SERVE, **settings) as runner:
        client = Client(runner.wait_ready())
        client.execute("one")
        pids = [worker["pid"] for worker in runner.workers()]
        runner.signal(signal.SIGHUP)
        until(lambda: runner.replaced(*pids))
        client.close()
        code, _, said = runner.stop()
    assert code == 0
    messages = [json.loads(line)["message"] for line in said.splitlines()]
    assert any("drained" in message for message in messages)


def test_damaged_shard_ends_the_tree(tmp_path: Path) -> None:
    """A store that cannot be read refuses to start with exit code 3 and one line that names it."""
    (tmp_path / "shard-0001.db").write_bytes(b"this is no database" * 1000)
    (tmp_path / "manifest.json").write_text('{"format_version": 1, "shard_count": 2}')
    with running(tmp_path, SERVE) as process:
        code, _, err = process.end()
    assert code == 3
    [line] = [line for line in err.splitlines() if line.startswith("fastrunner: ")]
    assert "worker 1 cannot start" in line
    assert "shard-0001.db" in line
