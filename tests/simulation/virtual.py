"""Support: an event loop on a virtual clock. Sleeping costs nothing; reading the clock costs a little virtual time."""

import asyncio
import random
from typing import Any, NoReturn

__all__ = ["Killed", "VirtualLoop", "VirtualTime"]

_READ_COST_NS = 20_000
_EPOCH_NS = 1_700_000_000_000_000_000


class Killed(SystemExit):
    """The process ends here, in the middle of whatever it did. The loop lets it through as it lets SystemExit."""


class VirtualTime:
    """Stands in for the module `time` under `fastrunner.base.clock`."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.wall_step_ns = 0
        """How far the wall clock was set forward or back."""

    def monotonic(self) -> float:
        self.now_ns += _READ_COST_NS
        return self.now_ns / 1e9

    def time_ns(self) -> int:
        self.now_ns += _READ_COST_NS
        return _EPOCH_NS + self.now_ns + self.wall_step_ns

    def clock_gettime_ns(self, clock_id: int) -> int:
        self.now_ns += _READ_COST_NS
        return self.now_ns


class _Selector:
    """Waits for nothing but time."""

    def __init__(self, clock: VirtualTime) -> None:
        self._clock = clock

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits for something that cannot come")
        if timeout > 0:
            self._clock.now_ns += int(timeout * 1e9) + 1
        return []

    def get_map(self) -> dict[Any, Any]:
        return {}


class VirtualLoop(asyncio.base_events.BaseEventLoop):
    """One life of a process. Callbacks run in the order in which they were asked for."""

    def __init__(self, clock: VirtualTime) -> None:
        super().__init__()
        self._virtual_clock = clock
        self._selector = _Selector(clock)
        self.set_exception_handler(lambda loop, context: None)

    def time(self) -> float:
        return self._virtual_clock.now_ns / 1e9

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nothing sleeps in a system call, so nothing has to be woken."""

    def kill_at(self, delay_s: float) -> None:
        """Ends the life after a while."""
        self.call_later(delay_s, _kill)


def _kill() -> NoReturn:
    raise Killed


def delay_s(rng: random.Random, mean_s: float, rare_s: float) -> float:
    """Mostly about `mean_s`, now and then up to `rare_s`."""
    return rng.uniform(0, rare_s) if rng.random() < 0.02 else rng.expovariate(1 / mean_s)
