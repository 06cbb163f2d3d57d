"""Stage 6, events: the activity that sends what becomes of executions to lifecycle sinks.

Rules: an attempt is short, and a sink in trouble has few of them at a time: it takes no effect's place, and Temporal
makes the next one. A sink's address, which may hold a password, is in no history: it is known by its name.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from temporalio import activity
from temporalio.exceptions import ApplicationError

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import limits
from fastrunner.base.sinks import Mode, SinkAddress
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import DefinitionRef
from fastrunner.engine.temporal.activities import beating
from fastrunner.engine.temporal.messages import unpacked
from fastrunner.engine.temporal.telling import TELL, TellOrder
from fastrunner.events.lifecycle.translate import lifecycle_of
from fastrunner.events.sinks.delivery import Delivery, Post
from fastrunner.progress.wire import split

__all__ = ["LifecycleSinks"]

_log = logging.getLogger(__name__)

_PAUSE: Final = timedelta(seconds=limits.EVENT_SINK_PAUSE_S_MAX / 4)


class LifecycleSinks:
    """The lifecycle sinks of one worker."""

    def __init__(self, addresses: Sequence[SinkAddress], post: Post | None, metrics: Metrics) -> None:
        """`post` is closed by whoever has it; None: nothing is sent."""
        self._addresses = {address.name: address for address in addresses}
        self._rooms = {name: asyncio.Semaphore(limits.TEMPORAL_SIGNALS_AT_ONCE_MAX) for name in self._addresses}
        self._outcomes = {name: metrics.lifecycle_events.labels(name) for name in ("delivered", "retried", "dropped")}
        self._delivery = None if post is None else Delivery(post, self._outcomes, metrics.lifecycle_sinks_failing)

    @property
    def names(self) -> list[str]:
        """Which there are."""
        return list(self._addresses)

    @activity.defn(name=TELL)
    async def tell(self, order: TellOrder) -> int:
        """Sends events; of how many progress events the sink has been told. Raises ApplicationError if of none now."""
        messages = [*split(unpacked(order.events))]
        address = self._addresses.get(order.name)
        if order.missing_count and activity.info().attempt == 1:
            self._outcomes["dropped"].inc(order.missing_count)
            _log.error("%d events for a lifecycle sink are given up: there is no room for more", order.missing_count)
        if address is None or self._delivery is None:
            self._outcomes["dropped"].inc(len(messages))
            _log.error("%d events are given up: their sink is not in FASTRUNNER_LIFECYCLE_SINKS", len(messages))
            return len(messages)
        if self._rooms[order.name].locked():
            raise ApplicationError("others try to reach the sink", type="NotTaken", next_retry_delay=_PAUSE)
        async with self._rooms[order.name]:
            sent = [0]
            try:
                async with asyncio.timeout(limits.EVENT_SINK_TIMEOUT_S / 2):
                    await beating(self._send(self._delivery, address, order, messages, sent))
            except TimeoutError:
                if not sent[0]:
                    raise ApplicationError("the sink takes nothing", type="NotTaken") from None
            return sent[0]

    async def _send(
        self, delivery: Delivery, address: SinkAddress, order: TellOrder, messages: list[bytes], sent: list[int]
    ) -> None:
        definition = DefinitionRef(*order.document)
        told = [[*lifecycle_of(definition, WorkflowProgressEvent.FromString(message))] for message in messages]
        batch: list[dict[str, Any]] = [event for events in told for event in events]
        if address.mode is Mode.BATCH and len(batch) > 1 and await delivery.deliver(address, batch, is_last=False):
            sent[0] = len(messages)
            return
        # One of them is at fault, or the sink takes them one by one.
        for events in told:
            for event in events:
                await delivery.deliver(address, [event], is_last=True)
            sent[0] += 1
