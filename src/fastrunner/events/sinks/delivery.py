"""Stage 3, journal: requests to sinks, each sent until it is taken: of emitted events, and of those of lifecycles.

Theory of operation: a request that fails is sent again after a pause that doubles, until the sink takes it. Nothing
here knows where events come from, nor how far a sink has come.

Rules: a sink that says that the event itself is at fault (400, 413, 415, 422) is asked again a few times, with that
event alone, and then passes it over: one event does not hold up all others for days. Of a sink's troubles the first is
logged, and its end; never its URL.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from fastrunner.base import limits
from fastrunner.base.sinks import SinkAddress
from fastrunner.counts.cells import Counter, Gauge
from fastrunner.events.sinks.formats import request_of

__all__ = ["Delivery", "NotSent", "Post"]

_log = logging.getLogger(__name__)

_OF_THE_EVENT: Final = frozenset({400, 413, 415, 422})


class NotSent(Exception):
    """A request without an answer; the message is half a sentence without the URL."""


class Post(Protocol):
    """Sends requests (see `tasks/emit/sinks.py`)."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer. Raises NotSent."""

    async def close(self) -> None:
        """Closes its connections."""


class Delivery:
    """Brings events to sinks, and counts what becomes of them."""

    def __init__(self, post: Post, outcomes: Mapping[str, Counter], failing: Gauge) -> None:
        """`outcomes` has counters of what is delivered, retried and dropped; `failing` is a gauge."""
        self._post = post
        self._outcomes = outcomes
        self._failing = failing
        self._failing_names: set[str] = set()

    async def deliver(self, address: SinkAddress, events: Sequence[Mapping[str, Any]], *, is_last: bool) -> bool:
        """Sends events until the sink has taken them; false if it refuses them.

        `is_last`: there is but one, and what the sink refuses now is given up; others are to be sent again one by one.
        """
        headers, body = request_of(address.mode, events)
        pause_s = limits.EVENT_SINK_PAUSE_S_MIN
        refusals_count = 0
        while True:
            trouble, is_of_event = await self._attempt(address, headers, body)
            if not trouble:
                self._recovered(address)
                self._outcomes["delivered"].inc(len(events))
                return True
            refusals_count += is_of_event
            if is_of_event and (not is_last or refusals_count >= limits.EVENT_SINK_REFUSALS_MAX):
                if is_last:
                    self._give_up(address, events[0], trouble)
                return False
            self._failed(address, trouble)
            self._outcomes["retried"].inc(len(events))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, limits.EVENT_SINK_PAUSE_S_MAX)

    def passed_over(self, address: SinkAddress, damaged_count: int) -> None:
        """Counts and tells events that cannot be sent, because what is stored of them is damaged."""
        self._outcomes["dropped"].inc(damaged_count)
        _log.error("%d events for the sink at %s are damaged, and passed over", damaged_count, address.shown)

    def forget(self) -> None:
        """Somebody else sends from now on: no sink fails here."""
        self._failing_names.clear()
        self._failing.set(0)

    async def _attempt(self, address: SinkAddress, headers: Mapping[str, str], body: bytes) -> tuple[str, bool]:
        """What went wrong, if anything; and whether the event is at fault."""
        try:
            async with asyncio.timeout(limits.EVENT_SINK_TIMEOUT_S):
                status = await self._post.post(address.url, headers, body)
        except TimeoutError:
            return f"no answer within {limits.EVENT_SINK_TIMEOUT_S:g} s", False
        except NotSent as problem:
            return str(problem), False
        return ("" if 200 <= status < 300 else f"it answers with status {status}"), status in _OF_THE_EVENT

    def _failed(self, address: SinkAddress, trouble: str) -> None:
        if address.name not in self._failing_names:
            self._failing_names.add(address.name)
            self._failing.set(len(self._failing_names))
            _log.warning("the sink at %s takes no events, they are kept and sent again: %s", address.shown, trouble)

    def _recovered(self, address: SinkAddress) -> None:
        if address.name in self._failing_names:
            self._failing_names.discard(address.name)
            self._failing.set(len(self._failing_names))
            _log.info("the sink at %s takes events again", address.shown)

    def _give_up(self, address: SinkAddress, event: Mapping[str, Any], trouble: str) -> None:
        self._outcomes["dropped"].inc()
        _log.error(
            "the sink at %s refuses event %r of %r, which is passed over: %s",
            address.shown,
            event["id"],
            event["source"],
            trouble,
        )
        self._recovered(address)
