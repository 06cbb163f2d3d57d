"""Stage 3, journal: makes the engine of a worker; the one place that knows which there are."""

from collections.abc import Mapping

from fastrunner.access.sealing import DataKeys
from fastrunner.base import clock
from fastrunner.base.deaths import Death
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Definitions, EffectPerformer, EventSource, Resources, SecretSource, WorkerEngine
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.routing.placement import Places

__all__ = ["build_engine"]


def build_engine(
    config: Config,
    metrics: Metrics,
    performers: Mapping[str, EffectPerformer],
    secrets: SecretSource,
    definitions: Definitions,
    resources: Resources,
    events: EventSource,
    places: Places,
    death: Death | None,
    data_keys: DataKeys | None,
) -> WorkerEngine:
    """The engine of one worker, not yet opened; call on the worker's loop.

    `death` is how the worker before this one died, if nobody asked it to end; `data_keys` seal what is stored.
    """
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
    )
