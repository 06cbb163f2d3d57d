"""Stage 3, journal: sends emitted events to sinks; one process of a runner does, for all of them.

Theory of operation: whoever holds a lock on a file of the data directory sends; when it dies the kernel lets go, and
another takes over from the positions that were noted. Each sink is sent to by itself, one request at a time, in order:
a page of the file is read, cut into requests, sent (`delivery`), until the sink takes it or the outbox's bound on age
is reached.
"""

import asyncio
import fcntl
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from fastrunner.base import clock, limits
from fastrunner.base.sinks import Mode, SinkAddress
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.errors import RunnerError
from fastrunner.events.sinks.delivery import Delivery, Post
from fastrunner.events.sinks.file import Outgoing, OutgoingFile

__all__ = ["Sinks"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

_LOCK_NAME: Final = "event-sinks.lock"


class Sinks:
    """The sinks of one runner, for one process, which may be the one that sends."""

    def __init__(
        self,
        folder: Path,
        addresses: Sequence[SinkAddress],
        seals: Seals,
        post: Post,
        metrics: Metrics,
        *,
        wall_ms: Callable[[], int] = clock.steady_ms,
    ) -> None:
        """`folder` is the data directory; `post` is closed with this."""
        self._addresses = addresses
        self._lock_path = folder / _LOCK_NAME
        self._post = post
        self._wall_ms = wall_ms
        self._reading = OutgoingFile(folder, seals)
        self._writing = OutgoingFile(folder, seals)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="event-sinks")
        self._positions: dict[str, int] = {}
        self._noted: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._outcomes = {
            outcome: metrics.events_sent.labels(outcome) for outcome in ("delivered", "retried", "dropped")
        }
        self._oldest_age = metrics.event_sinks_oldest_age
        self._delivery = Delivery(post, self._outcomes, metrics.event_sinks_failing)

    def start(self) -> None:
        """Sends from now on, or as soon as nobody else does, until `close`."""
        self._task = asyncio.create_task(self._send_when_due())

    async def close(self) -> None:
        """Sends no more, notes how far it has come, and lets another send."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._post.close()
        await asyncio.to_thread(self._thread.shutdown)
        self._writing.close()
        self._reading.close()

    async def _send_when_due(self) -> None:
        while True:
            lock = None
            try:
                lock = await self._in_thread(self._taken)
                if lock is not None:
                    await self._send()
            except (RunnerError, OSError) as error:
                _log.warning("events are not sent to sinks for now: %s", error)
            except Exception:
                _log.exception("events are not sent to sinks for now")
            finally:
                if lock is not None:
                    lock.close()
            await asyncio.sleep(limits.EVENTS_LOOK_INTERVAL_S)

    def _taken(self) -> BinaryIO | None:
        """The lock; None while another process has it. Raises OSError."""
        lock = self._lock_path.open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        except BaseException:
            lock.close()
            raise
        return lock

    async def _send(self) -> None:
        """Raises RunnerError, when nobody sends any more."""
        names = [address.name for address in self._addresses]
        self._positions = await self._in_thread(lambda: self._writing.begin(names))
        self._noted = dict(self._positions)
        work = [asyncio.create_task(self._serve(address)) for address in self._addresses]
        work.append(asyncio.create_task(self._keep()))
        try:
            await asyncio.gather(*work)
        finally:
            for each in work:
                each.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self._delivery.forget()
            self._oldest_age.set(0)
            # As far as it goes: what is not noted is sent again.
            await self._note()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(limits.EVENTS_LOOK_INTERVAL_S)
            await self._note()
            oldest_ms = self._reading.oldest_ms()
            age_ms = 0 if oldest_ms is None else max(0, self._wall_ms() - oldest_ms)
            self._oldest_age.set(age_ms / 1000)
            if age_ms > limits.OUTBOX_AGE_S_MAX * 1000:
                await self._expire()

    async def _expire(self) -> None:
        before_ms = self._wall_ms() - int(limits.OUTBOX_AGE_S_MAX * 1000)
        dropped_count = await self._in_thread(lambda: self._writing.expire(before_ms))
        self._outcomes["dropped"].inc(dropped_count)
        _log.error("%d events for sinks are given up: nobody took them for too long", dropped_count)

    async def _note(self) -> None:
        positions = {name: at for name, at in self._positions.items() if self._noted.get(name) != at}
        if positions:
            await self._in_thread(lambda: self._writing.advance(positions))
            self._noted |= positions

    async def _serve(self, address: SinkAddress) -> None:
        """Sends to one sink what there is, and what comes."""
        singly = False
        while True:
            page = self._reading.after(self._positions[address.name], limits.EVENT_SINK_BATCH_COUNT_MAX)
            if not page:
                await asyncio.sleep(limits.EVENT_SINK_LOOK_INTERVAL_S)
                continue
            # After an event that is at fault its companions wait until it is known which one it was.
            count = len(page) if address.mode is Mode.BATCH and not singly else 1
            while page:
                part, page = page[:count], page[count:]
                singly = not await self._deliver(address, part)
                if singly and len(part) > 1:
                    break
                self._positions[address.name] = part[-1].position

    async def _deliver(self, address: SinkAddress, part: Sequence[Outgoing]) -> bool:
        """Whether the sink has taken what is whole of it; a single event that it refuses is given up."""
        events = [each.event for each in part if each.event is not None]
        if damaged_count := len(part) - len(events):
            self._delivery.passed_over(address, damaged_count)
        return not events or await self._delivery.deliver(address, events, is_last=len(part) == 1)

    async def _in_thread(self, action: Callable[[], T]) -> T:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, action))
