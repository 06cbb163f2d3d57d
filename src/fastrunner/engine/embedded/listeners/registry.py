"""Stage 3, journal: who listens: every listener of a worker's shards, and whom an event may be for.

Rules: a listener whose execution is not in memory takes its entry here and nothing else: not even its filter, which is
read from the file when the index has found that an event may be for it. Filters that are equal share one that is
compiled. Nothing here is the truth: the file is, and says the same after a restart.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import orjson

from fastrunner._core import EventMatcher, extract_probe
from fastrunner.base import limits
from fastrunner.engine import KeptEvent
from fastrunner.engine.embedded.shards import Shards
from fastrunner.events.index import MatchIndex, Place, Probe

__all__ = ["Listener", "Registry", "extract"]

_DIGEST_SIZE_BYTES: Final = 16
_SHARD_BITS: Final = 16
_TYPE: Final = "type"


def extract(event: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...] | None:
    """What an event has for the names of a probe."""
    return extract_probe(event, names)  # type: ignore[arg-type]


class Listener:
    """One thing that an execution waits for."""

    __slots__ = (
        "digest",
        "execution_key",
        "filter_json",
        "is_live",
        "namespace",
        "offered_key",
        "places",
        "rows_count",
        "shard_number",
        "started_sequence",
        "subscription_id",
        "type",
    )

    def __init__(self, shard_number: int, execution_key: int, subscription_id: int, namespace: str) -> None:
        self.shard_number = shard_number
        self.execution_key = execution_key
        self.subscription_id = subscription_id
        self.namespace = namespace
        """Of its workflow."""
        self.offered_key = 0
        """Up to which key events have been offered to it."""
        self.is_live = False
        """Whether it gets events as they come."""
        self.started_sequence = 0
        """The execution's last sequence number when it began."""
        self.rows_count = 0
        """Events that it is still to take."""
        self.filter_json: bytes | None = None
        """Its filter, until the file has it."""
        self.digest = b""
        """Of its filter."""
        self.type: str | None = None
        """Of all events that it may be for, if that is one."""
        self.places: tuple[Place[Listener], ...] | None = None
        """Where it lies in the index; None: it is gone."""

    @property
    def whose(self) -> int:
        """Stands for its execution."""
        return whose(self.shard_number, self.execution_key)


def whose(shard_number: int, execution_key: int) -> int:
    """One number for an execution of this worker."""
    return execution_key << _SHARD_BITS | shard_number


class Registry:
    """All listeners of one worker."""

    def __init__(self, shards: Shards) -> None:
        self.count = 0
        self._shards = shards
        self._index: MatchIndex[Listener] = MatchIndex(extract)
        # One stands for itself, several in a dict: a hundred thousand dicts would take more than all else.
        self._by_execution: dict[int, Listener | dict[int, Listener]] = {}
        self._matchers: OrderedDict[bytes, EventMatcher] = OrderedDict()

    def of(self, shard_number: int, execution_key: int) -> Sequence[Listener]:
        """Those of an execution."""
        found = self._by_execution.get(whose(shard_number, execution_key))
        if found is None:
            return ()
        return (found,) if isinstance(found, Listener) else tuple(found.values())

    def find(self, shard_number: int, execution_key: int, subscription_id: int) -> Listener | None:
        """One of them."""
        for listener in self.of(shard_number, execution_key):
            if listener.subscription_id == subscription_id:
                return listener
        return None

    def add(self, listener: Listener, filter_json: bytes) -> None:
        """Takes up one that is not there. Raises ValueError for what is no filter."""
        self._place(listener, filter_json)
        there = self._by_execution.setdefault(listener.whose, listener)
        if isinstance(there, dict):
            there[listener.subscription_id] = listener
        elif there is not listener:
            self._by_execution[listener.whose] = {each.subscription_id: each for each in (there, listener)}
        self.count += 1

    def refilter(self, listener: Listener, filter_json: bytes) -> None:
        """It waits for something else. Raises ValueError for what is no filter."""
        self._index.remove(listener, listener.places or ())
        self._place(listener, filter_json)

    def _place(self, listener: Listener, filter_json: bytes) -> None:
        listener.digest = sha256(filter_json).digest()[:_DIGEST_SIZE_BYTES]
        probes = self._compiled(listener.digest, filter_json).probes
        types = {values[0] if names[:1] == (_TYPE,) else None for names, values in probes}
        (wanted,) = types if len(types) == 1 else (None,)
        listener.type = None if wanted is None else orjson.loads(wanted)
        listener.places = self._index.add(listener, probes)

    def remove(self, listener: Listener) -> None:
        """It waits no more."""
        if listener.places is None:
            return
        self._index.remove(listener, listener.places)
        listener.places = None
        self.count -= 1
        there = self._by_execution.get(listener.whose)
        if isinstance(there, dict):
            del there[listener.subscription_id]
        if there is listener or there == {}:
            del self._by_execution[listener.whose]

    # --- matching ---

    def candidates(self, event: Mapping[str, Any]) -> Sequence[Listener]:
        """Whom an event may be for; those of one execution one after the other."""
        found = self._index.candidates(event)
        return tuple(found) if len(found) < 2 else sorted(found, key=lambda each: each.whose)

    def is_for(self, listener: Listener, kept: KeptEvent) -> bool:
        """Whether an event is for a listener. Raises StorageFailed."""
        if kept.namespaces is not None and listener.namespace not in kept.namespaces:
            return False
        matcher = self._matcher(listener)
        return matcher is not None and matcher.matches(kept.event)

    def probes_of(self, listener: Listener) -> Sequence[Probe]:
        """What an event must have to be for it; nothing if its filter is damaged. Raises StorageFailed."""
        matcher = self._matcher(listener)
        return () if matcher is None else matcher.probes

    def _matcher(self, listener: Listener) -> EventMatcher | None:
        matcher = self._matchers.get(listener.digest)
        if matcher is not None:
            self._matchers.move_to_end(listener.digest)
            return matcher
        filter_json = self.filter_of(listener)
        return None if filter_json is None else self._compiled(listener.digest, filter_json)

    def filter_of(self, listener: Listener) -> bytes | None:
        """What it waits for; None if that is damaged. Raises StorageFailed."""
        if listener.filter_json is not None:
            return listener.filter_json
        store = self._shards.by_number[listener.shard_number].store
        return store.filter_json(listener.execution_key, listener.subscription_id)

    def _compiled(self, digest: bytes, filter_json: bytes) -> EventMatcher:
        matcher = self._matchers.get(digest)
        if matcher is None:
            matcher = self._matchers[digest] = EventMatcher(orjson.loads(filter_json))
            if len(self._matchers) > limits.MATCHERS_KEPT_MAX:
                self._matchers.popitem(last=False)
        return matcher
