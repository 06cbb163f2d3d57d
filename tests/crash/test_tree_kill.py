"""Kills of one worker, then of the whole tree, while executions run: nothing that was accepted is lost.

The receiver runs in a process of its own and checks what arrives: contiguous sequence numbers, identical duplicates,
one terminal event per execution.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner.access.sealing import add_key
from tests.integration.runner_process import ROOT, RunnerProcess, running, until
from tests.integration.wire import path
from tests.ports import free_port

TASKS = 20
EXECUTIONS = 1_000
# workflow_started, _validating, _validated, two per task, workflow_completed
EVENTS = 3 + 2 * TASKS + 1
TOKEN = "receive-only"


def document() -> str:
    """20 tasks, one of them a short wait, so that executions are under way for as long as the kills take."""
    tasks: list[Any] = [{f"step{n}": {"set": {"counter": "${ (.counter // 0) + 1 }"}}} for n in range(TASKS - 1)]
    tasks.insert(TASKS // 2, {"rest": {"wait": {"milliseconds": 300}}})
    head = {"dsl": "1.0.3", "namespace": "test", "name": "twenty", "version": "1.0.0"}
    return orjson.dumps({"document": head, "do": tasks}).decode()


@contextmanager
def receiver(port: int, store: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The reference receiver; SIGTERM makes it give its verdict."""
    command = [sys.executable, "-m", "fastrunner", "receiver", "--port", str(port)]
    child = subprocess.Popen(
        [*command, "--store", str(store), "--quiet"],
        cwd=ROOT,
        env={**os.environ, "FASTRUNNER_RECEIVER_TOKEN": TOKEN},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=30)


def start(data_dir: Path, receiver_port: int, **environment: str) -> Any:
    return running(
        data_dir,
        ["-m", "fastrunner", "serve"],
        **environment,
        FASTRUNNER_WORKERS="2",
        STIGMER_SERVICE_ENDPOINT=f"127.0.0.1:{receiver_port}",
        STIGMER_SERVICE_API_KEY=TOKEN,
        STIGMER_SERVICE_USE_TLS="false",
    )


async def submit(runner: RunnerProcess, numbers: range, text: str) -> None:
    """Accepted, every one; UNAVAILABLE (the worker behind the connection was killed) is tried again."""
    places = asyncio.Semaphore(32)
    channel: Any
    async with grpc.aio.insecure_channel(runner.target) as channel:

        async def one(number: int) -> None:
            request = m.WorkflowExecuteInput(workflow_execution_id=f"kill-{number}", workflow_yaml=text)
            for _ in range(200):
                try:
                    async with places:
                        await channel.unary_unary(path("ExecuteAsync"))(request.SerializeToString(), timeout=30)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    await asyncio.sleep(0.05)
                else:
                    return
            raise AssertionError(f"kill-{number} was never accepted")

        await asyncio.gather(*(one(number) for number in numbers))


def received(store: Path) -> dict[str, dict[int, str]]:
    """Event types by execution and sequence number, as the receiver stored them."""
    found: dict[str, dict[int, str]] = {}
    for line in store.read_bytes().splitlines():
        event = orjson.loads(line)
        of = found.setdefault(event["workflowExecutionId"], {})
        of[int(event["sequenceNumber"])] = event["eventType"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("is_sealed", [False, True], ids=["open", "sealed"])
def test_nothing_is_lost_when_a_worker_and_then_the_tree_are_killed(tmp_path: Path, is_sealed: bool) -> None:
    environment = {"FASTRUNNER_DATA_KEY_FILE": str(tmp_path / "keys")} if is_sealed else {}
    add_key(tmp_path / "keys", "one")
    store, data_dir, port, text = tmp_path / "received.jsonl", tmp_path / "data", free_port(), document()
    half = EXECUTIONS // 2
    with receiver(port, store) as receiving:
        with start(data_dir, port, **environment) as runner:
            runner.wait_ready()
            until(runner.ready)
            asyncio.run(submit(runner, range(half), text))
            os.kill(runner.workers()[0]["pid"], signal.SIGKILL)
            asyncio.run(submit(runner, range(half, EXECUTIONS), text))
            os.killpg(runner.process.pid, signal.SIGKILL)
            runner.process.communicate(timeout=30)
        with start(data_dir, port, **environment) as again:
            again.wait_ready()
            until(again.ready)
            until(lambda: again.metric("workflow_runner_active_executions") == 0, 60)
            until(lambda: sum(map(len, received(store).values())) >= EXECUTIONS * EVENTS, 60)
            code, _, err = again.stop()
            assert code == 0, err
        receiving.send_signal(signal.SIGTERM)
        _, verdict = receiving.communicate(timeout=30)
        assert receiving.returncode == 0, verdict.decode()
    events = received(store)
    assert len(events) == EXECUTIONS
    for execution_id, mine in events.items():
        assert sorted(mine) == list(range(1, EVENTS + 1)), execution_id
        assert mine[EVENTS] == "workflow_completed"
