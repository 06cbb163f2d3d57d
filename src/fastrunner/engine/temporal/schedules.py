"""Stage 3, journal: a worker's door to the schedules that Temporal keeps, and the activity that looks at one.

    AddSchedule -> a workflow is started -> durable -> reply; commands -> signals; lists -> memos, by visibility
    the workflow -> `look` on any worker -> the runner's own call, on behalf of whoever has added it -> an execution

Rules: what people ask for is durable without a worker, and lists show it a moment later. Executions are started by the
call that clients have, so they are refused as any are, and the id that is there already starts nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from heapq import nsmallest
from typing import Any, Final

import orjson
from temporalio import activity
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from fastrunner.base import clock, limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.schedules import Backfilled, Schedule, ScheduleView
from fastrunner.engine.temporal.activities import beating
from fastrunner.engine.temporal.client import Connection, unavailable
from fastrunner.engine.temporal.event_messages import Registration
from fastrunner.engine.temporal.events import TemporalEvents
from fastrunner.engine.temporal.histories import Beginnings
from fastrunner.engine.temporal.schedule_messages import (
    LOOK,
    SCHEDULE,
    SCHEDULE_SIGNAL,
    WHAT_IT_IS,
    ScheduleCommand,
    ScheduleLook,
    ScheduleLooked,
    ScheduleStart,
    memo_of,
    plain,
    schedule_id_of,
    schedule_of,
    values_of,
    view_of,
)
from fastrunner.engine.temporal.starts import ATTRIBUTES
from fastrunner.engine.temporal.visibility import ANSWER, open_of, quoted
from fastrunner.errors import AtCapacity, RunnerError, ScheduleExists, TooLarge, UnknownSchedule
from fastrunner.events.file import StoredEvent
from fastrunner.events.schedules import planner
from fastrunner.events.schedules.calls import Call, Executions
from fastrunner.events.schedules.checks import check_schedule
from fastrunner.events.schedules.look import Looker, NotNow
from fastrunner.events.schedules.occasions import strategy_of, taken
from fastrunner.events.schedules.planner import Progress
from fastrunner.events.schedules.rows import Note, Row

__all__ = ["ScheduleLooks", "TemporalSchedules"]

_WAIT_MS_MAX: Final = int(1000 * limits.TEMPORAL_SCHEDULE_LOOK_S_MAX)


class TemporalSchedules:
    """The schedules of a task queue, as one worker has them; see ScheduleBook."""

    def __init__(
        self,
        connection: Connection,
        door: TemporalEvents,
        task_queue: str,
        call: Call,
        metrics: Metrics,
        history_events_max: int = limits.TEMPORAL_HISTORY_EVENTS_MAX,
    ) -> None:
        """`door` knows the bus; `call` calls the runner."""
        self._connection = connection
        self._door = door
        self._task_queue = task_queue
        self._history_events_max = history_events_max
        self._executions = Executions(call)
        self._starts = Beginnings(connection, ScheduleStart)
        self.looks = ScheduleLooks(self._starts, self._executions, metrics)
        """Does what the schedules' workflows ask for."""

    @property
    def _client(self) -> Client:
        return self._connection.client

    async def add(self, schedule: Schedule, digest: bytes) -> tuple[ScheduleView, bool]:
        """See ScheduleBook. Raises TooLarge, Unavailable."""
        check_schedule(schedule)
        await self._check_room()
        wanted, events_key = None, 0
        if schedule.trigger.on is not None:
            wanted, events_key = strategy_of(schedule.trigger).filter(None), await self._latest_event(schedule)
        progress = planner.begun(schedule, events_key)
        start = ScheduleStart(
            values_of(schedule),
            plain(progress),
            wanted,
            heard_key=events_key,
            # Of a schedule that had the id before nothing is heard.
            generation=schedule.added_ms,
            history_events_max=self._history_events_max,
        )
        words = zip(ATTRIBUTES, (schedule.namespace, schedule.name, schedule.version), strict=False)
        pairs: list[SearchAttributePair[Any]] = [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), value) for name, value in words if value
        ]
        try:
            await self._client.start_workflow(
                SCHEDULE,
                start,
                id=schedule_id_of(self._task_queue, schedule.schedule_id),
                task_queue=self._task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                memo=memo_of(schedule, digest, start),
                search_attributes=TypedSearchAttributes(pairs),
                static_summary=f"{schedule.namespace}/{schedule.name}",
                rpc_timeout=ANSWER,
            )
        except WorkflowAlreadyStartedError:
            view, known = await self._found(schedule.schedule_id)
            if known != digest.hex():
                raise ScheduleExists(schedule.schedule_id) from None
            return view, False
        except RPCError as error:
            if error.status is RPCStatusCode.INVALID_ARGUMENT:
                raise TooLarge(f"Temporal has no room for the schedule: {error.message}") from None
            raise unavailable(error) from None
        return ScheduleView(schedule), True

    async def _check_room(self) -> None:
        """By visibility, which is a moment behind. Raises AtCapacity."""
        try:
            found = await self._client.count_workflows(open_of(SCHEDULE, self._task_queue), rpc_timeout=ANSWER)
        except RPCError as error:
            raise unavailable(error) from None
        if found.count >= limits.SCHEDULES_COUNT_MAX:
            raise AtCapacity(
                f"there are {limits.SCHEDULES_COUNT_MAX} schedules, which is as many as there may be: delete one first "
                "(`fastrunner schedule delete`)"
            )

    async def _latest_event(self, schedule: Schedule) -> int:
        """Events up to this one are there already. Raises Unavailable."""
        return await self._door.listen(
            Registration(schedule_id_of(self._task_queue, schedule.schedule_id), schedule.namespace, [])
        )

    async def page(
        self, namespace: str, within: frozenset[str] | None, after: str, count_max: int
    ) -> Sequence[ScheduleView]:
        """See ScheduleBook; by visibility, which has no order by ids, and is a moment behind. Raises Unavailable."""
        views = [
            view
            async for view in self._all(namespace)
            if view.schedule.schedule_id > after and (within is None or view.schedule.namespace in within)
        ]
        return nsmallest(count_max, views, key=lambda view: view.schedule.schedule_id)

    async def _all(self, namespace: str) -> AsyncIterator[ScheduleView]:
        wanted = open_of(SCHEDULE, self._task_queue)
        if namespace:
            wanted += f" AND {ATTRIBUTES[0]} = {quoted(namespace)}"
        try:
            async for listed in self._client.list_workflows(wanted, rpc_timeout=ANSWER):
                yield view_of(await listed.memo())
        except RPCError as error:
            raise unavailable(error) from None

    async def get(self, schedule_id: str) -> ScheduleView:
        """See ScheduleBook. Raises Unavailable."""
        return (await self._found(schedule_id))[0]

    async def _found(self, schedule_id: str) -> tuple[ScheduleView, str]:
        """A schedule, and the digest of the request that has added it. Raises UnknownSchedule, Unavailable."""
        memo = await (await self._described(schedule_id)).memo()
        return view_of(memo), memo[WHAT_IT_IS]["digest"]

    async def _described(self, schedule_id: str) -> WorkflowExecution:
        handle = self._client.get_workflow_handle(schedule_id_of(self._task_queue, schedule_id))
        try:
            description = await handle.describe(rpc_timeout=ANSWER)
        except RPCError as error:
            raise _unknown(schedule_id, error) from None
        if description.status is not WorkflowExecutionStatus.RUNNING or description.workflow_type != SCHEDULE:
            raise UnknownSchedule(schedule_id)
        return description

    async def pause(self, schedule_id: str, reason: str) -> ScheduleView:
        """See ScheduleBook. Raises Unavailable."""
        await self._signal(schedule_id, ScheduleCommand("pause", reason))
        view = await self._shown(schedule_id, is_paused=True)
        return replace(view, is_paused=True, reason=reason, next_ms=0)

    async def resume(self, schedule_id: str) -> ScheduleView:
        """See ScheduleBook. Raises Unavailable."""
        schedule = (await self.get(schedule_id)).schedule
        events_key = 0 if schedule.trigger.on is None else await self._latest_event(schedule)
        await self._signal(schedule_id, ScheduleCommand("resume", "", clock.wall_ms(), events_key))
        view = await self._shown(schedule_id, is_paused=False)
        return replace(view, is_paused=False, reason="")

    async def _signal(self, schedule_id: str, command: ScheduleCommand) -> None:
        handle = self._client.get_workflow_handle(schedule_id_of(self._task_queue, schedule_id))
        try:
            await handle.signal(SCHEDULE_SIGNAL, command, rpc_timeout=ANSWER)
        except RPCError as error:
            raise _unknown(schedule_id, error) from None

    async def _shown(self, schedule_id: str, *, is_paused: bool) -> ScheduleView:
        """A schedule once a worker has taken a command, or after a moment: it is durable without one."""
        deadline_s = clock.monotonic_s() + limits.TEMPORAL_SCHEDULE_SHOWN_S_MAX
        while True:
            view = await self.get(schedule_id)
            if view.is_paused is is_paused or clock.monotonic_s() > deadline_s:
                return view
            await asyncio.sleep(limits.TEMPORAL_FOLLOW_INTERVAL_S / 8)

    async def delete(self, schedule_id: str) -> None:
        """See ScheduleBook. Raises Unavailable."""
        handle = self._client.get_workflow_handle(schedule_id_of(self._task_queue, schedule_id))
        try:
            await handle.terminate(reason="the schedule was deleted", rpc_timeout=ANSWER)
        except RPCError as error:
            raise _unknown(schedule_id, error) from None

    async def fire(self, schedule_id: str, key: str) -> str:
        """See ScheduleBook."""
        schedule = await self._schedule(schedule_id)
        execution_id = f"{schedule_id}~fire-{key or clock.wall_ms()}"
        await self._executions.start(schedule, execution_id)
        return execution_id

    async def backfill(self, schedule_id: str, from_ms: int, until_ms: int) -> Sequence[Backfilled]:
        """See ScheduleBook."""
        schedule = await self._schedule(schedule_id)
        done = []
        for fire in planner.backfilled(schedule, from_ms, until_ms):
            execution_id = fire.execution_id(schedule_id)
            await self._executions.start(schedule, execution_id)
            done.append(Backfilled(fire.moment_ms, execution_id))
        return done

    async def _schedule(self, schedule_id: str) -> Schedule:
        """One with what it executes. Raises UnknownSchedule, Unavailable."""
        description = await self._described(schedule_id)
        try:
            start = await self._starts.of(description.id, description.run_id)
        except RPCError as error:
            raise _unknown(schedule_id, error) from None
        return schedule_of(start.schedule)


class ScheduleLooks:
    """The activity of schedules, of one worker."""

    def __init__(self, starts: Beginnings[ScheduleStart], executions: Executions, metrics: Metrics) -> None:
        self._starts = starts
        self._looker = Looker(executions, metrics)
        self._looking_count = 0

    @activity.defn(name=LOOK)
    async def look(self, given: ScheduleLook) -> ScheduleLooked:
        """Starts what is due, or what events have started. Raises ApplicationError, for Temporal to try again."""
        info = activity.info()
        start = await self._starts.of(info.workflow_id or "", info.workflow_run_id or "")
        progress = Progress.of_json(dict(given.progress))
        row = Row(schedule_of(start.schedule), False, "", 0, given.next_ms, progress, given.events_state)
        self._looking_count += 1
        try:
            return await beating(self._looked(row, given.events))
        except (RunnerError, NotNow, TimeoutError) as error:
            raise ApplicationError(str(error) or "no answer", type="NotNow") from None
        finally:
            self._looking_count -= 1

    async def _looked(self, row: Row, events: list[list[Any]]) -> ScheduleLooked:
        if events:
            stored = [StoredEvent(key, received_ms, None, orjson.loads(text)) for key, received_ms, text in events]
            found = taken(row, stored)
            if not found.event_key:
                wait_ms = 0 if _is_timed(row) else _WAIT_MS_MAX
                return ScheduleLooked(plain(row.progress), row.events_state, row.next_ms, wait_ms)
            return _told(await self._looker.looked_at_events(row, found), is_timed=_is_timed(row))
        while True:
            note = await self._looker.looked(row)
            wait_ms = note.due_ms - clock.wall_ms()
            is_far = wait_ms > limits.SCHEDULE_END_LOOK_MS_MAX or self._looking_count > limits.SCHEDULES_AT_ONCE_MAX
            if is_far or note.progress != row.progress:
                return _told(note)
            # It looks whether an execution has ended: a timer each time would fill the history.
            await asyncio.sleep(max(wait_ms, 1) / 1000)


def _is_timed(row: Row) -> bool:
    """Whether it starts something by the clock, too."""
    trigger = row.schedule.trigger
    return bool(trigger.every_ms or trigger.after_ms or trigger.cron)


def _told(note: Note, *, is_timed: bool = True) -> ScheduleLooked:
    wait_ms = min(max(note.due_ms - clock.wall_ms(), 0), _WAIT_MS_MAX) if is_timed else _WAIT_MS_MAX
    return ScheduleLooked(plain(note.progress), note.events_state, note.next_ms, wait_ms)


def _unknown(schedule_id: str, error: RPCError) -> RunnerError:
    """What an error means of something asked of a schedule."""
    return UnknownSchedule(schedule_id) if error.status is RPCStatusCode.NOT_FOUND else unavailable(error)
