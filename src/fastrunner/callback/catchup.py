"""Stage 7, callback: reads back what memory does not hold: rows from before the start, and rows left behind.

Two ways, both bounded by the queue's budget for stored events: single executions are looked up one by one, everything
else is found by passes over the whole outbox, in pages. Nothing is read while the receiver is away.
"""

import asyncio
import logging
from collections.abc import Callable

from fastrunner.base import clock, limits
from fastrunner.callback.queue import EventQueue, Lane, Place
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Outbox, UnacknowledgedEvents
from fastrunner.progress.wire import first_timestamp_ms

__all__ = ["CatchUp"]

log = logging.getLogger(__name__)

_PAUSE_AFTER_PASS_S = 0.5
"""Rest between two passes, so that rows which can only wait do not keep the store busy."""
_PAUSE_AFTER_ERROR_S = 1.0
"""Rest after the store could not be read."""


class CatchUp:
    """Fills the queue from the outbox; `pump` is called when it has added something."""

    def __init__(
        self, queue: EventQueue, outbox: Outbox, metrics: Metrics, pump: Callable[[], None], wall_ms: Callable[[], int]
    ) -> None:
        self._queue = queue
        self._outbox = outbox
        self._metrics = metrics
        self._pump = pump
        self._wall_ms = wall_ms
        self._wake = asyncio.Event()
        self._cursor: tuple[str, int] | None = None
        self._next_pass_s = 0.0

    def wake(self, reachable: bool) -> None:
        """Lets it look again whether there is work; called whenever the queue or the breaker has changed."""
        if reachable and (self._queue.behind or self._queue.lookups):
            self._wake.set()
        else:
            self._wake.clear()

    async def run(self) -> None:
        """Reads for as long as it is not cancelled."""
        while True:  # Until cancelled.
            await self._wake.wait()
            try:
                worked = await self._look_up()
                worked = await self._read_page() or worked
            except Exception:
                # The store's errors are the engine's to judge; callbacks go on as soon as it can be read again.
                log.exception("the outbox could not be read")
                await asyncio.sleep(_PAUSE_AFTER_ERROR_S)
                continue
            if worked:
                self._pump()
            elif self._cursor is None and (pause_s := self._next_pass_s - clock.monotonic_s()) > 0:
                await asyncio.sleep(pause_s)
            else:
                # No room: a delivery that ends wakes it.
                self._wake.clear()

    def give_up(self, execution_id: str, sequence: int, events: int) -> None:
        """Counts and says that events are too old to be delivered; the outbox need not keep them for it."""
        log.error(
            "%d events up to %d dropped: no receiver took them within %d s",
            events, sequence, limits.OUTBOX_AGE_S_MAX, extra={"execution_id": execution_id},
        )  # fmt: skip
        self._metrics.callback_events.labels("dropped").inc(events)
        self._outbox.give_up(execution_id, sequence)

    async def _look_up(self) -> bool:
        """Reads the rows of single executions; gives whether that led anywhere."""
        worked = False
        while (lane := self._queue.look_up_next()) is not None:
            rows: list[UnacknowledgedEvents] = []
            # Unless the read succeeds, nothing was learnt and the lane asks again.
            complete = False
            try:
                rows = await self._rows_of(lane)
                complete = True
            finally:
                fresh = [(row, stored_ms) for row in rows if (stored_ms := self._fresh(row, lane.wanted)) is not None]
                if rows and not fresh:
                    # All of them were given up; what comes after them is still to be found.
                    lane.tail, complete = rows[-1].last_sequence, False
                lane.missed = lane.missed or not complete
                self._queue.extend(lane, fresh, clock.monotonic_s())
            if fresh and lane.place is Place.LOOKUP:
                # No room. A delivery has to end first, and none does while this goes on without leaving the loop.
                return worked
            worked = True
            await asyncio.sleep(0)
        return worked

    async def _rows_of(self, lane: Lane) -> list[UnacknowledgedEvents]:
        if lane.tail >= 0:
            return await self._outbox.unacknowledged_of(
                lane.execution_id, lane.tail + 1, limits.CALLBACK_BATCH_SIZE_BYTES_MAX
            )
        # Only the outbox knows where this execution's receiver stands: its first unacknowledged row tells.
        rows = await self._outbox.unacknowledged((lane.execution_id, 0), 1)
        return [row for row in rows if row.execution_id == lane.execution_id]

    async def _read_page(self) -> bool:
        """Reads a page of the current pass, or begins one; gives whether there may be more to do at once."""
        queue = self._queue
        if not queue.behind or queue.stored.events >= queue.stored.events_max:
            return False
        if self._cursor is None:
            if clock.monotonic_s() < self._next_pass_s:
                return False
            queue.begin_pass()
        rows = await self._outbox.unacknowledged(self._cursor, limits.CALLBACK_PAGE_ROWS_MAX)
        now_s = clock.monotonic_s()
        before = self._cursor
        for row in rows:
            stored_ms = self._fresh(row)
            if stored_ms is not None and not queue.admit(row, now_s, stored_ms):
                return self._cursor != before
            self._cursor = (row.execution_id, row.first_sequence)
        if not rows:
            queue.end_pass()
            self._cursor = None
            self._next_pass_s = clock.monotonic_s() + _PAUSE_AFTER_PASS_S
        return True

    def _fresh(self, row: UnacknowledgedEvents, wanted: bool = False) -> int | None:
        """When a row's first event happened, or None if it is too old, not wanted all the same, and was given up."""
        stored_ms = first_timestamp_ms(row.messages)
        if wanted or stored_ms >= self._wall_ms() - limits.OUTBOX_AGE_S_MAX * 1000:
            return stored_ms
        self.give_up(row.execution_id, row.last_sequence, row.last_sequence - row.first_sequence + 1)
        return None
