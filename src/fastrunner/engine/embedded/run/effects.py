"""Stage 5, tasks: renders and performs effects for the engine, so many at once, and hands their outcomes back.

Theory of operation: an effect that may start waits in a queue. Passes take from it, a few milliseconds at a time, while
there are places: rendering its arguments takes the loop's time, up to the budgets of several expressions, and a fan-out
starts hundreds of effects after one commit. Costly ones have half of the loop at most.

Rules: an effect is started only when the commit that scheduled it has landed, or at recovery; clients take turns, and
the effects of one keep their order. Its outcome goes to the execution's inbox and nowhere else; arguments that cannot
be rendered are an outcome like any other. An interrupted effect has no outcome. Performers count and time themselves.
What goes on after an outcome keeps its place, and a drain waits for it as for any effect; no command reaches it.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastrunner._core import EffectFailure, EffectResult, PerformEffect, Plan, RenderFault
from fastrunner.base import crash, limits
from fastrunner.base.clock import monotonic_s
from fastrunner.base.crash import CrashPoint, TurnPart
from fastrunner.engine import Authorizer, EffectPerformer, LingeringPerformer
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.run.fairness import FairQueue
from fastrunner.engine.embedded.run.family import RUN_WORKFLOW
from fastrunner.engine.embedded.store.marks import Marks
from fastrunner.engine.failures import shown
from fastrunner.tracing.context import CURRENT, TraceContext

__all__ = ["EffectRunner"]

_log = logging.getLogger(__name__)

_Rendered = Mapping[str, Any] | EffectFailure

Deliver = Callable[[Execution, EffectResult | EffectFailure], None]
StartChild = Callable[
    [Execution, PerformEffect, Mapping[str, Any]], Coroutine[Any, Any, EffectResult | EffectFailure | None]
]


class EffectRunner:
    """The effects of one worker."""

    def __init__(
        self,
        performers: Mapping[str, EffectPerformer],
        deliver: Deliver,
        marks_of: Callable[[Execution], Marks],
        secrets_of: Callable[[Plan], Mapping[str, Any]],
        start_child: StartChild,
        handed_over: Callable[[Execution], None],
        *,
        traces: bool = False,
    ) -> None:
        """`start_child` performs `run: workflow`; where it gives None somebody else answers, and `handed_over` is told
        that nothing is left to do here. `marks_of` gives where an execution is marked while arguments of its effects
        are rendered, `secrets_of` what `$secrets` is then. `traces`: what is called hears where it is in a trace."""
        self._traces = traces
        self._performers = performers
        self._deliver = deliver
        self._marks_of = marks_of
        self._secrets_of = secrets_of
        self._start_child = start_child
        self._handed_over = handed_over
        # In order, so that a drain aborts them in the same order each time.
        self._tasks: dict[asyncio.Task[None], bool] = {}
        """The flag: it has had its outcome, and something of it goes on."""
        self._queue: FairQueue[tuple[Execution, int]] = FairQueue()
        self._pass_planned = False
        self._stopped = False

    @property
    def waiting_count(self) -> int:
        """Effects that wait for others to end."""
        return max(0, len(self._queue) - self._places)

    @property
    def _places(self) -> int:
        return limits.EFFECTS_IN_FLIGHT_PER_WORKER_MAX - len(self._tasks)

    def withdraw(self, execution: Execution) -> bool:
        """Takes back effects that have just been asked for and found no place; False, and nothing done, if others of
        the execution are under way or could start."""
        unstarted = execution.effects_unstarted
        if execution.tasks or self.waiting_count < len(unstarted):
            return False
        return self._queue.take_back(execution.client, [(execution, effect_id) for effect_id in unstarted])

    def start(self, execution: Execution, effect_id: int) -> None:
        """Performs an effect of `execution.effects_unstarted` as soon as it is its turn and a place is free."""
        if not self._stopped:
            self._queue.push(execution.client, (execution, effect_id))
            self._plan_pass()

    def _plan_pass(self, rest_s: float = 0.0) -> None:
        if self._queue and self._places > 0 and not self._pass_planned:
            self._pass_planned = True
            asyncio.get_running_loop().call_later(rest_s, self._pass)

    def _pass(self) -> None:
        self._pass_planned = False
        now_s = monotonic_s()
        end_s = now_s + limits.ENGINE_PASS_MS / 1000
        while self._queue and self._places > 0 and now_s < end_s:
            self._begin(*self._queue.pop())
            now_s = monotonic_s()
        # What costly arguments took beyond the time of a pass, others have next.
        self._plan_pass(max(0.0, now_s - end_s))

    def _begin(self, execution: Execution, effect_id: int) -> None:
        effect = execution.effects_unstarted.pop(effect_id, None)
        if effect is None:
            return
        crash.reach(CrashPoint.BEFORE_EFFECT_START)
        performing = self._perform(execution, effect, *self._rendered(execution, effect, None))
        task = asyncio.get_running_loop().create_task(performing)
        crash.reach_soon(CrashPoint.AFTER_EFFECT_START)
        execution.performs(effect_id, task)
        self._tasks[task] = False
        task.add_done_callback(self._ended)

    def interrupt(self, execution: Execution, effect_id: int) -> None:
        """Aborts an effect, wherever it is; unknown ones are over."""
        execution.effects_unstarted.pop(effect_id, None)
        task = execution.tasks.pop(effect_id, None)
        if task is not None:
            task.cancel()

    def _rendered(
        self, execution: Execution, effect: PerformEffect, authorization: Mapping[str, Any] | None
    ) -> tuple[_Rendered, bool]:
        """The arguments of an effect, or what it fails with for want of them. The flag: it is only the policy, because
        the others ask for what that resolves to."""
        assert execution.walk is not None
        plan = execution.walk.plan
        marks = self._marks_of(execution)
        marks.begin(execution.execution_key, monotonic_s())
        try:
            if crash.blows:
                crash.strike(TurnPart.RENDER, execution.execution_id)
            secrets = self._secrets_of(plan)
            policy = plan.render_policy(effect.capsule, secrets) if authorization is None else None
            if policy is not None:
                return policy, True
            return plan.render(effect.capsule, secrets, authorization), False
        except RenderFault as fault:
            return EffectFailure.whole(effect.effect_id, fault.error), False
        except Exception:
            return _internal_error(execution, effect), False
        finally:
            marks.end()

    async def _perform(self, execution: Execution, effect: PerformEffect, rendered: _Rendered, is_policy: bool) -> None:
        outcome: EffectResult | EffectFailure | None
        if self._traces:
            # Of this task alone, and whatever the one that began it had.
            trace = execution.trace
            CURRENT.set(TraceContext.unsampled() if trace is None else trace.place_of(effect.effect_id))
        try:
            outcome = await self._outcome(execution, effect, rendered, is_policy)
        except Exception:
            # Performers answer for the remote side; what escapes one is our own fault.
            outcome = _internal_error(execution, effect)
        if isinstance(outcome, EffectFailure):
            outcome = shown(outcome)
        crash.reach(CrashPoint.BEFORE_EFFECT_END)
        if execution.tasks.pop(effect.effect_id, None) is None:
            pass
        elif outcome is None:
            self._handed_over(execution)
        else:
            self._deliver(execution, outcome)
        crash.reach(CrashPoint.AFTER_EFFECT_END)
        await self._linger(execution, effect)

    async def _linger(self, execution: Execution, effect: PerformEffect) -> None:
        performer = self._performers.get(effect.kind)
        task = asyncio.current_task()
        if isinstance(performer, LingeringPerformer) and task is not None:
            self._tasks[task] = True
            try:
                await performer.linger(effect)
            except Exception:
                _internal_error(execution, effect)

    async def _outcome(
        self, execution: Execution, effect: PerformEffect, rendered: _Rendered, is_policy: bool
    ) -> EffectResult | EffectFailure | None:
        if isinstance(rendered, EffectFailure):
            return rendered
        if effect.kind == RUN_WORKFLOW:
            return await self._start_child(execution, effect, rendered)
        performer = self._performers[effect.kind]
        if is_policy and isinstance(performer, Authorizer):
            authorization = await performer.authorize(effect, rendered["authentication"])
            if isinstance(authorization, EffectFailure):
                return authorization
            rendered, _ = self._rendered(execution, effect, authorization)
        return rendered if isinstance(rendered, EffectFailure) else await performer.perform(effect, rendered)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._tasks[task]
        self._plan_pass()

    def stop(self) -> None:
        """Starts nothing more; what has not started is performed after the next start of the runner."""
        self._stopped = True
        self._queue = FairQueue()

    async def drain(self, timeout_s: float) -> int:
        """Waits for effects in flight, then aborts the rest; how many of those had no outcome."""
        if self._tasks and timeout_s > 0:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        aborted = list(self._tasks)
        without_outcome = sum(not had for had in self._tasks.values())
        for task in aborted:
            task.cancel()
        await asyncio.gather(*aborted, return_exceptions=True)
        return without_outcome


def _internal_error(execution: Execution, effect: PerformEffect) -> EffectFailure:
    """Call inside an exception handler: the runner failed on an effect. The workflow must hear of it."""
    _log.exception("effect %s failed inside the runner", effect.kind, extra={"execution_id": execution.execution_id})
    return EffectFailure(effect.effect_id, "runtime", 500, "Internal error", f"{effect.kind} failed in the runner")
