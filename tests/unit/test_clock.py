"""Time as the engine sees it."""

import time

import pytest

from fastrunner.base import clock


class _Time:
    """Stands in for the module `time`: a wall clock that is set, and time that passes."""

    wall_ns = 1_700_000_000_000_000_000
    elapsed_ns = 5_000_000_000

    def time_ns(self) -> int:
        return self.wall_ns

    def clock_gettime_ns(self, clock_id: int) -> int:
        return self.elapsed_ns


def test_steady_clock_starts_at_wall_time_and_is_not_moved_by_setting_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _Time()
    monkeypatch.setattr(clock, "time", fake)
    now = clock.SteadyClock()
    assert now() == 1_700_000_000_000
    fake.wall_ns += 3_600_000_000_000
    assert now() == 1_700_000_000_000
    fake.elapsed_ns += 1_500_000_000
    assert now() == 1_700_000_001_500
    assert clock.SteadyClock()() == 1_700_003_600_000


def test_steady_clock_agrees_with_the_real_one() -> None:
    assert abs(clock.SteadyClock()() - time.time_ns() // 1_000_000) < 1_000
