"""Stage 3, journal: executions that wait for events: who hears what, durably, once.

    events.db -> follower -> registry: whom is it for -> a row in the inbox of the listener's shard -> its commit
    -> the execution, brought back if need be -> its walk takes one event a turn
    -> the commit that has the walk takes the row away

Theory of operation. A listener is live, or behind. A live one is given events as they come (`follower.py`). One that
begins, and one that has as many rows as it may, is behind, and reads on in what is kept (`catch_up.py`). Both are done
on the loop, so where the past meets what follows there is neither a gap nor an overlap.

Rules: an execution takes no event twice: what it had taken when it began to listen is not offered to it. One that is
paused takes nothing, and is not brought back. One that only listens takes no memory but its entry in the registry.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from fastrunner._core import Subscribe
from fastrunner.base import crash, limits
from fastrunner.base.crash import CrashPoint
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EventSource
from fastrunner.engine.embedded.commit.shard import Shard
from fastrunner.engine.embedded.listeners.catch_up import CatchUp
from fastrunner.engine.embedded.listeners.follower import Follower
from fastrunner.engine.embedded.listeners.giving import Giving
from fastrunner.engine.embedded.listeners.registry import Listener, Registry, whose
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.shards import Shards
from fastrunner.engine.embedded.store.changes import Change, InboxChange, Started
from fastrunner.engine.embedded.store.listener_rows import InboxEvent, StoredListener
from fastrunner.errors import StorageFailed

__all__ = ["Listeners"]


class Host(Protocol):
    """What listeners ask of the engine around them."""

    @property
    def may_drive_on(self) -> bool:
        """Whether walks may go on now."""


class Listeners:
    """The listeners of one worker."""

    def __init__(
        self,
        host: Host,
        shards: Shards,
        source: EventSource | None,
        enqueue: Callable[[Execution], None],
        metrics: Metrics,
    ) -> None:
        """`enqueue` gives an execution its turn."""
        self._host = host
        self._enqueue = enqueue
        self._shards = shards
        self._source = source
        self._metrics = metrics
        self._residents: dict[int, Execution] = {}
        """Executions in memory that listen, or have."""
        self._gone: set[int] = set()
        """Executions whose listeners have changed before all were known; only until then."""
        self._is_loading = True
        self._registry = Registry(shards)
        self._giving = Giving(shards, self._residents, metrics)
        self._follower: Follower
        self._catch_up: CatchUp
        if source is not None:
            self._follower = Follower(source, shards, self._registry, self._giving, self._seen)
            self._catch_up = CatchUp(source, self._registry, self._giving, self._follower.reached_key, metrics)

    def _seen(self, event_type: str | None) -> None:
        self._catch_up.seen(event_type)

    # --- life ---

    def wake(self) -> None:
        """There are new events, perhaps."""
        if self._source is not None:
            self._follower.wake()

    async def run(self) -> None:
        """Follows events until cancelled."""
        if self._source is None:
            return
        for shard in self._shards:
            await self._load(shard)
        self._is_loading = False
        self._gone.clear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follower.run())
            tasks.create_task(self._catch_up.run())

    async def _load(self, shard: Shard) -> None:
        """Takes up all listeners of a shard, some at a time."""
        after_key = 0
        while True:
            try:
                page = shard.store.listeners(after_key, limits.LISTENERS_LOADED_PER_PASS_MAX)
            except StorageFailed:
                await asyncio.sleep(limits.COMMIT_RETRY_DELAY_S_MAX)
                continue
            if not page:
                return
            for stored in page:
                if whose(shard.number, stored.execution_key) not in self._gone:
                    self._take_up(shard, stored)
            after_key = page[-1].listener_key
            await asyncio.sleep(0)

    def _take_up(self, shard: Shard, stored: StoredListener) -> None:
        if self._registry.find(shard.number, stored.execution_key, stored.subscription_id) is not None:
            return
        listener = Listener(shard.number, stored.execution_key, stored.subscription_id, stored.namespace)
        listener.offered_key, listener.is_live = stored.offered_key, stored.is_live
        listener.started_sequence, listener.rows_count = stored.started_sequence, stored.rows_count
        try:
            if stored.filter_json is None:
                raise ValueError("it is damaged")
            self._registry.add(listener, stored.filter_json)
        except ValueError:
            # Its walk knows what it waits for, and says so when it comes back.
            shard.loader.recall(stored.execution_key)
            return
        self._giving.rows_count += stored.rows_count
        self._tell()
        if stored.rows_count:
            shard.loader.recall(stored.execution_key)
        elif not stored.is_live:
            self._catch_up.add(listener)

    def _tell(self) -> None:
        self._metrics.listeners.set(self._registry.count)
        self._metrics.inbox_rows.set(self._giving.rows_count)

    # --- what executions ask for: see Driver ---

    def heard(self, execution: Execution, change: Change) -> None:
        """See Driver. Raises RuntimeError if there are no events."""
        try:
            self._hear(execution, change)
        except Exception:
            # There will be no such commit: whoever waits for it hears that with the execution's other callers.
            execution.waiters = (*change.waiters, *execution.waiters)
            raise

    def _hear(self, execution: Execution, change: Change) -> None:
        heard = change.listening
        assert heard is not None
        if self._source is None:
            raise RuntimeError("this engine has no events: nothing can be waited for")
        shard = self._shards.by_number[execution.shard_number]
        place = whose(shard.number, execution.execution_key)
        self._residents[place] = execution
        if self._is_loading:
            self._gone.add(place)
            self._know(shard, execution.execution_key)
        heard.kept_from_key = self._follower.oldest_key
        for subscription_id, _, _ in heard.taken:
            self._took(shard, execution, subscription_id)
        self._metrics.events_delivered.inc(len(heard.taken))
        for subscription_id, _ in heard.dropped:
            self._took(shard, execution, subscription_id)
        for subscription_id in heard.ended:
            listener = self._registry.find(shard.number, execution.execution_key, subscription_id)
            if listener is not None:
                self._forget(listener)
        for started in heard.started:
            self._begin(shard, execution, started)
        self._tell()

    def _took(self, shard: Shard, execution: Execution, subscription_id: int) -> None:
        listener = self._registry.find(shard.number, execution.execution_key, subscription_id)
        if listener is None:
            return
        listener.rows_count -= 1
        self._giving.rows_count -= 1
        if not listener.rows_count and not listener.is_live:
            self._catch_up.add(listener)

    def _forget(self, listener: Listener) -> None:
        self._registry.remove(listener)
        self._giving.rows_count -= listener.rows_count

    def _begin(self, shard: Shard, execution: Execution, started: Started) -> None:
        assert execution.walk is not None
        key, subscription_id = execution.execution_key, started.subscription_id
        listener = self._registry.find(shard.number, key, subscription_id)
        if listener is not None:
            listener.filter_json = started.filter_json
            self._registry.refilter(listener, started.filter_json)
            return
        listener = Listener(shard.number, key, subscription_id, execution.walk.plan.namespace)
        listener.filter_json = started.filter_json
        listener.started_sequence = started.started_sequence
        self._registry.add(listener, started.filter_json)
        self._catch_up.begin(listener, started.offered_key)
        started.offered_key, started.is_live = listener.offered_key, listener.is_live

    def committed(self, execution: Execution, change: Change) -> None:
        """What an execution waits for is durable."""
        heard = change.listening
        assert heard is not None
        if heard.taken:
            crash.reach(CrashPoint.AFTER_TAKING_COMMIT)
        if execution.listening is not None:
            execution.listening.landed(heard)
        for started in heard.started:
            listener = self._registry.find(execution.shard_number, execution.execution_key, started.subscription_id)
            if listener is not None and listener.filter_json is started.filter_json:
                # From now on the file has it.
                listener.filter_json = None

    def restored(self, execution: Execution) -> None:
        """An execution that listens is back in memory."""
        if execution.listening is None or execution.walk is None:
            return
        shard = self._shards.by_number[execution.shard_number]
        self._residents[whose(shard.number, execution.execution_key)] = execution
        if self._is_loading:
            self._know(shard, execution.execution_key)
        for asked in execution.walk.pending():
            if isinstance(asked, Subscribe) and not self._knows(execution, asked.subscription_id):
                # What was stored of it is damaged.
                execution.listening.subscribes(asked, execution.last_sequence)
                shard.mark(execution)
        self.feed(execution)

    def _knows(self, execution: Execution, subscription_id: int) -> bool:
        return self._registry.find(execution.shard_number, execution.execution_key, subscription_id) is not None

    def _know(self, shard: Shard, execution_key: int) -> None:
        with suppress(StorageFailed):
            for stored in shard.store.listeners_of(execution_key):
                self._take_up(shard, stored)

    def evicted(self, execution: Execution) -> None:
        """It goes on in the file only."""
        self._residents.pop(whose(execution.shard_number, execution.execution_key), None)

    def ended(self, execution: Execution) -> None:
        """It has ended, or is out of service until the next start."""
        if self._source is None:
            return
        place = whose(execution.shard_number, execution.execution_key)
        self._residents.pop(place, None)
        if self._shards.by_number[execution.shard_number].live.get(execution.execution_id) is execution:
            # It is out of service until the next start, and has then what has come meanwhile.
            return
        if self._is_loading:
            self._gone.add(place)
        for listener in self._registry.of(execution.shard_number, execution.execution_key):
            self._forget(listener)
            self._tell()

    # --- what they are given ---

    def inbox_landed(self, shard_number: int, inbox: InboxChange) -> None:
        """See Driver: executions have their rows, in memory or brought back for them."""
        if inbox.rows:
            crash.reach(CrashPoint.AFTER_INBOX_COMMIT)
        shard = self._shards.by_number[shard_number]
        shard.inbox.landed(inbox)
        for row in inbox.rows:
            execution = self._residents.get(whose(shard_number, row.execution_key))
            if execution is None:
                shard.loader.recall(row.execution_key)
            elif execution.listening is not None:
                execution.listening.has_row(row.subscription_id)
                self.feed(execution)
        self._follower.landed()
        self._tell()

    def feed(self, execution: Execution) -> None:
        """Hands an execution the next event that its walk wants, if there is one."""
        listening, walk = execution.listening, execution.walk
        if listening is None or walk is None or not listening.subscriptions or listening.is_offering:
            return
        if execution.broken or execution.finished_ms or walk.status == "paused" or not self._host.may_drive_on:
            return
        if execution.events_size_bytes >= limits.EXECUTION_EVENTS_UNCOMMITTED_SIZE_BYTES_MAX:
            # After the commit.
            return
        store = self._shards.by_number[execution.shard_number].store

        def read(subscription_id: int, after_key: int) -> list[InboxEvent]:
            return store.inbox(execution.execution_id, execution.execution_key, subscription_id, after_key)

        try:
            offered = listening.next(walk, read)
        except StorageFailed:
            asyncio.get_running_loop().call_later(limits.COMMIT_RETRY_DELAY_S_MAX, self.feed, execution)
            return
        if offered is not None:
            listening.is_offering = True
            execution.deliver(offered)
            self._enqueue(execution)
