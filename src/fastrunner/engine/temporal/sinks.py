"""Stage 3, journal: what is on its way to one sink of emitted events: a workflow that lasts while there is something.

    emit -> the bus -> its delivery, which starts this where there is none -> one activity at a time -> the sink

Rules: those of `workflow`. Events leave in their order, and are there until the sink has them. Its address, which may
hold a password, is in no history: the activity knows it by its name.
"""

from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.common import RetryPolicy

from fastrunner.base import limits
from fastrunner.engine.temporal.event_messages import HEAR_SIGNAL, SEND, SINK, Heard, Sending, SinkStart
from fastrunner.engine.temporal.room import is_long

__all__ = ["SinkWorkflow"]

_TIMEOUT: Final = timedelta(seconds=limits.TEMPORAL_EFFECT_S_MAX)
_HEARTBEAT: Final = timedelta(seconds=limits.TEMPORAL_HEARTBEAT_S)
_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(seconds=limits.EVENT_SINK_PAUSE_S_MIN),
    maximum_interval=timedelta(seconds=limits.EVENT_SINK_PAUSE_S_MAX),
)


@workflow.defn(name=SINK, sandboxed=False)
class SinkWorkflow:
    """Sends to one sink."""

    @workflow.init
    def __init__(self, given: SinkStart) -> None:
        """Goes on with what there was."""
        self._name = given.name
        self._events = list(given.events)
        self._size_bytes = sum(map(len, self._events))
        self._last_key = given.last_key
        self._dropped_count = given.dropped_count

    @workflow.run
    async def run(self, given: SinkStart) -> None:  # noqa: ARG002 - read by `__init__`
        """Sends until there is nothing more."""
        # What it is started with is a signal.
        await workflow.wait_condition(lambda: bool(self._events))
        has_sent = False
        while self._events:
            if has_sent and is_long(limits.TEMPORAL_HISTORY_EVENTS_MAX):
                start = SinkStart(self._name, self._events, self._last_key, self._dropped_count)
                workflow.continue_as_new(start)
            sending = self._next()
            await workflow.execute_activity(
                SEND,
                sending,
                start_to_close_timeout=_TIMEOUT,
                heartbeat_timeout=_HEARTBEAT,
                retry_policy=_RETRY,
                summary=f"{len(sending.events)} events",
            )
            has_sent = True

    def _next(self) -> Sending:
        """The next events, which are not waiting any more: they are tried until the sink has them."""
        count, size_bytes = 0, 0
        for text in self._events[: limits.EVENT_SINK_BATCH_COUNT_MAX]:
            size_bytes += len(text)
            if count and size_bytes > limits.TEMPORAL_DELIVERY_SIZE_BYTES_MAX:
                break
            count += 1
        sending = Sending(self._name, self._events[:count], self._dropped_count)
        self._dropped_count = 0
        del self._events[:count]
        self._size_bytes = sum(map(len, self._events))
        return sending

    @workflow.signal(name=HEAR_SIGNAL)
    def hear(self, heard: Heard) -> None:
        """The bus has events for it; those that it has had change nothing."""
        for item in heard.events:
            if item.key > self._last_key:
                self._last_key = item.key
                self._events.append(item.event)
                self._size_bytes += len(item.event)
        while self._size_bytes > limits.TEMPORAL_SINK_SIZE_BYTES_MAX:
            self._size_bytes -= len(self._events.pop(0))
            self._dropped_count += 1
