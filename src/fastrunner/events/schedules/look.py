"""Stage 3, journal: a look at one schedule: what is due, or what events have started, is started; what that comes to.

    row -> which executions have ended -> planner -> executions -> note

Rules: an execution is accepted before its moment is settled; what a crash leaves between the two is fired again, with
the same id. Whoever keeps schedules keeps the note, or looks again at the row as it was. One look at a schedule at a
time.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from google.rpc.code_pb2 import RESOURCE_EXHAUSTED, UNAVAILABLE

from fastrunner.base import clock, limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.schedules import Overlap
from fastrunner.errors import RunnerError, TooLarge, code_of
from fastrunner.events.schedules import planner
from fastrunner.events.schedules.calls import Executions
from fastrunner.events.schedules.occasions import Taken
from fastrunner.events.schedules.planner import Fire, Progress
from fastrunner.events.schedules.rows import Note, Row

__all__ = ["Looker", "NotNow"]

_log = logging.getLogger(__name__)


class NotNow(Exception):
    """The runner does not take an execution now."""


class Looker:
    """Looks at schedules."""

    def __init__(self, executions: Executions, metrics: Metrics, wall_ms: Callable[[], int] = clock.wall_ms) -> None:
        self._executions = executions
        self._fires = metrics.schedule_moments
        self._lateness = metrics.schedule_lateness
        self._wall_ms = wall_ms

    async def looked(self, row: Row) -> Note:
        """Fires what is due. Raises NotNow if nothing has come of it; RunnerError, TimeoutError."""
        schedule, now_ms = row.schedule, self._wall_ms()
        known = await self._with_ends(row, now_ms)
        due = planner.due(schedule, known, now_ms)
        admitted = planner.admitted(schedule, known.queue, due.fires, bool(known.running))
        progress = due.progress.counted("missed", due.missed_count)
        progress = replace(progress, queue=admitted.queue)
        for fire in admitted.queue:
            if fire in due.fires:
                progress = planner.settled(progress, fire, fire.execution_id(schedule.schedule_id))
        for fire in admitted.overlapped:
            progress = planner.dropped(schedule, progress, fire, now_ms)
        progress = progress.counted("overlapped", len(admitted.overlapped))
        partly = due.before
        for fire in admitted.starts:
            try:
                outcome = await self._start(row, fire.execution_id(schedule.schedule_id), fire.moment_ms)
            except (NotNow, TimeoutError):
                if fire is admitted.starts[0]:
                    raise
                self._count_outcomes(known, partly)
                return Note(row, partly, now_ms, now_ms, row.events_state)
            progress = self._after_fire(row, progress, fire, outcome, now_ms)
            partly = self._after_fire(row, partly, fire, outcome, now_ms)
        self._count_outcomes(known, progress)
        return self._note(row, progress, due.next_ms, now_ms)

    async def looked_at_events(self, row: Row, taken: Taken) -> Note:
        """Fires what events have started. Raises NotNow, after which the same events come again; RunnerError,
        TimeoutError."""
        schedule, now_ms = row.schedule, self._wall_ms()
        known = await self._with_ends(row, now_ms)
        progress = replace(known, events_key=taken.event_key)
        for occasion in taken.occasions:
            if schedule.options.overlap is Overlap.SKIP and progress.running:
                progress = progress.counted("overlapped")
                continue
            execution_id = occasion.execution_id(schedule.schedule_id)
            refusal = await self._start(row, execution_id, occasion.received_ms, occasion.input_json)
            progress = _started(row, progress, execution_id, occasion.received_ms, refusal)
        self._count_outcomes(known, progress)
        return Note(row, progress, now_ms, row.next_ms, taken.state)

    async def _with_ends(self, row: Row, now_ms: int) -> Progress:
        """The progress that knows which executions have ended."""
        progress, schedule = row.progress, row.schedule
        waits = {fire.execution_id(schedule.schedule_id) for fire in progress.queue}
        if progress.after_id and progress.after_id not in waits:
            end_ms = await self._executions.end_ms(progress.after_id, now_ms)
            if end_ms is not None:
                progress = planner.ended(schedule, progress, end_ms)
        if progress.running:
            ends = [(each, await self._executions.end_ms(each, now_ms)) for each in progress.running]
            progress = replace(progress, running=tuple(each for each, end_ms in ends if end_ms is None))
        return progress

    async def _start(self, row: Row, execution_id: str, moment_ms: int, input_json: str = "") -> str:
        """Starts one execution; why it cannot be started at all, empty if it has been. Raises NotNow, TimeoutError."""
        schedule = row.schedule
        self._lateness.observe(max(0.0, (self._wall_ms() - moment_ms) / 1000))
        try:
            async with asyncio.timeout(limits.SCHEDULE_START_S_MAX):
                await self._executions.start(schedule, execution_id, input_json)
        except RunnerError as error:
            if code_of(error) == UNAVAILABLE or (
                code_of(error) == RESOURCE_EXHAUSTED and not isinstance(error, TooLarge)
            ):
                raise NotNow(error.message) from None
            _log.error(
                "schedule %s has started nothing: %s",
                schedule.schedule_id,
                error.message,
                extra={"execution_id": execution_id},
            )
            return error.message
        return ""

    def _after_fire(self, row: Row, progress: Progress, fire: Fire, refusal: str, now_ms: int) -> Progress:
        schedule, execution_id = row.schedule, fire.execution_id(row.schedule.schedule_id)
        if refusal:
            progress = planner.dropped(schedule, progress, fire, now_ms)
        elif fire not in row.progress.queue:
            progress = planner.settled(progress, fire, execution_id)
        return _started(row, progress, execution_id, fire.moment_ms, refusal)

    def _count_outcomes(self, before: Progress, after: Progress) -> None:
        for outcome, count in after.counts.items():
            self._fires.labels(outcome).inc(count - before.counts.get(outcome, 0))

    def _note(self, row: Row, progress: Progress, next_ms: int, now_ms: int) -> Note:
        """When the schedule is to be looked at again."""
        moments = [each for each in (next_ms, progress.after_due_ms) if each]
        next_ms = min(moments, default=0)
        if progress.after_id or progress.queue:
            patience_ms = row.schedule.trigger.after_ms // 2 if progress.after_id else limits.SCHEDULE_END_LOOK_MS_MAX
            look_ms = min(max(patience_ms, limits.SCHEDULE_END_LOOK_MS_MIN), limits.SCHEDULE_END_LOOK_MS_MAX)
            moments.append(now_ms + (look_ms if not progress.queue else min(look_ms, 500)))
        # A cron expression that comes no more is asked again in a day.
        return Note(row, progress, min(moments, default=now_ms + 86_400_000), next_ms, row.events_state)


def _started(row: Row, progress: Progress, execution_id: str, moment_ms: int, refusal: str) -> Progress:
    """After an execution that has been started, or was refused."""
    if refusal:
        return replace(progress, last_error=refusal).counted("failed")
    is_free = row.schedule.options.overlap is Overlap.ALLOW
    running = progress.running if is_free else (*progress.running, execution_id)
    return replace(progress, running=running, last_ms=moment_ms, last_execution_id=execution_id, last_error="").counted(
        "started"
    )
