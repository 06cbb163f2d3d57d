"""Walk: durations of no time. They are bounds like others: what they bound is tried, and nothing runs for ever."""

from typing import Any

import pytest

from fastrunner._core import EffectResult, MoreSteps, TimerDue, Walk
from fastrunner.base import limits
from tests.core.walking import START_MS, Run, call, error_type, plan_of, raising

NO_TIME = {"seconds": 0}


def trying(*body: dict[str, Any], **catch: Any) -> dict[str, Any]:
    return {"try": list(body), "catch": catch}


def attempts(count: int | None = None, **retry: Any) -> dict[str, Any]:
    """A policy whose attempts have no time."""
    attempt: dict[str, Any] = {"duration": NO_TIME}
    return {"limit": {"attempt": attempt if count is None else {**attempt, "count": count}}, **retry}


JITTER = {"jitter": {"from": NO_TIME, "to": NO_TIME}}
WAITING = {"a": {"wait": "PT10S"}}


@pytest.mark.timeout(10)
def test_an_attempt_without_time_is_tried_and_counted() -> None:
    run = Run(plan_of([{"t": trying(WAITING, retry=attempts(2))}]), restoring=True)
    while run.status == "running":
        assert run.walk.wake_at_ms == START_MS
        run.tick()
    assert run.error["type"] == error_type("timeout")
    assert run.started == ["t", "a", "a", "a"]
    assert run.now_ms == START_MS


@pytest.mark.timeout(10)
def test_attempts_without_time_and_without_number_end_at_the_bound_of_events() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "EVENTS_PER_EXECUTION_MAX", 100)
        run = Run(plan_of([{"t": trying(WAITING, retry=attempts())}]), restoring=True)
    turns = 0
    while run.status == "running":
        run.tick()
        turns += 1
    assert run.error["type"] == error_type("runtime")
    assert turns > 20


@pytest.mark.timeout(10)
def test_others_go_on_beside_attempts_without_time() -> None:
    fork = {"fork": {"branches": [{"t": trying(WAITING, retry=attempts())}, {"w": {"wait": "PT0.05S"}}]}}
    run = Run(plan_of([{"f": fork}]))
    for _ in range(60):
        run.resume(TimerDue(), 1)
    assert "w completed" in run.log
    assert run.status == "running"


@pytest.mark.timeout(10)
def test_retries_without_time_take_slices() -> None:
    """A body that fails at once is tried again in the same turn, but never for longer than a slice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "EVENTS_PER_EXECUTION_MAX", 5000)
        walk, turn = Walk.start(plan_of([{"t": trying({"r": raising()}, retry=attempts())}]), "e", None, START_MS)
    slices = 1
    while turn.more:
        turn = walk.resume(MoreSteps(), START_MS)
        slices += 1
    assert (walk.status, slices > 5) == ("failed", True)


@pytest.mark.timeout(10)
def test_a_body_that_waits_for_nothing_ends_in_no_time() -> None:
    """However many slices it takes: the moment is the same."""
    body = [{f"s{number}": {"set": f"{number}"}} for number in range(5)]
    for steps in (1, 2, 250):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(limits, "WALK_STEPS_PER_SLICE_MAX", steps)
            run = Run(plan_of([{"t": {**trying(*body, retry=attempts()), "timeout": {"after": NO_TIME}}}]))
        assert run.output == 4


@pytest.mark.timeout(10)
def test_a_later_attempt_without_time_is_tried_too() -> None:
    """Its delay ends, and so does its time: the body has begun in between."""
    run = Run(plan_of([{"t": trying(WAITING, retry=attempts(1, delay="PT5S"))}]))
    run.tick()
    assert run.started == ["t", "a"]
    run.tick()
    assert run.started == ["t", "a", "a"]
    run.tick()
    assert run.status == "failed"


@pytest.mark.timeout(10)
def test_an_outcome_of_the_same_moment_comes_in_time() -> None:
    run = Run(plan_of([{"c": {**call(), "timeout": {"after": NO_TIME}}}]))
    run.resume(EffectResult(1, "in time"))
    assert run.output == "in time"


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "task",
    [
        {"wait": NO_TIME, "timeout": {"after": NO_TIME}},
        trying({"r": raising()}, retry={"limit": {"duration": NO_TIME}}),
        trying({"r": raising()}, retry={"delay": NO_TIME, **JITTER, "limit": {"attempt": {"count": 3}}}),
    ],
    ids=["wait", "total", "delay"],
)
def test_no_time_passes_without_a_wait(task: dict[str, Any]) -> None:
    run = Run(plan_of([{"t": task}]), restoring=True)
    assert run.status in ("completed", "failed")
    assert run.turns == 1
