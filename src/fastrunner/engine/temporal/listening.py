"""Stage 4, walk: what one execution waits for where Temporal keeps it, and the events that it takes.

    Subscribe -> a change -> the bus -> events, as signals -> one at a time into the walk
    Unsubscribe -> a change -> the bus forgets

Theory of operation: what the bus delivers lies here until the walk wants it, one event a turn, in the order of their
numbers. Where more lies here than may, a subscription falls behind: what is delivered to it is passed over, and once it
has taken what it has, it begins anew behind that, and is offered what the bus still keeps.

Rules: pure state, the same in every replay. The filter of now decides when an event is handed over; what does not match
any more was not taken. An execution takes no event that it had taken before a subscription began.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from fastrunner._core import EventArrived, EventMatcher, Subscribe, Walk
from fastrunner.base import limits
from fastrunner.engine.temporal.event_messages import Change, Heard

__all__ = ["Listening"]


@dataclass(slots=True)
class _Subscription:
    """One thing that an execution waits for."""

    filter: Any
    first_filter_json: str
    """Its filter as JSON; empty once it is another one."""
    started_sequence: int
    """The execution's last sequence number when it began."""
    generation: int = 0
    heard_key: int = 0
    """The last event that was delivered."""
    passed_key: int = 0
    """Of all that its first filter matches, the execution has had what came up to this one."""
    is_behind: bool = False
    """Whether events have been passed over after `heard_key`."""
    queue: list[tuple[int, str]] = field(default_factory=list)
    """Events that were delivered and not taken: number and JSON text."""
    matcher: EventMatcher | None = None

    def matches(self, event: Any) -> bool:
        """Whether an event is one of them."""
        if self.matcher is None:
            self.matcher = EventMatcher(self.filter)
        return self.matcher.matches(event)


class Listening:
    """What one execution waits for."""

    def __init__(self, state_json: str) -> None:
        """`state_json` is what `state` gave before the history was continued; empty: nothing."""
        self._subscriptions: dict[int, _Subscription] = {}
        self._taken: dict[int, int] = {}
        """After which sequence number it has taken an event, as long as the bus keeps that."""
        self._passed: dict[str, int] = {}
        """By filter: up to which event the execution has had all that it matches. A loop need not look at them."""
        self._size_bytes = 0
        self.changes: list[Change] = []
        """What the bus is to be told."""
        if state_json:
            self._restore(orjson.loads(state_json))

    def _restore(self, state: dict[str, Any]) -> None:
        self._taken = {int(key): sequence for key, sequence in state["taken"].items()}
        self._passed = state["passed"]
        for subscription_id, values in state["subscriptions"].items():
            subscription = _Subscription(**values)
            subscription.queue = [(key, text) for key, text in subscription.queue]
            self._subscriptions[int(subscription_id)] = subscription
            self._size_bytes += sum(len(text) for _, text in subscription.queue)

    def state(self) -> str:
        """What is remembered, as JSON; empty if that is nothing."""
        if not (self._subscriptions or self._taken):
            return ""
        names = [name for name in _Subscription.__slots__ if name != "matcher"]
        subscriptions = {
            str(number): {name: getattr(each, name) for name in names} for number, each in self._subscriptions.items()
        }
        taken = {str(key): sequence for key, sequence in self._taken.items()}
        return orjson.dumps({"subscriptions": subscriptions, "taken": taken, "passed": self._passed}).decode()

    # --- what the walk asks for ---

    def subscribes(self, asked: Subscribe, sequence: int) -> None:
        """It waits for something, or for something else than before; `sequence` is that of its last event."""
        subscription = self._subscriptions.get(asked.subscription_id)
        if subscription is None:
            filter_json = orjson.dumps(asked.filter).decode()
            passed_key = self._passed.get(filter_json, 0)
            subscription = _Subscription(asked.filter, filter_json, sequence)
            subscription.heard_key = subscription.passed_key = passed_key
            self._subscriptions[asked.subscription_id] = subscription
        else:
            # From now on some that the first filter matches are not seen.
            self._note_passed(subscription)
            subscription.filter, subscription.first_filter_json, subscription.matcher = asked.filter, "", None
        self._tell(asked.subscription_id, subscription)

    def restores(self, asked: Subscribe, sequence: int) -> None:
        """It waits, as before its history was continued."""
        if asked.subscription_id not in self._subscriptions:
            self.subscribes(asked, sequence)

    def unsubscribes(self, subscription_id: int) -> None:
        """It waits for this no more."""
        subscription = self._subscriptions.pop(subscription_id, None)
        if subscription is not None:
            self._note_passed(subscription)
            self._size_bytes -= sum(len(text) for _, text in subscription.queue)
            self.changes.append(Change(subscription_id))

    def close(self) -> None:
        """It has ended."""
        for subscription_id in list(self._subscriptions):
            self.unsubscribes(subscription_id)

    def _tell(self, subscription_id: int, subscription: _Subscription) -> None:
        change = Change(subscription_id, subscription.filter, subscription.heard_key, subscription.generation)
        self.changes.append(change)

    def _note_passed(self, subscription: _Subscription) -> None:
        if subscription.first_filter_json and subscription.passed_key:
            if len(self._passed) >= limits.PASSED_FILTERS_KNOWN_MAX:
                self._passed.clear()
            self._passed[subscription.first_filter_json] = subscription.passed_key

    # --- events ---

    def hear(self, heard: Heard) -> None:
        """Takes what the bus delivers; what was delivered before changes nothing."""
        for item in heard.events:
            for subscription_id, generation in item.subscriptions:
                subscription = self._subscriptions.get(subscription_id)
                if subscription is None or subscription.generation != generation:
                    continue
                if subscription.is_behind or item.key <= subscription.heard_key:
                    continue
                if self._size_bytes > limits.TEMPORAL_INBOX_SIZE_BYTES_MAX and subscription.queue:
                    subscription.is_behind = True
                    continue
                subscription.heard_key = item.key
                if self._taken.get(item.key, subscription.started_sequence) >= subscription.started_sequence:
                    subscription.queue.append((item.key, item.event))
                    self._size_bytes += len(item.event)
        for key in list(self._taken):
            if key >= heard.oldest_key:
                break
            del self._taken[key]

    def has_event(self, walk: Walk) -> bool:
        """Whether something lies here that the walk may take now."""
        return any(each.queue and walk.wants_event(number) for number, each in self._subscriptions.items())

    def take(self, walk: Walk) -> EventArrived | None:
        """The event that the walk takes next, if there is one."""
        while True:
            first: tuple[int, int] | None = None
            for number, subscription in self._subscriptions.items():
                is_wanted = subscription.queue and walk.wants_event(number)
                if is_wanted and (first is None or subscription.queue[0][0] < first[0]):
                    first = (subscription.queue[0][0], number)
            if first is None:
                return None
            key, number = first
            subscription = self._subscriptions[number]
            event = orjson.loads(self._pop(number, subscription))
            if subscription.matches(event):
                subscription.passed_key = key
                self._taken[key] = walk.last_sequence
                return EventArrived(number, event)

    def _pop(self, number: int, subscription: _Subscription) -> str:
        _, text = subscription.queue.pop(0)
        self._size_bytes -= len(text)
        if subscription.is_behind and not subscription.queue:
            # What has been passed over it is offered by the bus, as long as that is kept.
            subscription.is_behind = False
            subscription.generation += 1
            self._tell(number, subscription)
        return text

    def unregistered(self, telling: Sequence[Change]) -> set[int]:
        """Subscriptions that the bus does not know yet, while it is being told of some."""
        return {change.subscription_id for change in (*telling, *self.changes) if change.filter is not None}
