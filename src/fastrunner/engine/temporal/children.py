"""Stage 3, journal: executions that an execution starts by `run: workflow`, as child workflows.

Rules: a child's id follows from its parent's and the effect's number. What the registry says is found by an activity,
so that a replay finds the same. A child that nobody waits for any more is told so by a signal, and never dropped: its
events and its end are its own. What a child is told it is told in order, one signal after the other; one that begins
while its parent is paused or being cancelled is told that first.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError, ChildWorkflowError, FailureError, WorkflowAlreadyStartedError

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import limits
from fastrunner.engine.embedded.run.family import CANCEL, KILL, PAUSE, child_id_of
from fastrunner.engine.subflow_outcomes import cancelled, id_taken, too_deep
from fastrunner.engine.temporal.beside import Beside
from fastrunner.engine.temporal.counting import WalkCounts, count
from fastrunner.engine.temporal.keeping import EFFECT_RETRY
from fastrunner.engine.temporal.messages import (
    FAMILY_SIGNAL,
    OUTPUT_TOO_LARGE,
    PREPARE,
    WALK,
    EffectOrder,
    Prepared,
    WalkStart,
    outcome_of,
)
from fastrunner.engine.temporal.messages import EffectOutcome as Told
from fastrunner.engine.temporal.room import Room
from fastrunner.engine.temporal.tracing import tell_accepted

__all__ = ["Children"]

_TIMEOUT: Final = timedelta(seconds=limits.TEMPORAL_EFFECT_S_MAX)
_HEARTBEAT: Final = timedelta(seconds=limits.TEMPORAL_HEARTBEAT_S)

Outcome = EffectResult | EffectFailure


class Children:
    """The children of one execution."""

    def __init__(self, given: WalkStart, execution_id: str, room: Room, beside: Beside) -> None:
        """`room` is what the workflow's tasks have for what is sent; `beside` does what nobody waits for."""
        self._beside = beside
        self._given = given
        self._room = room
        self._execution_id = execution_id
        self._handles: dict[int, workflow.ChildWorkflowHandle[Any, Any] | None] = {}
        """Those that effects wait for; None: not started yet."""
        self._given_up: set[int] = set()
        self._told: dict[int, asyncio.Task[None]] = {}
        """The latest signal to each, by effect."""
        self._is_cancelling = False
        self.telling: set[asyncio.Task[None]] = set()
        """Signals under way."""

    async def perform(self, effect: PerformEffect, order: EffectOrder, is_paused: Callable[[], bool]) -> Outcome:
        """Starts a child, and waits for its end if the document does; `is_paused` tells whether its parent is."""
        self._handles[effect.effect_id] = None
        try:
            return await self._perform(effect, order, is_paused)
        finally:
            self._handles.pop(effect.effect_id, None)
            self._told.pop(effect.effect_id, None)

    async def _perform(self, effect: PerformEffect, order: EffectOrder, is_paused: Callable[[], bool]) -> Outcome:
        if self._given.depth + 1 > limits.SUBFLOW_DEPTH_MAX:
            return too_deep(effect.effect_id)
        await self._room.take(len(order.capsule))
        prepared: Prepared = await workflow.execute_activity(
            PREPARE,
            args=[order, self._given.depth + 1],
            result_type=Prepared,
            start_to_close_timeout=_TIMEOUT,
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=EFFECT_RETRY,
            summary=f"{effect.kind} {effect.reference}",
        )
        if prepared.start is None:
            return outcome_of(effect.effect_id, Told(failure=prepared.failure))
        child_id = child_id_of(self._execution_id, effect.effect_id)
        await self._room.take(prepared.start.size_bytes)
        if effect.effect_id in self._given_up:
            return cancelled(effect.effect_id, child_id)
        pairs = [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
            for name, value in prepared.attributes.items()
        ]
        policy = workflow.ParentClosePolicy
        try:
            handle = await workflow.start_child_workflow(
                WALK,
                prepared.start,
                id=child_id,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                parent_close_policy=policy.REQUEST_CANCEL if prepared.awaits_end else policy.ABANDON,
                cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
                memo=prepared.memo,
                search_attributes=TypedSearchAttributes(pairs),
                static_summary=effect.reference,
            )
        except WorkflowAlreadyStartedError:
            return id_taken(effect.effect_id, child_id)
        count(WalkCounts.accepted)
        tell_accepted(prepared.start.trace, child_id)
        if not prepared.awaits_end:
            return EffectResult(effect.effect_id, None)
        self._handles[effect.effect_id] = handle
        if effect.effect_id in self._given_up:
            self._tell(effect.effect_id, handle, KILL)
        elif self._is_cancelling:
            self._tell(effect.effect_id, handle, CANCEL)
        elif is_paused():
            self._tell(effect.effect_id, handle, PAUSE)
        return await _end(effect.effect_id, child_id, handle)

    def give_up(self, effect_id: int) -> bool:
        """Nobody waits for a child any more; False if the effect is none."""
        if effect_id not in self._handles:
            return False
        self._given_up.add(effect_id)
        handle = self._handles[effect_id]
        if handle is not None:
            self._tell(effect_id, handle, KILL)
        return True

    def hand_down(self, order: str) -> None:
        """The execution itself has been told something."""
        self._is_cancelling = self._is_cancelling or order == CANCEL
        for effect_id, handle in self._handles.items():
            if handle is not None and effect_id not in self._given_up:
                self._tell(effect_id, handle, order)

    def _tell(self, effect_id: int, handle: "workflow.ChildWorkflowHandle[Any, Any]", order: str) -> None:
        task = self._beside.begin(_signal(self._told.get(effect_id), handle, order))
        self._told[effect_id] = task
        self.telling.add(task)
        task.add_done_callback(self.telling.discard)


async def _signal(
    before: "asyncio.Task[None] | None", handle: "workflow.ChildWorkflowHandle[Any, Any]", order: str
) -> None:
    """Temporal keeps no order among signals under way to another workflow."""
    if before is not None:
        await before
    try:
        await handle.signal(FAMILY_SIGNAL, order)
    except FailureError:
        # It has ended meanwhile.
        return


async def _end(effect_id: int, child_id: str, handle: "workflow.ChildWorkflowHandle[Any, Any]") -> Outcome:
    try:
        return EffectResult(effect_id, await handle)
    except ChildWorkflowError as error:
        cause = error.cause
        if isinstance(cause, ApplicationError) and cause.type == "failed":
            return EffectFailure.whole(effect_id, dict(cause.details[0]))
        if isinstance(cause, ApplicationError) and cause.type == OUTPUT_TOO_LARGE:
            return EffectFailure(
                effect_id, "runtime", 0, "Output Too Large", f"execution {child_id!r}: {cause.message}"
            )
        return cancelled(effect_id, child_id)
