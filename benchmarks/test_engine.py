"""Stages 2 to 6: submissions to an engine in this process, until they are executed and durable."""

import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop

from benchmarks.data import mixed_workflow, orders
from benchmarks.workflows import set_tasks
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Submission
from fastrunner.engine.embedded.engine import EmbeddedEngine

INPUTS = {"set": b'{"counter": 1}', "mixed": orjson.dumps(orders(20))}
DOCUMENTS = {"set": set_tasks(10), "mixed": mixed_workflow(10)}
_numbers = itertools.count()


class Engine:
    """An engine on a disk, with a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self._loop = uvloop.new_event_loop()
        config = load_config(data_dir=folder, client_executions_per_s=1e9, retention_count=1_000)
        self._engine = self._loop.run_until_complete(self._started(config))

    @staticmethod
    async def _started(config: Any) -> EmbeddedEngine:
        engine = EmbeddedEngine(config, Metrics(), {})
        await engine.start()
        return engine

    def execute(self, kind: str, count: int) -> list[str]:
        """So many executions at once; their statuses when all are durable."""
        return self._loop.run_until_complete(self._executed(kind, count))

    async def _executed(self, kind: str, count: int) -> list[str]:
        return await asyncio.gather(
            *(
                self._engine.submit(
                    Submission(
                        f"e{next(_numbers)}",
                        DOCUMENTS[kind],
                        INPUTS[kind],
                        orjson.loads(INPUTS[kind]),
                        {},
                        b"",
                        0,
                        False,
                        "bench",
                    )
                )
                for _ in range(count)
            )
        )

    def close(self) -> None:
        self._loop.run_until_complete(self._engine.drain(5))
        self._loop.close()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bench-") as folder:
        engine = Engine(Path(folder))
        yield engine
        engine.close()


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("count", [1, 32])
def test_executions_until_durable(benchmark: Any, engine: Engine, kind: str, count: int) -> None:
    benchmark.extra_info["executions"] = count
    assert benchmark(engine.execute, kind, count) == ["running"] * count
