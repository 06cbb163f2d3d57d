"""Stage 3, journal: what events start: the core's strategy over the events that have come since a schedule looked last.

Rules: an event counts for schedules of the namespaces that its sender reaches. The number of the event that satisfies a
strategy is in the id of what it starts, so the same events again start nothing. Nothing here reads a clock or a file.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from fastrunner._core import EventStrategy, compile_strategy
from fastrunner.engine.schedules import Trigger
from fastrunner.events.file import StoredEvent
from fastrunner.events.schedules.rows import Row

__all__ = ["Occasion", "Taken", "strategy_of", "taken"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Occasion:
    """Events that start an execution."""

    event_key: int
    """Number of the one that completed them."""
    received_ms: int
    """When that was received, in milliseconds since the epoch."""
    input_json: str
    """What the execution gets: an array of them."""

    def execution_id(self, schedule_id: str) -> str:
        """The id of what they start."""
        return f"{schedule_id}~event-{self.event_key}"


@dataclass(frozen=True, slots=True)
class Taken:
    """What some events come to."""

    occasions: Sequence[Occasion]
    """What they start, in order."""
    state: Any
    """What the core remembers of them."""
    event_key: int
    """The latest one that has changed anything; 0: none has."""


@lru_cache(maxsize=1024)
def _compiled(definition: bytes, read: str) -> EventStrategy:
    return compile_strategy(orjson.loads(definition), read)


def strategy_of(trigger: Trigger) -> EventStrategy:
    """Raises ValueError for one that no document has."""
    return _compiled(orjson.dumps(trigger.on), trigger.read)


def taken(row: Row, events: Sequence[StoredEvent]) -> Taken:
    """What a schedule takes of events; those that it has settled before change nothing."""
    strategy = strategy_of(row.schedule.trigger)
    state, event_key = row.events_state, 0
    occasions: list[Occasion] = []
    for each in events:
        reaches = each.namespaces is None or row.schedule.namespace in each.namespaces
        if each.key <= row.progress.events_key or not reaches:
            continue
        try:
            after, satisfied = strategy.take(state, each.event, each.received_ms)
        except ValueError as error:
            _log.warning("schedule %s passes event number %s over: %s", row.schedule.schedule_id, each.key, error)
            continue
        if satisfied is not None:
            occasions.append(Occasion(each.key, each.received_ms, orjson.dumps(satisfied).decode()))
        if satisfied is not None or after != state:
            event_key = each.key
        state = after
    return Taken(occasions, state, event_key)
