"""Stage 3, journal: the workflow that is a schedule: keeps how far it has come, and has it looked at when it is time.

    timer, or events of the bus -> an activity looks at it (see `events/schedules/look`) -> how far it is, when next

Theory of operation: what file and leader are on one machine, state and activity are here. An activity looks: moments of
time zones change with the machine that reckons them, and a workflow takes the same way in every replay. What a look
that was cut off has started it is asked for again, by the same ids.

Rules: those of `workflow`. A look that people have overtaken changes nothing. Events are looked at in their order; for
those that have no room the schedule listens anew behind what it has.
"""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from fastrunner.base import limits
from fastrunner.engine.temporal.event_messages import HEAR_SIGNAL, LISTEN, Change, Heard, Registration
from fastrunner.engine.temporal.room import is_long
from fastrunner.engine.temporal.schedule_messages import (
    COME_SO_FAR,
    LOOK,
    SCHEDULE,
    SCHEDULE_SIGNAL,
    ScheduleCommand,
    ScheduleLook,
    ScheduleLooked,
    ScheduleStart,
    plain,
    shown_progress,
)
from fastrunner.events.schedules.planner import Progress, resumed

__all__ = ["ScheduleWorkflow"]

_TIMEOUT: Final = timedelta(seconds=limits.TEMPORAL_EFFECT_S_MAX)
_HEARTBEAT: Final = timedelta(seconds=limits.TEMPORAL_HEARTBEAT_S)
_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(seconds=limits.SCHEDULE_RETRY_INTERVAL_S),
    maximum_interval=timedelta(seconds=limits.SCHEDULE_RETRY_INTERVAL_S),
)
_SUBSCRIPTION: Final = 1


@workflow.defn(name=SCHEDULE, sandboxed=False)
class ScheduleWorkflow:
    """One schedule."""

    @workflow.init
    def __init__(self, given: ScheduleStart) -> None:
        """Goes on with what there was."""
        self._at = given
        self._revision = 0
        """Counts what people have done to it."""
        self._changes: list[Change] = []
        """What the bus is to be told."""
        self._told_ms = 0
        """When it was told for the last time."""
        self._shown: object = None
        self._has_changed = False
        """Whether anything has, since the history began."""
        if given.filter is not None and not given.is_paused:
            # Told again, it is the same; a bus that was begun anew has to be told.
            self._listen()

    @workflow.run
    async def run(self, given: ScheduleStart) -> None:  # noqa: ARG002 - read by `__init__`
        """Fires for ever."""
        while True:
            if self._may_continue():
                is_new = workflow.info().is_target_worker_deployment_version_changed()
                upgrades = workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE if is_new else None
                workflow.continue_as_new(self._at, initial_versioning_behavior=upgrades)
            if self._changes:
                await self._tell()
            elif not self._at.is_paused and (self._at.queue or self._is_due):
                await self._look()
            else:
                await self._rest()

    @property
    def _is_due(self) -> bool:
        return self._at.due_ms <= _now_ms()

    def _may_continue(self) -> bool:
        return self._has_changed and not self._changes and is_long(self._at.history_events_max)

    async def _rest(self) -> None:
        """Until it is time, or something happens."""

        def happens() -> bool:
            return bool(self._changes or (self._at.queue and not self._at.is_paused)) or self._may_continue()

        revision = self._revision
        timeout_s = None if self._at.is_paused else max(self._at.due_ms - _now_ms(), 1) / 1000
        try:
            await workflow.wait_condition(
                lambda: happens() or self._revision != revision, timeout=timeout_s, timeout_summary="the next moment"
            )
        except TimeoutError:
            if self._at.filter is not None and _now_ms() - self._told_ms >= 1000 * limits.TEMPORAL_SCHEDULE_LOOK_S_MAX:
                self._listen()

    async def _look(self) -> None:
        """Has it looked at, unless something happens meanwhile that counts more."""
        self._has_changed = True
        at, revision = self._at, self._revision
        events = at.queue[: limits.SCHEDULE_EVENTS_MAX]
        looking = workflow.start_activity(
            LOOK,
            ScheduleLook(at.progress, at.events_state, at.next_ms, events),
            result_type=ScheduleLooked,
            start_to_close_timeout=_TIMEOUT,
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_RETRY,
            summary=f"{len(events)} events" if events else "what is due",
        )
        await workflow.wait_condition(
            lambda: looking.done() or self._revision != revision or bool(self._at.queue and not events)
        )
        if not looking.done():
            looking.cancel()
            await asyncio.wait({looking})
        if looking.cancelled() or self._revision != revision or isinstance(looking.exception(), ActivityError):
            return
        self._take(looking.result(), len(events))

    def _take(self, looked: ScheduleLooked, events_count: int) -> None:
        queue = self._at.queue[events_count:]
        due_ms = _now_ms() + looked.wait_ms
        self._at = replace(
            self._at,
            progress=looked.progress,
            events_state=looked.events_state,
            next_ms=looked.next_ms,
            due_ms=due_ms,
            queue=queue,
        )
        if self._at.is_behind and not queue:
            self._at = replace(self._at, is_behind=False, generation=self._at.generation + 1)
            self._listen()
        self._show()

    def _show(self) -> None:
        """Tells lists, where there is something new."""
        at = self._at
        progress = Progress.of_json(dict(at.progress))
        shown = shown_progress(progress, at.next_ms, is_paused=at.is_paused, reason=at.reason)
        if shown != self._shown:
            self._shown = shown
            workflow.upsert_memo({COME_SO_FAR: shown})

    # --- the bus ---

    def _listen(self) -> None:
        at = self._at
        self._changes.append(Change(_SUBSCRIPTION, at.filter, at.heard_key, at.generation))

    async def _tell(self) -> None:
        """Has the bus know what it listens for."""
        self._has_changed = True
        changes, self._changes, self._told_ms = self._changes, [], _now_ms()
        await workflow.execute_activity(
            LISTEN,
            Registration(workflow.info().workflow_id, self._at.schedule["namespace"], changes),
            start_to_close_timeout=_TIMEOUT,
            heartbeat_timeout=_HEARTBEAT,
            retry_policy=_RETRY,
            summary="what it listens for",
        )

    @workflow.signal(name=HEAR_SIGNAL)
    def hear(self, heard: Heard) -> None:
        """The bus has events for it; those that it has had change nothing."""
        at = self._at
        if at.is_paused:
            return
        queue = list(at.queue)
        size_bytes = sum(len(text) for _, _, text in queue)
        heard_key, is_behind = at.heard_key, at.is_behind
        for item in heard.events:
            if is_behind or item.key <= heard_key or [_SUBSCRIPTION, at.generation] not in item.subscriptions:
                continue
            if queue and size_bytes > limits.TEMPORAL_INBOX_SIZE_BYTES_MAX:
                is_behind = True
                continue
            heard_key = item.key
            size_bytes += len(item.event)
            queue.append([item.key, item.received_ms, item.event])
        self._at = replace(at, queue=queue, heard_key=heard_key, is_behind=is_behind)

    # --- people ---

    @workflow.signal(name=SCHEDULE_SIGNAL)
    def command(self, given: ScheduleCommand) -> None:
        """Pauses, or resumes one that is paused."""
        at = self._at
        if given.verb == "pause":
            self._revision += 1
            self._at = replace(at, is_paused=True, reason=given.reason, next_ms=0, queue=[], is_behind=False)
            if at.filter is not None:
                self._changes = [Change(_SUBSCRIPTION)]
        elif at.is_paused:
            self._revision += 1
            progress = resumed(Progress.of_json(dict(at.progress)), given.now_ms, given.events_key)
            self._at = replace(
                at,
                progress=plain(progress),
                events_state=None,
                is_paused=False,
                reason="",
                due_ms=0,
                heard_key=max(at.heard_key, given.events_key),
                generation=at.generation + 1,
            )
            if at.filter is not None:
                self._listen()
        self._has_changed = True
        self._show()


def _now_ms() -> int:
    return int(workflow.now().timestamp() * 1000)
