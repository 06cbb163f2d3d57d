"""Stage 3, journal: which worker performs an effect: any, but for one that has something open for it, such as a
subscription.

    an outcome names the worker's own task queue -> the next effect of the task goes there -> else to any worker

Rule: those of `workflow`. That worker is asked once: where it is gone, or does not answer in a moment, any other one
performs the effect, with the same key, as it would after a crash.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, CancelledError

from fastrunner.base import limits
from fastrunner.engine.temporal.histories import tell_beginning
from fastrunner.engine.temporal.messages import PERFORM, EffectOrder, EffectOutcome, WalkStart

__all__ = ["EFFECT_RETRY", "Keeping"]

_TIMEOUT: Final = timedelta(seconds=limits.TEMPORAL_EFFECT_S_MAX)
_HEARTBEAT: Final = timedelta(seconds=limits.TEMPORAL_HEARTBEAT_S)
_WAIT: Final = timedelta(seconds=limits.TEMPORAL_KEEPER_S_MAX)
EFFECT_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    maximum_interval=timedelta(seconds=limits.TEMPORAL_EFFECT_RETRY_S_MAX),
)
"""What an effect fails with is its outcome: an attempt fails with its worker alone, so no long pause is any good."""


class Keeping:
    """What workers have open for one execution."""

    def __init__(self, given: WalkStart) -> None:
        self._given = given
        self.queues = dict(given.kept_by)
        """By reference of a task, the task queue of the worker that has something open."""

    async def performed(self, order: EffectOrder, summary: str) -> EffectOutcome:
        """Has an effect performed. Raises ActivityError."""
        tell_beginning(self._given)
        queue = self.queues.pop(order.reference, "")
        told = await self._by_keeper(order, summary, queue) if queue else None
        if told is None:
            told = await workflow.execute_activity(
                PERFORM,
                order,
                result_type=EffectOutcome,
                start_to_close_timeout=_TIMEOUT,
                heartbeat_timeout=_HEARTBEAT,
                retry_policy=EFFECT_RETRY,
                summary=summary,
            )
            if queue:
                told = replace(told, is_again=True)
        if told.kept_by:
            self.queues[order.reference] = told.kept_by
        return told

    async def _by_keeper(self, order: EffectOrder, summary: str, queue: str) -> EffectOutcome | None:
        """None: that worker is gone, or has stopped."""
        try:
            told: EffectOutcome = await workflow.execute_activity(
                PERFORM,
                order,
                result_type=EffectOutcome,
                task_queue=queue,
                schedule_to_start_timeout=_WAIT,
                start_to_close_timeout=_TIMEOUT,
                heartbeat_timeout=_HEARTBEAT,
                retry_policy=RetryPolicy(maximum_attempts=1),
                summary=summary,
            )
        except ActivityError as error:
            if isinstance(error.cause, CancelledError):
                raise
            return None
        return told
