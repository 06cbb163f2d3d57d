"""Bounds of an overload, step by step on a clock that the test moves, and of a turn in which calls are taken up."""

from itertools import pairwise

import pytest

from fastrunner.base import limits
from fastrunner.service.overload import Overload

OFFERED = 100
"""Executions that come in an interval: 2,000 per second."""
READ_S = 0.0001
"""What reading the clock costs where it costs something."""


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, as a list of one time."""
    now = [1_000.0]
    monkeypatch.setattr("fastrunner.base.clock.monotonic_s", lambda: now[0])
    return now


def paces(at: list[float], overload: Overload, wait_s: float, intervals: int) -> list[float]:
    """The pace after each of some intervals in which everything waits so long."""
    found = []
    for _ in range(intervals):
        for _ in range(OFFERED):
            overload.refusal("client")
        at[0] += limits.OVERLOAD_INTERVAL_S * 1.001
        overload.measured(wait_s)
        found.append(overload.rate_per_s)
    return found


def test_pace_changes_once_an_interval(at: list[float]) -> None:
    overload = Overload(lambda: False)
    paces(at, overload, 0.1, 20)
    before, changes = overload.rate_per_s, 0
    for _ in range(100):
        for _ in range(OFFERED // 10):
            overload.refusal("client")
        at[0] += limits.OVERLOAD_INTERVAL_S / 10
        overload.measured(0.0)
        changes += overload.rate_per_s != before
        before = overload.rate_per_s
    assert 8 <= changes <= 10


def test_decreases_are_paced_and_end(at: list[float]) -> None:
    """Each waits until the one before has had an effect, and something is always taken."""
    overload = Overload(lambda: False)
    falling = paces(at, overload, 0.1, 200)
    falling = [pace for pace in falling if pace < float("inf")]
    assert falling[0] == pytest.approx(OFFERED / limits.OVERLOAD_INTERVAL_S * limits.OVERLOAD_BEGIN, rel=0.01)
    slowest = limits.OVERLOAD_EXECUTIONS_PER_S_MIN
    assert falling[-1] == slowest
    runs = [falling.count(pace) for pace in sorted(set(falling))]
    steps = sorted(set(falling), reverse=True)
    assert all(
        after == pytest.approx(max(before * limits.OVERLOAD_DECREASE, slowest)) for before, after in pairwise(steps)
    )
    patience = limits.OVERLOAD_PATIENCE_S / limits.OVERLOAD_INTERVAL_S
    assert set(runs[1:]) == {round(patience)}


def test_pace_returns_fast_then_slowly_until_fewer_come(at: list[float]) -> None:
    overload = Overload(lambda: False)
    [too_fast, *_] = [pace for pace in paces(at, overload, 0.1, 100) if pace < float("inf")]
    rising = [overload.rate_per_s, *paces(at, overload, 0.0, 200)]
    assert rising[-1] == float("inf")
    rising = rising[: rising.index(float("inf"))]
    for before, after in pairwise(rising):
        is_near = before > too_fast * limits.OVERLOAD_DECREASE
        assert after == pytest.approx(before * (limits.OVERLOAD_INCREASE if is_near else limits.OVERLOAD_RETURN))
    offered_per_s = OFFERED / (limits.OVERLOAD_INTERVAL_S * 1.001)
    assert rising[-1] <= offered_per_s * limits.OVERLOAD_RELIEF < rising[-1] * limits.OVERLOAD_INCREASE


@pytest.mark.parametrize(
    ("wait_s", "delay_s"),
    [(0.0, limits.OVERLOAD_RETRY_S_MIN), (0.1, 0.4), (10.0, limits.OVERLOAD_RETRY_S_MAX)],
)
def test_delay_that_a_refusal_tells(at: list[float], wait_s: float, delay_s: float) -> None:
    overload = Overload(lambda: False)
    paces(at, overload, 0.1, 100)
    paces(at, overload, wait_s, 1)
    refusals = [overload.refusal("client") for _ in range(1_000)]
    assert refusals[-1] is not None
    assert refusals[-1].retry_after_s == pytest.approx(delay_s)
