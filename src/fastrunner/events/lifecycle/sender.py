"""Stage 6, events: sends the lifecycle of a worker's executions to sinks.

Theory of operation: the rows of events of a shard are numbered in the order of their commits, so how far a sink has
come in a shard is a number. For each sink and shard one task reads a page of rows after it, makes CloudEvents of them
(`translate`), and sends those, one request at a time. A shard has one owner, which gives its lock back when it has
stopped to send; the next one goes on from the positions that were noted.

Rules: positions are noted after sending. Retention is told how far every sink has come, and keeps what they lack for a
while. A shard or a sink in trouble holds up no other one.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import clock, limits
from fastrunner.base.sinks import Mode, SinkAddress
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import DefinitionRef, EventRows
from fastrunner.errors import RunnerError
from fastrunner.events.lifecycle.positions import Place, PositionsFile
from fastrunner.events.lifecycle.translate import lifecycle_of
from fastrunner.events.sinks.delivery import Delivery, Post
from fastrunner.progress.wire import split

__all__ = ["Lifecycle"]

_log = logging.getLogger(__name__)

T = TypeVar("T")


class _Item(NamedTuple):
    """An event on its way."""

    position: int
    """How far the sink has come when it has this."""
    at_ms: int
    """When it happened."""
    event: dict[str, Any]
    """In CloudEvents' JSON format."""


class Lifecycle:
    """The lifecycle sinks of one worker."""

    def __init__(
        self,
        folder: Path,
        addresses: Sequence[SinkAddress],
        post: Post,
        metrics: Metrics,
        *,
        wall_ms: Callable[[], int] = clock.steady_ms,
    ) -> None:
        """`folder` is the data directory; `post` is closed with this."""
        self._addresses = addresses
        self._names = [address.name for address in addresses]
        self._post = post
        self._wall_ms = wall_ms
        self._file = PositionsFile(folder)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lifecycle-sinks")
        self._shards: Sequence[EventRows] = ()
        self._last_keys: dict[int, int] = {}
        self._positions: dict[Place, int] = {}
        self._noted: dict[Place, int] = {}
        self._oldest_ms: dict[Place, int] = {}
        self._task: asyncio.Task[None] | None = None
        outcomes = {name: metrics.lifecycle_events.labels(name) for name in ("delivered", "retried", "dropped")}
        self._delivery = Delivery(post, outcomes, metrics.lifecycle_sinks_failing)
        self._oldest_age = metrics.lifecycle_oldest_age

    async def begin(self, shards: Sequence[EventRows]) -> None:
        """Notes where sinks begin that are new; call before anything is executed. Sends from now on, until `close`."""
        self._shards = shards
        try:
            self._last_keys = {shard.number: shard.last_key() for shard in shards}
            await self._know()
        except RunnerError as error:
            _log.warning("lifecycle events are not sent for now: %s", error)
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Sends no more, and notes how far it has come. The shards must still be open."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._post.close()
        await asyncio.to_thread(self._thread.shutdown)
        self._file.close()

    async def _know(self) -> None:
        """Reads how far sinks have come. Raises RunnerError."""
        known = await self._in_thread(lambda: self._file.begin(self._names, self._last_keys))
        self._positions, self._noted = known, dict(known)
        for shard in self._shards:
            self._tell(shard)

    async def _run(self) -> None:
        while True:
            try:
                if not self._positions:
                    self._last_keys = self._last_keys or {shard.number: shard.last_key() for shard in self._shards}
                    await self._know()
                await self._send()
            except (RunnerError, OSError) as error:
                _log.warning("lifecycle events are not sent for now: %s", error)
            except Exception:
                _log.exception("lifecycle events are not sent for now")
            await asyncio.sleep(limits.EVENTS_LOOK_INTERVAL_S)

    async def _send(self) -> None:
        """Raises RunnerError when positions cannot be noted."""
        work = [
            asyncio.create_task(self._serve(address, shard)) for address in self._addresses for shard in self._shards
        ]
        work.append(asyncio.create_task(self._keep()))
        try:
            await asyncio.gather(*work)
        finally:
            for each in work:
                each.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self._delivery.forget()
            self._oldest_ms.clear()
            self._oldest_age.set(0)
            # As far as it goes: what is not noted is sent again.
            await self._note()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(limits.EVENTS_LOOK_INTERVAL_S)
            await self._note()
            oldest_ms = min(self._oldest_ms.values(), default=None)
            self._oldest_age.set(0 if oldest_ms is None else max(0, self._wall_ms() - oldest_ms) / 1000)

    async def _note(self) -> None:
        positions = {place: key for place, key in self._positions.items() if self._noted.get(place) != key}
        if positions:
            await self._in_thread(lambda: self._file.advance(positions))
            self._noted |= positions

    async def _serve(self, address: SinkAddress, shard: EventRows) -> None:
        """Sends to one sink what one shard has, and what comes there."""
        place = (address.name, shard.number)
        singly = in_trouble = False
        while True:
            try:
                rows = shard.after(self._positions[place], limits.FEED_ROWS_MAX, limits.FEED_SIZE_BYTES_MAX)
            except RunnerError as error:
                if not in_trouble:
                    _log.warning("lifecycle events of shard %d are not sent for now: %s", shard.number, error)
                in_trouble = True
                await asyncio.sleep(limits.EVENTS_LOOK_INTERVAL_S)
                continue
            in_trouble = False
            if rows:
                singly = await self._send_rows(address, shard, rows, singly)
            else:
                self._oldest_ms.pop(place, None)
            # Who has much to send lets others run.
            await asyncio.sleep(0 if rows else limits.EVENT_SINK_LOOK_INTERVAL_S)

    async def _send_rows(
        self,
        address: SinkAddress,
        shard: EventRows,
        rows: Sequence[tuple[int, DefinitionRef, str, bytes]],
        singly: bool,
    ) -> bool:
        """Sends what is in rows, up to a request that the sink refuses; whether it goes on event by event."""
        place = (address.name, shard.number)
        items = self._items(address, self._positions[place], rows)
        # After an event that is at fault its companions wait until it is known which one it was.
        count = limits.EVENT_SINK_BATCH_COUNT_MAX if address.mode is Mode.BATCH and not singly else 1
        while part := [*islice(items, count)]:
            self._oldest_ms[place] = part[0].at_ms
            is_last = len(part) == 1
            singly = not await self._delivery.deliver(address, [item.event for item in part], is_last=is_last)
            if singly and not is_last:
                return True
            self._advance(place, shard, part[-1].position)
        self._advance(place, shard, rows[-1][0])
        return singly

    def _items(
        self, address: SinkAddress, position: int, rows: Sequence[tuple[int, DefinitionRef, str, bytes]]
    ) -> Iterator[_Item]:
        """The events in rows. Only the last one of a row leads behind it: who stops before reads the row again."""
        for key, definition, _, messages in rows:
            if not messages:
                self._delivery.passed_over(address, 1)
            encoded = [*split(messages)]
            for message in encoded:
                progress = WorkflowProgressEvent.FromString(message)
                reached = key if message is encoded[-1] else position
                found = [*lifecycle_of(definition, progress)]
                for event in found:
                    yield _Item(reached if event is found[-1] else position, progress.timestamp_ms, event)
            position = key

    def _advance(self, place: Place, shard: EventRows, position: int) -> None:
        if position != self._positions[place]:
            self._positions[place] = position
            self._tell(shard)

    def _tell(self, shard: EventRows) -> None:
        """Tells retention what every sink has of a shard."""
        shard.sent(min(self._positions[name, shard.number] for name in self._names))

    async def _in_thread(self, action: Callable[[], T]) -> T:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, action))
