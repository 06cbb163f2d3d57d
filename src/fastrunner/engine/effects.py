"""Stage 5, tasks: performs effects for the engine, so many at once, and hands their outcomes back.

Rules: an effect is started only when the commit that scheduled it has landed, or at recovery; its outcome goes to the
execution's inbox and nowhere else; an interrupted effect has no outcome. Performers count and time themselves.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping

from fastrunner import crash, limits
from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.crash import CrashPoint
from fastrunner.engine import EffectPerformer
from fastrunner.engine.execution import Execution

__all__ = ["EffectRunner"]

_log = logging.getLogger(__name__)

Deliver = Callable[[Execution, EffectResult | EffectFailure], None]


class EffectRunner:
    """The effects of one worker."""

    def __init__(self, performers: Mapping[str, EffectPerformer], deliver: Deliver) -> None:
        self._performers = performers
        self._deliver = deliver
        # In order, so that a drain aborts them in the same order each time.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._waiting: deque[tuple[Execution, int]] = deque()
        self._stopped = False

    @property
    def full(self) -> bool:
        """Whether an effect that starts now would have to wait for a place."""
        return len(self._tasks) >= limits.EFFECTS_IN_FLIGHT_PER_WORKER_MAX

    @property
    def waiting_count(self) -> int:
        """Effects that wait for a place."""
        return len(self._waiting)

    def withdraw(self, execution: Execution) -> bool:
        """Takes back effects that have just been asked for and found no place; False, and nothing done, if others of
        the execution are under way."""
        count = len(execution.effects_unstarted)
        if execution.tasks or len(self._waiting) < count:
            return False
        if any(self._waiting[-1 - index][0] is not execution for index in range(count)):
            return False
        for _ in range(count):
            self._waiting.pop()
        return True

    def start(self, execution: Execution, effect_id: int) -> None:
        """Performs an effect of `execution.effects_unstarted`, at once or when a place is free."""
        if self._stopped:
            return
        if self.full:
            self._waiting.append((execution, effect_id))
            return
        effect = execution.effects_unstarted.pop(effect_id, None)
        if effect is None:
            return
        loop = asyncio.get_running_loop()
        crash.reach(CrashPoint.BEFORE_EFFECT_START)
        task = loop.create_task(self._perform(execution, effect))
        crash.reach_soon(CrashPoint.AFTER_EFFECT_START, loop.call_later)
        execution.tasks[effect_id] = task
        self._tasks[task] = None
        task.add_done_callback(self._ended)

    def interrupt(self, execution: Execution, effect_id: int) -> None:
        """Aborts an effect, wherever it is; unknown ones are over."""
        execution.effects_unstarted.pop(effect_id, None)
        task = execution.tasks.pop(effect_id, None)
        if task is not None:
            task.cancel()

    async def _perform(self, execution: Execution, effect: PerformEffect) -> None:
        outcome: EffectResult | EffectFailure
        try:
            performer = self._performers[effect.kind]
            outcome = await performer.perform(effect)
        except Exception:
            # Performers answer for the remote side; what escapes one is our own fault. The workflow must hear of it.
            _log.exception(
                "effect %s failed inside the runner", effect.kind, extra={"execution_id": execution.execution_id}
            )
            outcome = EffectFailure(
                effect.effect_id, "runtime", 500, "Internal error", f"{effect.kind} failed in the runner"
            )
        crash.reach(CrashPoint.BEFORE_EFFECT_END)
        if execution.tasks.pop(effect.effect_id, None) is not None:
            self._deliver(execution, outcome)
        crash.reach(CrashPoint.AFTER_EFFECT_END)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._tasks[task]
        while self._waiting and not self._stopped and not self.full:
            self.start(*self._waiting.popleft())

    def stop(self) -> None:
        """Starts nothing more; what has not started is performed after the next start of the runner."""
        self._stopped = True
        self._waiting.clear()

    async def drain(self, timeout_s: float) -> int:
        """Waits for effects in flight, then aborts the rest; how many it aborted."""
        if self._tasks and timeout_s > 0:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        aborted = list(self._tasks)
        for task in aborted:
            task.cancel()
        await asyncio.gather(*aborted, return_exceptions=True)
        return len(aborted)
