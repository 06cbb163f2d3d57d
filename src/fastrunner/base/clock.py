"""Support: the one place that reads clocks.

Wall time is for what survives a restart (deadlines, event timestamps); monotonic time is for durations within a run.
The engine's deadlines are both: kept as wall time, and not moved by somebody who sets the clock within a run.
"""

import time
from typing import Final

_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Unlike the monotonic clock, the boot clock goes on while the machine is suspended; only Linux has it."""


def wall_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def monotonic_s() -> float:
    """Seconds on a clock that never steps."""
    return time.monotonic()


class SteadyClock:
    """Wall time, read once and carried on by a clock that never steps."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.clock_gettime_ns(_ELAPSED)

    def __call__(self) -> int:
        """Milliseconds since the epoch, as if nobody had set the clock since this object was made."""
        return (self._offset_ns + time.clock_gettime_ns(_ELAPSED)) // 1_000_000


steady_ms: Final = SteadyClock()
"""The clock of a whole tree: made when its first process imports this module, and inherited by all that it forks. So a
worker that is started while the wall clock is wrong has the same time as those before and after it."""


def steady_ms_at(moment_s: float) -> int:
    """What `steady_ms` said at a moment of the monotonic clock, or a millisecond later: never before that."""
    return steady_ms() - int((monotonic_s() - moment_s) * 1000)


def moment_s_of(at_ms: int) -> float:
    """The moment of the monotonic clock at which `steady_ms` said that; the clocks are those of the whole machine."""
    return monotonic_s() - (steady_ms() - at_ms) / 1000
