"""Stages 1 to 4: what the hot paths cost, counted in calls and memory, so that no clock decides.

A count may be at most 10 % above its baseline in `costs.json`. `python -m tests.core.test_costs` counts again and
writes the baselines, which hold for the Python version they were counted with.
"""

import asyncio
import gc
import json
import platform
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.workflows import THREE_TASKS_YAML, set_tasks
from fastrunner import _core
from fastrunner._jq import compile_expression
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.service.decode import decode_execution

BASELINES = Path(__file__).with_name("costs.json")
TOLERANCE = 1.1
_NOW_MS = 1_700_000_000_000


def _walk(plan: _core.Plan) -> object:
    walk, turn = _core.Walk.start(plan, "costs-1", {"counter": 0}, _NOW_MS)
    while turn.more:
        turn = walk.resume(_core.MoreSteps(), _NOW_MS)
    return walk.output


def paths() -> dict[str, Callable[[], object]]:
    """The paths that run in the loop's own thread, ready to be called."""
    as_json = orjson.dumps(_core.load(THREE_TASKS_YAML)).decode()
    ten, hundred = _core.compile(set_tasks(10)), _core.compile(set_tasks(100))
    counter, value = compile_expression(".counter + 1"), {"counter": 41}
    request = WorkflowExecuteInput(
        workflow_execution_id="costs-1", workflow_yaml=set_tasks(10), input_json='{"counter": 0}'
    )
    payload = request.SerializeToString()
    return {
        "compile_json": lambda: _core.compile(as_json),
        "compile_yaml": lambda: _core.compile(THREE_TASKS_YAML),
        "walk_10": lambda: _walk(ten),
        "walk_100": lambda: _walk(hundred),
        "counter": lambda: counter.first(value),
        "decode": lambda: decode_execution(payload),
    }


def _calls(function: Callable[[], object]) -> int:
    """Calls that the interpreter sees, of Python and of C functions."""
    count = 0

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def _peak_bytes(function: Callable[[], object]) -> int:
    """The most memory held at once, the result included."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        result = function()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    del result
    return peak - before


def _warm(function: Callable[[], object]) -> None:
    for _ in range(5):
        function()


async def _submit_calls(folder: Path) -> int:
    """Calls per submission of 100, from the request to its durable answer, on the loop's thread."""
    engine = EmbeddedEngine(load_config(data_dir=folder), Metrics(), {})
    await engine.start()
    document = set_tasks(10)

    def submit(number: int) -> Any:
        request = WorkflowExecuteInput(workflow_execution_id=f"costs-{number}", workflow_yaml=document)
        return engine.submit(decode_execution(request.SerializeToString()))

    await asyncio.gather(*(submit(number) for number in range(100)))
    count = 0

    def seen(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        await asyncio.gather(*(submit(100 + number) for number in range(100)))
    finally:
        sys.setprofile(None)
    await engine.drain(5)
    return count // 100


async def _waiting_bytes(folder: Path) -> int:
    """What an execution that only waits takes of Python's memory, its place in the engine's tables included."""
    engine = EmbeddedEngine(load_config(data_dir=folder), Metrics(), {})
    await engine.start()
    head = {"dsl": "1.0.3", "namespace": "costs", "name": "waiting", "version": "1.0.0"}
    document = json.dumps({"document": head, "do": [{"rest": {"wait": "PT1H"}}]})

    async def submit(numbers: range) -> None:
        for first in numbers[::20]:
            requests = (
                WorkflowExecuteInput(workflow_execution_id=f"costs-{first + each:05d}", workflow_yaml=document)
                for each in range(20)
            )
            await asyncio.gather(*(engine.submit(decode_execution(each.SerializeToString())) for each in requests))

    await submit(range(500))
    tracemalloc.start()
    try:
        await submit(range(500, 1_500))
        gc.collect()
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await engine.drain(5)
    return kept_bytes // 1_000


def counts() -> dict[str, int]:
    """Calls and bytes of every path."""
    found = {}
    for name, function in paths().items():
        _warm(function)
        found[f"{name}.calls"] = min(_calls(function) for _ in range(3))
        found[f"{name}.peak_bytes"] = min(_peak_bytes(function) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        found["submit.calls"] = asyncio.run(_submit_calls(Path(folder)))
    with tempfile.TemporaryDirectory() as folder:
        found["waiting.kept_bytes"] = asyncio.run(_waiting_bytes(Path(folder)))
    return found


def _version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _hold(found: dict[str, int], baselines: dict[str, int]) -> None:
    grown = {
        name: f"{count} instead of {baselines[name]}"
        for name, count in found.items()
        if count > baselines[name] * TOLERANCE
    }
    assert not grown, f"more than 10 % dearer than the baseline: {grown}"


def test_calls_and_memory_stay_within_ten_percent() -> None:
    stored = json.loads(BASELINES.read_text())
    if stored["python"] != _version():
        pytest.skip(f"the baseline is of Python {stored['python']}")
    if sys.gettrace() is not None:
        pytest.skip("coverage counts calls of its own")
    _hold(counts(), stored["counts"])


if __name__ == "__main__":
    BASELINES.write_text(json.dumps({"python": _version(), "counts": counts()}, indent=1) + "\n")
