"""Support: runs one execution without an engine: the real core, real performers, nothing durable.

The loop is what every driver does: perform actions, hand outcomes back, wake the walk at its deadline, give it more
steps. Time is skipped while only a timer is awaited, so waits and retries cost tests nothing.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastrunner._core import (
    EffectFailure,
    EffectResult,
    InterruptEffect,
    MoreSteps,
    PerformEffect,
    Plan,
    RenderFault,
    TimerDue,
    Turn,
    Walk,
)
from fastrunner._core import compile as compile_document
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ReportProgressBatchRequest,
    WorkflowProgressEvent,
)
from fastrunner.base import clock
from fastrunner.engine import EffectPerformer

__all__ = ["Execution", "run"]

_ENDED = frozenset({"completed", "failed", "cancelled"})


@dataclass
class Execution:
    """How an execution ended, and every event on the way."""

    status: str
    output: Any = None
    error: Mapping[str, Any] | None = None
    events: list[WorkflowProgressEvent] = field(default_factory=list)

    @property
    def tasks_started(self) -> list[str]:
        """Names of the tasks in the order they started; skipped ones are not among them."""
        return [event.task_name for event in self.events if event.event_type == "task_started"]


async def run(
    document: str | bytes,
    input: Any,
    performers: Mapping[str, EffectPerformer],
    *,
    execution_id: str = "test-execution",
    env: Mapping[str, str] | None = None,
    restoring: bool = False,
    secrets: Mapping[str, Any] | None = None,
) -> Execution:
    """Runs a document to its end. `restoring` replaces the walk by one restored from its snapshot after every turn."""
    driver = _Driver(compile_document(document), execution_id, input, performers, env or {}, restoring, secrets)
    try:
        return await driver.run()
    finally:
        await driver.close()


class _Driver:
    def __init__(
        self,
        plan: Plan,
        execution_id: str,
        input_: Any,
        performers: Mapping[str, EffectPerformer],
        env: Mapping[str, str],
        restoring: bool,
        secrets: Mapping[str, Any] | None,
    ) -> None:
        self._plan = plan
        self._execution_id = execution_id
        self._input = input_
        self._performers = performers
        self._env = env
        self._restoring = restoring
        self._secrets = secrets
        self._effects: dict[int, asyncio.Task[EffectResult | EffectFailure]] = {}
        self._interrupted: list[asyncio.Task[EffectResult | EffectFailure]] = []
        self._events: list[WorkflowProgressEvent] = []
        self._skipped_ms = 0

    async def run(self) -> Execution:
        walk, turn = Walk.start(
            self._plan, self._execution_id, self._input, self._now_ms(), env=self._env, secrets=self._secrets
        )
        while True:
            walk = self._took(walk, turn)
            if walk.status in _ENDED:
                return Execution(walk.status, walk.output, walk.error, self._events)
            turn = walk.resume(MoreSteps() if turn.more else await self._outcome(walk), self._now_ms())

    async def close(self) -> None:
        """Ends effects whose outcome nobody wants any more."""
        leftovers = [*self._effects.values(), *self._interrupted]
        for task in leftovers:
            task.cancel()
        await asyncio.gather(*leftovers, return_exceptions=True)

    def _now_ms(self) -> int:
        return clock.wall_ms() + self._skipped_ms

    def _took(self, walk: Walk, turn: Turn) -> Walk:
        """Does what the turn asks for, and gives the walk to go on with."""
        events = ReportProgressBatchRequest.FromString(turn.events).events
        assert [event.sequence_number for event in events] == list(
            range(turn.first_sequence, turn.last_sequence + 1) if events else ()
        )
        self._events.extend(events)
        for action in turn.actions:
            if isinstance(action, PerformEffect):
                self._effects[action.effect_id] = asyncio.ensure_future(self._perform(action))
            else:
                assert isinstance(action, InterruptEffect)
                task = self._effects.pop(action.effect_id)
                task.cancel()
                self._interrupted.append(task)
        if not self._restoring or walk.status in _ENDED:
            return walk
        return Walk.restore(
            self._plan, self._execution_id, self._input, walk.snapshot(), env=self._env, secrets=self._secrets
        )

    async def _perform(self, effect: PerformEffect) -> EffectResult | EffectFailure:
        try:
            arguments = self._plan.render(effect.capsule, self._secrets)
        except RenderFault as fault:
            return EffectFailure.whole(effect.effect_id, fault.error)
        return await self._performers[effect.kind].perform(effect, arguments)

    async def _outcome(self, walk: Walk) -> EffectResult | EffectFailure | TimerDue:
        wake_at_ms = walk.wake_at_ms
        if not self._effects:
            assert wake_at_ms, "the walk waits for nothing"
            self._skipped_ms += max(0, wake_at_ms - self._now_ms())
            return TimerDue()
        timeout_s = max(0, wake_at_ms - self._now_ms()) / 1000 if wake_at_ms else None
        done, _ = await asyncio.wait(self._effects.values(), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for effect_id, task in self._effects.items():
            if task in done:
                del self._effects[effect_id]
                return task.result()
        return TimerDue()
