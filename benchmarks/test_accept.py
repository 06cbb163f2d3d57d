"""Stages 1 to 6 without sockets and without a disk: request bytes to answers, 64 calls at a time.

`pytest benchmarks/test_accept.py --benchmark-timer=time.process_time` counts processor time: less noisy, and what
docs/performance.md has of it.
"""

import asyncio
import itertools
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from benchmarks.workflows import set_tasks
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput, WorkflowExecuteResponse
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.progress.wire import field_1
from fastrunner.routing.facts import CallFacts
from fastrunner.service.handlers import Service
from tests.local_router import LocalRouter

CALLS = 64
TAIL = WorkflowExecuteInput(workflow_yaml=set_tasks(10), input_json='{"counter": 1}').SerializeToString()
_numbers = itertools.count()


class OnTheLoop:
    """Commits where it is asked to: no thread, whose switches would be measured as well."""

    def __init__(self, name: str, commit: Callable[[], None], landed: Callable[[BaseException | None], None]) -> None:  # noqa: ARG002 - a WriterFactory
        self._commit = commit
        self._landed = landed

    def request(self) -> None:
        """See CommitWriter."""
        self._commit()
        asyncio.get_running_loop().call_soon(self._landed, None)

    def stop(self) -> None:
        """See CommitWriter."""


class Accepting:
    """A service on an engine of its own."""

    def __init__(self, folder: Path) -> None:
        self._loop = uvloop.new_event_loop()
        self._loop.run_until_complete(self._start(folder))

    async def _start(self, folder: Path) -> None:
        config = load_config(data_dir=folder, client_executions_per_s=1e9, retention_count=1_000_000)
        metrics = Metrics()
        self._engine = EmbeddedEngine(config, metrics, {}, make_writer=OnTheLoop)
        await self._engine.start()
        self._service = Service(self._engine, LocalRouter(), metrics)

    def execute(self) -> list[bytes]:
        """The answers to so many calls at once, each of which has been executed."""
        payloads = [field_1(b"a%d" % next(_numbers)) + TAIL for _ in range(CALLS)]
        return self._loop.run_until_complete(self._execute(payloads))

    async def _execute(self, payloads: list[bytes]) -> list[bytes]:
        calls = [
            self._service.handle_unary("ExecuteAsync", payload, CallFacts("bench", 0, local=False))
            for payload in payloads
        ]
        return [await each for each in calls if isinstance(each, Awaitable)]

    def close(self) -> None:
        """Ends it."""
        self._loop.run_until_complete(self._engine.drain(5))
        self._loop.close()


@pytest.fixture(scope="module")
def accepting() -> Iterator[Accepting]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="bench-") as folder:
        accepting = Accepting(Path(folder))
        yield accepting
        accepting.close()


def test_bytes_to_answers(benchmark: Any, accepting: Accepting) -> None:
    benchmark.extra_info["executions"] = CALLS
    answers = benchmark(accepting.execute)
    assert [WorkflowExecuteResponse.FromString(each).status for each in answers] == ["running"] * CALLS
