"""Stage 4, walk: what one execution waits for, and the events that it takes.

Theory of operation: events for it lie in the inbox of its shard's file. A page of them is read when the walk wants one,
and one at a time goes to the walk, in the order of their keys. What it takes leaves the inbox with the commit that has
the walk which took it, so after a crash it is there again for the walk that has not.

Rules: an execution in memory has a page per subscription, never a queue. The filter decides when an event is handed
over, because it may have changed since the event was found to match: what does not match any more was not taken, and
whatever the execution listens for later may still have it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fastrunner._core import EventMatcher, Subscribe, Walk
from fastrunner.base import limits
from fastrunner.engine.embedded.store.changes import ListeningChange, Started
from fastrunner.engine.embedded.store.listener_rows import InboxEvent

__all__ = ["Listening", "Offered", "Subscription"]

ReadInbox = Callable[[int, int], Sequence[InboxEvent]]
"""A page of what a subscription is to have, strictly after a key."""


@dataclass(frozen=True, slots=True)
class Offered:
    """An event on its way into the walk."""

    subscription_id: int
    """For which subscription."""
    event_key: int
    """The event's number."""
    event: Any
    """The event."""


class Subscription:
    """One thing that an execution waits for."""

    __slots__ = ("_matcher", "filter", "first_filter_json", "has_more", "page", "passed_key", "read_key")

    def __init__(self, filter: Any) -> None:
        self.filter = filter
        """Which events."""
        self.first_filter_json: bytes | None = orjson.dumps(filter)
        """The same as JSON, until it is replaced."""
        self.passed_key = 0
        """Of all that its first filter matches, its execution has had what came up to this key."""
        self.has_more = True
        """Whether the inbox may have some that are not in `page`."""
        self.page: tuple[InboxEvent, ...] = ()
        """The next ones."""
        self.read_key = 0
        """The last one that was read."""
        self._matcher: EventMatcher | None = None

    def matches(self, event: Any) -> bool:
        """Whether an event is one of them."""
        if self._matcher is None:
            self._matcher = EventMatcher(self.filter)
        return self._matcher.matches(event)


class Listening:
    """What one execution waits for."""

    __slots__ = ("_change", "_passed", "is_offering", "subscriptions", "taken_unlanded")

    def __init__(self) -> None:
        self.subscriptions: dict[int, Subscription] = {}
        """By the walk's number."""
        self.is_offering = False
        """Whether an event is on its way into the walk."""
        self.taken_unlanded: dict[int, int] = {}
        """What it has taken since the last commit landed, by key: after which of its sequence numbers."""
        self._change: ListeningChange | None = None
        self._passed: dict[bytes, int] = {}
        """By filter: up to which key the execution has had all events that it matches. A loop need not look at them."""

    # --- what the walk asks for ---

    def subscribes(self, asked: Subscribe, sequence: int) -> None:
        """It waits for something, or for something else than before; `sequence` is that of its last event."""
        subscription = Subscription(asked.filter)
        filter_json = subscription.first_filter_json
        assert filter_json is not None
        before = self.subscriptions.get(asked.subscription_id)
        passed_key = self._passed.get(filter_json, 0)
        if before is not None:
            # What has been taken may still be in the file. From now on some that the first filter matches are not seen.
            subscription.page, subscription.read_key = before.page, before.read_key
            subscription.first_filter_json = None
            self._note_passed(before)
        else:
            subscription.passed_key = passed_key
        self.subscriptions[asked.subscription_id] = subscription
        started = Started(asked.subscription_id, filter_json, sequence, passed_key)
        self._changing().started = (*self._without(asked.subscription_id), started)

    def _note_passed(self, subscription: Subscription) -> None:
        if subscription.first_filter_json is not None and subscription.passed_key:
            if len(self._passed) >= limits.PASSED_FILTERS_KNOWN_MAX:
                self._passed.clear()
            self._passed[subscription.first_filter_json] = subscription.passed_key

    def restores(self, asked: Subscribe) -> None:
        """It has come back from the file and waits."""
        self.subscriptions[asked.subscription_id] = Subscription(asked.filter)

    def unsubscribes(self, subscription_id: int) -> None:
        """It waits for this no more."""
        subscription = self.subscriptions.pop(subscription_id, None)
        if subscription is not None:
            self._note_passed(subscription)
        change = self._changing()
        change.started = self._without(subscription_id)
        change.ended = (*change.ended, subscription_id)

    def _without(self, subscription_id: int) -> tuple[Started, ...]:
        return tuple(each for each in self._changing().started if each.subscription_id != subscription_id)

    def _changing(self) -> ListeningChange:
        if self._change is None:
            self._change = ListeningChange()
        return self._change

    # --- events ---

    def next(self, walk: Walk, read: ReadInbox) -> Offered | None:
        """The event that the walk would take next, if there is one."""
        first: Offered | None = None
        for subscription_id, subscription in self.subscriptions.items():
            if not walk.wants_event(subscription_id):
                continue
            if not subscription.page and subscription.has_more:
                subscription.page = tuple(read(subscription_id, subscription.read_key))
                subscription.has_more = bool(subscription.page)
                if subscription.page:
                    subscription.read_key = subscription.page[-1][0]
            if subscription.page and (first is None or subscription.page[0][0] < first.event_key):
                first = Offered(subscription_id, *subscription.page[0])
        return first

    def take(self, offered: Offered, sequence: int) -> None:
        """The walk takes an event, after its event of this sequence number."""
        self._pass(offered)
        self.subscriptions[offered.subscription_id].passed_key = offered.event_key
        change = self._changing()
        change.taken = (*change.taken, (offered.subscription_id, offered.event_key, sequence))
        self.taken_unlanded[offered.event_key] = sequence

    def drop(self, offered: Offered) -> None:
        """An event is not wanted any more."""
        self._pass(offered)
        change = self._changing()
        change.dropped = (*change.dropped, (offered.subscription_id, offered.event_key))

    def _pass(self, offered: Offered) -> None:
        subscription = self.subscriptions[offered.subscription_id]
        subscription.page = subscription.page[1:]

    def has_row(self, subscription_id: int) -> None:
        """There is something new in its inbox."""
        subscription = self.subscriptions.get(subscription_id)
        if subscription is not None:
            subscription.has_more = True

    # --- commits ---

    def gather(self) -> ListeningChange | None:
        """What there is to be written since the last commit."""
        change, self._change = self._change, None
        return change

    def landed(self, change: ListeningChange) -> None:
        """That is durable."""
        for _, key, _ in change.taken:
            self.taken_unlanded.pop(key, None)
