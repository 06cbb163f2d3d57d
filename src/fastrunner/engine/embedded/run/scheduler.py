"""Stage 4, walk: who takes the next turn. One ready queue and one heap of timers per worker.

Rules:
- A pass gives turns for a bounded time, then lets the loop serve others; passes follow one another while there is work.
- New executions and running ones take turns alternately, each in the order of `fairness.py`: neither a burst of
  requests nor a crowd of endless loops starves the other, nor one client another.
- Timers are wall clock deadlines, because they must mean the same after a restart; the sleep towards one is short
  enough to notice that the clock was stepped. The heap holds at most one live entry per execution: an entry whose time
  is not the execution's `timer_ms` is dead, a deadline that moved later is looked up when the earlier one
  comes, and the heap is rebuilt when most of it is dead.
"""

import asyncio
from collections.abc import Callable

from fastrunner._core import TimerDue, TimerHeap
from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.run.fairness import Allowance, FairQueue

__all__ = ["Scheduler"]


class Scheduler:
    """Turns and timers of one worker's executions."""

    def __init__(self, take_turn: Callable[[Execution], None], wall_ms: Callable[[], int]) -> None:
        self._take_turn = take_turn
        self._wall_ms = wall_ms
        self._new: FairQueue[Execution] = FairQueue()
        self._ready: FairQueue[Execution] = FairQueue()
        self._allowance = Allowance()
        self._resting: dict[Execution, None] = {}
        """Long executions that wait for the allowance, in order."""
        self._rest_handle: asyncio.TimerHandle | None = None
        self._pass_planned = False
        self._timers = TimerHeap()
        self._timers_dead_count = 0
        self._timer_handle: asyncio.TimerHandle | None = None
        self._stopped = False
        self.pass_began_s = 0.0
        """When the pass began whose turns are being taken, on the monotonic clock: they began within milliseconds."""
        self.held = False
        """While set, outcomes and commands are handed in, but no walk is driven on for its own sake."""

    @property
    def busy(self) -> bool:
        """Whether turns are waiting to be taken."""
        return self._pass_planned

    def enqueue(self, execution: Execution) -> None:
        """Gives the execution its turns, unless it is queued already or has nothing to do."""
        if execution.queued or not self._has_turn(execution) or self._rests(execution):
            return
        execution.queued = True
        (self._new if execution.start is not None else self._ready).push(execution.client, execution)
        self._plan_pass()

    def enter(self, execution: Execution) -> None:
        """Gives a new execution its first turn."""
        execution.queued = True
        self._new.push(execution.client, execution)
        self._plan_pass()

    def _plan_pass(self) -> None:
        if not self._pass_planned:
            self._pass_planned = True
            asyncio.get_running_loop().call_soon(self._pass)

    def _has_turn(self, execution: Execution) -> bool:
        if self._stopped or self.held:
            return not execution.broken and (bool(execution.inbox) or execution.start is not None)
        return execution.runnable

    def _pass(self) -> None:
        self.pass_began_s = monotonic_s()
        end_s = self.pass_began_s + limits.ENGINE_PASS_MS / 1000
        new, ready = self._new, self._ready
        turn_of_new = True
        while new or ready:
            queue = new if new and (turn_of_new or not ready) else ready
            turn_of_new = not turn_of_new
            execution = queue.pop()
            execution.queued = False
            if self._has_turn(execution) and not self._rests(execution):
                told_size_bytes = execution.events_told_size_bytes
                self._take_turn(execution)
                if execution.is_long:
                    self._allowance.spend(execution.events_told_size_bytes - told_size_bytes)
                self.arm(execution)
                if (execution.more or execution.inbox) and self._has_turn(execution) and not self._rests(execution):
                    execution.queued = True
                    ready.push(execution.client, execution)
            if monotonic_s() >= end_s:
                break
        self._pass_planned = bool(new or ready)
        if self._pass_planned:
            asyncio.get_running_loop().call_soon(self._pass)

    # --- long executions ---

    def _rests(self, execution: Execution) -> bool:
        """Whether a long execution has to wait for the allowance; commands and outcomes never do."""
        if not execution.is_long or execution.inbox:
            return False
        wait_s = self._allowance.wait_s()
        if not wait_s:
            self._resting.pop(execution, None)
            return False
        self._resting.setdefault(execution)
        if self._rest_handle is None:
            self._rest_handle = asyncio.get_running_loop().call_later(wait_s, self._end_rest)
        return True

    def _end_rest(self) -> None:
        """Lets the first that can go on, and looks again after its slice."""
        self._rest_handle = None
        wait_s = self._allowance.wait_s()
        while self._resting and not wait_s:
            execution = next(iter(self._resting))
            del self._resting[execution]
            self.enqueue(execution)
            if execution.queued:
                wait_s = limits.ENGINE_PASS_MS / 1000
        if self._resting:
            self._rest_handle = asyncio.get_running_loop().call_later(wait_s, self._end_rest)

    # --- timers ---

    def arm(self, execution: Execution) -> None:
        """Makes sure that a timer comes no later than the walk's deadline."""
        walk = execution.walk
        if walk is None or execution.finished_ms or walk.wake_at_ms <= 0 or execution.broken:
            return
        if execution.timer_ms and execution.timer_ms <= walk.wake_at_ms:
            return
        self._forget(execution)
        # The walk makes a new int each time it is asked.
        due_ms = execution.timer_ms = walk.wake_at_ms
        self._timers.push(due_ms, execution)
        if self._timers.first is execution:
            self._sleep()

    def _sleep(self) -> None:
        if self._timer_handle is not None:
            self._timer_handle.cancel()
            self._timer_handle = None
        if self._timers and not self._stopped:
            delay_s = max(0, self._timers.first_ms - self._wall_ms()) / 1000
            delay_s = min(delay_s, limits.TIMER_RECHECK_S_MAX)
            self._timer_handle = asyncio.get_running_loop().call_later(delay_s, self._wake)

    def _wake(self) -> None:
        """Delivers the timers that are due; the turns they cause are taken in ordinary passes."""
        self._timer_handle = None
        now_ms = self._wall_ms()
        while self._timers and self._timers.first_ms <= now_ms:
            execution: Execution
            due_ms, execution = self._timers.pop()
            walk = execution.walk
            if due_ms != execution.timer_ms or walk is None:
                self._timers_dead_count -= 1
                continue
            execution.timer_ms = 0
            if walk.wake_at_ms > now_ms:
                self.arm(execution)
            elif walk.wake_at_ms > 0:
                execution.deliver(TimerDue())
                self.enqueue(execution)
        self._sleep()

    def disarm(self, execution: Execution) -> None:
        """The execution has ended: its entry must not hold it in memory until a deadline hours away."""
        if self._resting:
            self._resting.pop(execution, None)
        self._forget(execution)
        if self._timers_dead_count > limits.TIMERS_DEAD_MAX and self._timers_dead_count > len(self._timers) // 2:
            self._timers.retain(lambda due_ms, execution: due_ms == execution.timer_ms)
            self._timers_dead_count = 0

    def _forget(self, execution: Execution) -> None:
        if execution.timer_ms:
            execution.timer_ms = 0
            self._timers_dead_count += 1

    def stop(self) -> None:
        """Drives no walk on and wakes none; outcomes that arrive are still handed in."""
        self._stopped = True
        self._sleep()
        if self._rest_handle is not None:
            self._rest_handle.cancel()
        self._resting.clear()
