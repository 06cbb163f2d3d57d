"""Support: an event loop on a virtual clock, and processes on it that can be killed one by one.

Sleeping costs nothing; reading the clock costs a little virtual time. What a process asks the loop for belongs to it,
and does not happen once it is dead.
"""

import asyncio
import random
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, NoReturn, TypeVar, TypeVarTuple

__all__ = ["Killed", "Process", "VirtualLoop", "VirtualTime", "delay_s"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_READ_COST_NS = 20_000
_EPOCH_NS = 1_700_000_000_000_000_000


class Killed(SystemExit):
    """The process ends here, in the middle of whatever it did. The loop lets it through as it lets SystemExit."""


class Process:
    """A process of the simulated machine, which shares the loop with others."""

    def __init__(self, number: int) -> None:
        self.number = number
        """Tells it from its predecessors and successors, too."""
        self.dead = False
        """Once set, nothing of it goes on, wherever it was."""
        self._context = Context()
        self._context.run(_process.set, self)

    def run(self, function: Callable[..., _T], *args: Any) -> _T:
        """Calls a function as this process: what it asks the loop for belongs to it."""
        return self._context.copy().run(function, *args)

    @staticmethod
    def run_outside(function: Callable[..., _T], *args: Any) -> _T:
        """Calls a function as no process: what it asks the loop for happens whoever dies."""
        return Context().run(function, *args)

    @staticmethod
    def number_of_this() -> int:
        """The number of the process that calls; 0 outside all of them."""
        process = _process.get()
        return 0 if process is None else process.number


_process: ContextVar[Process | None] = ContextVar("process", default=None)


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
        self._withheld: list[Callable[[], object]] | None = []
        """What the dead would have done; None once they are being buried."""
        self.set_exception_handler(lambda loop, context: None)

    def time(self) -> float:
        return self._virtual_clock.now_ns / 1e9

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nothing sleeps in a system call, so nothing has to be woken."""

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        process = _process.get() if context is None else context.get(_process)
        if process is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(self._step, process, callback, args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        process = _process.get() if context is None else context.get(_process)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, self._step, process, callback, args, context=context)

    def _step(self, process: Process, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        if not process.dead or self._withheld is None:
            callback(*args)
        else:
            self._withheld.append(partial(super().call_soon, callback, *args, context=copy_context()))

    def raise_the_dead(self) -> None:
        """From now on they go on as if they were alive, so that what they have left can be tidied away."""
        withheld, self._withheld = self._withheld, None
        for go_on in withheld or ():
            go_on()

    def kill_at(self, delay_s: float) -> None:
        """Ends the life after a while."""
        self.call_later(delay_s, _kill)


def _kill() -> NoReturn:
    raise Killed


def delay_s(rng: random.Random, mean_s: float, rare_s: float) -> float:
    """Mostly about `mean_s`, now and then up to `rare_s`."""
    return rng.uniform(0, rare_s) if rng.random() < 0.02 else rng.expovariate(1 / mean_s)
