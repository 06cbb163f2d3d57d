"""Bounds of one execution: an endless one ends with an error that says which it reached, and nothing catches it."""

from typing import Any

import pytest

from tests.core.walking import Run, error_type, plan_of

ENDLESS = [{"again": {"set": {"round": 1}, "then": "again"}}]
ENDLESS_TRY = [
    {
        "guard": {
            "try": [{"again": {"set": {"a": 1}, "then": "again"}}],
            "catch": {"do": [{"go": {"set": {"a": 1}, "then": "continue"}}]},
            "then": "guard",
        }
    }
]
FORKED = [{"both": {"fork": {"branches": [{"left": {"do": ENDLESS}}, {"right": {"do": ENDLESS}}]}}}]


def ended(tasks: Any, restoring: bool = False, input_: Any = None) -> Run:
    return Run(plan_of(tasks), input_, restoring=restoring).finish()


@pytest.mark.parametrize("restoring", [False, True])
@pytest.mark.parametrize("tasks", [ENDLESS, ENDLESS_TRY, FORKED], ids=["loop", "try", "fork"])
def test_events_of_an_execution(tasks: Any, restoring: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.EVENTS_PER_EXECUTION_MAX", 2_000)
    run = ended(tasks, restoring)
    assert run.error["type"] == error_type("runtime")
    assert "has 2000 events" in run.error["detail"]
    assert 2_000 < run.last_sequence <= 2_003


def test_items_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastrunner.base.limits.ITERATIONS_PER_LOOP_MAX", 10)
    loop = {"for": {"in": "$workflow.input"}, "do": [{"one": {"set": {"a": 1}}}]}
    assert ended([{"loop": loop}], input_=[0] * 10).walk.status == "completed"
    run = ended([{"loop": loop}], input_=[0] * 11)
    assert run.walk.error is not None
    assert run.walk.error["detail"].startswith("the collection of `for.in` has 11 items: at most 10")
    caught = {"try": [{"loop": loop}], "catch": {"do": [{"handled": {"set": {"caught": True}}}]}}
    assert ended([{"guard": caught}], input_=[0] * 11).output == {"caught": True}
