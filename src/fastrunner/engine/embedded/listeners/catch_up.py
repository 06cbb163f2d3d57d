"""Stage 3, journal: listeners that are behind: what the events' file keeps from before is gone through for them.

Theory of operation: whoever begins to listen is behind everything that is kept. The first few of those events are
looked at within the commit that has the listener. Where there are more, all who wait for such are put into an index of
their own, and the events go past it once for all of them, in slices. A listener that has been given some rows is left
alone until it has taken them; one that has seen everything is live.

Rule: a listener becomes live in the same turn of the loop in which the events' file had nothing more for it up to the
key that the follower has come to, so nothing comes in between.
"""

import asyncio
from collections.abc import Callable

from fastrunner.base import limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EventSource, KeptEvent
from fastrunner.engine.embedded.listeners.giving import Giving
from fastrunner.engine.embedded.listeners.registry import Listener, Registry, extract
from fastrunner.errors import StorageFailed, StorageFull
from fastrunner.events.index import MatchIndex, Place

__all__ = ["CatchUp"]


class CatchUp:
    """The listeners of one worker that are behind, and have nothing to take."""

    def __init__(
        self,
        source: EventSource,
        registry: Registry,
        giving: Giving,
        reached_key: Callable[[Listener], int],
        metrics: Metrics,
    ) -> None:
        """`reached_key`: up to which key the follower has looked at events for a listener's shard."""
        self._source = source
        self._registry = registry
        self._giving = giving
        self._reached_key = reached_key
        self._gaps = metrics.listener_gaps
        self._waiting: dict[Listener, None] = {}
        self._woken = asyncio.Event()
        self._absent: dict[str, int] = {}
        """Types of which no event was kept up to a key."""

    def seen(self, event_type: str | None) -> None:
        """There is an event of a type, or (None) there may be some of any."""
        if event_type is None:
            self._absent.clear()
        else:
            self._absent.pop(event_type, None)

    def add(self, listener: Listener) -> None:
        """It is behind, and has nothing to take."""
        self._waiting[listener] = None
        self._woken.set()

    def begin(self, listener: Listener, after_key: int) -> None:
        """It begins to listen: looks at the first events that are kept after a key."""
        reached_key = self._reached_key(listener)
        listener.offered_key = after_key
        if listener.type is not None and listener.type in self._absent:
            listener.offered_key, listener.is_live = reached_key, True
            return
        try:
            self._begin(listener, reached_key)
        except (StorageFailed, StorageFull):
            self.add(listener)

    def _begin(self, listener: Listener, reached_key: int) -> None:
        after_key, left = listener.offered_key, limits.EVENTS_OFFERED_AT_START_MAX
        while left > 0 and (page := self._source.retained(listener.type, after_key, reached_key, left)):
            left -= len(page)
            after_key = page[-1].key
            for kept in page:
                if self._registry.is_for(listener, kept) and not self._giving.has_taken(listener, kept.key):
                    self._giving.give(listener, kept)
        if left > 0:
            if listener.type is not None and left == limits.EVENTS_OFFERED_AT_START_MAX and not listener.offered_key:
                self._note_absent(listener.type, reached_key)
            listener.offered_key, listener.is_live = reached_key, True
            return
        listener.offered_key = after_key
        if not listener.rows_count:
            self.add(listener)

    def _note_absent(self, event_type: str, reached_key: int) -> None:
        if len(self._absent) >= limits.EVENT_TYPES_ABSENT_MAX:
            self._absent.clear()
        self._absent[event_type] = reached_key

    # --- many at once ---

    async def run(self) -> None:
        """Sees to those that are behind, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._waiting:
                taken = list(self._waiting)[: limits.LISTENERS_OFFERED_TOGETHER_MAX]
                try:
                    await self._together(taken)
                except (StorageFailed, StorageFull):
                    await asyncio.sleep(limits.COMMIT_RETRY_DELAY_S_MAX)

    async def _together(self, taken: list[Listener]) -> None:
        """Goes through what is kept for some listeners of one shard. Raises StorageFailed, StorageFull."""
        crowd = _Crowd(self._registry, [each for each in taken if each.shard_number == taken[0].shard_number])
        for listener in taken:
            if listener.places is None or listener.is_live:
                self._waiting.pop(listener, None)
        self._count_gaps(crowd)
        after_key = min((listener.offered_key for listener in crowd.left), default=0)
        while crowd.left:
            reached_key = self._reached_key(next(iter(crowd.left)))
            page = self._source.retained(crowd.type, after_key, reached_key, limits.EVENTS_FOLLOWED_PER_READ_MAX)
            if not page:
                # Nothing comes between the look and this.
                for listener in list(crowd.left):
                    self._giving.settle(listener, reached_key, True)
                    self._done(crowd, listener)
                return
            for kept in page:
                for listener in crowd.index.candidates(kept.event):
                    if listener.offered_key < kept.key:
                        self._offer(crowd, listener, kept)
            after_key = page[-1].key
            await asyncio.sleep(0)
            for listener in [each for each in crowd.left if each.places is None]:
                self._done(crowd, listener)

    def _offer(self, crowd: "_Crowd", listener: Listener, kept: KeptEvent) -> None:
        if not self._registry.is_for(listener, kept) or self._giving.has_taken(listener, kept.key):
            return
        self._giving.give(listener, kept)
        self._giving.settle(listener, kept.key, False)
        if listener.rows_count >= limits.INBOX_PAGE_EVENTS_MAX:
            # The rest when it has taken these.
            self._done(crowd, listener)

    def _done(self, crowd: "_Crowd", listener: Listener) -> None:
        crowd.leave(listener)
        self._waiting.pop(listener, None)

    def _count_gaps(self, crowd: "_Crowd") -> None:
        oldest = self._source.retained(None, 0, 2**62, 1)
        for listener in crowd.left:
            # Of what has expired since nobody knows any more whether it was for it.
            if oldest and 0 < listener.offered_key < oldest[0].key - 1:
                self._gaps.inc()


class _Crowd:
    """Listeners for which the events from before are gone through together."""

    def __init__(self, registry: Registry, listeners: list[Listener]) -> None:
        self.index: MatchIndex[Listener] = MatchIndex(extract)
        self.left: dict[Listener, tuple[Place[Listener], ...]] = {}
        """Those that are not done yet."""
        for listener in listeners:
            if listener.places is not None and not listener.is_live:
                self.left[listener] = self.index.add(listener, registry.probes_of(listener))
        types = {listener.type for listener in self.left}
        self.type = types.pop() if len(types) == 1 else None
        """Of all events that are for them; None if that is not one."""

    def leave(self, listener: Listener) -> None:
        """It is done."""
        self.index.remove(listener, self.left.pop(listener))
