"""Stage 3, journal: which of many subscribers an event may be for.

Theory of operation. A filter tells its probes: what an event must have, exactly, for one of the filter's alternatives
to match (`type` first, then other attributes and the values of correlations). Subscribers lie under the type, under the
names of what their probe looks at, and under the values it wants. So an event costs one look per set of names that
somebody uses with its type, however many subscribers there are.

Rule: what is found is a candidate, by hash. Whoever asks decides with the filter itself.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

__all__ = ["Extract", "MatchIndex", "Place", "Probe"]

Subscriber = TypeVar("Subscriber", bound=Hashable)

Probe = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of what an event must have, and the values wanted as canonical JSON; empty ones: only the filter can tell."""

Extract = Callable[[Mapping[str, Any], tuple[str, ...]], tuple[str, ...] | None]
"""An event's values for some names; None if it has not all of them."""

_TYPE: Final = ("type",)


class _Bucket(Generic[Subscriber]):
    """Those whose probe looks at the same names, and wants the same type."""

    __slots__ = ("entries", "names", "type")

    def __init__(self, type: str | None, names: tuple[str, ...]) -> None:
        self.type = type
        self.names = names
        # By the hash of the values, because the values of a hundred thousand would take more than all else. One
        # subscriber stands for itself, several in a dict, which keeps their order.
        self.entries: dict[int, Subscriber | dict[Subscriber, None]] = {}


Place = tuple[_Bucket[Subscriber], int]
"""Where a subscriber lies."""


class MatchIndex(Generic[Subscriber]):
    """Subscribers by what their filters want. They must not be dicts."""

    def __init__(self, extract: Extract) -> None:
        self._extract = extract
        self._buckets: dict[str | None, dict[tuple[str, ...], _Bucket[Subscriber]]] = {}
        """By the type wanted (None: any), then by names."""

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def add(self, subscriber: Subscriber, probes: Sequence[Probe]) -> tuple[Place[Subscriber], ...]:
        """Takes a subscriber up; gives what `remove` needs."""
        places = []
        for names, values in probes:
            wanted = values[0] if names[:1] == _TYPE else None
            bucket = self._bucket(wanted, names)
            at = hash(values)
            there = bucket.entries.setdefault(at, subscriber)
            if isinstance(there, dict):
                there[subscriber] = None
            elif there != subscriber:
                bucket.entries[at] = {there: None, subscriber: None}
            places.append((bucket, at))
        return tuple(places)

    def _bucket(self, wanted: str | None, names: tuple[str, ...]) -> _Bucket[Subscriber]:
        buckets = self._buckets.setdefault(wanted, {})
        bucket = buckets.get(names)
        if bucket is None:
            bucket = buckets[names] = _Bucket(wanted, names)
        return bucket

    def remove(self, subscriber: Subscriber, places: Sequence[Place[Subscriber]]) -> None:
        """Forgets a subscriber."""
        for bucket, at in places:
            there = bucket.entries.get(at)
            if isinstance(there, dict):
                there.pop(subscriber, None)
            if there == subscriber or there == {}:
                del bucket.entries[at]
            # One that is empty would cost every event a look.
            if not bucket.entries:
                buckets = self._buckets.get(bucket.type, {})
                if buckets.get(bucket.names) is bucket:
                    del buckets[bucket.names]
                if not buckets:
                    self._buckets.pop(bucket.type, None)

    def candidates(self, event: Mapping[str, Any]) -> Collection[Subscriber]:
        """Whom an event may be for, each once."""
        type_of = self._extract(event, _TYPE)
        buckets = [*self._buckets.get(type_of[0], {}).values()] if type_of else []
        if None in self._buckets:
            buckets += self._buckets[None].values()
        found: list[Subscriber | dict[Subscriber, None]] = []
        for bucket in buckets:
            values = self._extract(event, bucket.names)
            if values is not None:
                there = bucket.entries.get(hash(values))
                if there is not None:
                    found.append(there)
        if not found:
            return ()
        if len(found) == 1:
            return tuple(found[0]) if isinstance(found[0], dict) else (found[0],)
        each: dict[Subscriber, None] = {}
        for there in found:
            each.update(there if isinstance(there, dict) else {there: None})
        return tuple(each)
