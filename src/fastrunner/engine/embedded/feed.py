"""Stage 6, events: followers of all executions of a worker: what is accepted, paused, resumed, and ends.

Theory of operation: the rows of events of a shard are numbered in the order of their commits, and a change of state is
an event. So the feed is a walk over those rows from a number on, and costs nothing where nobody follows. A follower
that has read everything waits for a commit, then a moment, so that what comes meanwhile is read in one go; followers
who stand at the same row share what is read.

Rules: a follower holds one page, however slow it is, and nothing waits for it. Rows go when retention ends: whoever has
not read so far is told that something is missing.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import limits
from fastrunner.engine import DefinitionRef, EventRows, FeedItem, StateChange
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.engine.embedded.shards import Shards
from fastrunner.engine.embedded.store.reader import Reader
from fastrunner.errors import Stopping
from fastrunner.progress.names import STATE_EVENTS
from fastrunner.progress.wire import split

__all__ = ["Feed"]

_STATE_MARK = b"workflow_"
"""In every event that is a change of state; most rows of events have none."""


@dataclass(frozen=True, slots=True)
class _Page:
    """What was committed after a row of events."""

    changes: Sequence[tuple[int, StateChange]]
    """Each with the position after it."""
    last_position: int
    """Up to where it has been read."""
    missed: bool
    """Whether rows after the first one asked for are gone."""
    rows_count: int


class Feed:
    """The changes of state of one worker's executions."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._committed = asyncio.Event()
        self._commits = 0
        self._pages: OrderedDict[tuple[int, int, int], _Page] = OrderedDict()
        self._closed = False

    def rows(self) -> Sequence[EventRows]:
        """See WorkerFeed."""
        return [_Rows(shard) for shard in self._shards]

    def announce(self) -> None:
        """Events are durable now."""
        self._commits += 1
        self._committed.set()

    def close(self) -> None:
        """Ends every follower with Stopping."""
        self._closed = True
        self._committed.set()

    async def follow(self, after: Mapping[int, int]) -> AsyncGenerator[FeedItem, None]:
        """See Engine."""
        self._shards.check_open()
        positions: dict[int, int] = {}
        missed = False
        for shard in self._shards:
            deleted, last = shard.store.feed_bounds()
            position = after.get(shard.number, last)
            # One beyond what there is was given by a file that has been restored to what it was before.
            missed |= not deleted <= position <= last
            positions[shard.number] = min(max(position, deleted), last)
        yield FeedItem(dict(positions), missed=missed)
        while True:
            commits = self._commits
            found = False
            for shard in self._shards:
                page = self._page(shard.number, shard.store, positions[shard.number])
                for position, change in page.changes:
                    positions[shard.number] = position
                    yield FeedItem(dict(positions), change)
                if page.missed or page.last_position > positions[shard.number]:
                    positions[shard.number] = page.last_position
                    yield FeedItem(dict(positions), missed=page.missed)
                found = found or bool(page.rows_count)
            # Who reads much lets others run; who has read everything waits.
            await (asyncio.sleep(0) if found else self._commit_after(commits))

    async def _commit_after(self, commits: int) -> None:
        if self._commits == commits and not self._closed:
            self._committed.clear()
            await self._committed.wait()
            await asyncio.sleep(limits.FEED_INTERVAL_S)
        if self._closed:
            raise Stopping("the worker is stopping: subscribe again with the last cursor")

    def _page(self, number: int, store: Reader, position: int) -> _Page:
        key = (number, position, self._commits)
        page = self._pages.get(key)
        if page is None:
            page = self._pages[key] = _read(store, position)
            if len(self._pages) > limits.FEED_PAGES_KEPT_MAX:
                self._pages.popitem(last=False)
        return page


class _Rows:
    """The rows of events of one shard; see EventRows."""

    def __init__(self, shard: Shard) -> None:
        self.number = shard.number
        self._store = shard.store
        self._unsent = shard.retention.unsent

    def last_key(self) -> int:
        _, last = self._store.feed_bounds()
        return last

    def after(self, key: int, rows_max: int, size_bytes_max: int) -> Sequence[tuple[int, DefinitionRef, str, bytes]]:
        return self._store.feed(key, rows_max, size_bytes_max)

    def sent(self, key: int) -> None:
        self._unsent.sent_key = key


def _read(store: Reader, position: int) -> _Page:
    deleted, _ = store.feed_bounds()
    rows = store.feed(position, limits.FEED_ROWS_MAX, limits.FEED_SIZE_BYTES_MAX)
    changes: list[tuple[int, StateChange]] = []
    for event_key, definition, execution_id, messages in rows:
        if _STATE_MARK in messages:
            changes += _changes_in(event_key, definition, execution_id, messages)
    return _Page(changes, rows[-1][0] if rows else max(position, deleted), position < deleted, len(rows))


def _changes_in(
    event_key: int, definition: DefinitionRef, execution_id: str, messages: bytes
) -> list[tuple[int, StateChange]]:
    """Those of one row. Only after the last one the row has been told: who stops before reads it again."""
    events = [WorkflowProgressEvent.FromString(message) for message in split(messages)]
    found = [event for event in events if event.event_type in STATE_EVENTS]
    return [
        (
            event_key if event is found[-1] else event_key - 1,
            StateChange(definition, execution_id, event.status, event.sequence_number, event.timestamp_ms),
        )
        for event in found
    ]
