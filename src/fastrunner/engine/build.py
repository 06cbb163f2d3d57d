"""Stage 3, journal: makes the engine of a worker; the one place that knows which there are."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fastrunner.access.sealing import DataKeys
from fastrunner.base import clock
from fastrunner.base.deaths import Death
from fastrunner.base.sinks import SinkAddress
from fastrunner.blobs import BlobStore
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import (
    Definitions,
    EffectPerformer,
    EventSource,
    Lookups,
    Report,
    Resources,
    SecretSource,
    WorkerEngine,
)
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.engine.schedules import ScheduleBook
from fastrunner.events.schedules.calls import Call
from fastrunner.events.sinks.delivery import Post
from fastrunner.routing.placement import Places
from fastrunner.tracing.tracer import Tracer

__all__ = ["EventDoor", "build_engine", "event_door", "shared_schedules"]


class EventDoor(Protocol):
    """Where CloudEvents are published: by senders, and by `emit`."""

    async def publish(self, events: Sequence[Mapping[str, Any]], namespaces: frozenset[str] | None) -> Sequence[int]:
        """Durable when it returns. Raises InvalidRequest, TooLarge, AtCapacity, StorageFailed, Unavailable."""

    async def emit(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """The event as it was published, durably: a duplicate's is the first one. Raises InvalidRequest, TooLarge,
        AtCapacity, StorageFailed."""


class EventBus(EventSource, EventDoor, Protocol):
    """The bus of one machine (see `events/`)."""


def event_door(config: Config, metrics: Metrics, bus: EventBus, post: Post) -> EventDoor:
    """Where this worker publishes events: on the bus of its machine, or of Temporal's, whose sinks are sent to by
    `post`."""
    if config.temporal_service_address is None:
        return bus
    from fastrunner.engine.temporal.events import TemporalEvents

    urls = "" if config.event_sinks is None else config.event_sinks.get_secret_value()
    return TemporalEvents(config.event_retention_s, metrics, sinks=SinkAddress.parse_all(urls), post=post)


def build_engine(
    config: Config,
    metrics: Metrics,
    performers: Mapping[str, EffectPerformer],
    secrets: SecretSource,
    definitions: Definitions | None,
    lookups: Lookups,
    resources: Resources,
    events: EventSource,
    door: EventDoor,
    places: Places,
    death: Death | None,
    data_keys: DataKeys | None,
    report: Report | None,
    blobs: BlobStore | None,
    temporal_keys: DataKeys | None,
    tracer: Tracer | None,
) -> WorkerEngine:
    """The engine of one worker, not yet opened; call on the worker's loop.

    `death` is how the worker before this one died, if nobody asked it to end; `data_keys` seal what is stored.
    Registered workflows are found on one machine in `definitions`, else in `lookups`. `report` is for executions that
    report by themselves; None: nobody receives anything. `blobs` and `temporal_keys` are the distributed engine's: what
    takes large values, what seals histories. `tracer` traces executions; None: nothing does.
    """
    if config.temporal_service_address is not None:
        # Its libraries come with an extra, and take half a second and 50 MB.
        from fastrunner.engine.temporal.engine import TemporalEngine
        from fastrunner.engine.temporal.events import TemporalEvents

        assert isinstance(door, TemporalEvents), "it is made by `event_door`"
        return TemporalEngine(
            config,
            metrics,
            performers,
            secrets=secrets,
            definitions=lookups,
            resources=resources,
            report=report,
            blobs=blobs,
            keys=temporal_keys,
            events=door,
            tracer=tracer,
            shows_open=places.worker == 0,
        )
    return EmbeddedEngine(
        config,
        metrics,
        performers,
        secrets=secrets,
        definitions=definitions,
        resources=resources,
        events=events,
        places=places,
        wall_ms=clock.steady_ms,
        death=death,
        data_keys=data_keys,
        tracer=tracer,
    )


def shared_schedules(engine: WorkerEngine, call: Call) -> ScheduleBook:
    """The schedules of the distributed engine; `call` calls the runner. Call before the engine goes on."""
    from fastrunner.engine.temporal.engine import TemporalEngine

    assert isinstance(engine, TemporalEngine), "on one machine they lie in the data directory"
    return engine.schedules(call)
