"""Stage 5, tasks: performs `emit`: publishes an event to everybody who listens, and gives it back as the task's output.

Rules: an outcome is returned, never raised. What was published before a crash is published again as a duplicate; its
output is the event of then, with the time of then.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base import clock
from fastrunner.counts.definitions import Metrics
from fastrunner.errors import RunnerError
from fastrunner.tasks.counted import Counted
from fastrunner.tasks.emit.arguments import event_of
from fastrunner.tasks.emit.outcome import failure_of

__all__ = ["Emit", "EventSink"]

_KIND = "emit"


class EventSink(Protocol):
    """What `emit` needs of the bus (see `events/`)."""

    async def emit(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """The event as it was published, durably: a duplicate's is the first one. Raises InvalidRequest, TooLarge,
        AtCapacity, StorageFull, StorageFailed."""


class Emit:
    """Performer of `emit` effects."""

    def __init__(self, sink: EventSink, metrics: Metrics, *, wall_ms: Callable[[], int] = clock.steady_ms) -> None:
        self._sink = sink
        self._wall_ms = wall_ms
        self._counted = Counted(_KIND, metrics)

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        """Publishes the event; gives it as the task's raw output, or the DSL error of what kept it from that."""
        return await self._counted.outcome_of(self._publish(effect, arguments))

    async def _publish(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        try:
            event = event_of(arguments, effect.idempotency_key, self._wall_ms())
            return EffectResult(effect.effect_id, dict(await self._sink.emit(event)))
        except RunnerError as error:
            return failure_of(effect, error)

    async def close(self) -> None:
        """See `EffectPerformer`; the bus is closed by whoever opened it."""
