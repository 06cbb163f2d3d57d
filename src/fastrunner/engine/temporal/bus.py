"""Stage 3, journal: the bus that Temporal keeps: events in one order, who listens for them, and whom each is for.

    publish -> a number, kept -> the cursor comes to it -> index: whom is it for -> a delivery -> told

Theory of operation. One workflow has all events of a task queue, so they have one order, as they have on one machine:
what follows an event in another type's stream is heard after it. A listener is live, or behind. A live one is given
what the cursor comes to; one that has just begun is behind, and is first offered what is kept from before the cursor.

Rules: pure state, the same in every replay. A delivery is settled before the next one is made, so whoever is told
hears events in their order; who is told twice knows it by the numbers. What is yet to be delivered is never forgotten:
where there is no room, new events are refused.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final

import orjson

from fastrunner._core import EventMatcher, extract_probe
from fastrunner.base import limits
from fastrunner.engine.temporal.event_messages import (
    BusStart,
    Change,
    Delivery,
    Published,
    Receipt,
    Registration,
    Target,
)
from fastrunner.engine.temporal.messages import packed, unpacked
from fastrunner.events.index import MatchIndex, Place, Probe

__all__ = ["Bus"]

_ALL: Final[Sequence[Probe]] = (((), ()),)
"""Probes of a filter that tells nothing."""


def _extract(event: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...] | None:
    return extract_probe(event, names)  # type: ignore[arg-type]


@dataclass(slots=True)
class _Kept:
    """An event."""

    key: int
    received_ms: int
    namespaces: list[str] | None
    text: str
    sinks: list[str]
    event: dict[str, Any]

    @property
    def size_bytes(self) -> int:
        """What it takes in the state, about."""
        return len(self.text) + limits.TEMPORAL_BUS_OVERHEAD_SIZE_BYTES


@dataclass(slots=True, eq=False)
class _Listener:
    """One thing that an execution waits for."""

    listener_id: str
    namespace: str
    subscription_id: int
    generation: int
    filter: Any
    offered_key: int
    """It has been offered everything up to this one."""
    matcher: EventMatcher | None = None
    """None: a filter of another version, so its walk decides."""
    size_bytes: int = 0
    places: tuple[Place["_Listener"], ...] = field(default=())

    def hears(self, kept: _Kept) -> bool:
        """Whether an event is for it."""
        if kept.namespaces is not None and self.namespace not in kept.namespaces:
            return False
        return self.matcher is None or self.matcher.matches(kept.event)


class _Batch:
    """A delivery in the making."""

    def __init__(self) -> None:
        self.events: dict[str, str] = {}
        self.received: dict[str, int] = {}
        self.heard: dict[tuple[str, bool], dict[int, list[list[int]]]] = {}
        self.size_bytes = 0
        self.looks = 0
        self.offered: list[tuple[_Listener, int]] = []
        """How far listeners that were behind have come with it."""

    @property
    def is_full(self) -> bool:
        """Whether nothing more goes into it."""
        return (
            len(self.heard) >= limits.TEMPORAL_DELIVERY_TARGETS_MAX
            or self.size_bytes >= limits.TEMPORAL_DELIVERY_SIZE_BYTES_MAX
            or self.looks >= limits.TEMPORAL_DELIVERY_LOOKS_MAX
        )

    def add(self, listener_id: str, kept: _Kept, subscription: list[int], *, sink: bool = False) -> None:
        """An event for somebody."""
        if str(kept.key) not in self.events:
            self.events[str(kept.key)] = kept.text
            self.received[str(kept.key)] = kept.received_ms
            self.size_bytes += kept.size_bytes
        of_listener = self.heard.setdefault((listener_id, sink), {})
        of_listener.setdefault(kept.key, []).append(subscription)


class Bus:
    """Events, and who listens for them."""

    def __init__(self, given: BusStart, began_ms: int) -> None:
        """`began_ms`: when one that has no state yet began. Raises ValueError for a state that is damaged."""
        # In microseconds: no bus takes a million a second for long, so one that begins anew repeats no number.
        self.cursor = began_ms * 1000
        """Up to where events have been looked at for those who listen."""
        self._last_key = self.cursor
        self._retention_ms = 0
        self._kept: list[_Kept] = []
        self._kept_size_bytes = 0
        self._known: dict[str, list[int]] = {}
        """Number and time of receipt by the hash of source and id: what is known to be a duplicate."""
        self._listeners: dict[str, dict[int, _Listener]] = {}
        self._listeners_size_bytes = 0
        self._behind: dict[_Listener, None] = {}
        self._index: MatchIndex[_Listener] = MatchIndex(_extract)
        self._batch: _Batch | None = None
        self._batch_cursor = 0
        self._ready: Delivery | None = None
        """What is to be delivered next, where that is known already."""
        self._given = given
        if given.state:
            self._restore(orjson.loads(zlib.decompress(unpacked(given.state))))

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._last_key, self.cursor, self._retention_ms = state["last_key"], state["cursor"], state["retention_ms"]
        self._known = state["known"]
        for key, received_ms, namespaces, text, sinks in state["kept"]:
            self._keep(_Kept(key, received_ms, namespaces, text, sinks, orjson.loads(text)))
        for listener_id, namespace, listeners in state["listeners"]:
            for number, generation, wanted, offered_key, is_behind in listeners:
                listener = self._take_up(listener_id, namespace, Change(number, wanted, offered_key, generation))
                if not is_behind:
                    self._behind.pop(listener, None)

    def continued(self) -> BusStart:
        """The input of the history that continues this one; nothing may be under way."""
        listeners = [
            [
                listener_id,
                next(iter(found.values())).namespace,
                [
                    [each.subscription_id, each.generation, each.filter, each.offered_key, each in self._behind]
                    for each in found.values()
                ],
            ]
            for listener_id, found in self._listeners.items()
        ]
        state = {
            "last_key": self._last_key,
            "cursor": self.cursor,
            "retention_ms": self._retention_ms,
            "known": self._known,
            "kept": [[each.key, each.received_ms, each.namespaces, each.text, each.sinks] for each in self._kept],
            "listeners": listeners,
        }
        return replace(self._given, state=packed(zlib.compress(orjson.dumps(state), 1)))

    # --- publishing ---

    def publish(self, call: Published, retention_ms: int, now_ms: int) -> Receipt:
        """Takes events, all or none; or what somebody listens for."""
        self._retention_ms = retention_ms
        if call.registration is not None:
            return self.listen(call.registration)
        size_bytes = sum(len(text) for text in call.events)
        size_bytes += len(call.events) * limits.TEMPORAL_BUS_OVERHEAD_SIZE_BYTES
        if not self._make_room(size_bytes, now_ms):
            # What is for nobody need not wait to be delivered.
            self._ready = self._ready or (self._next() if self._batch is None else None)
        if not self._make_room(size_bytes, now_ms):
            bound = limits.TEMPORAL_BUS_EVENTS_SIZE_BYTES_MAX
            return Receipt(refusal=f"events of {bound} bytes wait to be heard, which is as much as may: try again")
        keys, are_new, first = [], [], ""
        for text in call.events:
            event = orjson.loads(text)
            digest = _digest(event)
            before = self._known.get(digest)
            are_new.append(before is None)
            if before is not None:
                keys.append(before[0])
                first = (
                    next((each.text for each in self._kept if each.key == before[0]), "") if call.wants_first else ""
                )
                continue
            self._last_key += 1
            keys.append(self._last_key)
            self._known[digest] = [self._last_key, now_ms]
            self._keep(_Kept(self._last_key, now_ms, call.namespaces, text, call.sinks, event))
        self._forget_known(now_ms)
        return Receipt(keys, are_new, first)

    def _keep(self, kept: _Kept) -> None:
        self._kept.append(kept)
        self._kept_size_bytes += kept.size_bytes

    def _make_room(self, size_bytes: int, now_ms: int) -> bool:
        """Has events go that have outlived the retention, and the oldest where there is no room for so much more."""
        wanted = limits.TEMPORAL_BUS_EVENTS_SIZE_BYTES_MAX - size_bytes
        gone = 0
        for kept in self._kept:
            is_old = kept.received_ms + self._retention_ms <= now_ms
            if kept.key > self.cursor or not (is_old or self._kept_size_bytes > wanted):
                break
            self._kept_size_bytes -= kept.size_bytes
            gone += 1
        del self._kept[:gone]
        return self._kept_size_bytes <= wanted

    def _forget_known(self, now_ms: int) -> None:
        for digest in list(self._known):
            received_ms = self._known[digest][1]
            is_old = received_ms + self._retention_ms <= now_ms
            if not is_old and len(self._known) <= limits.TEMPORAL_BUS_KNOWN_COUNT_MAX:
                return
            del self._known[digest]

    # --- listening ---

    def listen(self, given: Registration) -> Receipt:
        """Takes up what somebody waits for; told again, it is the same. The number is that of the latest event."""
        refusal = ""
        for change in given.changes:
            listener = self._listeners.get(given.listener_id, {}).get(change.subscription_id)
            if change.filter is None:
                self._drop(listener)
            elif listener is not None and listener.generation == change.generation:
                self._refilter(listener, change.filter)
            elif self._listeners_size_bytes + _size_of(change.filter) > limits.TEMPORAL_BUS_LISTENERS_SIZE_BYTES_MAX:
                refusal = f"{self._listeners_size_bytes} bytes of filters are listened for, which is as much as may be"
            else:
                self._drop(listener)
                self._take_up(given.listener_id, given.namespace, change)
        return Receipt([self._last_key], refusal=refusal)

    def _take_up(self, listener_id: str, namespace: str, change: Change) -> _Listener:
        of = (listener_id, namespace, change.subscription_id, change.generation)
        listener = _Listener(*of, change.filter, change.after_key)
        self._listeners.setdefault(listener_id, {})[change.subscription_id] = listener
        self._place(listener)
        self._behind[listener] = None
        return listener

    def _refilter(self, listener: _Listener, filter: Any) -> None:
        self._index.remove(listener, listener.places)
        self._listeners_size_bytes -= listener.size_bytes
        listener.filter = filter
        self._place(listener)

    def _place(self, listener: _Listener) -> None:
        try:
            listener.matcher = EventMatcher(listener.filter)
        except ValueError:
            listener.matcher = None
        probes = _ALL if listener.matcher is None else listener.matcher.probes
        listener.places = self._index.add(listener, probes)
        listener.size_bytes = _size_of(listener.filter)
        self._listeners_size_bytes += listener.size_bytes

    def _drop(self, listener: _Listener | None) -> None:
        if listener is None:
            return
        self._index.remove(listener, listener.places)
        self._listeners_size_bytes -= listener.size_bytes
        self._behind.pop(listener, None)
        of_execution = self._listeners[listener.listener_id]
        del of_execution[listener.subscription_id]
        if not of_execution:
            del self._listeners[listener.listener_id]

    # --- delivering ---

    @property
    def has_more(self) -> bool:
        """Whether there may be something to deliver."""
        return self.is_delivering or bool(self._behind) or self.cursor < self._last_key

    @property
    def is_delivering(self) -> bool:
        """Whether a delivery has been made and is not settled."""
        return self._batch is not None

    def delivery(self) -> Delivery | None:
        """What is delivered next; None: nothing is for anybody. `settle` it before the next one."""
        ready, self._ready = self._ready, None
        return ready or self._next()

    def _next(self) -> Delivery | None:
        batch = _Batch()
        self._offer_kept(batch)
        cursor = self._offer_new(batch)
        if not batch.heard:
            self._settle(batch, cursor)
            return None
        self._batch, self._batch_cursor = batch, cursor
        targets = [
            Target(listener_id, [[key, subscriptions] for key, subscriptions in sorted(heard.items())], sink)
            for (listener_id, sink), heard in batch.heard.items()
        ]
        return Delivery(batch.events, targets, self._kept[0].key, batch.received)

    def settle(self, gone: Sequence[str]) -> None:
        """The delivery has been made; some were not there any more."""
        assert self._batch is not None
        self._settle(self._batch, self._batch_cursor)
        self._batch = None
        for listener_id in gone:
            for listener in list(self._listeners.get(listener_id, {}).values()):
                self._drop(listener)

    def _settle(self, batch: _Batch, cursor: int) -> None:
        for listener, key in batch.offered:
            listener.offered_key = max(listener.offered_key, key)
            if key >= self.cursor:
                # Nothing came in between: what follows the cursor it is given as the others are.
                self._behind.pop(listener, None)
        self.cursor = cursor

    def _offer_kept(self, batch: _Batch) -> None:
        """Offers those that are behind what is kept from before the cursor."""
        for listener in self._behind:
            if batch.is_full:
                return
            offered_key = listener.offered_key
            for kept in self._kept:
                if kept.key > self.cursor:
                    offered_key = max(offered_key, self.cursor)
                    break
                if kept.key <= offered_key:
                    continue
                if batch.is_full:
                    break
                batch.looks += 1
                offered_key = kept.key
                if listener.hears(kept):
                    batch.add(listener.listener_id, kept, [listener.subscription_id, listener.generation])
            else:
                offered_key = max(offered_key, self.cursor)
            batch.offered.append((listener, offered_key))

    def _offer_new(self, batch: _Batch) -> int:
        """Gives listeners what comes after the cursor; how far it comes."""
        cursor = self.cursor
        if self._behind and (batch.is_full or any(key < cursor for _, key in batch.offered)):
            # They would hear what is new before what is kept.
            return cursor
        for kept in self._kept:
            if batch.is_full:
                return cursor
            if kept.key <= self.cursor:
                continue
            for sink in kept.sinks:
                batch.add(sink, kept, [], sink=True)
            for listener in self._index.candidates(kept.event):
                batch.looks += 1
                if kept.key > listener.offered_key and listener.hears(kept):
                    batch.add(listener.listener_id, kept, [listener.subscription_id, listener.generation])
            cursor = kept.key
        return self._last_key


def _size_of(filter: Any) -> int:
    return len(orjson.dumps(filter)) + limits.TEMPORAL_BUS_OVERHEAD_SIZE_BYTES


def _digest(event: Mapping[str, Any]) -> str:
    text = f"{event['source']}\0{event['id']}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=8).hexdigest()
