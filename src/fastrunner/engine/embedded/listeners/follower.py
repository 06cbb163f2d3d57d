"""Stage 3, journal: events as they come, given to those that wait for them.

Theory of operation: each worker reads the events' file from where its shards have come to, and asks the index of each
event whom it is for. How far it has come is written by each shard together with the rows that this has made; where
nothing was for anybody, now and then.

Rules: no more is read while many rows wait for their commit. An event's rows for one execution are never parted by
another's turn. The first event after a start may have been given to some of those it is for, before a crash: whoever
has taken it has had it.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.engine import EventSource, KeptEvent
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.engine.embedded.listeners.giving import Giving
from fastrunner.engine.embedded.listeners.registry import Listener, Registry
from fastrunner.engine.embedded.shards import Shards
from fastrunner.errors import StorageFailed, StorageFull

__all__ = ["Follower"]

_log = logging.getLogger(__name__)


class Follower:
    """Follows the events for the listeners of one worker."""

    def __init__(
        self,
        source: EventSource,
        shards: Shards,
        registry: Registry,
        giving: Giving,
        seen: Callable[[str | None], None],
    ) -> None:
        """`seen` hears of the type of each event, and None where events were passed over."""
        self.oldest_key = 0
        """Older events are not kept any more."""
        self._source = source
        self._shards = shards
        self._registry = registry
        self._giving = giving
        self._seen = seen
        self._done_key = 0
        """The last event that has been looked at."""
        self._begun_key = 0
        """The same, or the one that is being looked at."""
        self._unsure: set[int] = set()
        """Shards that have not seen an event since the start."""
        self._woken = asyncio.Event()
        self._landed = asyncio.Event()
        self._pass_began_s = 0.0
        self._told_s = 0.0

    def reached_key(self, listener: Listener) -> int:
        """Up to which key the events have been looked at for a listener's shard."""
        return max(self._begun_key, self._shards.by_number[listener.shard_number].inbox.position)

    def wake(self) -> None:
        """There are new events, perhaps."""
        self._woken.set()

    def landed(self) -> None:
        """A commit has taken rows."""
        self._landed.set()

    async def run(self) -> None:
        """Follows until cancelled."""
        self._done_key = self._begun_key = min((shard.inbox.position for shard in self._shards), default=0)
        self._unsure = {shard.number for shard in self._shards}
        while True:
            self._woken.clear()
            try:
                has_more = await self._follow()
                # Under a load that never ends, too, or nothing would expire until there is no room.
                if not has_more or monotonic_s() - self._told_s >= limits.EVENTS_LOOK_INTERVAL_S:
                    self._tell_reached()
                if not has_more:
                    await self._rest(limits.EVENTS_FOLLOW_INTERVAL_S)
            except (StorageFailed, StorageFull) as trouble:
                _log.warning("events cannot be followed now: %s", trouble.message)
                await asyncio.sleep(limits.COMMIT_RETRY_DELAY_S_MAX)

    async def _rest(self, rest_s: float) -> None:
        # Nobody tells of what a process has written that died before it could.
        with suppress(TimeoutError):
            async with asyncio.timeout(rest_s):
                await self._woken.wait()

    async def _follow(self) -> bool:
        """Looks at some events; whether there were any. Raises StorageFailed, StorageFull."""
        if not self._registry.count:
            return self._pass_over()
        page = self._source.after(self._done_key, limits.EVENTS_FOLLOWED_PER_READ_MAX)
        self._pass_began_s = monotonic_s()
        for kept in page:
            self._begun_key = kept.key
            self._seen(kept.event["type"])
            await self._look(kept)
            self._done_key = kept.key
            for shard in self._shards:
                if shard.inbox.position < kept.key:
                    shard.inbox.position = kept.key
                    self._unsure.discard(shard.number)
        for shard in self._shards:
            if shard.inbox.lag > limits.EVENTS_POSITION_LAG_MAX:
                shard.inbox.note_position()
        if page:
            await asyncio.sleep(0)
        return bool(page)

    def _pass_over(self) -> bool:
        """Nobody listens: what has come is only kept."""
        last_key = self._source.last_key()
        if last_key > self._done_key:
            self._done_key = self._begun_key = last_key
            self._seen(None)
            for shard in self._shards:
                shard.inbox.position = max(shard.inbox.position, last_key)
            self._unsure.clear()
        return False

    async def _look(self, kept: KeptEvent) -> None:
        """Gives an event to those it is for."""
        whose_before = -1
        for listener in self._registry.candidates(kept.event):
            shard = self._shards.by_number[listener.shard_number]
            if listener.whose != whose_before:
                whose_before = listener.whose
                await self._let_others(shard)
            if kept.key <= shard.inbox.position or not listener.is_live or listener.offered_key >= kept.key:
                continue
            if listener.places is None or not self._registry.is_for(listener, kept):
                continue
            if shard.number in self._unsure and self._giving.has_taken(listener, kept.key, before=False):
                continue
            self._giving.give_live(listener, kept)

    async def _let_others(self, shard: Shard) -> None:
        if monotonic_s() - self._pass_began_s > limits.EVENTS_FOLLOW_PASS_S_MAX:
            await asyncio.sleep(0)
            self._pass_began_s = monotonic_s()
        while shard.inbox.rows_count >= limits.INBOX_UNCOMMITTED_ROWS_MAX:
            self._landed.clear()
            await self._landed.wait()
            self._pass_began_s = monotonic_s()

    def _tell_reached(self) -> None:
        self._told_s = monotonic_s()
        oldest = self._source.retained(None, 0, self._begun_key, 1)
        self.oldest_key = oldest[0].key if oldest else self._begun_key
        for shard in self._shards:
            self._source.reached(f"shard-{shard.number:04d}", shard.inbox.safe_position)
