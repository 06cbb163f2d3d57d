"""Stage 3, journal: whoever fires: one worker at a time looks at the schedules that are due, and starts what they say.

Theory of operation: the holder of a lock file fires. The kernel takes the lock from a process that ends, whatever it
ends of, and another worker, which asks for it several times a second, goes on from the file. A look at one schedule is
a task: planner -> executions -> note; notes are written together. A look that comes to nothing because the runner
takes no executions now is repeated a little later, and the moment is missed only by then, if it is.

Rules: an execution is accepted before its moment is settled; what a crash leaves between the two is fired again, with
the same id. No schedule waits for another. What people change meanwhile counts, and not what a look has found before.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from google.rpc.code_pb2 import RESOURCE_EXHAUSTED, UNAVAILABLE

from fastrunner.base import clock, limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.schedules import Overlap
from fastrunner.errors import RunnerError, TooLarge, code_of
from fastrunner.events.bus import EventBus
from fastrunner.events.schedules import occasions, planner
from fastrunner.events.schedules.calls import Executions
from fastrunner.events.schedules.file import Note, Row, SchedulesFile
from fastrunner.events.schedules.occasions import Taken
from fastrunner.events.schedules.planner import Fire, Progress

__all__ = ["Leader"]

_log = logging.getLogger(__name__)

_FOLLOWER: Final = "schedules"
_LOCK_NAME: Final = "schedules.leader"
_CLOCK_STEP_MS: Final = 1_000


class _NotNow(Exception):
    """The runner does not take an execution now."""


class Leader:
    """One worker's claim to fire, and what it does while it has it."""

    def __init__(
        self,
        folder: Path,
        file: SchedulesFile,
        executions: Executions,
        bus: EventBus,
        metrics: Metrics,
        wall_ms: Callable[[], int] = clock.wall_ms,
    ) -> None:
        """`folder` is the data directory; `file` is this leader's alone."""
        self._lock_path = folder / _LOCK_NAME
        self._file = file
        self._executions = executions
        self._bus = bus
        self._position: int | None = None
        self._wall_ms = wall_ms
        self._fires = metrics.schedule_moments
        self._lateness = metrics.schedule_lateness
        self._leading = metrics.schedule_leaders
        self._count = metrics.schedules
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="schedules")
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._not_before_s: dict[str, float] = {}
        self._notes: list[Note] = []
        self._wake = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Asks for the lock from now on."""
        self._work = asyncio.create_task(self._lead_for_ever())

    async def stop(self) -> None:
        """Fires no more, and gives the lock to another one."""
        if self._work is not None:
            self._work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._work
        self._thread.shutdown(wait=True)
        self._file.close()

    async def _lead_for_ever(self) -> None:
        while True:
            lock = self._locked()
            if lock < 0:
                await asyncio.sleep(limits.SCHEDULE_LOOK_INTERVAL_S)
                continue
            try:
                self._leading.set(1)
                await self._lead()
            except Exception:
                _log.exception("schedules cannot be fired now")
                await asyncio.sleep(limits.SCHEDULE_RETRY_INTERVAL_S)
            finally:
                self._leading.set(0)
                self._count.set(0)
                await self._drop_looks()
                os.close(lock)

    def _locked(self) -> int:
        """The lock's descriptor; -1 if another one has it."""
        try:
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return -1
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return -1
        return descriptor

    async def _drop_looks(self) -> None:
        looks = list(self._looks.values())
        for look in looks:
            look.cancel()
        if looks:
            await asyncio.wait(looks)
        self._looks.clear()
        self._notes.clear()
        self._position = None
        self._not_before_s.clear()

    # --- while it fires ---

    async def _lead(self) -> None:
        # Whoever fired before had a clock of its own.
        offset_ms = 0
        while True:
            self._wake.clear()
            wait_s = limits.SCHEDULE_LOOK_INTERVAL_S
            if self._file.exists():
                now_ms = self._wall_ms()
                if abs(now_ms - int(clock.monotonic_s() * 1000) - offset_ms) > _CLOCK_STEP_MS:
                    await self._in_thread(lambda: self._file.look_at_all(self._wall_ms()))
                    self._not_before_s.clear()
                offset_ms = now_ms - int(clock.monotonic_s() * 1000)
                try:
                    wait_s = await self._round(self._wall_ms())
                except RunnerError as error:
                    _log.error("schedules cannot be fired now: %s", error.message)
                    wait_s = limits.SCHEDULE_RETRY_INTERVAL_S
            # Not `wait_for`, which may hold a cancellation back.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _round(self, now_ms: int) -> float:
        """Notes what looks have come to, begins new ones; how long the next round can wait, in seconds. Raises
        StorageFailed, StorageFull."""
        await self._write_notes()
        self._count.set(self._file.count())
        room = limits.SCHEDULES_AT_ONCE_MAX - len(self._looks)
        now_s = clock.monotonic_s()
        self._not_before_s = {each: at_s for each, at_s in self._not_before_s.items() if at_s > now_s}
        passed_over = len(self._looks) + len(self._not_before_s)
        for row in self._file.due(now_ms, room + passed_over) if room else ():
            schedule_id = row.schedule.schedule_id
            if schedule_id not in self._looks and schedule_id not in self._not_before_s:
                look = asyncio.create_task(self._look(row))
                self._looks[schedule_id] = look
        await self._follow_events()
        first_ms = self._file.first_due_ms(now_ms)
        wait_s = limits.SCHEDULE_LOOK_INTERVAL_S
        return wait_s if first_ms is None else min(wait_s, max(0.0, (first_ms - self._wall_ms()) / 1000))

    async def _follow_events(self) -> None:
        """Has schedules that start by events look at those that have come; goes on once all have settled them."""
        if self._position is not None and self._bus.last_key() <= self._position:
            return
        rows = self._file.by_events()
        if not rows:
            if self._position is not None:
                self._bus.reached(_FOLLOWER, None)
                self._position = None
            return
        first = min(row.progress.events_key for row in rows)
        if self._position is None:
            self._position = max(self._file.position(), first)
            self._bus.reached(_FOLLOWER, self._position)
        events = self._bus.after(self._position, limits.SCHEDULE_EVENTS_MAX)
        if not events:
            return
        is_settled = True
        for row in rows:
            schedule_id = row.schedule.schedule_id
            if schedule_id in self._looks or schedule_id in self._not_before_s:
                is_settled = False
                continue
            taken = occasions.taken(row, events)
            if taken.event_key:
                is_settled = False
                self._looks[schedule_id] = asyncio.create_task(self._look(row, taken))
        if is_settled:
            self._position = position = events[-1].key
            await self._in_thread(lambda: self._file.reach(position))
            self._bus.reached(_FOLLOWER, position)
            self._wake.set()

    async def _write_notes(self) -> None:
        notes = self._notes[:]
        if notes:
            await self._in_thread(lambda: self._file.note(notes))
            del self._notes[: len(notes)]
            for note in notes:
                self._looks.pop(note.row.schedule.schedule_id, None)

    async def _in_thread(self, action: Callable[[], None]) -> None:
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, action))

    async def _look(self, row: Row, taken: Taken | None = None) -> None:
        """Fires what is due of one schedule, or what events have started."""
        schedule_id = row.schedule.schedule_id
        try:
            note = await (self._looked(row) if taken is None else self._looked_at_events(row, taken))
        except (RunnerError, _NotNow, TimeoutError) as error:
            _log.warning("schedule %s: not now: %s", schedule_id, error or "no answer")
            note = None
        except Exception:
            _log.exception("schedule %s cannot be looked at", schedule_id)
            note = None
        if note is None:
            self._not_before_s[schedule_id] = clock.monotonic_s() + limits.SCHEDULE_RETRY_INTERVAL_S
            self._looks.pop(schedule_id, None)
        else:
            self._notes.append(note)
        self._wake.set()

    async def _looked(self, row: Row) -> Note:
        """Raises _NotNow if nothing has come of it; RunnerError, TimeoutError."""
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
            except (_NotNow, TimeoutError):
                if fire is admitted.starts[0]:
                    raise
                self._count_outcomes(known, partly)
                return Note(row, partly, now_ms, now_ms, row.events_state)
            progress = self._after_fire(row, progress, fire, outcome, now_ms)
            partly = self._after_fire(row, partly, fire, outcome, now_ms)
        self._count_outcomes(known, progress)
        return self._note(row, progress, due.next_ms, now_ms)

    async def _looked_at_events(self, row: Row, taken: Taken) -> Note:
        """Raises _NotNow, after which the same events come again; RunnerError, TimeoutError."""
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
        """Starts one execution; why it cannot be started at all, empty if it has been. Raises _NotNow, TimeoutError."""
        schedule = row.schedule
        self._lateness.observe(max(0.0, (self._wall_ms() - moment_ms) / 1000))
        try:
            async with asyncio.timeout(limits.SCHEDULE_START_S_MAX):
                await self._executions.start(schedule, execution_id, input_json)
        except RunnerError as error:
            if code_of(error) == UNAVAILABLE or (
                code_of(error) == RESOURCE_EXHAUSTED and not isinstance(error, TooLarge)
            ):
                raise _NotNow(error.message) from None
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
