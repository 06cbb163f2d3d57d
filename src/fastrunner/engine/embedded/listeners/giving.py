"""Stage 3, journal: an event given to a listener: a row of its inbox with the shard's next commit.

Rule: a listener that has as many rows as it may is behind from then on, and reads what follows from the events' file.
"""

import orjson

from fastrunner.base import limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import KeptEvent
from fastrunner.engine.embedded.listeners.registry import Listener
from fastrunner.engine.embedded.run.execution import Execution
from fastrunner.engine.embedded.shards import Shards

__all__ = ["Giving"]


class Giving:
    """What becomes of events that are for listeners."""

    def __init__(self, shards: Shards, residents: dict[int, Execution], metrics: Metrics) -> None:
        self.rows_count = 0
        """Events that listeners are still to take."""
        self._shards = shards
        self._residents = residents
        self._matched = metrics.events_matched
        self._behind = metrics.listeners_behind

    def give(self, listener: Listener, kept: KeptEvent) -> None:
        """A row for it."""
        inbox = self._shards.by_number[listener.shard_number].inbox
        inbox.put(listener.execution_key, listener.subscription_id, kept.key, lambda: orjson.dumps(kept.event))
        listener.offered_key = kept.key
        listener.rows_count += 1
        self.rows_count += 1
        self._matched.inc()

    def give_live(self, listener: Listener, kept: KeptEvent) -> None:
        """The same as the event comes, if there is room."""
        if listener.rows_count < limits.INBOX_ROWS_PER_LISTENER_MAX:
            self.give(listener, kept)
            return
        self._behind.inc()
        self.settle(listener, kept.key - 1, False)

    def settle(self, listener: Listener, offered_key: int, is_live: bool) -> None:
        """How far it has been offered events, and whether it gets the others as they come."""
        listener.offered_key, listener.is_live = offered_key, is_live
        inbox = self._shards.by_number[listener.shard_number].inbox
        inbox.offered(listener.execution_key, listener.subscription_id, offered_key, is_live)

    def has_taken(self, listener: Listener, event_key: int, *, before: bool = True) -> bool:
        """Whether its execution has taken an event, `before` the listener began or at all. Raises StorageFailed."""
        sequence: int | None = None
        execution = self._residents.get(listener.whose)
        if execution is not None and execution.listening is not None:
            sequence = execution.listening.taken_unlanded.get(event_key)
        if sequence is None:
            store = self._shards.by_number[listener.shard_number].store
            sequence = store.taken_at(listener.execution_key, event_key)
        return sequence is not None and (not before or sequence < listener.started_sequence)
