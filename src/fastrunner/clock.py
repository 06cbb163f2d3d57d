"""Support: the one place that reads clocks.

Wall time is for what survives a restart (deadlines, event timestamps); monotonic time is for durations within a run.
"""

import time


def wall_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def monotonic_s() -> float:
    """Seconds on a clock that never steps."""
    return time.monotonic()
