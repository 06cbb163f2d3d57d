"""Stage 3, journal: the bus of one process: events on their way into the file, and looks into it.

`emit`, SendEvents, POST /events -> publish -> gathered into one commit -> the sender hears of it, every worker is woken

Theory of operation: whoever publishes while a commit is under way waits for the next one, which takes what has come
meanwhile. After it the workers' eventfds are written to; each worker reads what is new from its own position. Writing
happens in a thread of the bus, reading on the loop.

Rules: an event has a number, and its sender an answer, once it is durable. Whoever must not miss one says how far it
has come (`reached`), from when it begins to follow. Publishing once more what a crash has cut off is harmless: a
duplicate is answered as its first.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from fastrunner.base import clock, crash, limits
from fastrunner.base.crash import CrashPoint
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.store.disk import room, shortage
from fastrunner.engine.embedded.store.seals import NotOpened, Seals
from fastrunner.errors import AtCapacity, RunnerError, ShardDamaged, StorageFailed, StorageFull
from fastrunner.events.attributes import checked
from fastrunner.events.file import (
    EventRow,
    EventsFile,
    StoredEvent,
    digest_of,
    event_place,
    proven,
    type_hash_of,
)

__all__ = ["EventBus", "StoredEvent"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

_RETRY_AFTER_S: Final = 0.5


@dataclass(slots=True, eq=False)
class _Pending:
    """Events of one call that await their commit."""

    rows: list[EventRow]
    size_bytes: int
    written: "asyncio.Future[tuple[list[int], list[bool]]]"
    """The number of each, and whether it is no duplicate."""


class EventBus:
    """One process's bus; belongs to its loop."""

    def __init__(
        self,
        folder: Path,
        wake: Callable[[], None],
        seals: Seals,
        retention_s: float,
        *,
        begun_ms: int | None = None,
        has_sinks: bool = False,
        metrics: Metrics | None = None,
        wall_ms: Callable[[], int] = clock.steady_ms,
    ) -> None:
        """`folder` is the data directory; `wake` has every worker look for what is new; `begun_ms`: when the runner was
        started (None: now); `has_sinks`: whether emitted events go to sinks outside (see `sinks/`)."""
        self._folder = folder
        self._wake = wake
        self._seals = seals
        self._retention_ms = int(retention_s * 1000)
        self._wall_ms = wall_ms
        now_ms = wall_ms()
        self._has_sinks = has_sinks
        self._begun_ms = now_ms if begun_ms is None else begun_ms
        # In microseconds: no runner publishes a million a second for long.
        self._reading = EventsFile(folder, now_ms * 1000)
        self._writing = EventsFile(folder, now_ms * 1000)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="events")
        self._pending: list[_Pending] = []
        self._pending_bytes = 0
        self._publishing: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._shortage: StorageFull | None = None
        self._looked_s = -limits.EVENTS_LOOK_INTERVAL_S
        self._positions: dict[str, int | None] = {}
        self._damaged_key = 0
        metrics = metrics or Metrics()
        self._damaged = metrics.damaged_records.labels("cloud_events")
        self._outcomes = {outcome: metrics.events_published.labels(outcome) for outcome in ("new", "duplicate")}
        self._dropped = metrics.events_sent.labels("dropped")
        self._expired = metrics.events_expired
        self._commit_events = metrics.event_commit_events
        self._commit_duration = metrics.event_commit_duration

    # --- publishing ---

    async def publish(self, events: Sequence[Mapping[str, Any]], namespaces: frozenset[str] | None) -> Sequence[int]:
        """Each event's number; a duplicate's is that of its first. All are durable, or none is known to be.

        `namespaces`: whose workflows they reach; None: everybody's. Raises InvalidRequest, TooLarge, AtCapacity,
        StorageFull, StorageFailed.
        """
        of_namespaces = None if namespaces is None else orjson.dumps(sorted(namespaces)).decode()
        rows = await self._rows(events, of_namespaces)
        if not rows:
            return []
        keys, _ = await self._publish(rows)
        return keys

    async def _publish(self, rows: list[EventRow]) -> tuple[list[int], list[bool]]:
        self._check_room()
        size_bytes = sum(len(row.event) for row in rows)
        if self._pending_bytes + size_bytes > limits.EVENTS_PENDING_SIZE_BYTES_MAX:
            raise AtCapacity("more events wait to be written than may: try again", _RETRY_AFTER_S)
        pending = _Pending(rows, size_bytes, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        self._pending_bytes += size_bytes
        if self._publishing is None:
            self._publishing = asyncio.create_task(self._publish_pending())
        return await asyncio.shield(pending.written)

    async def emit(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Publishes one event to everybody; gives it as it is kept: a duplicate's is the first one. Raises as
        `publish`."""
        text = checked(event, "event")
        row = self._row(event, text, None)
        try:
            _, (is_new,) = await self._publish([row._replace(is_outgoing=self._has_sinks)])
        except (AtCapacity, StorageFailed):
            # It may have been published before a crash.
            stored = await self._find_surely(event["source"], event["id"])
            if stored is None:
                raise
        else:
            # It may have been damaged, or have left for others already.
            stored = None if is_new else await self._find_surely(event["source"], event["id"])
        published: Mapping[str, Any] = orjson.loads(text) if stored is None else stored.event
        return published

    async def _find_surely(self, source: str, id: str) -> StoredEvent | None:
        """`find`, as soon as the file can be read: what is published must not be taken for refused."""
        while True:
            try:
                return self.find(source, id)
            except ShardDamaged:
                return None
            except (StorageFailed, StorageFull) as trouble:
                _log.warning("whether an event was published cannot be read now: %s", trouble.message)
                await asyncio.sleep(limits.COMMIT_RETRY_DELAY_S_MAX)

    async def _rows(self, events: Sequence[Mapping[str, Any]], namespaces: str | None) -> list[EventRow]:
        rows = []
        began_s = clock.monotonic_s()
        for at, event in enumerate(events):
            rows.append(self._row(event, checked(event, f"events[{at}]"), namespaces))
            # Others have the loop in between.
            if clock.monotonic_s() - began_s > limits.BATCH_TURN_S_MAX:
                await asyncio.sleep(0)
                began_s = clock.monotonic_s()
        return rows

    def _row(self, event: Mapping[str, Any], text: bytes, namespaces: str | None) -> EventRow:
        digest = digest_of(event["source"], event["id"])
        sealer = self._seals.sealer
        stored = text if sealer is None else sealer.seal(text, event_place(digest))
        return EventRow(digest, type_hash_of(event["type"]), namespaces, stored)

    def _check_room(self) -> None:
        """Raises StorageFull while the disk is nearly full."""
        now_s = clock.monotonic_s()
        if now_s - self._looked_s >= limits.EVENTS_LOOK_INTERVAL_S:
            self._looked_s = now_s
            self._shortage = shortage(room(self._folder), self._shortage, "events")
        if self._shortage is not None:
            raise self._shortage

    async def _publish_pending(self) -> None:
        try:
            while self._pending:
                await self._publish_some(self._taken())
        finally:
            self._publishing = None

    def _taken(self) -> list[_Pending]:
        """What goes into the next commit: one call's events at least."""
        count, taken_rows, taken_bytes = 0, 0, 0
        for each in self._pending:
            taken_rows += len(each.rows)
            taken_bytes += each.size_bytes
            if count and (
                taken_rows > limits.EVENTS_COMMIT_COUNT_MAX or taken_bytes > limits.EVENTS_COMMIT_SIZE_BYTES_MAX
            ):
                break
            count += 1
        taken, self._pending = self._pending[:count], self._pending[count:]
        return taken

    async def _publish_some(self, taken: Sequence[_Pending]) -> None:
        rows = [row for each in taken for row in each.rows]
        begun_s = clock.monotonic_s()
        crash.reach(CrashPoint.BEFORE_EVENTS_COMMIT)
        try:
            appended = await self._in_thread(lambda: self._writing.append(rows, self._wall_ms()))
        except Exception as error:
            if not isinstance(error, RunnerError):
                _log.exception("events could not be published")
            for each in taken:
                if not each.written.cancelled():
                    each.written.set_exception(error)
                    # Whoever asked may be gone.
                    each.written.exception()
            return
        finally:
            self._pending_bytes -= sum(each.size_bytes for each in taken)
        crash.reach(CrashPoint.AFTER_EVENTS_COMMIT)
        self._commit_duration.observe(clock.monotonic_s() - begun_s)
        self._commit_events.observe(len(rows))
        self._outcomes["new"].inc(appended.new_count)
        self._outcomes["duplicate"].inc(len(rows) - appended.new_count)
        if appended.dropped_count:
            self._dropped.inc(appended.dropped_count)
            _log.error("%d events for sinks are given up: there is no room for more", appended.dropped_count)
        at = 0
        for each in taken:
            end = at + len(each.rows)
            if not each.written.cancelled():
                each.written.set_result((appended.keys[at:end], appended.are_new[at:end]))
            at = end
        if appended.new_count:
            self._wake()

    # --- reading: short, on the loop ---

    def after(self, key: int, count_max: int) -> list[StoredEvent]:
        """Events after a position, in their order. Empty: there are no more. Raises StorageFailed, StorageFull."""
        return self._reading.after(key, count_max, self._stored)

    def retained(
        self,
        type: str | None,
        after_key: int,
        up_to_key: int,
        count_max: int,
    ) -> list[StoredEvent]:
        """The same up to another position, of a type or (None) of all."""
        if type is None:
            return self._reading.retained(None, after_key, up_to_key, count_max, self._stored)

        def of_type(row: Sequence[Any]) -> StoredEvent | None:
            stored = self._stored(row)
            return stored if stored is not None and stored.event["type"] == type else None

        return self._reading.retained(type_hash_of(type), after_key, up_to_key, count_max, of_type)

    def find(self, source: str, id: str) -> StoredEvent | None:
        """The event with a source and an id, if it is kept. Raises StorageFailed, StorageFull."""
        row = self._reading.find(digest_of(source, id))
        return None if row is None else self._stored(row)

    def last_key(self) -> int:
        """The position behind all that is durable. Raises StorageFailed, StorageFull."""
        return self._reading.last_key()

    def _stored(self, row: Sequence[Any]) -> StoredEvent | None:
        """None for one that is damaged: it is told once, and passed over."""
        key, received_ms, namespaces = row[:3]
        try:
            text = proven(row, self._seals)
            if text is None:
                raise NotOpened("is sealed, and FASTRUNNER_DATA_KEY_FILE is not set")
            event = orjson.loads(text)
            reaches = None if namespaces is None else frozenset(orjson.loads(namespaces))
        except (NotOpened, ValueError, TypeError) as trouble:
            if key > self._damaged_key:
                self._damaged_key = key
                self._damaged.inc()
                _log.error("event number %s in events.db %s: nobody gets it", key, trouble)
            return None
        return StoredEvent(key, received_ms, reaches, event)

    # --- keeping ---

    def reached(self, follower: str, key: int | None) -> None:
        """Says how far somebody has come who must not miss an event: later ones are kept for it, whatever their age.

        `follower` is a name of its own that outlives the process; None: it follows no more. It is noted within a second
        (`prune`), so what is kept may begin earlier.
        """
        self._positions[follower] = key

    def start(self) -> None:
        """Keeps (`prune`) from now on, until `close`; one process of a runner is enough for what is old, but each notes
        its own followers."""
        self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        trouble = ""
        while True:
            await asyncio.sleep(limits.EVENTS_LOOK_INTERVAL_S)
            try:
                await self.prune()
                trouble = ""
            except RunnerError as error:
                if error.message != trouble:
                    _log.warning("events are not deleted for now: %s", error.message)
                trouble = error.message
            except Exception:
                _log.exception("events are not deleted for now")

    async def prune(self) -> int:
        """Notes how far the followers here have come, and has events go that have outlived the retention, if the runner
        has run for as long; how many. Raises StorageFailed, StorageFull."""
        positions, self._positions = self._positions, {}
        if positions:
            try:
                await self._in_thread(lambda: self._writing.reach(positions))
            except RunnerError:
                self._positions = positions | self._positions
                raise
        now_ms = self._wall_ms()
        before_ms = now_ms - self._retention_ms
        pruned_count = 0
        if before_ms < self._begun_ms or not self._reading.has_old(before_ms, now_ms):
            return 0
        while count := await self._in_thread(lambda: self._writing.prune(before_ms, now_ms)):
            pruned_count += count
            self._expired.inc(count)
        return pruned_count

    async def _in_thread(self, action: Callable[[], T]) -> T:
        # Whoever asked may leave; what has begun is finished.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, action))

    async def close(self) -> None:
        """Waits for what is being published, and gives the file back."""
        if self._keeping is not None:
            self._keeping.cancel()
        if self._publishing is not None:
            await self._publishing
        await asyncio.to_thread(self._thread.shutdown)
        self._writing.close()
        self._reading.close()
