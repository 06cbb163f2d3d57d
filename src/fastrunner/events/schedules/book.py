"""Stage 3, journal: the schedules of one worker: its door to their file, what people ask of them, its claim to fire.

AddSchedule -> add -> durable in the file -> reply; whoever fires sees it with its next look
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from fastrunner.base import clock
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.store.seals import DataKeys
from fastrunner.engine.schedules import Backfilled, Schedule, ScheduleView
from fastrunner.events.bus import EventBus
from fastrunner.events.schedules import planner
from fastrunner.events.schedules.calls import Call, Executions
from fastrunner.events.schedules.checks import check_schedule
from fastrunner.events.schedules.file import SchedulesFile
from fastrunner.events.schedules.leader import Leader

__all__ = ["Schedules"]

T = TypeVar("T")


class Schedules:
    """What this worker and all the others have as schedules; see ScheduleBook."""

    def __init__(self, folder: Path, keys: DataKeys | None, call: Call, bus: EventBus, metrics: Metrics) -> None:
        """`folder` is the data directory; `keys` seal what is executed; `call` calls the runner; `bus` has events."""
        self._file = SchedulesFile(folder, keys)
        self._bus = bus
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="schedule-book")
        self._executions = Executions(call)
        self._leader = Leader(folder, SchedulesFile(folder, keys), self._executions, bus, metrics)

    def start(self) -> None:
        """May fire from now on."""
        self._leader.start()

    async def stop(self) -> None:
        """Fires no more; another worker does."""
        await self._leader.stop()

    def close(self) -> None:
        """Waits for what is being written, and gives the file back."""
        self._thread.shutdown(wait=True)
        self._file.close()

    async def add(self, schedule: Schedule, digest: bytes) -> tuple[ScheduleView, bool]:
        """See ScheduleBook."""
        check_schedule(schedule)
        # Events that are there already start nothing.
        events_key = self._bus.last_key() if schedule.trigger.on is not None else 0
        is_new = await self._in_thread(lambda: self._file.add(schedule, digest, events_key))
        return await self.get(schedule.schedule_id), is_new

    async def page(
        self, namespace: str, within: frozenset[str] | None, after: str, count_max: int
    ) -> Sequence[ScheduleView]:
        """See ScheduleBook."""
        rows = await self._in_thread(lambda: self._file.page(namespace, within, after, count_max))
        return [row.view() for row in rows]

    async def get(self, schedule_id: str) -> ScheduleView:
        """See ScheduleBook."""
        return (await self._in_thread(lambda: self._file.get(schedule_id))).view()

    async def pause(self, schedule_id: str, reason: str) -> ScheduleView:
        """See ScheduleBook."""
        await self._in_thread(lambda: self._file.pause(schedule_id, reason))
        return await self.get(schedule_id)

    async def resume(self, schedule_id: str) -> ScheduleView:
        """See ScheduleBook."""
        events_key = self._bus.last_key()
        await self._in_thread(lambda: self._file.resume(schedule_id, clock.wall_ms(), events_key))
        return await self.get(schedule_id)

    async def delete(self, schedule_id: str) -> None:
        """See ScheduleBook."""
        await self._in_thread(lambda: self._file.delete(schedule_id))

    async def fire(self, schedule_id: str, key: str) -> str:
        """See ScheduleBook."""
        row = await self._in_thread(lambda: self._file.get(schedule_id))
        execution_id = f"{schedule_id}~fire-{key or clock.wall_ms()}"
        await self._executions.start(row.schedule, execution_id)
        return execution_id

    async def backfill(self, schedule_id: str, from_ms: int, until_ms: int) -> Sequence[Backfilled]:
        """See ScheduleBook."""
        row = await self._in_thread(lambda: self._file.get(schedule_id))
        done = []
        for fire in planner.backfilled(row.schedule, from_ms, until_ms):
            execution_id = fire.execution_id(schedule_id)
            await self._executions.start(row.schedule, execution_id)
            done.append(Backfilled(fire.moment_ms, execution_id))
        return done

    async def _in_thread(self, action: "Callable[[], T]") -> "T":
        # Whoever asked may leave; what has begun is finished.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, action))
