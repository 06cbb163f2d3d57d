"""Stages 2 and 4: cold compiles, walks and expressions, in process."""

from typing import Any

import orjson
import pytest

from benchmarks.workflows import THREE_TASKS_YAML, set_tasks
from fastrunner import _core
from fastrunner._jq import compile_expression

PRICES = [{"price": number % 25, "name": f"item {number}"} for number in range(100)]


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_compile_three_tasks(benchmark: Any, form: str) -> None:
    text = THREE_TASKS_YAML if form == "yaml" else orjson.dumps(_core.load(THREE_TASKS_YAML)).decode()
    assert benchmark(_core.compile, text).name == "three"


@pytest.mark.parametrize("count", [10, 100])
def test_walk_set_tasks(benchmark: Any, count: int) -> None:
    plan = _core.compile(set_tasks(count))

    def execute() -> Any:
        walk, turn = _core.Walk.start(plan, "bench-1", {"counter": 0}, 1_700_000_000_000)
        while turn.more:
            turn = walk.resume(_core.MoreSteps(), 1_700_000_000_000)
        return walk.output

    benchmark.extra_info["tasks"] = count
    assert benchmark(execute) == {"counter": count, "name": "benchmark"}


@pytest.mark.parametrize(
    ("text", "value"),
    [(".counter + 1", {"counter": 41}), ("map(select(.price > 10)) | length", PRICES)],
    ids=["counter", "select"],
)
def test_expression(benchmark: Any, text: str, value: Any) -> None:
    program = compile_expression(text)
    assert benchmark(program.first, value) in (42, 56)


def test_compile_expression(benchmark: Any) -> None:
    assert benchmark(compile_expression, "map(select(.price > 10)) | length").arguments == ()
