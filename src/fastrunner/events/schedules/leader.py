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
from pathlib import Path
from typing import Final

from fastrunner.base import clock, limits
from fastrunner.counts.definitions import Metrics
from fastrunner.errors import RunnerError
from fastrunner.events.bus import EventBus
from fastrunner.events.schedules import occasions
from fastrunner.events.schedules.calls import Executions
from fastrunner.events.schedules.file import SchedulesFile
from fastrunner.events.schedules.look import Looker, NotNow
from fastrunner.events.schedules.occasions import Taken
from fastrunner.events.schedules.rows import Note, Row

__all__ = ["Leader"]

_log = logging.getLogger(__name__)

_FOLLOWER: Final = "schedules"
_LOCK_NAME: Final = "schedules.leader"
_CLOCK_STEP_MS: Final = 1_000


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
        self._looker = Looker(executions, metrics, wall_ms)
        self._bus = bus
        self._position: int | None = None
        self._wall_ms = wall_ms
        self._leading = metrics.schedule_leaders
        self._count = metrics.schedules
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="schedules")
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._not_before_s: dict[str, float] = {}
        self._notes: list[Note] = []
        self._refused_with: int | None = None
        """Why the lock could not be opened, which is told once."""
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
        except OSError as error:
            if error.errno != self._refused_with:
                _log.error("schedules cannot be fired now: %s cannot be opened: %s", self._lock_path, error.strerror)
            self._refused_with = error.errno
            return -1
        self._refused_with = None
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
        offset_ms, trouble = 0, ""
        while True:
            self._wake.clear()
            wait_s = limits.SCHEDULE_LOOK_INTERVAL_S
            if self._file.exists():
                try:
                    offset_ms = await self._follow_clock(offset_ms)
                    wait_s = await self._round(self._wall_ms())
                    trouble = ""
                except RunnerError as error:
                    if error.message != trouble:
                        _log.error("schedules cannot be fired now: %s", error.message)
                    trouble = error.message
                    wait_s = limits.SCHEDULE_RETRY_INTERVAL_S
            # Not `wait_for`, which may hold a cancellation back.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _follow_clock(self, offset_ms: int) -> int:
        """Has all be looked at if the wall clock, so far from the monotonic one, has stepped; how far it is now."""
        now_ms = self._wall_ms()
        if abs(now_ms - int(clock.monotonic_s() * 1000) - offset_ms) > _CLOCK_STEP_MS:
            await self._in_thread(lambda: self._file.look_at_all(self._wall_ms()))
            self._not_before_s.clear()
        return now_ms - int(clock.monotonic_s() * 1000)

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
            note = await (self._looker.looked(row) if taken is None else self._looker.looked_at_events(row, taken))
        except (RunnerError, NotNow, TimeoutError) as error:
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
