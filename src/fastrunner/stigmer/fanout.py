"""Support: services that share a store: each hears what the others have taken, and tells its own followers.

    take -> store -> own followers
                  -> Redis: XADD (execution, last sequence) to one of 64 streams -> XREAD of every service -> followers
    sweep: how far are the executions that are followed here?                    -> followers

Theory of operation: what is told is only that there is more, and up to which number; bytes are read from the store. So
Redis may lose anything and be away at any time: what it does not say is found by the sweep, later. Each service holds
one XREAD that waits for all streams; when it has to begin again, it begins at their ends, and the sweep looks at
everything at once. Who follows all executions (the feed) is not swept: while Redis is away they begin anew again and
again, and list what there is.

Rules: told only after the commit; nobody waits for Redis. Its URL, which may hold a password, is in no log.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final
from zlib import crc32

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from fastrunner.base import limits
from fastrunner.counts.definitions import StigmerMetrics
from fastrunner.stigmer.ending import ended
from fastrunner.stigmer.followers import Followers
from fastrunner.stigmer.store import Told

__all__ = ["CHANNEL", "RedisFanout"]

_log = logging.getLogger(__name__)
_STREAMS: Final = tuple(f"{{stigmer}}:told:{number:02d}" for number in range(64))
"""In braces what a cluster of Redis places keys by: one command reads them all."""
CHANNEL: Final = "stigmer:exec:"
"""What the names of channels begin with, on which everybody is told who wants to be."""
_TROUBLE: Final = (RedisError, OSError, asyncio.TimeoutError)


class RedisFanout:
    """Tells others by Redis, and hears of them; made and used on one loop."""

    def __init__(self, url: str, followers: Followers, metrics: StigmerMetrics, *, publishes: bool) -> None:
        """Raises ValueError, without the URL, if it is none."""
        try:
            self._redis: Any = Redis.from_url(
                url,
                protocol=2,
                decode_responses=True,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=limits.STIGMER_REDIS_CALL_S_MAX,
                socket_timeout=limits.STIGMER_REDIS_CALL_S_MAX + limits.STIGMER_REDIS_WAIT_S,
            )
        except (ValueError, TypeError):
            raise ValueError(
                "is no URL of a Redis: expected redis://user:password@host:port/0 or rediss://..."
            ) from None
        self._followers = followers
        self._metrics = metrics
        self._publishes = publishes
        self._unsaid: OrderedDict[str, int] = OrderedDict()
        self._said: OrderedDict[str, int] = OrderedDict()
        """What this service has said of executions lately, and hears again."""
        self._more = asyncio.Event()
        self._trouble = ""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to say and to hear."""
        self._followers.announce = self.say
        self._tasks = [asyncio.create_task(self._keep_saying()), asyncio.create_task(self._keep_hearing())]

    async def close(self) -> None:
        """Ends at once: what is not said is found."""
        await ended(*self._tasks)
        with contextlib.suppress(*_TROUBLE):
            await self._redis.aclose()

    def say(self, told: Iterable[Told]) -> None:
        """Others are to hear this; only the latest of each execution counts."""
        for each in told:
            self._unsaid[each.execution_id] = max(each.last_sequence, self._unsaid.pop(each.execution_id, 0))
        while len(self._unsaid) > limits.STIGMER_UNSAID_MAX:
            self._unsaid.popitem(last=False)
            self._metrics.fanout_dropped.inc()
        self._more.set()

    # --- saying ---

    async def _keep_saying(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._unsaid:
                try:
                    await self._say_some()
                except _TROUBLE as error:
                    self._note_trouble(error)
                    await asyncio.sleep(limits.STIGMER_REDIS_PAUSE_S)

    async def _say_some(self) -> None:
        batch = dict(zip(self._unsaid, self._unsaid.values(), strict=True))
        self._said |= batch
        while len(self._said) > limits.STIGMER_UNSAID_MAX:
            self._said.popitem(last=False)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for execution_id, last_sequence in batch.items():
                stream = _STREAMS[crc32(execution_id.encode()) % len(_STREAMS)]
                fields = {"execution": execution_id, "last_sequence": last_sequence}
                pipeline.xadd(stream, fields, maxlen=limits.STIGMER_STREAM_LENGTH, approximate=True)
                if self._publishes:
                    pipeline.publish(CHANNEL + execution_id, orjson.dumps(fields))
            await pipeline.execute()
        for execution_id, last_sequence in batch.items():
            if self._unsaid.get(execution_id) == last_sequence:
                del self._unsaid[execution_id]

    # --- hearing ---

    async def _keep_hearing(self) -> None:
        while True:
            try:
                places = await self._ends()
                self._metrics.fanout_up.set(1)
                if self._trouble:
                    _log.info("Redis is there again")
                    self._trouble = ""
                self._followers.begin_anew()
                while True:
                    await self._hear(places)
            except _TROUBLE as error:
                self._note_trouble(error)
            # Who follows all executions would not hear of those of other services.
            self._followers.begin_anew()
            await asyncio.sleep(limits.STIGMER_REDIS_PAUSE_S)

    async def _ends(self) -> dict[str, str]:
        """The latest entry of each stream."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for stream in _STREAMS:
                pipeline.xrevrange(stream, count=1)
            found = await pipeline.execute()
        return {stream: rows[0][0] if rows else "0-0" for stream, rows in zip(_STREAMS, found, strict=True)}

    async def _hear(self, places: dict[str, str]) -> None:
        wait_ms = int(limits.STIGMER_REDIS_WAIT_S * 1000)
        found = await self._redis.xread(places, count=limits.STIGMER_HEARD_MAX, block=wait_ms)
        heard: dict[str, int] = {}
        for stream, entries in found or ():
            for place, fields in entries:
                places[stream] = place
                execution_id, last_sequence = _read(fields)
                if self._said.get(execution_id) == last_sequence:
                    # One's own: its followers were told already.
                    del self._said[execution_id]
                elif execution_id:
                    heard[execution_id] = max(last_sequence, heard.get(execution_id, 0))
        self._followers.hear([Told(execution_id, last_sequence) for execution_id, last_sequence in heard.items()])

    def _note_trouble(self, error: BaseException) -> None:
        self._metrics.fanout_up.set(0)
        if type(error).__name__ != self._trouble:
            self._trouble = type(error).__name__
            _log.warning("Redis cannot be used, so what other services take is told late: %s", self._trouble)


def _read(fields: Mapping[str, str]) -> tuple[str, int]:
    """What an entry says; nothing, if it is nobody's of ours."""
    digits = fields.get("last_sequence", "")
    return fields.get("execution", ""), int(digits) if digits.isdecimal() and len(digits) < 19 else 0
