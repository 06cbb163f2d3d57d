"""Stage 3, journal: sends emitted events to sinks; one process of a runner does, for all of them.

Theory of operation: whoever holds a lock on a file of the data directory sends; when it dies the kernel lets go, and
another takes over from the positions that were noted. Each sink is sent to by itself, one request at a time, in order:
a page of the file is read, cut into requests, sent. A request that fails is sent again after a pause that doubles,
until the sink takes it or the outbox's bound on age is reached.

Rules: a sink that says that the event itself is at fault (400, 413, 415, 422) is asked again a few times, with that
event alone, and then passes it over: one event does not hold up all others for days. Of a sink's troubles the first is
logged, and its end; never its URL.
"""

import asyncio
import fcntl
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, TypeVar

from fastrunner.base import clock, limits
from fastrunner.base.sinks import Mode, SinkAddress
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.errors import RunnerError
from fastrunner.events.sinks.file import Outgoing, OutgoingFile
from fastrunner.events.sinks.formats import request_of

__all__ = ["NotSent", "Post", "Sinks"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

_LOCK_NAME: Final = "event-sinks.lock"
_OF_THE_EVENT: Final = frozenset({400, 413, 415, 422})


class NotSent(Exception):
    """A request without an answer; the message is half a sentence without the URL."""


class Post(Protocol):
    """Sends requests (see `tasks/emit/sinks.py`)."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer. Raises NotSent."""

    async def close(self) -> None:
        """Closes its connections."""


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
        self._failing = metrics.event_sinks_failing
        self._failing_names: set[str] = set()

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
            self._failing_names.clear()
            self._failing.set(0)
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
        """Sends events until the sink has taken them; false if it refuses them: a single one is given up then."""
        events = [each.event for each in part if each.event is not None]
        if damaged_count := len(part) - len(events):
            self._outcomes["dropped"].inc(damaged_count)
            _log.error("%d events for the sink at %s are damaged, and passed over", damaged_count, address.shown)
        if not events:
            return True
        headers, body = request_of(address.mode, events)
        pause_s = limits.EVENT_SINK_PAUSE_S_MIN
        refusals_count = 0
        while True:
            trouble, is_of_event = await self._attempt(address, headers, body)
            if not trouble:
                self._recovered(address)
                self._outcomes["delivered"].inc(len(events))
                return True
            refusals_count += is_of_event
            if is_of_event and (len(part) > 1 or refusals_count >= limits.EVENT_SINK_REFUSALS_MAX):
                if len(part) == 1:
                    self._give_up(address, events[0], trouble)
                return False
            self._failed(address, trouble)
            self._outcomes["retried"].inc(len(events))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, limits.EVENT_SINK_PAUSE_S_MAX)

    async def _attempt(self, address: SinkAddress, headers: Mapping[str, str], body: bytes) -> tuple[str, bool]:
        """What went wrong, if anything; and whether the event is at fault."""
        try:
            async with asyncio.timeout(limits.EVENT_SINK_TIMEOUT_S):
                status = await self._post.post(address.url, headers, body)
        except TimeoutError:
            return f"no answer within {limits.EVENT_SINK_TIMEOUT_S:g} s", False
        except NotSent as problem:
            return str(problem), False
        return ("" if 200 <= status < 300 else f"it answers with status {status}"), status in _OF_THE_EVENT

    def _failed(self, address: SinkAddress, trouble: str) -> None:
        if address.name not in self._failing_names:
            self._failing_names.add(address.name)
            self._failing.set(len(self._failing_names))
            _log.warning("the sink at %s takes no events, they are kept and sent again: %s", address.shown, trouble)

    def _recovered(self, address: SinkAddress) -> None:
        if address.name in self._failing_names:
            self._failing_names.discard(address.name)
            self._failing.set(len(self._failing_names))
            _log.info("the sink at %s takes events again", address.shown)

    def _give_up(self, address: SinkAddress, event: Mapping[str, Any], trouble: str) -> None:
        self._outcomes["dropped"].inc()
        _log.error(
            "the sink at %s refuses event %r of %r, which is passed over: %s",
            address.shown,
            event["id"],
            event["source"],
            trouble,
        )
        self._recovered(address)

    async def _in_thread(self, action: Callable[[], T]) -> T:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, action))
